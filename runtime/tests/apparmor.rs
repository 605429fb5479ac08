//! `process.apparmorProfile` where the kernel has AppArmor, as on the machines that `make test-vm` boots: what
//! the profile denies is denied, to the payload and to exec.
#![allow(missing_docs, reason = "tests are sentences")]

mod harness;

use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};

use harness::{Bundle, Said, said};
use serde_json::json;

/// False, with the reason said, where no profile can be loaded.
fn apparmor() -> bool {
    let enabled = fs::read_to_string("/sys/module/apparmor/parameters/enabled");
    let there = enabled.is_ok_and(|text| text.trim() == "Y");
    if !there {
        eprintln!("SKIP: this kernel has no AppArmor, or it is off");
    }
    there
}

/// A profile in the kernel, with a name that no other test has: all is allowed but to write to one file.
struct Profile {
    name: String,
    text: String,
}

impl Profile {
    fn load(bundle: &Bundle, denied: &str) -> Self {
        let name = format!("{}-{denied}", bundle.id);
        let text = format!(
            "profile {name} flags=(attach_disconnected, mediate_deleted) {{
                file, mount, umount, capability, network, signal, ptrace, unix,
                deny /tmp/{denied} w,
            }}"
        );
        let profile = Self { name, text };
        let said = profile.parser("--replace");
        assert_eq!(said.code, 0, "{said:?}");
        profile
    }

    fn parser(&self, what: &str) -> Said {
        let mut child = Command::new("apparmor_parser")
            .args([what, "--skip-cache"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("run apparmor_parser");
        child.stdin.take().expect("its input").write_all(self.text.as_bytes()).expect("write");
        said(child.wait_with_output().expect("wait"))
    }

    fn enforced(&self) -> String {
        format!("{} (enforce)", self.name)
    }
}

impl Drop for Profile {
    fn drop(&mut self) {
        let _ = self.parser("--remove");
    }
}

/// Says its profile, and which files it could write to.
const TRY: &str =
    "cat /proc/self/attr/current; for file in one two; do echo > /tmp/$file && echo $file; done; true";

fn lines(said: &Said) -> Vec<&str> {
    said.stdout.lines().collect()
}

#[test]
fn the_payload_is_confined() {
    if !apparmor() {
        return;
    }
    let bundle = Bundle::of_script(TRY);
    // Without a profile: it is the profile that denies.
    let said = bundle.run();
    assert_eq!(lines(&said), ["unconfined", "one", "two"], "{said:?}");
    let profile = Profile::load(&bundle, "one");
    for no_new_privileges in [false, true] {
        let bundle = Bundle::of_script(TRY).with(|config| {
            config["process"]["apparmorProfile"] = json!(profile.name);
            config["process"]["noNewPrivileges"] = json!(no_new_privileges);
        });
        let said = bundle.run();
        assert_eq!(lines(&said), [&profile.enforced(), "two"], "{said:?}");
        assert!(said.stderr.contains("/tmp/one: Permission denied"), "{said:?}");
    }
}

#[test]
fn exec_is_confined_as_the_container_or_as_it_is_told() {
    if !apparmor() {
        return;
    }
    let bundle = Bundle::of(&["sleep", "1000"]);
    let (first, second) = (Profile::load(&bundle, "one"), Profile::load(&bundle, "two"));
    let bundle = bundle.with(|config| config["process"]["apparmorProfile"] = json!(first.name));
    bundle.create();
    bundle.start();
    let said = bundle.exec(&[&bundle.id, "sh", "-c", TRY]);
    assert_eq!(lines(&said), [&first.enforced(), "two"], "{said:?}");
    assert!(said.stderr.contains("/tmp/one: Permission denied"), "{said:?}");
    let said = bundle.exec(&["--apparmor", &second.name, &bundle.id, "sh", "-c", TRY]);
    assert_eq!(lines(&said), [&second.enforced(), "one"], "{said:?}");
    let said = bundle.exec(&["--apparmor", "no-such-profile", &bundle.id, "true"]);
    assert!(said.code == 255 && said.stderr.contains("no profile \"no-such-profile\" is loaded"), "{said:?}");
}

#[test]
fn a_profile_that_is_not_loaded_is_named() {
    let bundle =
        Bundle::of(&["true"]).with(|config| config["process"]["apparmorProfile"] = json!("no-such-profile"));
    let said = bundle.run();
    let reason = if apparmor() {
        "no profile \"no-such-profile\" is loaded"
    } else {
        "apparmor is not supported or not enabled on this host"
    };
    let message = format!("process.apparmorProfile: apparmor failed to apply profile: {reason}");
    assert!(said.code == 1 && said.stderr.contains(&message), "{said:?}");
    bundle.assert_nothing_is_left();
}

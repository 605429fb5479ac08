//! One test for each published attack, named for it.

mod harness;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use harness::Bundle;
use serde_json::json;

/// A folder outside the rootfs that no attack may change.
struct Canary(std::path::PathBuf);

impl Canary {
    fn new(bundle: &Bundle) -> Self {
        let dir = bundle.dir.join("canary");
        fs::create_dir(&dir).expect("mkdir");
        fs::write(dir.join("file"), "untouched").expect("write");
        Self(dir)
    }

    fn assert_untouched(&self) {
        let names: Vec<_> =
            fs::read_dir(&self.0).expect("read").flatten().map(|entry| entry.file_name()).collect();
        assert_eq!(names, ["file"]);
        assert_eq!(fs::read_to_string(self.0.join("file")).expect("read"), "untouched");
    }
}

#[test]
fn cve_2019_5736_the_runtime_is_never_what_the_container_can_open() {
    let before = fs::read(harness::runtime()).expect("read the runtime");
    let bundle = Bundle::of(&["sleep", "1000"]);
    bundle.create();
    let pid = fs::read_to_string(bundle.dir.join("pid")).expect("pid");
    let exe = format!("/proc/{pid}/exe");
    let link = fs::read_link(&exe).expect("readlink");
    assert!(link.to_string_lossy().starts_with("/memfd:"), "{link:?}");
    assert!(fs::OpenOptions::new().write(true).open(&exe).is_err(), "init's program can be written to");
    // An entry point that is the process itself lands on the sealed memfd, not on the host.
    let bundle = Bundle::of(&["/proc/self/exe", "--version"]);
    let said = bundle.run();
    assert!(said.code != 0 && !said.stdout.contains("runtime version"), "{said:?}");
    assert_eq!(before, fs::read(harness::runtime()).expect("read the runtime"));
}

#[test]
fn cve_2024_21626_no_working_folder_through_a_descriptor() {
    for n in 3..20 {
        let bundle = Bundle::of_script("pwd; ls /proc/self/fd")
            .with(|config| config["process"]["cwd"] = json!(format!("/proc/self/fd/{n}")));
        let said = bundle.run();
        assert_ne!(said.code, 0, "cwd /proc/self/fd/{n}: {said:?}");
    }
}

#[test]
fn cve_2019_19921_proc_that_is_a_symbolic_link_is_refused() {
    let bundle = Bundle::of(&["true"]);
    fs::remove_dir(bundle.rootfs("proc")).expect("rmdir");
    symlink("tmp", bundle.rootfs("proc")).expect("link");
    let said = bundle.run();
    assert!(
        said.code == 1 && said.stderr.contains("filesystem \"proc\" must be mounted on ordinary directory"),
        "{said:?}"
    );
}

#[test]
fn cve_2019_16884_nothing_is_mounted_inside_proc() {
    for destination in ["/proc/self/attr", "/proc/sys", "/proc/1"] {
        let bundle = Bundle::of(&["true"]).with(|config| {
            config["mounts"]
                .as_array_mut()
                .expect("mounts")
                .push(json!({"destination": destination, "type": "tmpfs", "source": "x"}));
        });
        let said = bundle.run();
        assert!(said.code == 1 && said.stderr.contains("because it is inside /proc"), "{said:?}");
    }
    let bundle = Bundle::of(&["true"]).with(|config| {
        config["mounts"]
            .as_array_mut()
            .expect("mounts")
            .push(json!({"destination": "/proc", "source": "/tmp", "options": ["bind"]}));
    });
    let said = bundle.run();
    assert!(said.code == 1 && said.stderr.contains("is not of type proc"), "{said:?}");
}

#[test]
fn cve_2021_30465_a_mount_point_behind_a_link_stays_inside() {
    let bundle = Bundle::of_script("grep canary /proc/self/mounts; touch /link/made");
    let canary = Canary::new(&bundle);
    symlink(format!("/../../../..{}", canary.0.display()), bundle.rootfs("link")).expect("link");
    let bundle = bundle.with(|config| {
        config["mounts"]
            .as_array_mut()
            .expect("mounts")
            .push(json!({"destination": "/link/below", "type": "tmpfs", "source": "x"}));
    });
    bundle.run();
    canary.assert_untouched();
}

#[test]
fn cve_2026_41579_dev_that_is_a_symbolic_link_stays_inside() {
    let bundle = Bundle::of(&["true"]);
    let canary = Canary::new(&bundle);
    fs::remove_dir(bundle.rootfs("dev")).expect("rmdir");
    symlink(format!("../../../../../../..{}", canary.0.display()), bundle.rootfs("dev")).expect("link");
    let bundle = bundle.with(|config| {
        let mounts = config["mounts"].as_array_mut().expect("mounts");
        mounts.retain(|mount| !mount["destination"].as_str().unwrap_or_default().starts_with("/dev"));
    });
    bundle.run();
    canary.assert_untouched();
}

#[test]
fn cve_2025_31133_masks_do_not_come_from_the_containers_dev_null() {
    let bundle = Bundle::of_script("cat /etc/secret; stat -c %t:%T /etc/secret");
    fs::write(bundle.rootfs("etc/secret"), "secret").expect("write");
    fs::write(bundle.rootfs("etc/other"), "other").expect("write");
    let bundle = bundle.with(|config| {
        config["mounts"]
            .as_array_mut()
            .expect("mounts")
            .retain(|mount| mount["destination"] != "/dev" && mount["destination"] != "/dev/pts");
        config["linux"]["maskedPaths"] = json!(["/etc/secret"]);
    });
    symlink("/etc/other", bundle.rootfs("dev/null")).expect("link");
    assert_eq!(bundle.run_well(), "1:3\n");
}

#[test]
fn cve_2022_29162_exec_gives_no_inheritable_capabilities() {
    let bundle = Bundle::of(&["sleep", "1000"]);
    bundle.create();
    bundle.start();
    let said = bundle.exec(&["--cap", "CAP_NET_RAW", &bundle.id, "grep", "Cap", "/proc/self/status"]);
    assert!(said.stdout.contains("CapInh:\t0000000000000000"), "{said:?}");
    assert!(said.stdout.contains("CapEff:\t00000000000020e3"), "{said:?}");
}

#[test]
fn cve_2026_30892_a_user_is_digits_and_nothing_else() {
    let bundle = Bundle::of(&["sleep", "1000"]);
    fs::write(bundle.rootfs("etc/passwd"), "1000:x:0:0::/:/bin/sh\n").expect("write");
    bundle.create();
    bundle.start();
    for user in ["root", "1x", "+1", "-1", "4294967295", "4294967296", "1:", ""] {
        let said = bundle.exec(&["--user", user, &bundle.id, "id"]);
        assert!(said.code == 255 && said.stderr.contains("is not an id"), "{user:?}: {said:?}");
    }
    // CVE-2016-3697: a name of digits in the image's passwd is not asked.
    let said = bundle.exec(&["--user", "1000", &bundle.id, "id"]);
    assert!(said.stdout.starts_with("uid=1000"), "{said:?}");
}

#[test]
fn cve_2024_40635_an_id_that_does_not_fit_is_refused() {
    for uid in [json!(4_294_967_295_u64), json!(4_294_967_296_u64), json!(-1), json!(1.5)] {
        let bundle = Bundle::of(&["id"]).with(|config| config["process"]["user"]["uid"] = uid.clone());
        let said = bundle.run();
        assert_eq!(said.code, 1, "{uid}: {said:?}");
    }
}

#[test]
fn cve_2016_9962_a_joining_process_cannot_be_looked_into() {
    // A loop in the container tries to read where every other process's executable and files are.
    let script = "while :; do for p in /proc/[0-9]*; do case $p in /proc/1|/proc/$$) ;; *) ls -l $p/fd $p/exe $p/cwd 2>/dev/null | grep -- '->' | grep -v -e ' -> /$' -e /bin/busybox -e pipe: -e /dev/null -e /proc ;; esac; done; done > /tmp/seen";
    let bundle = Bundle::of_script(script);
    bundle.create();
    bundle.start();
    for _ in 0..30 {
        assert_eq!(bundle.exec(&[&bundle.id, "true"]).code, 0);
    }
    let seen = fs::read_to_string(bundle.rootfs("tmp/seen")).expect("what it saw");
    let host: Vec<&str> = seen
        .lines()
        .filter(|line| line.contains("runtime") && !line.contains("memfd:runtime-init"))
        .collect();
    assert!(host.is_empty(), "{host:?}");
}

/// The first process below `parent` that is in a user namespace of its own, stopped in front of its next
/// word with `parent`, which is stopped here.
fn stopped_in_a_user_namespace(parent: u32) -> Option<u32> {
    use nix::sys::signal::{Signal, kill};
    let namespace = |pid: u32| fs::read_link(format!("/proc/{pid}/ns/user")).ok();
    let pid = nix::unistd::Pid::from_raw(parent.cast_signed());
    let runtime = harness::runtime().canonicalize().expect("the runtime");
    loop {
        let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).ok()?;
        let Some(child) = children.split_whitespace().next().and_then(|child| child.parse().ok()) else {
            // A zombie has no executable any more.
            fs::read_link(format!("/proc/{parent}/exe")).ok()?;
            continue;
        };
        kill(pid, Signal::SIGSTOP).expect("stop the runtime");
        harness::wait_until("stopped", || {
            let status = fs::read_to_string(format!("/proc/{parent}/stat")).expect("a process");
            status.contains(") T ") || status.contains(") Z ")
        });
        let is_runtime = || fs::read_link(format!("/proc/{child}/exe")).is_ok_and(|exe| exe == runtime);
        if namespace(child).is_some_and(|found| Some(found) != namespace(parent)) && is_runtime() {
            return Some(child);
        }
        kill(pid, Signal::SIGCONT).expect("continue the runtime");
    }
}

#[test]
fn cve_2016_9962_what_is_born_in_a_user_namespace_cannot_be_looked_into() {
    let attacker = |pid: u32| {
        Bundle::of(&["cat", &format!("/proc/{pid}/environ")]).with(|config| {
            let namespaces = config["linux"]["namespaces"].as_array_mut().expect("namespaces");
            namespaces.retain(|namespace| namespace["type"] != "pid");
        })
    };
    for _ in 0..50 {
        let bundle = Bundle::of(&["true"]).with(|config| {
            config["linux"]["namespaces"].as_array_mut().expect("namespaces").push(json!({"type": "user"}));
            let map = json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]);
            config["linux"]["uidMappings"] = map.clone();
            config["linux"]["gidMappings"] = map;
        });
        let mut run = bundle.command(&["run", &bundle.id]).spawn().expect("run the runtime");
        let caught = stopped_in_a_user_namespace(run.id());
        let said = caught.map(|pid| attacker(pid).run());
        let pid = nix::unistd::Pid::from_raw(run.id().cast_signed());
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGCONT); // it may have ended
        assert!(run.wait().expect("wait").success());
        if let Some(said) = said {
            assert!(said.code != 0 && said.stdout.is_empty(), "{said:?}");
            assert!(said.stderr.contains("Permission denied"), "{said:?}");
            return;
        }
    }
    eprintln!("SKIP: the runtime was never caught in the act");
}

#[test]
fn cve_2022_36109_the_groups_are_the_listed_ones() {
    let bundle = Bundle::of(&["id"])
        .with(|config| config["process"]["user"] = json!({"uid": 5, "gid": 6, "additionalGids": [7]}));
    assert_eq!(bundle.run_well(), "uid=5 gid=6 groups=7\n");
}

#[test]
fn cve_2022_36109_the_callers_groups_stay_outside_of_a_namespace_that_denies_to_leave_them() {
    if !["unshare", "setpriv"].iter().all(harness::have) {
        eprintln!("SKIP: needs unshare and setpriv");
        return;
    }
    let mut owner = std::process::Command::new("unshare")
        .args(["--user", "--map-root-user", "sleep", "1000"])
        .spawn()
        .expect("run unshare");
    let of = |file: &str| fs::read_to_string(format!("/proc/{}/{file}", owner.id())).unwrap_or_default();
    harness::wait_until("mapped", || of("setgroups") == "deny\n" && !of("gid_map").is_empty());
    let user = json!({"type": "user", "path": format!("/proc/{}/ns/user", owner.id())});
    let bundle =
        Bundle::of_script("grep Groups /proc/self/status > /tmp/groups; sleep 1000").with(|config| {
            config["linux"]["namespaces"].as_array_mut().expect("namespaces").push(user);
            // Its group 5 is nobody here.
            let mounts = config["mounts"].as_array_mut().expect("mounts");
            mounts.retain(|mount| mount["type"] != "devpts");
        });
    let call = |args: &[&str]| {
        let runtime = bundle.command(args);
        let mut command = std::process::Command::new("setpriv");
        command.args(["--groups", "0,6,42"]).arg(runtime.get_program()).args(runtime.get_args());
        command.current_dir(&bundle.dir).stdin(std::process::Stdio::null());
        command
    };
    let status = call(&["run", "--detach", &bundle.id]).status();
    let said = harness::said(
        call(&["exec", &bundle.id, "grep", "Groups", "/proc/self/status"]).output().expect("run"),
    );
    let seen = bundle.rootfs("tmp/groups");
    harness::wait_until("seen", || {
        !status.as_ref().is_ok_and(|code| code.success())
            || fs::read(&seen).is_ok_and(|text| !text.is_empty())
    });
    let groups = fs::read_to_string(&seen);
    owner.kill().and_then(|()| owner.wait()).expect("end it");
    assert!(status.expect("run the runtime").success());
    assert_eq!(groups.expect("its groups").trim(), "Groups:");
    assert_eq!((said.code, said.stdout.trim()), (0, "Groups:"), "{said:?}");
}

#[test]
fn passwd_that_never_ends_does_not_hang() {
    let bundle = Bundle::of_script("echo $HOME");
    let fifo = bundle.rootfs("etc/passwd");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::from_bits_truncate(0o644)).expect("mkfifo");
    assert_eq!(bundle.run_well(), "/\n");
    fs::remove_file(&fifo).expect("remove");
    fs::File::create(&fifo).expect("make").set_len(1 << 40).expect("a long file");
    assert_eq!(bundle.run_well(), "/\n");
    fs::write(&fifo, "x:x:0:0::/somewhere:/bin/sh\n").expect("write");
    assert_eq!(bundle.run_well(), "/somewhere\n");
}

#[test]
fn cve_2019_16884_a_link_of_the_image_does_not_lead_into_proc() {
    let bundle = Bundle::of(&["true"]).with(|config| {
        config["mounts"].as_array_mut().expect("mounts").push(json!(
            {"destination": "/link", "type": "tmpfs", "source": "x"}));
    });
    symlink("proc/sys", bundle.rootfs("link")).expect("link");
    let said = bundle.run();
    assert!(said.code == 1 && said.stderr.contains("because it is inside /proc"), "{said:?}");
}

/// Masks and standard streams are the host's inode: nobody inside may change its mode.
#[test]
fn the_hosts_null_device_cannot_be_changed_through_masks_or_streams() {
    use std::os::unix::fs::MetadataExt;
    let changed = || fs::metadata("/dev/null").map(|meta| (meta.ctime(), meta.ctime_nsec())).expect("stat");
    let before = changed();
    let script = "busybox chmod 600 /proc/keys; busybox chmod 600 /proc/self/fd/0; echo x > /proc/keys";
    let bundle = Bundle::of_script(script).with(|config| {
        let all = json!(["CAP_FOWNER", "CAP_CHOWN", "CAP_DAC_OVERRIDE"]);
        config["process"]["capabilities"] = json!({"bounding": all, "effective": all, "permitted": all});
        config["linux"]["maskedPaths"] = json!(["/proc/keys"]);
    });
    let said = bundle.run();
    assert_eq!(before, changed(), "{said:?}");
    assert_eq!(said.code, 0, "a masked file still takes what is written: {said:?}");
}

#[test]
fn only_standard_descriptors_reach_the_payload() {
    let bundle = Bundle::of_script("ls /proc/self/fd");
    let leaked = fs::File::open("/").expect("open");
    nix::fcntl::fcntl(&leaked, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty()))
        .expect("let it leak");
    let said = bundle.run_well();
    drop(leaked);
    assert_eq!(said, "0\n1\n2\n3\n", "3 is the folder that ls reads");
    assert!(Path::new("/proc").exists());
}

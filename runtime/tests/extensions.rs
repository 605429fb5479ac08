//! What runc's specification does not have and users of crun and systemd count on: mounts of a running
//! container, annotations, readiness, cgroups below the container's.
#![allow(missing_docs, reason = "tests are sentences")]

mod harness;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::process::Stdio;

use harness::{Bundle, have, said};
use serde_json::{Value, json};

fn annotated(script: &str, key: &str, value: impl Into<Value>) -> Bundle {
    Bundle::of_script(script).with(|config| config["annotations"] = json!({key: value.into()}))
}

#[test]
fn mounts_are_added_to_a_running_container_and_removed() {
    let bundle = Bundle::of_script("while :; do sleep 1; done");
    bundle.create();
    bundle.start();
    fs::create_dir(bundle.dir.join("extra")).expect("mkdir");
    fs::write(bundle.dir.join("extra/file"), "from outside").expect("write");
    let list = json!([
        {"destination": "/mnt/new", "source": "extra", "type": "none", "options": ["bind", "ro"]},
        {"destination": "/mnt/scratch", "type": "tmpfs", "source": "tmpfs", "options": ["mode=700", "nosuid"]},
        {"destination": "/etc/one", "source": "extra/file", "options": ["bind"]},
        {"destination": "/mnt/proc", "type": "proc", "source": "proc", "options": []},
    ]);
    fs::write(bundle.dir.join("list"), list.to_string()).expect("write");
    let added = bundle.say(&["mounts", "add", &bundle.id, "list"]);
    assert_eq!((added.code, &*added.stderr), (0, ""), "{added:?}");
    let seen = bundle.exec(&[
        &bundle.id,
        "/bin/sh",
        "-c",
        "cat /mnt/new/file /etc/one; touch /mnt/new/x || echo read-only; stat -c %a /mnt/scratch; cat /mnt/proc/1/cmdline",
    ]);
    assert!(seen.stdout.starts_with("from outsidefrom outsideread-only\n700\n/bin/sh"), "{seen:?}");
    let removed = bundle.say(&["mounts", "remove", &bundle.id, "list"]);
    assert_eq!((removed.code, &*removed.stderr), (0, ""), "{removed:?}");
    let seen = bundle.exec(&[&bundle.id, "/bin/grep", "-c", "-e", "/mnt/", "-e", "/etc/one", "/proc/mounts"]);
    assert_eq!(seen.stdout, "0\n", "{seen:?}");
    let again = bundle.say(&["mounts", "remove", &bundle.id, "list"]);
    assert!(again.code == 1 && again.stderr.contains("mounts[3]: unmount \"/mnt/proc\""), "{again:?}");
}

#[test]
fn of_added_mounts_all_are_there_or_none() {
    let bundle = Bundle::of_script("while :; do sleep 1; done");
    bundle.create();
    bundle.start();
    let list = json!([
        {"destination": "/mnt", "type": "tmpfs", "source": "tmpfs"},
        {"destination": "/mnt/b", "type": "tmpfs", "source": "tmpfs", "options": ["nonsense=1"]},
    ]);
    fs::write(bundle.dir.join("list"), list.to_string()).expect("write");
    let added = bundle.say(&["mounts", "add", &bundle.id, "list"]);
    assert!(
        added.code == 1 && added.stderr.contains("mounts[1]") && added.stderr.contains("nonsense"),
        "{added:?}"
    );
    assert_eq!(bundle.exec(&[&bundle.id, "/bin/grep", "-c", " /mnt", "/proc/mounts"]).stdout, "0\n");
    for (text, what) in [
        ("{}", "a list of mounts"),
        ("[{\"destination\": \"/proc/x\", \"type\": \"tmpfs\"}]", "inside /proc"),
    ] {
        fs::write(bundle.dir.join("list"), text).expect("write");
        let added = bundle.say(&["mounts", "add", &bundle.id, "list"]);
        assert!(added.code == 1 && added.stderr.contains(what), "{added:?}");
    }
}

/// What the container has put at a path leads nowhere else.
#[test]
fn an_added_mount_stays_inside_whatever_link_is_in_the_way() {
    let bundle = Bundle::of_script("while :; do sleep 1; done");
    std::os::unix::fs::symlink("../../../../tmp", bundle.rootfs("/mnt/link")).expect("link");
    bundle.create();
    bundle.start();
    let list = json!([{"destination": "/mnt/link/below", "type": "tmpfs", "source": "tmpfs"}]);
    fs::write(bundle.dir.join("list"), list.to_string()).expect("write");
    assert_eq!(bundle.say(&["mounts", "add", &bundle.id, "list"]).code, 0);
    assert!(bundle.rootfs("/tmp/below").is_dir(), "the mount point is not in the rootfs");
    assert_eq!(bundle.say(&["mounts", "remove", &bundle.id, "list"]).code, 0);
}

#[test]
fn exec_runs_in_a_cgroup_below_the_containers() {
    let bundle = Bundle::of_script("while :; do sleep 1; done");
    bundle.create();
    bundle.start();
    let show = ["/bin/cat", "/proc/self/cgroup"];
    let missing = bundle.exec(&[&["--cgroup", "/below", &bundle.id][..], &show].concat());
    let words =
        |said: &harness::Said| said.stderr.contains(" adding pid ") && said.stderr.contains("No such file");
    assert!(missing.code == 255 && words(&missing), "{missing:?}");
    let outside = bundle.exec(&[&["--cgroup", "/../other", &bundle.id][..], &show].concat());
    assert!(outside.code == 255 && outside.stderr.contains("bad sub cgroup path: "), "{outside:?}");
    for cgroup in bundle.cgroups() {
        fs::create_dir(cgroup.join("below")).expect("make a cgroup");
        for file in ["cpuset.cpus", "cpuset.mems"] {
            if let Ok(all) = fs::read(cgroup.join(file)) {
                let _ = fs::write(cgroup.join("below").join(file), all); // version 2 inherits by itself
            }
        }
    }
    let there = bundle.exec(&[&["--cgroup", "/below", &bundle.id][..], &show].concat());
    assert_eq!(there.code, 0, "{there:?}");
    assert!(there.stdout.lines().all(|line| line.ends_with("/below")), "{there:?}");
    let unknown = bundle.exec(&[&["--cgroup", "nobody:/below", &bundle.id][..], &show].concat());
    assert!(unknown.stderr.contains("unknown controller nobody in SubCgroupPaths"), "{unknown:?}");
}

#[test]
fn without_a_cgroup_manager_the_container_stays_in_the_callers() {
    let bundle = Bundle::of_script("cat /proc/self/cgroup");
    let own = fs::read_to_string("/proc/self/cgroup").expect("read");
    let run = bundle.with(|config| {
        let all = config["linux"]["namespaces"].as_array_mut().expect("namespaces");
        all.retain(|one| one["type"] != "cgroup");
    });
    let said = run.say(&["--cgroup-manager", "disabled", "run", &run.id]);
    assert_eq!((said.code, said.stdout), (0, own));
    let limited = Bundle::of_script("true")
        .with(|config| config["linux"]["resources"] = json!({"memory": {"limit": 1 << 26}}));
    let said = limited.say(&["--cgroup-manager=disabled", "run", &limited.id]);
    assert!(
        said.code == 1 && said.stderr.contains("linux.resources.memory.limit: without cgroups"),
        "{said:?}"
    );
    limited.assert_nothing_is_left();
}

#[test]
fn the_callers_groups_stay_if_an_annotation_says_so() {
    let script = "exec setpriv --groups=4242,77 \"$@\"";
    for (kept, groups) in [(true, "77 4242"), (false, "0")] {
        let bundle = annotated(
            "grep Groups /proc/self/status",
            "run.oci.keep_original_groups",
            if kept { "1" } else { "0" },
        );
        let mut command = std::process::Command::new("sh");
        let inner = bundle.command(&["run", &bundle.id]);
        command
            .args(["-c", script, "sh"])
            .arg(inner.get_program())
            .args(inner.get_args())
            .current_dir(&bundle.dir);
        let said = said(command.stdin(Stdio::null()).output().expect("run setpriv"));
        let found = said.stdout.trim_start_matches("Groups:").trim();
        assert_eq!(found, if kept { groups } else { "" }, "{said:?}");
    }
}

#[test]
fn a_program_in_an_annotation_is_the_filter() {
    // ld nr; jeq mkdir -> errno 99; allow
    let instructions: [(u16, u8, u8, u32); 4] = [
        (0x20, 0, 0, 0),
        (0x15, 0, 1, libc_mkdir()),
        (0x06, 0, 0, 0x0005_0000 | 99),
        (0x06, 0, 0, 0x7fff_0000),
    ];
    let bytes: Vec<u8> = instructions
        .iter()
        .flat_map(|(code, jt, jf, k)| [&code.to_ne_bytes()[..], &[*jt, *jf], &k.to_ne_bytes()].concat())
        .collect();
    let bundle = annotated(
        "mkdir /tmp/x; grep Seccomp: /proc/self/status",
        "run.oci.seccomp_bpf_data",
        base64(&bytes),
    );
    let said = bundle.run();
    assert!(said.stderr.contains("Cannot assign requested address"), "{said:?}");
    assert_eq!(said.stdout, "Seccomp:\t2\n");
    let broken = annotated("true", "run.oci.seccomp_bpf_data", "AAAA");
    let said = broken.run();
    assert!(said.stderr.contains("annotations: run.oci.seccomp_bpf_data: 3 bytes"), "{said:?}");
    broken.assert_nothing_is_left();
}

/// `__NR_mkdir` of x86_64.
fn libc_mkdir() -> u32 {
    83
}

fn base64(bytes: &[u8]) -> String {
    let mut child = std::process::Command::new("base64")
        .arg("-w0")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("run base64");
    std::io::Write::write_all(&mut child.stdin.take().expect("stdin"), bytes).expect("write");
    String::from_utf8(child.wait_with_output().expect("base64").stdout).expect("text")
}

#[test]
fn unknown_system_calls_are_errors_if_an_annotation_says_so() {
    let profile = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["no_such_call"], "action": "SCMP_ACT_ERRNO"}],
    });
    let bundle = Bundle::of_script("true").with(|config| config["linux"]["seccomp"] = profile);
    assert_eq!(bundle.run().code, 0);
    let bundle =
        bundle.with(|config| config["annotations"] = json!({"run.oci.seccomp_fail_unknown_syscall": "1"}));
    let said = bundle.run();
    assert!(said.code == 1 && said.stderr.contains("unknown system call \"no_such_call\""), "{said:?}");
}

#[test]
fn a_pidfd_receiver_gets_the_inits_pidfd() {
    let bundle = Bundle::of_script("true");
    let path = bundle.dir.join("receiver");
    let bundle = bundle.with(|config| config["annotations"] = json!({"run.oci.pidfd_receiver": path}));
    let listener = UnixListener::bind(&path).expect("listen");
    assert_eq!(bundle.run().code, 0);
    let (mut stream, _) = listener.accept().expect("accept");
    let mut text = String::new();
    std::io::Read::read_to_string(&mut stream, &mut text).expect("read");
    assert_eq!(text, "standard");
}

#[test]
fn hooks_print_to_files_if_annotations_say_so() {
    let bundle = Bundle::of_script("true");
    let (out, err) = (bundle.dir.join("out"), bundle.dir.join("err"));
    let hook = |word: &str| json!([{"path": "/bin/sh", "args": ["sh", "-c", format!("echo {word}; echo {word} >&2")]}]);
    let bundle = bundle.with(|config| {
        config["annotations"] = json!({"run.oci.hooks.stdout": out, "run.oci.hooks.stderr": err});
        config["hooks"] = json!({
            "createRuntime": hook("a"), "createContainer": hook("b"), "startContainer": hook("c"),
            "poststart": hook("d"), "poststop": hook("e"),
        });
    });
    assert_eq!(bundle.run().code, 0);
    assert_eq!(fs::read_to_string(&out).expect("read"), "a\nb\nc\nd\ne\n");
    assert_eq!(fs::read_to_string(&err).expect("read"), "a\nb\nc\nd\ne\n");
    assert_eq!(fs::metadata(&out).expect("stat").mode() & 0o777, 0o600);
    fs::remove_file(&out).expect("rm");
    std::os::unix::fs::symlink("/etc/passwd", &out).expect("link");
    let said = bundle.run();
    assert!(said.code == 1 && said.stderr.contains("run.oci.hooks"), "{said:?}");
    bundle.assert_nothing_is_left();
}

/// A payload that is ready after a moment, by perl of the host's.
fn notifying() -> Bundle {
    let script = "sleep 0.3; perl -MSocket -e 'socket(S, AF_UNIX, SOCK_DGRAM, 0); \
        send(S, \"STATUS=x\\nREADY=1\", 0, sockaddr_un($ENV{NOTIFY_SOCKET})) or die $!'; echo said; sleep 2";
    let args = ["/bin/sh", "-c", script];
    Bundle::of(&args).with(|config| {
        config["process"]["env"] = json!(["PATH=/bin:/usr/bin"]);
        let mounts = config["mounts"].as_array_mut().expect("mounts");
        for folder in ["/usr", "/lib", "/lib64"] {
            mounts.push(json!({"destination": folder, "source": folder, "options": ["rbind", "ro"]}));
        }
    })
}

#[test]
fn a_container_that_says_it_is_ready_is_heard_by_the_runtimes_caller() {
    if !have("perl") {
        return eprintln!("SKIP: no perl");
    }
    let bundle = notifying();
    let path = bundle.dir.join("caller.sock");
    let caller = UnixDatagram::bind(&path).expect("bind");
    caller.set_read_timeout(Some(std::time::Duration::from_secs(10))).expect("a timeout");
    let mut buffer = [0; 100];
    let mut hear = || {
        let length = caller.recv(&mut buffer).expect("a message");
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    };
    let command = |args: &[&str]| {
        let mut command = bundle.command(args);
        command.env("NOTIFY_SOCKET", &path).stdout(Stdio::null()).stderr(Stdio::null());
        command
    };
    assert!(command(&["create", "--pid-file", "pid", &bundle.id]).status().expect("create").success());
    let mut start = command(&["start", &bundle.id]).spawn().expect("start");
    assert_eq!(hear(), "READY=1\n");
    let pid = fs::read_to_string(bundle.dir.join("pid")).expect("the pid");
    assert_eq!(hear(), format!("MAINPID={pid}\n"));
    assert_eq!(hear(), "BARRIER=1");
    assert!(start.wait().expect("start").success());
    assert_eq!(bundle.say(&["delete", "--force", &bundle.id]).code, 0);

    let run = command(&["run", &bundle.id]).stdout(Stdio::piped()).output().expect("run");
    assert_eq!(String::from_utf8_lossy(&run.stdout), "said\n");
    assert_eq!(hear(), "READY=1\n");
    bundle.assert_nothing_is_left();
}

/// Who is asked to open /dev/stdout must own what is behind it.
#[test]
fn standard_streams_belong_to_the_containers_user() {
    let bundle = Bundle::of_script("echo one > /dev/stdout; echo two > /dev/stderr").with(|config| {
        config["process"]["user"] = json!({"uid": 1000, "gid": 1000});
    });
    let said = bundle.run();
    assert_eq!((said.code, &*said.stdout, &*said.stderr), (0, "one\n", "two\n"), "{said:?}");
    let file = bundle.dir.join("output");
    let output = fs::File::create(&file).expect("make a file");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("chmod");
    let status =
        bundle.command(&["run", &bundle.id]).stdout(output).stderr(Stdio::null()).status().expect("run");
    assert!(status.success());
    assert_eq!(fs::metadata(&file).expect("stat").uid(), 1000);
}

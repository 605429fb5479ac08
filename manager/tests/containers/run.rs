//! `run`: what a container sees.

use std::io::Write;
use std::process::Stdio;

use serde_json::Value;

use crate::host::{each_runtime, one_runtime, unique};

#[test]
fn output_and_error_come_on_their_own_streams() {
    each_runtime(|host, runtime| {
        let printed = host.run(runtime, &[], &["sh", "-c", "echo out; echo err >&2"]);
        assert_eq!((printed.out.as_str(), printed.err.as_str(), printed.code), ("out\n", "err\n", 0));
    });
}

#[test]
fn much_output_arrives_whole() {
    each_runtime(|host, runtime| {
        let printed = host.run(runtime, &[], &["seq", "200000"]);
        assert_eq!(printed.out.lines().count(), 200_000);
        assert!(printed.out.ends_with("200000\n"));
    });
}

#[test]
fn standard_input_is_passed_on_with_i_and_empty_without() {
    each_runtime(|host, runtime| {
        let words = ["run", "--rm", "-i", &host.image, "cat"];
        let mut child =
            host.command(runtime, &words).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let text = "line\n".repeat(100_000);
        let mut input = child.stdin.take().unwrap();
        let sent = text.clone();
        let writer = std::thread::spawn(move || input.write_all(sent.as_bytes()));
        let output = child.wait_with_output().unwrap();
        writer.join().unwrap().unwrap();
        assert!(output.status.success() && output.stdout == text.as_bytes(), "{} bytes", output.stdout.len());
        assert_eq!(host.run(runtime, &[], &["cat"]).ok(), "");
    });
}

#[test]
fn a_closed_output_ends_the_program_as_a_pipe_would() {
    one_runtime(|host, runtime| {
        let mut command = host.command(runtime, &["run", "--rm", &host.image, "yes"]);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut bytes = [0; 4];
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut bytes).unwrap();
        drop(child.stdout.take());
        // `yes` says that its output is gone; nobody killed it.
        assert_eq!(child.wait().unwrap().code(), Some(1));
    });
}

#[test]
fn environment_user_folder_and_host_name_are_those_asked_for() {
    each_runtime(|host, runtime| {
        let file = host.scratch().join("env");
        std::fs::write(&file, "# a comment\nIN_FILE=1\nBOTH=file\n").unwrap();
        let flags = [
            "-e",
            "BOTH=flag",
            "--env-file",
            file.to_str().unwrap(),
            "-u",
            "web",
            "-w",
            "/new/folder",
            "--hostname",
            "box",
        ];
        let script = "env; id -u; id -G; pwd; hostname; cat /etc/hostname; umask";
        let text = host.run(runtime, &flags, &["sh", "-c", script]).ok();
        for line in [
            "FROM_IMAGE=yes",
            "IN_FILE=1",
            "BOTH=flag",
            "HOSTNAME=box",
            "HOME=/var/www",
            "33 4",
            "/new/folder",
            "0022",
        ] {
            assert!(text.lines().any(|other| other == line), "{line:?} is missing in {text}");
        }
        assert_eq!(text.lines().filter(|line| *line == "box").count(), 2, "{text}");
    });
}

#[test]
fn an_entry_point_replaces_the_images_words() {
    one_runtime(|host, runtime| {
        let text = host.run(runtime, &["--entrypoint", "echo"], &["a", "b"]).ok();
        assert_eq!(text, "a b\n");
    });
}

#[test]
fn the_default_set_of_privileges_is_dockers() {
    each_runtime(|host, runtime| {
        let text = host.run(runtime, &[], &["cat", "/proc/self/status"]).ok();
        let field = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            line.unwrap_or_default().trim().to_owned()
        };
        for name in ["CapPrm:", "CapEff:", "CapBnd:"] {
            assert_eq!(field(name), "00000000a80425fb", "{name}");
        }
        assert_eq!((field("CapInh:"), field("CapAmb:")), ("0".repeat(16), "0".repeat(16)));
        assert_eq!((field("Seccomp:").as_str(), field("NoNewPrivs:").as_str()), ("2", "0"));
        let flags = [
            "--cap-drop",
            "ALL",
            "--cap-add",
            "chown",
            "--security-opt",
            "no-new-privileges",
            "--security-opt",
            "seccomp=unconfined",
        ];
        let text =
            host.run(runtime, &flags, &["grep", "-E", "CapEff|Seccomp:|NoNew", "/proc/self/status"]).ok();
        let values: Vec<&str> = text.split_whitespace().collect();
        assert_eq!(values, ["CapEff:", "0000000000000001", "NoNewPrivs:", "1", "Seccomp:", "0"]);
    });
}

#[test]
fn the_default_seccomp_profile_forbids_new_namespaces() {
    each_runtime(|host, runtime| {
        let printed = host.run(runtime, &[], &["unshare", "-U", "true"]);
        assert!(printed.code != 0 && printed.err.contains("Operation not permitted"), "{printed:?}");
    });
}

#[test]
fn a_profile_of_the_users_own_is_applied() {
    one_runtime(|host, runtime| {
        let file = host.scratch().join("profile.json");
        let profile = r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
            {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28}]}"#;
        std::fs::write(&file, profile).unwrap();
        let option = format!("seccomp={}", file.display());
        let printed = host.run(runtime, &["--security-opt", &option], &["mkdir", "/new"]);
        assert!(printed.err.contains("No space left"), "{printed:?}");
    });
}

#[test]
fn the_network_is_loopback_only_and_the_hosts_when_asked() {
    each_runtime(|host, runtime| {
        let own = host.run(runtime, &[], &["ls", "/sys/class/net"]).ok();
        assert_eq!(own, "lo\n");
        let shared = host.run(runtime, &["--network", "host"], &["ls", "-l", "/proc/self/ns/net"]).ok();
        let here = std::fs::read_link("/proc/self/ns/net").unwrap();
        assert!(shared.trim().ends_with(&here.display().to_string()), "{shared}");
    });
}

#[test]
fn a_read_only_root_is_read_only() {
    each_runtime(|host, runtime| {
        let printed =
            host.run(runtime, &["--read-only", "--tmpfs", "/tmp"], &["sh", "-c", "touch /tmp/a && touch /b"]);
        assert!(printed.code == 1 && printed.err.contains("/b: Read-only file system"), "{printed:?}");
    });
}

#[test]
fn limits_are_those_of_the_control_groups() {
    if !std::path::Path::new("/sys/fs/cgroup/memory/memory.limit_in_bytes").exists() {
        println!("SKIP: no cgroup v1 memory controller");
        return;
    }
    each_runtime(|host, runtime| {
        let flags = ["-m", "64m", "--cpus", "0.5", "--pids-limit", "20"];
        let script = "cd /sys/fs/cgroup; cat memory/memory.limit_in_bytes cpu/cpu.cfs_quota_us pids/pids.max";
        assert_eq!(host.run(runtime, &flags, &["sh", "-c", script]).ok(), "67108864\n50000\n20\n");
    });
}

#[test]
fn running_out_of_memory_is_told() {
    each_runtime(|host, runtime| {
        let name = unique("oom");
        let words = [
            "run",
            "--name",
            &name,
            "-m",
            "16m",
            "--memory-swap",
            "16m",
            &host.image,
            "dd",
            "if=/dev/zero",
            "of=/dev/null",
            "bs=100M",
            "count=1",
        ];
        let printed = host.manager(runtime, &words);
        assert_eq!(printed.code, 137, "{printed:?}");
        assert_eq!(host.inspect(&name)["State"]["OOMKilled"], true);
        host.manager(runtime, &["rm", &name]).ok();
    });
}

#[test]
fn privileged_has_all_capabilities_and_devices() {
    each_runtime(|host, runtime| {
        let script = "cat /proc/self/status; ls /dev; touch /proc/sys/kernel/hostname";
        let text = host.run(runtime, &["--privileged"], &["sh", "-c", script]).ok();
        let own = std::fs::read_to_string("/proc/self/status").unwrap();
        let bounding =
            |text: &str| text.lines().find_map(|line| line.strip_prefix("CapBnd:").map(str::to_owned));
        assert_eq!(bounding(&text), bounding(&own));
        assert!(text.contains("Seccomp:\t0"), "{text}");
    });
}

#[test]
fn a_folder_can_be_the_root_filesystem() {
    one_runtime(|host, runtime| {
        let tree = host.scratch();
        std::fs::create_dir(tree.join("bin")).unwrap();
        std::fs::copy("/bin/busybox", tree.join("bin/busybox")).unwrap();
        let words = [
            "run",
            "--rm",
            "--rootfs",
            tree.to_str().unwrap(),
            "/bin/busybox",
            "sh",
            "-c",
            "echo kept > /file",
        ];
        host.manager(runtime, &words).ok();
        assert_eq!(std::fs::read_to_string(tree.join("file")).unwrap(), "kept\n");
    });
}

#[test]
fn inspect_has_the_keys_of_docker() {
    one_runtime(|host, runtime| {
        let name = unique("keys");
        host.manager(runtime, &["create", "--name", &name, "-l", "own=label", &host.image]).ok();
        let found = host.inspect(&name);
        for path in [
            "/Id",
            "/Created",
            "/Path",
            "/Args",
            "/State/Status",
            "/State/Pid",
            "/State/StartedAt",
            "/Image",
            "/LogPath",
            "/Name",
            "/RestartCount",
            "/Driver",
            "/Platform",
            "/HostConfig/Binds",
            "/HostConfig/NetworkMode",
            "/HostConfig/RestartPolicy/Name",
            "/HostConfig/CapAdd",
            "/HostConfig/Memory",
            "/HostConfig/NanoCpus",
            "/HostConfig/PidsLimit",
            "/HostConfig/MaskedPaths",
            "/GraphDriver/Data/UpperDir",
            "/Mounts/0/Destination",
            "/Config/Env",
            "/Config/Cmd",
            "/Config/Labels",
            "/Config/WorkingDir",
            "/NetworkSettings/Networks/none",
        ] {
            assert!(found.pointer(path).is_some(), "{path} is missing");
        }
        assert_eq!(found["Config"]["Labels"]["own"], "label");
        assert_eq!(found["Config"]["Labels"]["made.by"], "test");
        assert_eq!(found["State"]["Status"], Value::from("created"));
        host.manager(runtime, &["rm", &name]).ok();
    });
}

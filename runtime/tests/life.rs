//! A container's life by the command line, and what a killed runtime leaves.

mod harness;

use std::fs;
use std::process::Stdio;

use harness::{Bundle, wait_until};
use serde_json::json;

fn path(bundle: &Bundle, name: &str) -> String {
    bundle.dir.join(name).to_string_lossy().into_owned()
}

#[test]
fn create_start_exec_kill_delete() {
    let bundle = Bundle::of(&["sleep", "1000"]);
    bundle.create();
    assert_eq!(bundle.status(), "created");
    let pid = fs::read_to_string(bundle.dir.join("pid")).expect("read the pid file");
    assert!(!pid.is_empty() && pid.bytes().all(|byte| byte.is_ascii_digit()), "{pid:?}");
    bundle.start();
    assert_eq!(bundle.status(), "running");
    let again = bundle.say(&["start", &bundle.id]);
    assert!(again.stderr.contains("cannot start an already running container"), "{again:?}");
    let said = bundle.exec(&[&bundle.id, "sh", "-c", "echo out; echo err >&2; exit 7"]);
    assert_eq!((said.code, said.stdout.as_str(), said.stderr.as_str()), (7, "out\n", "err\n"));
    let said = bundle.say(&["ps", "--format", "json", &bundle.id]);
    assert_eq!(said.stdout, format!("[{pid}]\n"));
    let said = bundle.say(&["delete", &bundle.id]);
    assert!(said.stderr.contains("that is not stopped: running"), "{said:?}");
    assert_eq!(bundle.say(&["kill", &bundle.id, "KILL"]).code, 0);
    bundle.wait_for("stopped");
    let said = bundle.say(&["kill", &bundle.id]);
    assert!(said.code == 1 && said.stderr.contains("container not running"), "{said:?}");
    assert_eq!(bundle.say(&["delete", &bundle.id]).code, 0);
    bundle.assert_nothing_is_left();
}

#[test]
fn run_has_the_exit_code_of_its_process() {
    assert_eq!(Bundle::of_script("exit 42").run().code, 42);
    let killed = Bundle::of(&["sleep", "1000"]);
    assert_eq!(killed.say_detached(&["run", "--detach", &killed.id]).code, 0);
    killed.wait_for("running");
    let said = Bundle::of_script("kill -KILL $$").with(|config| {
        // pid 1 is immune to its own signals, so it must not be pid 1.
        config["process"]["args"][2] = json!("(kill -KILL $(exec sh -c 'echo $PPID')); exit $?");
    });
    assert_eq!(said.run().code, 137);
}

#[test]
fn run_passes_signals_on() {
    let bundle = Bundle::of_script("trap 'exit 9' TERM; echo ready; while :; do sleep 0.1; done");
    let mut child = bundle.command(&["run", &bundle.id]).stdout(Stdio::piped()).spawn().expect("start");
    let mut line = String::new();
    let stdout = child.stdout.take().expect("its output");
    std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut line).expect("read");
    assert_eq!(line, "ready\n");
    let pid = nix::unistd::Pid::from_raw(child.id() as i32);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).expect("signal the runtime");
    assert_eq!(child.wait().expect("wait").code(), Some(9));
    bundle.assert_nothing_is_left();
}

#[test]
fn the_container_is_what_it_was_at_create() {
    let bundle = Bundle::of(&["sleep", "1000"]);
    bundle.create();
    fs::write(bundle.dir.join("config.json"), "gone").expect("overwrite config.json");
    bundle.start();
    let said = bundle.exec(&[
        "--env",
        "A=b",
        "--cwd",
        "/tmp",
        "--user",
        "12:34",
        &bundle.id,
        "sh",
        "-c",
        "echo $A; pwd; id",
    ]);
    assert_eq!(said.stdout, "b\n/tmp\nuid=12 gid=34\n", "{said:?}");
}

#[test]
fn start_tells_that_the_payload_cannot_be_executed() {
    let bundle = Bundle::of(&["/bin/tool"]);
    harness::copy(bundle.rootfs("bin/busybox"), bundle.rootfs("bin/tool"));
    bundle.create();
    fs::remove_file(bundle.rootfs("bin/tool")).expect("remove");
    let said = bundle.say(&["start", &bundle.id]);
    assert!(
        said.code == 1 && said.stderr.contains("exec: \"/bin/tool\": no such file or directory"),
        "{said:?}"
    );
    bundle.wait_for("stopped");
}

#[test]
fn a_failing_start_container_hook_is_the_error_of_start() {
    let bundle = Bundle::of(&["sleep", "1000"]).with(|config| {
        config["hooks"] = json!({"startContainer": [{"path": "/bin/sh", "args": ["sh", "-c", "echo no luck; exit 3"]}]});
    });
    bundle.create();
    let said = bundle.say(&["start", &bundle.id]);
    assert!(
        said.code == 1 && said.stderr.contains("startContainer hook #0") && said.stderr.contains("no luck"),
        "{said:?}"
    );
    bundle.wait_for("stopped");
}

#[test]
fn start_container_hooks_run_with_the_payloads_rights() {
    let bundle = Bundle::of(&["true"]).with(|config| {
        let script = "{ id; grep CapEff /proc/self/status; cat; } > /tmp/hook";
        config["hooks"] = json!({"startContainer": [{"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/bin"]}]});
        config["process"]["user"] = json!({"uid": 7, "gid": 8});
        config["mounts"].as_array_mut().expect("mounts").push(json!(
            {"destination": "/tmp", "type": "bind", "source": "out", "options": ["bind"]}));
    });
    fs::create_dir(bundle.dir.join("out")).expect("mkdir");
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(bundle.dir.join("out"), fs::Permissions::from_mode(0o777)).expect("chmod");
    bundle.run_well();
    let wrote = fs::read_to_string(bundle.dir.join("out/hook")).expect("what the hook wrote");
    assert!(wrote.contains("uid=7 gid=8"), "{wrote}");
    assert!(wrote.contains("\"status\":\"created\"") && wrote.contains("\"pid\":1"), "{wrote}");
}

#[test]
fn poststop_hooks_run_after_a_failed_create() {
    let bundle = Bundle::of(&["nonexist"]);
    let mark = path(&bundle, "mark");
    let bundle = bundle.with(|config| {
        let touch = |name: &str| json!({"path": "/bin/sh", "args": ["sh", "-c", format!("cat >> {mark}; echo {name} >> {mark}; exit 1")]});
        config["hooks"] = json!({"poststop": [touch("one"), touch("two")]});
    });
    assert_eq!(bundle.run().code, 1);
    let said = fs::read_to_string(&mark).expect("the mark");
    assert!(said.contains("one\n") && said.contains("two\n") && said.contains("stopped"), "{said}");
    bundle.assert_nothing_is_left();
}

#[test]
fn a_failing_poststart_hook_destroys_the_container() {
    let bundle = Bundle::of(&["sleep", "1000"]).with(|config| {
        config["hooks"] = json!({"poststart": [{"path": "/bin/false"}]});
    });
    bundle.create();
    let said = bundle.say(&["start", &bundle.id]);
    assert!(said.code == 1 && said.stderr.contains("poststart hook #0"), "{said:?}");
    assert_eq!(bundle.status(), "none");
    bundle.assert_nothing_is_left();
}

#[test]
fn limits_are_in_the_cgroup_before_the_payload_runs() {
    let bundle = Bundle::of(&["sleep", "1000"]).with(|config| {
        config["linux"]["resources"] = json!({"pids": {"limit": 33}, "memory": {"limit": 8388608}, "cpu": {"shares": 512, "quota": 20000, "period": 100000}});
    });
    bundle.create();
    let read = |file: &str| {
        let found = bundle.cgroups().into_iter().map(|dir| dir.join(file)).find(|path| path.exists());
        found.map(|path| fs::read_to_string(path).expect("read").trim().to_owned())
    };
    assert_eq!(read("pids.max").as_deref(), Some("33"));
    if let Some(limit) = read("memory.limit_in_bytes") {
        assert_eq!(limit, "8388608");
        assert_eq!(read("cpu.shares").as_deref(), Some("512"));
        assert_eq!(read("cpu.cfs_quota_us").as_deref(), Some("20000"));
    } else {
        assert_eq!(read("memory.max").as_deref(), Some("8388608"));
        assert_eq!(read("cpu.max").as_deref(), Some("20000 100000"));
    }
}

#[test]
fn a_container_without_a_pid_namespace_leaves_nobody() {
    let bundle = Bundle::of_script("sleep 999 & sleep 1000").with(|config| {
        config["linux"]["namespaces"].as_array_mut().expect("namespaces").remove(0);
    });
    assert_eq!(bundle.say_detached(&["run", "--detach", &bundle.id]).code, 0);
    wait_until("both sleep", || bundle.say(&["ps", "--format", "json", &bundle.id]).stdout.contains(','));
    assert_eq!(bundle.say(&["delete", "--force", &bundle.id]).code, 0);
    bundle.assert_nothing_is_left();
}

#[test]
fn a_runtime_killed_in_create_leaves_what_delete_can_clean() {
    let bundle = Bundle::of(&["sleep", "1000"]);
    let pids = path(&bundle, "pids");
    let bundle = bundle.with(|config| {
        let script = format!("cat > {pids}.new; mv {pids}.new {pids}; exec sleep 1000");
        config["hooks"] =
            json!({"createRuntime": [{"path": "/bin/sh", "args": ["sh", "-c", script], "timeout": 60}]});
    });
    let mut child = bundle
        .command(&["create", &bundle.id])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("start");
    wait_until("the hook runs", || std::path::Path::new(&pids).exists());
    let state: serde_json::Value = serde_json::from_slice(&fs::read(&pids).expect("read")).expect("JSON");
    let init = state["pid"].as_i64().expect("a pid");
    child.kill().expect("kill -9");
    child.wait().expect("reap");
    // Its init dies with it.
    wait_until("init is gone", || {
        fs::read_to_string(format!("/proc/{init}/stat")).map_or(true, |stat| stat.contains(") Z "))
    });
    assert_eq!(bundle.status(), "stopped");
    assert_eq!(bundle.say(&["delete", "--force", &bundle.id]).code, 0);
    bundle.assert_nothing_is_left();
    let left = std::process::Command::new("pkill").args(["-f", "^sleep 1000$"]).status();
    drop(left); // the hook is the test's own process
}

#[test]
fn many_at_once() {
    let bundles: Vec<Bundle> = (0..16).map(|_| Bundle::of_script("echo $$")).collect();
    std::thread::scope(|scope| {
        for bundle in &bundles {
            scope.spawn(move || assert_eq!(bundle.run_well(), "1\n"));
        }
    });
    bundles.iter().for_each(Bundle::assert_nothing_is_left);
}

#[test]
fn many_execs_at_once() {
    let bundle = Bundle::of(&["sleep", "1000"]);
    bundle.create();
    bundle.start();
    std::thread::scope(|scope| {
        for n in 0..16 {
            let bundle = &bundle;
            scope.spawn(move || {
                let said = bundle.exec(&[&bundle.id, "sh", "-c", &format!("exit {n}")]);
                assert_eq!(said.code, n, "{said:?}");
            });
        }
    });
}

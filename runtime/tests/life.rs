//! A container's life by the command line, and what a killed runtime leaves.

mod harness;

use std::fs;
use std::path::Path;
use std::process::Stdio;

use harness::{Bundle, cgroups_named, wait_until};
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
fn sigterm_ends_a_container_that_waits_for_start() {
    let waiting = Bundle::of(&["true"]);
    // With such a hook the runtime's own process waits, else the tiny program.
    let with_hook = Bundle::of(&["true"])
        .with(|config| config["hooks"] = json!({"startContainer": [{"path": "/bin/true"}]}));
    for bundle in [waiting, with_hook] {
        bundle.create();
        let said = bundle.say(&["kill", &bundle.id]);
        assert_eq!(said.code, 0, "{said:?}");
        bundle.wait_for("stopped");
        assert_eq!(bundle.say(&["delete", &bundle.id]).code, 0);
    }
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
    assert!(said.code == 1 && said.stderr.contains("exec /bin/tool: no such file or directory"), "{said:?}");
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
fn a_failing_poststart_hook_of_run_leaves_nobody_in_a_shared_pid_namespace() {
    let bundle = Bundle::of_script("sleep 1000 & touch /tmp/forked; sleep 1000").with(|config| {
        let namespaces = config["linux"]["namespaces"].as_array_mut().expect("namespaces");
        namespaces.retain(|namespace| namespace["type"] != "pid");
    });
    let forked = bundle.rootfs("tmp/forked").to_string_lossy().into_owned();
    let wait = format!("until [ -e {forked} ]; do sleep 0.02; done; exit 1");
    let bundle = bundle.with(|config| {
        config["hooks"] = json!({"poststart": [{"path": "/bin/sh", "args": ["sh", "-c", wait]}]});
    });
    let said = bundle.say_detached(&["run", &bundle.id]);
    assert!(said.code == 1 && said.stderr.contains("poststart hook #0"), "{said:?}");
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
fn an_init_that_was_never_recorded_is_found_by_its_cgroup() {
    let bundle = Bundle::of(&["sleep", "1000"]);
    bundle.create();
    fs::remove_file(bundle.dir.join("state").join(&bundle.id).join("init")).expect("remove the record");
    assert_eq!(bundle.say(&["delete", "--force", &bundle.id]).code, 0);
    bundle.assert_nothing_is_left();
}

#[test]
fn a_cgroup_in_use_is_refused_and_left_alone() {
    let first = Bundle::of(&["sleep", "1000"]);
    first.create();
    let cgroup = format!("/{}", first.id);
    let second = Bundle::of(&["true"]).with(|config| config["linux"]["cgroupsPath"] = json!(cgroup));
    let said = second.run();
    assert!(
        said.code == 1 && said.stderr.contains("container's cgroup is not empty: 1 process(es)"),
        "{said:?}"
    );
    assert!(!first.cgroups().is_empty());
    first.start();
    let root = Bundle::of(&["true"]).with(|config| config["linux"]["cgroupsPath"] = json!("/"));
    let said = root.run();
    assert!(said.code == 1 && said.stderr.contains("is the root of the hierarchy"), "{said:?}");
}

#[test]
fn limits_of_a_user_need_no_privilege_when_nothing_is_raised() {
    let bundle = Bundle::of_script("ulimit -n").with(|config| {
        config["process"]["user"] = json!({"uid": 1000, "gid": 1000});
        config["process"]["rlimits"] = json!([{"type": "RLIMIT_NOFILE", "soft": 100, "hard": 100}]);
    });
    assert_eq!(bundle.run_well(), "100\n");
}

#[test]
fn a_caller_that_ignores_its_children_still_gets_the_exit_code() {
    let bundle = Bundle::of_script("exit 4");
    let line = format!("trap '' CHLD; exec {:?} --root state run {}", harness::runtime(), bundle.id);
    let status = std::process::Command::new("bash").args(["-c", &line]).current_dir(&bundle.dir).status();
    assert_eq!(status.expect("run bash").code(), Some(4));
}

#[test]
fn the_callers_umask_changes_nothing() {
    let bundle = Bundle::of_script("stat -c %a /made /work; umask").with(|config| {
        config["process"]["cwd"] = json!("/work");
        config["mounts"].as_array_mut().expect("mounts").push(json!(
            {"destination": "/made/below", "type": "tmpfs", "source": "x"}));
    });
    let line = format!("umask 077; exec {:?} --root state run {}", harness::runtime(), bundle.id);
    let output = std::process::Command::new("bash").args(["-c", &line]).current_dir(&bundle.dir).output();
    assert_eq!(harness::said(output.expect("run bash")).stdout, "755\n755\n0022\n");
}

#[test]
fn a_shared_root_leaves_no_mount_on_the_host() {
    let bundle = Bundle::of(&["true"]).with(|config| config["linux"]["rootfsPropagation"] = json!("rshared"));
    let line = format!(
        "before=$(wc -l </proc/self/mounts); {:?} --root state run {}; code=$?; [ $before = $(wc -l </proc/self/mounts) ] || cat /proc/self/mounts; exit $code",
        harness::runtime(),
        bundle.id
    );
    let output = std::process::Command::new("unshare")
        .args(["--mount", "--propagation", "shared", "bash", "-c", &line])
        .current_dir(&bundle.dir)
        .output();
    let said = harness::said(output.expect("run unshare"));
    assert!(said.code == 0 && said.stdout.is_empty(), "{said:?}");
}

#[test]
fn runtime_hooks_are_born_in_the_runtimes_namespaces() {
    let other = Bundle::of(&["sleep", "1000"]);
    other.create();
    let pid = fs::read_to_string(other.dir.join("pid")).expect("its pid");
    let bundle = Bundle::of(&["true"]);
    let mark = path(&bundle, "mark");
    let bundle = bundle.with(|config| {
        config["linux"]["namespaces"][0]["path"] = json!(format!("/proc/{pid}/ns/pid"));
        let script = format!("readlink /proc/self/ns/pid > {mark}");
        config["hooks"] = json!({"createRuntime": [{"path": "/bin/sh", "args": ["sh", "-c", script]}]});
    });
    bundle.run_well();
    let ours = fs::read_link("/proc/self/ns/pid").expect("readlink");
    assert_eq!(fs::read_to_string(mark).expect("the mark").trim(), ours.to_string_lossy());
}

#[test]
fn a_start_hook_that_is_killed_is_an_error_and_no_hang() {
    let bundle = Bundle::of(&["sleep", "1000"]).with(|config| {
        let script = "kill -KILL $$";
        config["hooks"] =
            json!({"startContainer": [{"path": "/bin/sh", "args": ["sh", "-c", script]}, {"path": "/nope"}]});
    });
    bundle.create();
    let said = bundle.say(&["start", &bundle.id]);
    assert!(said.code == 1 && said.stderr.contains("startContainer hook #0"), "{said:?}");
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

/// On cgroup version 1 a new cpuset lets nobody in before it is filled, and the runtime that has just made
/// the parent may not have got to that.
#[test]
fn a_parent_cgroup_that_somebody_has_just_made() {
    let bundle = Bundle::of_script("echo $$");
    let parent = format!("{}-parent", bundle.id);
    let hierarchy = Path::new("/sys/fs/cgroup/cpuset");
    if !hierarchy.is_dir() {
        eprintln!("SKIP: no cgroup version 1 hierarchy of cpuset here");
        return;
    }
    fs::create_dir(hierarchy.join(&parent)).expect("make the parent");
    let bundle = bundle.with(|config| config["linux"]["cgroupsPath"] = format!("/{parent}/child").into());
    let said = bundle.run();
    for dir in cgroups_named(&parent) {
        fs::remove_dir(&dir).expect("the container's own group is gone, so the parent can go");
    }
    assert_eq!(said.stdout, "1\n", "{said:?}");
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

//! systemd makes the cgroups: `--systemd-cgroup`. Run where systemd is process 1 and we are root, as on the
//! machine that `make test-vm` boots; with its user `tester` for the parts without root.

mod harness;

use std::fs;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::Command;

use harness::{Bundle, Said, copy, runtime, said, wait_until};
use serde_json::{Value, json};

/// False, with the reason said, where systemd is not there to be asked.
fn systemd() -> bool {
    let there =
        Path::new("/run/systemd/system").is_dir() && Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    if !there {
        println!("SKIP: systemd is not process 1 here, or not with cgroup version 2");
    }
    there && nix::unistd::geteuid().is_root()
}

/// The uid and gid of `tester`, if his systemd runs.
fn tester() -> Option<u32> {
    let user = nix::unistd::User::from_name("tester").ok().flatten();
    let uid =
        user.map(|user| user.uid.as_raw()).filter(|uid| folder_of(*uid).join("systemd/private").exists());
    if uid.is_none() {
        println!("SKIP: there is no user tester with a systemd of his own here");
    }
    uid
}

fn folder_of(uid: u32) -> PathBuf {
    format!("/run/user/{uid}").into()
}

/// A bundle whose cgroup is a unit in a slice of its own.
fn bundle(script: &str) -> Bundle {
    let bundle = Bundle::of_script(script);
    let path = format!("system.slice:test:{}", bundle.id);
    bundle.with(|config| config["linux"]["cgroupsPath"] = path.into())
}

fn unit(bundle: &Bundle) -> String {
    format!("test-{}.scope", bundle.id)
}

fn cgroup(bundle: &Bundle) -> PathBuf {
    Path::new("/sys/fs/cgroup/system.slice").join(unit(bundle))
}

fn create(bundle: &Bundle) {
    let said = bundle.say_detached(&["--systemd-cgroup", "create", "--pid-file", "pid", &bundle.id]);
    assert_eq!(said.code, 0, "{said:?}");
}

fn run(bundle: &Bundle) -> Said {
    bundle.say(&["--systemd-cgroup", "run", &bundle.id])
}

fn delete(bundle: &Bundle) {
    let said = bundle.say(&["delete", "--force", &bundle.id]);
    assert_eq!(said.code, 0, "{said:?}");
    assert!(!cgroup(bundle).exists(), "the cgroup is left");
    assert_eq!(show(bundle, "LoadState"), "not-found", "the unit is left");
    bundle.assert_nothing_is_left();
}

fn systemctl(args: &[&str]) -> String {
    let said = said(Command::new("systemctl").args(args).output().expect("run systemctl"));
    assert_eq!(said.code, 0, "systemctl {args:?}: {said:?}");
    said.stdout.trim().to_owned()
}

/// A property of the unit.
fn show(bundle: &Bundle, property: &str) -> String {
    systemctl(&["show", "--value", "-p", property, &unit(bundle)])
}

fn file(bundle: &Bundle, name: &str) -> String {
    let text = fs::read_to_string(cgroup(bundle).join(name));
    text.unwrap_or_else(|error| panic!("{name}: {error}")).trim().to_owned()
}

fn pid(bundle: &Bundle) -> String {
    fs::read_to_string(bundle.dir.join("pid")).expect("a pid file")
}

#[test]
fn a_container_is_a_unit_from_create_to_delete() {
    if !systemd() {
        return;
    }
    let bundle = bundle("exec sleep 1000").with(|config| {
        config["annotations"] = json!({"org.systemd.property.TimeoutStopSec": "7"});
    });
    create(&bundle);
    assert_eq!(show(&bundle, "ActiveState"), "active");
    assert_eq!(show(&bundle, "Delegate"), "yes");
    assert_eq!(show(&bundle, "Slice"), "system.slice");
    assert_eq!(show(&bundle, "TimeoutStopUSec"), "7s");
    assert_eq!(file(&bundle, "cgroup.procs"), pid(&bundle));
    bundle.start();
    assert_eq!(bundle.status(), "running");
    let said = bundle.exec(&[&bundle.id, "cat", "/proc/self/cgroup"]);
    assert_eq!(said.stdout.trim(), "0::/", "exec is in the container's cgroup: {said:?}");
    let said = bundle.say(&["ps", "--format", "json", &bundle.id]);
    assert_eq!(said.stdout.trim(), format!("[{}]", pid(&bundle)));
    for (verb, status) in [("pause", "paused"), ("resume", "running")] {
        assert_eq!(bundle.say(&[verb, &bundle.id]).code, 0);
        assert_eq!(bundle.status(), status);
    }
    assert_eq!(bundle.say(&["kill", &bundle.id, "KILL"]).code, 0);
    bundle.wait_for("stopped");
    delete(&bundle);
}

#[test]
fn limits_are_in_the_files_and_known_to_systemd() {
    if !systemd() {
        return;
    }
    let bundle = bundle("exec sleep 1000").with(|config| {
        config["linux"]["resources"] = json!({
            "memory": {"limit": 64 << 20, "reservation": 32 << 20},
            "cpu": {"shares": 512, "quota": 12_500, "period": 50_000},
            "pids": {"limit": 20},
            "unified": {"memory.high": "50331648"},
        });
    });
    create(&bundle);
    let check = |expected: [(&str, &str, &str, &str); 6]| {
        for (name, value, property, known) in expected {
            assert_eq!(file(&bundle, name), value, "{name}");
            assert_eq!(show(&bundle, property), known, "{property}");
        }
    };
    check([
        ("memory.max", "67108864", "MemoryMax", "67108864"),
        ("memory.low", "33554432", "MemoryLow", "33554432"),
        ("memory.high", "50331648", "MemoryHigh", "50331648"),
        ("cpu.weight", "59", "CPUWeight", "59"),
        ("cpu.max", "12500 50000", "CPUQuotaPerSecUSec", "250ms"),
        ("pids.max", "20", "TasksMax", "20"),
    ]);
    let said =
        bundle.say(&["update", "--memory", "96M", "--cpu-quota", "20000", "--pids-limit", "-1", &bundle.id]);
    assert_eq!(said.code, 0, "{said:?}");
    let changed = [
        ("memory.max", "100663296", "MemoryMax", "100663296"),
        ("memory.low", "33554432", "MemoryLow", "33554432"),
        ("memory.high", "50331648", "MemoryHigh", "50331648"),
        ("cpu.weight", "59", "CPUWeight", "59"),
        ("cpu.max", "20000 50000", "CPUQuotaPerSecUSec", "400ms"),
        ("pids.max", "max", "TasksMax", "infinity"),
    ];
    check(changed);
    // systemd writes what it knows.
    systemctl(&["daemon-reload"]);
    check(changed);
    // What cannot be written changes nothing, with systemd neither.
    let file = bundle.dir.join("resources");
    fs::write(&file, r#"{"pids": {"limit": 5}, "unified": {"no.such": "1"}}"#).expect("write");
    let said = bundle.say(&["update", "--resources", "resources", &bundle.id]);
    assert_ne!(said.code, 0);
    check(changed);
    delete(&bundle);
}

/// systemd has properties for some controllers only, and passes no others on.
#[test]
fn controllers_that_systemd_does_not_know_are_passed_on() {
    if !systemd() {
        return;
    }
    if !Path::new("/sys/kernel/mm/hugepages/hugepages-2048kB").exists()
        || !fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").is_ok_and(|all| all.contains("hugetlb"))
    {
        println!("SKIP: the kernel has no controller hugetlb");
        return;
    }
    let bundle = bundle("exec sleep 1000").with(|config| {
        config["linux"]["resources"] =
            json!({"hugepageLimits": [{"pageSize": "2MB", "limit": 4 << 20}], "cpu": {"shares": 512}});
    });
    let path = format!("test-passed.slice:test:{}", bundle.id);
    let bundle = bundle.with(|config| config["linux"]["cgroupsPath"] = path.into());
    create(&bundle);
    let cgroup = Path::new("/sys/fs/cgroup/test.slice/test-passed.slice").join(unit(&bundle));
    let limit = fs::read_to_string(cgroup.join("hugetlb.2MB.max")).expect("the limit's file");
    assert_eq!(limit.trim(), "4194304");
    delete(&bundle);
}

/// runc#3708, nvidia-docker#1730: a program of systemd's own came back at the next reload, and knew neither
/// what systemd cannot name nor what had been added.
#[test]
fn devices_stay_usable_when_systemd_is_reloaded() {
    if !systemd() {
        return;
    }
    // Of no driver, so systemd has no name for all of them: EPERM if it is denied, else ENXIO.
    let bundle =
        bundle("mknod /dev/denied c 240 7; mknod /dev/allowed c 241 7; exec sleep 1000").with(|config| {
            config["linux"]["resources"] = json!({"devices": [
                {"allow": false, "access": "rwm"},
                {"allow": true, "type": "c", "major": 241, "access": "rw"},
                {"allow": true, "type": "c", "major": 10, "minor": 229, "access": "rwm"},
            ]});
            for set in ["bounding", "effective", "permitted"] {
                config["process"]["capabilities"][set] = json!(["CAP_MKNOD"]);
            }
        });
    std::os::unix::fs::symlink("busybox", bundle.rootfs("bin/mknod")).expect("link to busybox");
    create(&bundle);
    bundle.start();
    let try_them = || {
        let open = |path: &str| bundle.exec(&[&bundle.id, "cat", path]).stderr;
        wait_until("the nodes are made", || {
            bundle.exec(&[&bundle.id, "ls", "/dev/allowed", "/dev/denied"]).code == 0
        });
        assert!(open("/dev/denied").contains("Operation not permitted"), "{}", open("/dev/denied"));
        assert!(open("/dev/allowed").contains("No such device"), "{}", open("/dev/allowed"));
        assert_eq!(open("/dev/null"), "");
    };
    try_them();
    systemctl(&["daemon-reload"]);
    try_them();
    delete(&bundle);
}

#[test]
fn a_unit_that_runs_belongs_to_its_owner() {
    if !systemd() {
        return;
    }
    let first = bundle("exec sleep 1000");
    create(&first);
    let second = Bundle::of_script("true").with(|config| {
        config["linux"]["cgroupsPath"] = format!("system.slice:test:{}", first.id).into();
    });
    let said = run(&second);
    assert!(said.stderr.contains("container's cgroup is not empty: 1 process(es) found"), "{said:?}");
    second.assert_nothing_is_left();
    assert_eq!(show(&first, "ActiveState"), "active");
    assert_eq!(first.status(), "created");
    delete(&first);
}

#[test]
fn what_is_left_of_a_failed_unit_is_reset() {
    if !systemd() {
        return;
    }
    let bundle = bundle("echo well");
    // A scope of the same name that has run out of time has failed, and stays loaded.
    let scope = Command::new("systemd-run")
        .args([
            "--quiet",
            "--scope",
            "--property=DefaultDependencies=no",
            "--property=RuntimeMaxSec=1",
            "--unit",
        ])
        .args([&unit(&bundle), "--", "sleep", "1000"])
        .output();
    scope.expect("run systemd-run");
    wait_until("the scope has failed", || show(&bundle, "ActiveState") == "failed");
    let said = run(&bundle);
    assert_eq!((said.code, &*said.stdout), (0, "well\n"), "{said:?}");
    assert!(!cgroup(&bundle).exists());
}

#[test]
fn a_unit_that_has_failed_tells_so_until_delete() {
    if !systemd() {
        return;
    }
    let bundle = bundle("exec sleep 1000").with(|config| {
        config["annotations"] = json!({"org.systemd.property.RuntimeMaxSec": "1", "org.systemd.property.TimeoutStopSec": "1"});
    });
    create(&bundle);
    bundle.start();
    bundle.wait_for("stopped");
    wait_until("it has not failed", || show(&bundle, "ActiveState") == "failed");
    assert_eq!(show(&bundle, "Result"), "timeout");
    delete(&bundle);
}

/// systemd puts a process there all the same, and it would wait for ever.
#[test]
fn a_frozen_cgroup_is_refused() {
    if !systemd() {
        return;
    }
    let bundle = bundle("true");
    let dir = cgroup(&bundle);
    fs::create_dir(&dir).expect("make the cgroup");
    fs::write(dir.join("cgroup.freeze"), "1").expect("freeze it");
    for verb in ["run", "create"] {
        let said = bundle.say(&["--systemd-cgroup", verb, &bundle.id]);
        assert!(said.code == 1 && said.stderr.contains("container's cgroup unexpectedly frozen"), "{said:?}");
    }
    fs::remove_dir(&dir).expect("it is as it was");
    assert_eq!(run(&bundle).code, 0);
    bundle.assert_nothing_is_left();
}

#[test]
fn a_failed_start_leaves_no_unit() {
    if !systemd() {
        return;
    }
    let bundle = bundle("true").with(|config| config["process"]["args"] = json!(["/no/such/program"]));
    let said = run(&bundle);
    assert_ne!(said.code, 0);
    assert_eq!(show(&bundle, "LoadState"), "not-found");
    bundle.assert_nothing_is_left();
}

#[test]
fn slices_are_in_each_other_and_a_slice_can_be_the_container() {
    if !systemd() {
        return;
    }
    let name = format!("vmtest{}", std::process::id());
    let inner = Bundle::of_script("cat /proc/self/cgroup; echo well");
    let path = format!("{name}-b.slice:x:{}", inner.id);
    let inner = inner.with(|config| {
        config["linux"]["cgroupsPath"] = path.into();
        let namespaces = config["linux"]["namespaces"].as_array_mut().expect("namespaces");
        namespaces.retain(|namespace| namespace["type"] != "cgroup");
    });
    let said = run(&inner);
    let expected = format!("0::/{name}.slice/{name}-b.slice/x-{}.scope\nwell\n", inner.id);
    assert_eq!(said.stdout, expected, "{said:?}");

    let slice = Bundle::of_script("cat /proc/self/cgroup").with(|config| {
        config["linux"]["cgroupsPath"] = format!("::{name}-c.slice").into();
        let namespaces = config["linux"]["namespaces"].as_array_mut().expect("namespaces");
        namespaces.retain(|namespace| namespace["type"] != "cgroup");
    });
    let said = run(&slice);
    assert_eq!(said.stdout, format!("0::/{name}.slice/{name}-c.slice\n"), "{said:?}");
    slice.assert_nothing_is_left();
    let _ = Command::new("systemctl").args(["stop", &format!("{name}.slice")]).status();
}

#[test]
fn wrong_paths_and_properties_are_errors_before_anything_is_made() {
    if !systemd() {
        return;
    }
    let with_path = |path: &str| {
        let bundle = Bundle::of_script("true").with(|config| config["linux"]["cgroupsPath"] = path.into());
        let said = run(&bundle);
        assert_ne!(said.code, 0);
        bundle.assert_nothing_is_left();
        said.stderr
    };
    let message = with_path("/a/b");
    let expected = "expected cgroupsPath to be of format \"slice:prefix:name\" for systemd cgroups, got \"/a/b\" instead";
    assert!(message.contains(expected), "{message}");
    assert!(with_path("a--b.slice:x:y").contains("invalid slice name: \"a--b.slice\""));
    let bundle = bundle("true").with(|config| {
        config["annotations"] = json!({"org.systemd.property.ExecStopPost": "'/bin/sh'"});
    });
    let said = run(&bundle);
    assert!(said.stderr.contains("the property ExecStopPost is not allowed here"), "{said:?}");
    bundle.assert_nothing_is_left();
}

#[test]
fn the_bus_does_where_the_own_socket_of_systemd_does_not() {
    if !systemd() {
        return;
    }
    let bundle = bundle("echo well");
    // In a mount namespace of its own, where the socket is not one.
    let said = said(
        Command::new("unshare")
            .args(["--mount", "sh", "-c", "mount --bind /dev/null /run/systemd/private && exec \"$@\"", "sh"])
            .arg(runtime())
            .arg("--root")
            .arg(bundle.dir.join("state"))
            .args(["--systemd-cgroup", "run", "--bundle"])
            .arg(&bundle.dir)
            .arg(&bundle.id)
            .output()
            .expect("run unshare"),
    );
    assert_eq!((said.code, &*said.stdout), (0, "well\n"), "{said:?}");
    bundle.assert_nothing_is_left();
}

#[test]
fn out_of_memory_is_told_and_leaves_nothing() {
    if !systemd() {
        return;
    }
    let bundle = bundle("x=a; while :; do x=$x$x; done").with(|config| {
        config["linux"]["resources"] = json!({"memory": {"limit": 16 << 20, "swap": 16 << 20}});
    });
    let said = run(&bundle);
    assert_eq!(said.code, 137, "{said:?}");
    wait_until("the unit is gone", || show(&bundle, "LoadState") == "not-found");
    bundle.assert_nothing_is_left();
}

/// A runtime command as the user `tester`, as from a session of his: in a part of the tree that is root's.
fn as_tester(uid: u32, bundle: &Bundle, environment: &[&str], args: &[&str]) -> Said {
    let mut command = Command::new("setpriv");
    command.arg(format!("--reuid={uid}")).arg(format!("--regid={uid}")).args(["--clear-groups", "env", "-i"]);
    command.args(environment).arg(bundle.dir.join("runtime")).arg("--root").arg(bundle.dir.join("state"));
    command.args(["--systemd-cgroup"]).args(args).current_dir(&bundle.dir);
    let errors = fs::File::create(bundle.dir.join("stderr")).expect("make a file");
    let output = fs::File::create(bundle.dir.join("stdout")).expect("make a file");
    let status = command.stdin(std::process::Stdio::null()).stdout(output).stderr(errors).status();
    let read = |name| fs::read_to_string(bundle.dir.join(name)).expect("read what was said");
    Said {
        code: status.expect("run setpriv").code().unwrap_or(-1),
        stdout: read("stdout"),
        stderr: read("stderr"),
    }
}

/// All of it belongs to `tester`, who is root in the container.
fn rootless_bundle(uid: u32, script: &str) -> Bundle {
    let bundle = Bundle::of_script(script).with(|config| {
        let linux = &mut config["linux"];
        linux["cgroupsPath"] = "".into();
        linux["uidMappings"] = json!([{"containerID": 0, "hostID": uid, "size": 1}]);
        linux["gidMappings"] = json!([{"containerID": 0, "hostID": uid, "size": 1}]);
        linux["namespaces"].as_array_mut().expect("namespaces").push(json!({"type": "user"}));
        // His group is the only one there.
        let mounts = config["mounts"].as_array_mut().expect("mounts");
        let pts = mounts.iter_mut().find(|mount| mount["type"] == "devpts").expect("devpts");
        pts["options"].as_array_mut().expect("options").retain(|option| option != "gid=5");
    });
    copy(runtime(), bundle.dir.join("runtime"));
    fs::create_dir(bundle.dir.join("state")).expect("make the state folder");
    let status = Command::new("chown").arg("-R").arg(format!("{uid}:{uid}")).arg(&bundle.dir).status();
    assert!(status.expect("run chown").success());
    chown(&bundle.dir, Some(uid), Some(uid)).expect("chown");
    bundle
}

#[test]
fn a_user_has_units_of_his_own_systemd() {
    let Some(uid) = systemd().then(tester).flatten() else { return };
    let bundle = rootless_bundle(uid, "exec sleep 1000").with(|config| {
        config["linux"]["resources"] = json!({"pids": {"limit": 20}, "memory": {"limit": 64 << 20}});
    });
    let environment = format!("XDG_RUNTIME_DIR=/run/user/{uid}");
    let call = |args: &[&str]| as_tester(uid, &bundle, &[&environment], args);
    let well = |said: Said| {
        assert_eq!(said.code, 0, "{said:?}");
        said.stdout
    };
    well(call(&["run", "--detach", "--pid-file", "pid", &bundle.id]));
    let name = format!("runtime-{}.scope", bundle.id);
    let dir = Path::new("/sys/fs/cgroup/user.slice")
        .join(format!("user-{uid}.slice/user@{uid}.service/user.slice"))
        .join(&name);
    let read =
        |file: &str| fs::read_to_string(dir.join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
    assert_eq!(read("pids.max"), "20\n");
    assert_eq!(read("memory.max"), "67108864\n");
    assert_eq!(read("cgroup.procs").trim(), pid(&bundle));
    assert_eq!(well(call(&["exec", &bundle.id, "cat", "/proc/self/cgroup"])).trim(), "0::/");
    well(call(&["update", "--pids-limit", "30", &bundle.id]));
    assert_eq!(read("pids.max"), "30\n");
    well(call(&["pause", &bundle.id]));
    let state: Value = serde_json::from_str(&well(call(&["state", &bundle.id]))).expect("state is JSON");
    assert_eq!(state["status"], "paused");
    well(call(&["resume", &bundle.id]));
    well(call(&["delete", "--force", &bundle.id]));
    assert!(!dir.exists(), "the cgroup is left");
    bundle.assert_nothing_is_left();
}

#[test]
fn a_user_may_name_the_bus() {
    let Some(uid) = systemd().then(tester).flatten() else { return };
    if !folder_of(uid).join("bus").exists() {
        println!("SKIP: tester has no bus");
        return;
    }
    let bundle = rootless_bundle(uid, "echo well");
    let environment = format!("DBUS_SESSION_BUS_ADDRESS=unix:path=/run/user/{uid}/bus");
    let said = as_tester(uid, &bundle, &[&environment], &["run", &bundle.id]);
    assert_eq!((said.code, &*said.stdout), (0, "well\n"), "{said:?}");
}

#[test]
fn a_user_without_a_systemd_is_told_what_to_do() {
    let Some(uid) = systemd().then(tester).flatten() else { return };
    let bundle = rootless_bundle(uid, "true");
    let said = as_tester(uid, &bundle, &[], &["run", &bundle.id]);
    assert_ne!(said.code, 0);
    assert!(said.stderr.contains("loginctl enable-linger"), "{said:?}");
    let nowhere = format!("XDG_RUNTIME_DIR={}", bundle.dir.display());
    let said = as_tester(uid, &bundle, &[&nowhere], &["run", &bundle.id]);
    assert!(said.stderr.contains("does it run? `systemctl --user status` tells"), "{said:?}");
    bundle.assert_nothing_is_left();
}

#[test]
fn without_systemd_it_says_so() {
    if Path::new("/run/systemd/system").is_dir() {
        println!("SKIP: systemd runs here");
        return;
    }
    let bundle = bundle("true");
    let said = run(&bundle);
    assert!(said.stderr.contains("systemd not running on this host"), "{said:?}");
    bundle.assert_nothing_is_left();
}

//! Where a container's cgroups are and what state they may be in; `pause`, `resume`, `events` and `ps`.

mod harness;

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Stdio};

use harness::{Bundle, cgroups_named, wait_until};
use serde_json::{Value, json};

fn unified() -> bool {
    Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
}

/// The hierarchy that freezes, with the file and the words for that.
fn freezer() -> (PathBuf, &'static str, &'static str, &'static str) {
    if unified() {
        (PathBuf::from("/sys/fs/cgroup"), "cgroup.freeze", "1", "0")
    } else {
        (PathBuf::from("/sys/fs/cgroup/freezer"), "freezer.state", "FROZEN", "THAWED")
    }
}

fn running(args: &[&str]) -> Bundle {
    let bundle = Bundle::of(args);
    bundle.create();
    bundle.start();
    bundle
}

fn well(bundle: &Bundle, command: &str) {
    well_with(bundle, &[command, &bundle.id]);
}

fn well_with(bundle: &Bundle, words: &[&str]) {
    let said = bundle.say(words);
    assert_eq!((said.code, said.stdout.as_str(), said.stderr.as_str()), (0, "", ""), "{words:?}");
}

fn refused(bundle: &Bundle, words: &[&str], message: &str) {
    let said = bundle.say(words);
    assert!(said.code != 0 && said.stderr.contains(message), "{words:?}: {said:?}");
}

#[test]
fn a_paused_container_stands_still() {
    let bundle = Bundle::of_script("while :; do echo x; done > /count");
    bundle.create();
    bundle.start();
    let size = || fs::metadata(bundle.rootfs("count")).map_or(0, |file| file.len());
    wait_until("it counts", || size() > 0);
    well(&bundle, "pause");
    let stopped_at = size();
    assert_eq!(bundle.status(), "paused");
    refused(&bundle, &["pause", &bundle.id], "container not running");
    refused(
        &bundle,
        &["exec", &bundle.id, "true"],
        "cannot exec in a paused container (use --ignore-paused to override)",
    );
    refused(&bundle, &["delete", &bundle.id], "that is not stopped: paused");
    assert_eq!(size(), stopped_at);
    well(&bundle, "resume");
    assert_eq!(bundle.status(), "running");
    wait_until("it goes on", || size() > stopped_at);
    refused(&bundle, &["resume", &bundle.id], "container not paused");
}

#[test]
fn exec_can_wait_for_a_paused_container() {
    let bundle = running(&["sleep", "1000"]);
    well(&bundle, "pause");
    let words = ["exec", "--ignore-paused", &bundle.id, "echo", "ok"];
    let child = bundle.command(&words).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("exec");
    // It has joined the cgroups when there are two.
    wait_until("it is in", || bundle.say(&["ps", "-f", "json", &bundle.id]).stdout.contains(','));
    well(&bundle, "resume");
    let said = harness::said(child.wait_with_output().expect("wait"));
    assert_eq!((said.code, said.stdout.as_str()), (0, "ok\n"), "{said:?}");
}

#[test]
fn a_created_container_can_be_paused() {
    let bundle = Bundle::of(&["sleep", "1000"]);
    bundle.create();
    well(&bundle, "pause");
    assert_eq!(bundle.status(), "paused");
    refused(&bundle, &["start", &bundle.id], "cannot start a container in the paused state");
    well(&bundle, "resume");
    assert_eq!(bundle.status(), "created");
    bundle.start();
}

#[test]
fn a_paused_container_can_be_killed_and_deleted() {
    for with_pid_namespace in [true, false] {
        let bundle = Bundle::of_script("sleep 999 & sleep 1000").with(|config| {
            if !with_pid_namespace {
                config["linux"]["namespaces"].as_array_mut().expect("namespaces").remove(0);
            }
        });
        bundle.create();
        bundle.start();
        well(&bundle, "pause");
        let said = bundle.say(&["kill", &bundle.id, "KILL"]);
        assert_eq!(said.code, 0, "{said:?}");
        bundle.wait_for("stopped");
        refused(&bundle, &["pause", &bundle.id], "container not running");
        refused(&bundle, &["resume", &bundle.id], "container not paused");
        assert_eq!(bundle.say(&["delete", &bundle.id]).code, 0);
        bundle.assert_nothing_is_left();
        bundle.create();
        bundle.start();
        well(&bundle, "pause");
        assert_eq!(bundle.say(&["delete", "--force", &bundle.id]).code, 0);
        bundle.assert_nothing_is_left();
    }
}

#[test]
fn what_outlives_init_is_killed_with_the_container() {
    let bundle = Bundle::of_script("sleep 998 & sleep 999 & exec sleep 1000").with(|config| {
        config["linux"]["namespaces"].as_array_mut().expect("namespaces").remove(0);
    });
    bundle.create();
    bundle.start();
    let left = || -> Vec<i32> {
        let said = bundle.say(&["ps", "-f", "json", &bundle.id]);
        serde_json::from_str(&said.stdout).expect("ps is JSON")
    };
    wait_until("all three sleep", || left().len() == 3);
    let init = fs::read_to_string(bundle.dir.join("pid")).expect("its pid").parse().expect("a number");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(init), nix::sys::signal::Signal::SIGKILL)
        .expect("kill");
    bundle.wait_for("stopped");
    assert!(left().len() >= 2);
    refused(&bundle, &["kill", &bundle.id, "TERM"], "container not running");
    well_with(&bundle, &["kill", &bundle.id, "KILL"]);
    // A dead process stays in the list until somebody has waited for it.
    let lives =
        |pid: &i32| fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "));
    wait_until("nobody lives", || !left().iter().any(lives));
}

#[test]
fn unknown_containers_are_refused() {
    let bundle = Bundle::of(&["true"]);
    for words in [&["pause", "nobody"][..], &["resume", "nobody"], &["events", "nobody"], &["ps", "nobody"]] {
        refused(&bundle, words, "container does not exist");
    }
}

/// Makes a cgroup in the freezer's hierarchy for the time of a test.
struct Group(PathBuf);

impl Group {
    fn new(name: &str) -> Self {
        let dir = freezer().0.join(name);
        fs::create_dir(&dir).expect("make a cgroup");
        Self(dir)
    }

    fn freeze(&self) {
        let (_, file, frozen, _) = freezer();
        fs::write(self.0.join(file), frozen).expect("freeze it");
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let (_, file, _, thawed) = freezer();
        let _ = fs::write(self.0.join(file), thawed);
        let name = self.0.file_name().expect("a name").to_string_lossy().into_owned();
        for dir in cgroups_named(&name) {
            for below in fs::read_dir(&dir).into_iter().flatten().flatten() {
                let _ = fs::remove_dir(below.path());
            }
            let _ = fs::remove_dir(dir);
        }
    }
}

#[test]
fn a_frozen_cgroup_is_refused() {
    let bundle = Bundle::of(&["true"]);
    let group = Group::new(&bundle.id);
    group.freeze();
    let said = bundle.run();
    assert!(said.code == 1 && said.stderr.contains("container's cgroup unexpectedly frozen"), "{said:?}");
    assert!(group.0.exists(), "what was there before stays");
    drop(group);
    bundle.assert_nothing_is_left();
}

#[test]
fn a_cgroup_below_a_frozen_one_is_refused() {
    let bundle = Bundle::of(&["true"]);
    let parent = format!("{}-parent", bundle.id);
    let group = Group::new(&parent);
    group.freeze();
    let bundle = bundle.with(|config| config["linux"]["cgroupsPath"] = json!(format!("/{parent}/child")));
    let said = bundle.run();
    assert!(said.code == 1 && said.stderr.contains("container's cgroup unexpectedly frozen"), "{said:?}");
    assert!(!group.0.join("child").exists(), "what was made is gone");
}

#[test]
fn what_a_failed_create_made_above_the_cgroup_is_gone() {
    let bundle = Bundle::of(&["true"]).with(|config| {
        let path = config["linux"]["cgroupsPath"].as_str().expect("a path").to_owned();
        config["linux"]["cgroupsPath"] = json!(format!("{path}/a/b"));
        config["linux"]["resources"] = json!({"cpu": {"cpus": "100000"}});
    });
    let said = bundle.run();
    assert!(said.code == 1 && said.stderr.contains("linux.resources.cpu.cpus: "), "{said:?}");
    bundle.assert_nothing_is_left();
}

#[test]
fn a_relative_cgroups_path_and_none_are_below_a_cgroup_of_ours() {
    for relative in [true, false] {
        let bundle = Bundle::of_script("cat /proc/self/cgroup");
        // One folder deep, which goes with the container.
        let path = if relative { format!("{}-relative", bundle.id) } else { bundle.id.clone() };
        let bundle = bundle.with(|config| {
            config["linux"]["cgroupsPath"] = if relative { json!(path) } else { Value::Null };
            let namespaces = config["linux"]["namespaces"].as_array_mut().expect("namespaces");
            namespaces.retain(|namespace| namespace["type"] != "cgroup");
        });
        let said = bundle.run_well();
        assert!(said.lines().any(|line| line.ends_with(&format!("/{path}"))), "{path} is not in {said:?}");
        assert_eq!(cgroups_named(&path), Vec::<PathBuf>::new());
    }
}

#[test]
fn a_threaded_cgroup_takes_containers_without_limits_of_memory() {
    if !unified() {
        eprintln!("SKIP: threaded cgroups are of version 2");
        return;
    }
    let bundle = Bundle::of(&["true"]);
    let parent = format!("{}-parent", bundle.id);
    let group = Group::new(&parent);
    let threads = group.0.join("threads");
    fs::create_dir(&threads).expect("make a cgroup");
    fs::write(threads.join("cgroup.type"), "threaded").expect("make it threaded");
    let bundle = bundle.with(|config| {
        config["linux"]["cgroupsPath"] = json!(format!("/{parent}/child"));
        config["linux"]["resources"] = json!({"memory": {"limit": 67108864}});
    });
    let said = bundle.run();
    assert!(said.stderr.contains("with domain controllers -- it is in an invalid state"), "{said:?}");
    let bundle = bundle.with(|config| config["linux"]["resources"] = json!({}));
    bundle.run_well();
}

#[test]
fn a_cgroup_is_given_to_the_root_user_of_the_container() {
    if !unified() {
        eprintln!("SKIP: only cgroups of version 2 can be given away");
        return;
    }
    let with = |options: &[&str], cgroup_namespace: bool| {
        let script = "stat -c %u /sys/fs/cgroup /sys/fs/cgroup/cgroup.procs /sys/fs/cgroup/cgroup.subtree_control \
                      /sys/fs/cgroup/pids.max; mkdir /sys/fs/cgroup/below 2>/dev/null; echo $?; rmdir /sys/fs/cgroup/below";
        let bundle = Bundle::of_script(script).with(|config| {
            let mapping = json!([{"containerID": 0, "hostID": 100000, "size": 65536}]);
            config["linux"]["uidMappings"] = mapping.clone();
            config["linux"]["gidMappings"] = mapping;
            let namespaces = config["linux"]["namespaces"].as_array_mut().expect("namespaces");
            namespaces.push(json!({"type": "user"}));
            if !cgroup_namespace {
                namespaces.retain(|namespace| namespace["type"] != "cgroup");
            }
            config["mounts"].as_array_mut().expect("mounts").push(json!(
                {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": options}));
        });
        let status =
            std::process::Command::new("chown").args(["-R", "100000:100000"]).arg(&bundle.dir).status();
        assert!(status.is_ok_and(|status| status.success()));
        bundle.run().stdout
    };
    assert_eq!(with(&["rw"], true), "0\n0\n0\n65534\n0\n");
    assert_eq!(with(&["ro"], true), "65534\n65534\n65534\n65534\n1\n");
    assert_eq!(with(&["rw"], false), "65534\n65534\n65534\n65534\n1\n");
}

/// `events` of a container, to be read line by line.
struct Events(Child, BufReader<ChildStdout>);

impl Events {
    fn of(bundle: &Bundle, interval: &str) -> Self {
        let words = ["events", "--interval", interval, &bundle.id];
        let mut child = bundle.command(&words).stdout(Stdio::piped()).spawn().expect("run events");
        let lines = BufReader::new(child.stdout.take().expect("its output"));
        Self(child, lines)
    }

    /// The next event; none at the end.
    fn next(&mut self) -> Option<Value> {
        let mut line = String::new();
        let read = self.1.read_line(&mut line).expect("read an event");
        (read > 0).then(|| serde_json::from_str(&line).expect("an event is JSON"))
    }
}

#[test]
fn events_tell_what_a_container_uses() {
    let bundle = Bundle::of_script("while :; do :; done").with(|config| {
        config["linux"]["resources"] =
            json!({"memory": {"limit": 67108864}, "pids": {"limit": 40}, "cpu": {"quota": 50000}});
    });
    bundle.create();
    bundle.start();
    wait_until("it has used the processor", || {
        let said = bundle.say(&["events", "--stats", &bundle.id]);
        assert!(
            said.code == 0
                && said
                    .stdout
                    .starts_with(&format!("{{\"type\":\"stats\",\"id\":\"{}\",\"data\":", bundle.id)),
            "{said:?}"
        );
        assert_eq!(said.stdout.lines().count(), 1);
        let event: Value = serde_json::from_str(&said.stdout).expect("JSON");
        event["data"]["cpu"]["usage"]["total"].as_u64().unwrap_or(0) > 0
    });
    let said = bundle.say(&["events", "--stats", &bundle.id]);
    let event: Value = serde_json::from_str(&said.stdout).expect("JSON");
    let data = &event["data"];
    assert_eq!(data["pids"], json!({"current": 1, "limit": 40}));
    assert_eq!(data["memory"]["usage"]["limit"], 67108864);
    assert!(data["memory"]["usage"]["usage"].as_u64() > Some(0), "{data}");
    assert!(data["memory"]["raw"].as_object().is_some_and(|raw| raw.len() > 10), "{data}");
    assert!(
        data["cpu"]["usage"]["user"].is_u64() && data["cpuset"].is_object() && data["blkio"].is_object(),
        "{data}"
    );
    assert_eq!(data["network_interfaces"][0]["Name"], "lo");
    if Path::new("/proc/pressure/cpu").exists() && unified() {
        assert!(data["cpu"]["psi"]["some"]["total"].is_u64(), "{data}");
    }
}

#[test]
fn events_go_on_until_the_container_ends() {
    let bundle = running(&["sleep", "1000"]);
    let mut events = Events::of(&bundle, "20ms");
    for _ in 0..3 {
        let event = events.next().expect("an event");
        assert_eq!((&event["type"], &event["id"]), (&json!("stats"), &json!(bundle.id)));
    }
    assert_eq!(bundle.say(&["kill", &bundle.id, "KILL"]).code, 0);
    while events.next().is_some() {}
    assert_eq!(events.0.wait().expect("wait").code(), Some(0));
    bundle.wait_for("stopped");
    let message = format!("container with id {} is not running", bundle.id);
    refused(&bundle, &["events", &bundle.id], &message);
    refused(&bundle, &["events", "--stats", &bundle.id], &message);
    refused(&bundle, &["events", "--interval", "0s", &bundle.id], "duration interval must be greater than 0");
    refused(&bundle, &["events", "--interval", "soon", &bundle.id], "--interval: \"soon\"");
}

#[test]
fn events_tell_that_memory_ran_out() {
    let bundle = Bundle::of(&["sleep", "1000"]).with(|config| {
        config["linux"]["resources"] = json!({"memory": {"limit": 33554432, "swap": 33554432}});
    });
    bundle.create();
    bundle.start();
    let mut events = Events::of(&bundle, "20ms");
    // It listens for notices before it waits for the first time.
    assert!(events.next().is_some_and(|event| event["type"] == "stats"));
    let said = bundle.exec(&[&bundle.id, "dd", "if=/dev/zero", "of=/dev/null", "bs=200M", "count=1"]);
    assert_eq!(said.code, 137, "{said:?}");
    let oom = json!({"type": "oom", "id": bundle.id});
    loop {
        let event = events.next().expect("an event before the container's end");
        if event["type"] != "stats" {
            assert_eq!(event, oom);
            break;
        }
    }
    assert_eq!(bundle.say(&["kill", &bundle.id, "KILL"]).code, 0);
    while events.next().is_some() {}
    assert_eq!(events.0.wait().expect("wait").code(), Some(0));
}

#[test]
fn events_stop_when_nobody_reads() {
    let bundle = running(&["sleep", "1000"]);
    let mut events = Events::of(&bundle, "10ms");
    assert!(events.next().is_some());
    let Events(mut child, lines) = events;
    drop(lines);
    assert_eq!(child.wait().expect("wait").code(), Some(0));
}

#[test]
fn ps_shows_the_processes_here() {
    let bundle = running(&["sleep", "1000"]);
    let pid = fs::read_to_string(bundle.dir.join("pid")).expect("its pid");
    assert_eq!(bundle.say(&["ps", "--format", "json", &bundle.id]).stdout, format!("[{pid}]\n"));
    let ps = std::process::Command::new("ps").arg("-ef").output();
    if ps.is_ok_and(|output| output.status.success()) {
        let said = bundle.say(&["ps", &bundle.id]);
        let lines: Vec<&str> = said.stdout.lines().collect();
        assert!(
            lines.len() == 2 && lines[0].contains(" PID ") && lines[1].contains("sleep 1000"),
            "{said:?}"
        );
        let said = bundle.say(&["ps", &bundle.id, "-e", "-o", "pid,comm"]);
        assert!(said.stdout.lines().nth(1).is_some_and(|line| line.trim().starts_with(&pid)), "{said:?}");
        refused(&bundle, &["ps", &bundle.id, "-e", "-o", "comm"], "couldn't find PID field in ps output");
    } else {
        eprintln!("SKIP: ps(1) is not here, or cannot do its work");
    }
    assert_eq!(bundle.say(&["kill", &bundle.id, "KILL"]).code, 0);
    bundle.wait_for("stopped");
    assert_eq!(bundle.say(&["ps", "--format", "json", &bundle.id]).stdout, "[]\n");
}

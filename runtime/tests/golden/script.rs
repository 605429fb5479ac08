//! The calls, in scenes that each begin with a new bundle. `ID` is the container's id; a bundle's process
//! is `true` unless the scene says otherwise.

use std::fs;
use std::io::IoSliceMut;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;

use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use serde_json::{Value, json};

use crate::harness;
use crate::observe::Actor;

type Scene = fn(&mut Actor);

pub(crate) const SCENES: &[(&str, Scene)] = &[
    ("global options", global_options),
    ("numbers of arguments", numbers_of_arguments),
    ("flags", flags),
    ("ids", ids),
    ("nobody", nobody),
    ("bundles", bundles),
    ("configurations", configurations),
    ("programs", programs),
    ("create", create),
    ("life", life),
    ("running", running),
    ("kill", kill),
    ("list", list),
    ("exec", exec),
    ("exec fails", exec_fails),
    ("paused", paused),
    ("stopped", stopped),
    ("update", update),
    ("events", events),
    ("run", run),
    ("terminals", terminals),
    ("spec", spec),
    ("features", features),
];

/// Every command, with a good number of arguments.
const COMMANDS: [&[&str]; 15] = [
    &["create", "ID"],
    &["delete", "ID"],
    &["events", "ID"],
    &["exec", "ID", "true"],
    &["features"],
    &["kill", "ID", "TERM"],
    &["list"],
    &["pause", "ID"],
    &["ps", "ID"],
    &["resume", "ID"],
    &["run", "ID"],
    &["spec"],
    &["start", "ID"],
    &["state", "ID"],
    &["update", "ID"],
];

fn global_options(actor: &mut Actor) {
    for root in ["state", "elsewhere"] {
        fs::create_dir(actor.bundle.dir.join(root)).expect("make a folder");
    }
    for args in [
        &[][..],
        &["--help"],
        &["-h"],
        &["help"],
        &["h"],
        &["help", "create"],
        &["help", "frobnicate"],
        &["frobnicate"],
        &["--frobnicate", "list"],
        &["--root"],
        &["--debug=maybe", "list"],
        &["--log-format", "xml", "list"],
        &["--log", "no/such/folder", "list"],
        &["--rootless", "true", "list"],
        &["--rootless", "maybe", "list"],
        &["--criu", "criu", "list"],
        &["-root", "elsewhere", "list", "-q"],
        &["--root", "none", "list", "-q"],
        &["--systemd-cgroup=false", "list"],
    ] {
        actor.call(args);
    }
    for flag in ["--version", "-v"] {
        let output = actor.command(&[flag]).output().expect("run the runtime");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let beginnings =
            text.lines().take(3).map(|line| line.split_inclusive([' ', ':']).next().unwrap_or_default());
        actor.note(flag, &beginnings.collect::<Vec<_>>().join("\n"));
    }
}

fn numbers_of_arguments(actor: &mut Actor) {
    for command in COMMANDS {
        if command.len() > 1 {
            actor.call(&command[..1]);
        }
        actor.call(&[command, &["more"]].concat());
    }
    actor.call(&["kill", "ID", "TERM", "more", "and more"]);
}

fn flags(actor: &mut Actor) {
    for command in COMMANDS {
        let (verb, rest) = command.split_at(1);
        for flag in ["--frobnicate", "-x", "--help"] {
            actor.call(&[verb, &[flag], rest].concat());
        }
    }
    for args in [
        &["create", "--bundle"][..],
        &["create", "ID", "--bundle"],
        &["run", "--preserve-fds", "many", "ID"],
        &["run", "--detach=maybe", "ID"],
        &["delete", "--force=maybe", "ID"],
        &["delete", "-f=false", "ID"],
        &["exec", "--tty=maybe", "ID", "true"],
        &["events", "--interval", "often", "ID"],
        &["events", "--interval", "0s", "ID"],
        &["exec", "--user", "root", "ID", "true"],
        &["list", "--format"],
        &["update", "--memory"],
    ] {
        actor.call(args);
    }
}

fn ids(actor: &mut Actor) {
    let long = "x".repeat(300);
    for id in ["", "..", "a/b", "a b", "\u{e9}", long.as_str()] {
        for command in [
            &["create", "ID"][..],
            &["exec", "ID", "true"],
            &["start", "ID"],
            &["kill", "ID"],
            &["run", "ID"],
        ] {
            let mut args = command.to_vec();
            args[1] = id;
            actor.call(&args);
        }
        actor.call(&["delete", "--force", id]);
    }
}

fn nobody(actor: &mut Actor) {
    let others =
        COMMANDS.iter().filter(|command| command.len() > 1 && !["create", "run"].contains(&command[0]));
    for command in others {
        actor.call(command);
    }
    for args in [
        &["delete", "--force", "ID"][..],
        &["kill", "--all", "ID", "KILL"],
        &["events", "--stats", "ID"],
        &["ps", "--format", "json", "ID"],
        &["ps", "--format", "xml", "ID"],
        &["exec", "ID"],
        &["exec", "--process", "none.json", "ID"],
        &["kill", "ID", "FOO"],
        &["update", "--memory", "lots", "ID"],
        &["update", "--resources", "none.json", "ID"],
    ] {
        actor.call(args);
    }
}

fn bundles(actor: &mut Actor) {
    for verb in ["create", "run"] {
        actor.call(&[verb, "--bundle", "none", "ID"]);
        actor.call(&[verb, "--bundle", "config.json", "ID"]);
        actor.call(&[verb, "--bundle", "rootfs", "ID"]);
        actor.call(&[verb, "--pid-file", "none/pid", "ID"]);
        actor.call(&["state", "ID"]);
    }
    let config = actor.bundle.dir.join("config.json");
    for text in ["", "{", "[]", "{}", "{\"process\": 1}"] {
        fs::write(&config, text).expect("write config.json");
        actor.call(&["run", "ID"]);
    }
    fs::remove_file(&config).expect("remove config.json");
    actor.call(&["create", "ID"]);
    actor.call(&["run", "ID"]);
    fs::create_dir(&config).expect("make a folder");
    actor.call(&["run", "ID"]);
}

/// Each makes one thing wrong.
fn configurations(actor: &mut Actor) {
    let good: Value =
        serde_json::from_slice(&fs::read(actor.bundle.dir.join("config.json")).expect("read config.json"))
            .expect("JSON");
    type Change = fn(&mut Value);
    let changes: &[(&str, Change)] = &[
        ("no process", |c| drop(c.as_object_mut().expect("object").remove("process"))),
        ("no args", |c| c["process"]["args"] = json!([])),
        ("no cwd", |c| c["process"]["cwd"] = json!("")),
        ("relative cwd", |c| c["process"]["cwd"] = json!("tmp")),
        ("cwd is a file", |c| c["process"]["cwd"] = json!("/bin/busybox")),
        ("no root", |c| drop(c.as_object_mut().expect("object").remove("root"))),
        ("no rootfs", |c| c["root"]["path"] = json!("none")),
        ("no linux", |c| drop(c.as_object_mut().expect("object").remove("linux"))),
        ("no source", |c| {
            c["mounts"][0] = json!({"destination": "/mnt", "source": "/none", "options": ["bind"]})
        }),
        ("no such file system", |c| {
            c["mounts"][0] = json!({"destination": "/mnt", "type": "none such", "source": "x"})
        }),
        ("no such limit", |c| {
            c["process"]["rlimits"] = json!([{"type": "RLIMIT_FOO", "soft": 1, "hard": 1}])
        }),
        ("hostname without namespace", |c| {
            c["hostname"] = json!("name");
            c["linux"]["namespaces"] = json!([{"type": "pid"}, {"type": "mount"}]);
        }),
        ("namespace twice", |c| c["linux"]["namespaces"][1] = json!({"type": "pid"})),
        ("no such namespace", |c| c["linux"]["namespaces"][0]["type"] = json!("foo")),
        ("no such namespace file", |c| c["linux"]["namespaces"][0]["path"] = json!("/none")),
        ("no such sysctl", |c| c["linux"]["sysctl"] = json!({"kernel.none": "1"})),
        ("a sysctl of the host's", |c| c["linux"]["sysctl"] = json!({"vm.swappiness": "1"})),
        ("no such propagation", |c| c["linux"]["rootfsPropagation"] = json!("foo")),
        ("no such profile", |c| c["process"]["apparmorProfile"] = json!("none-such")),
        ("no such action", |c| c["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_FOO"})),
        ("swap below memory", |c| {
            c["linux"]["resources"] = json!({"memory": {"limit": 20000000, "swap": 10000000}})
        }),
        ("hook that fails", |c| {
            c["hooks"] = json!({"createRuntime": [{"path": "/bin/sh", "args": ["sh", "-c", "echo out; echo err >&2; exit 3"]}]});
        }),
        ("hook that is not there", |c| c["hooks"] = json!({"prestart": [{"path": "/none/such"}]})),
        ("user that is not mapped", |c| {
            let map = json!([{"containerID": 0, "hostID": 100000, "size": 1}]);
            c["linux"]["namespaces"].as_array_mut().expect("array").push(json!({"type": "user"}));
            c["linux"]["uidMappings"] = map.clone();
            c["linux"]["gidMappings"] = map;
            c["process"]["user"]["uid"] = json!(5);
        }),
    ];
    for (what, change) in changes {
        actor.bundle.change(|config| *config = good.clone());
        actor.bundle.change(change);
        actor.note("from here on", what);
        actor.call(&["run", "ID"]);
        actor.call(&["state", "ID"]);
        actor.call(&["delete", "--force", "ID"]);
    }
}

fn sleeps(actor: &mut Actor) {
    actor.bundle.change(|config| config["process"]["args"] = json!(["sleep", "1000"]));
}

/// As the container's own process and as one more.
fn programs(actor: &mut Actor) {
    let data = actor.bundle.dir.join("data");
    fs::write(&data, "no program").expect("write a file");
    for (name, mode) in [("data", 0o644), ("program", 0o755)] {
        let place = actor.bundle.rootfs("bin").join(name);
        harness::copy(&data, &place);
        fs::set_permissions(&place, fs::Permissions::from_mode(mode)).expect("chmod");
    }
    let programs = [
        "nonexist",
        "/nope",
        "./nope",
        "/bin/busybox/x",
        "/etc",
        "etc",
        "bin/true",
        "data",
        "/bin/data",
        "/bin/program",
        "",
    ];
    for program in programs {
        actor.bundle.change(|config| config["process"]["args"] = json!([program]));
        actor.call(&["run", "ID"]);
        actor.call(&["state", "ID"]);
    }
    actor.bundle.change(|config| config["process"]["args"] = json!(["nonexist"]));
    actor.call(&["create", "ID"]);
    sleeps(actor);
    actor.must(&["run", "--detach", "ID"]);
    for program in programs {
        actor.call(&["exec", "ID", program]);
    }
}

fn create(actor: &mut Actor) {
    sleeps(actor);
    actor.call(&["create", "--pid-file", "pid", "ID"]);
    let pid = fs::read_to_string(actor.bundle.dir.join("pid")).expect("the pid file");
    actor.note("pid file", &without_numbers(&pid));
    actor.call(&["state", "ID"]);
    actor.call(&["create", "ID"]);
    actor.call(&["run", "ID"]);
    actor.call(&["exec", "ID", "true"]);
    actor.call(&["ps", "--format", "json-less", "ID"]);
    actor.call(&["resume", "ID"]);
    actor.call(&["delete", "ID"]);
    actor.call(&["state", "ID"]);
}

fn life(actor: &mut Actor) {
    actor.bundle.change(|config| {
        config["process"]["args"] = json!(["sleep", "1000"]);
        config["annotations"] = json!({"b": "2", "a": "1"});
    });
    actor.call(&["create", "ID"]);
    actor.call(&["state", "ID"]);
    actor.call(&["start", "ID"]);
    actor.call(&["state", "ID"]);
    actor.call(&["start", "ID"]);
    actor.call(&["delete", "ID"]);
    actor.call(&["pause", "ID"]);
    actor.call(&["state", "ID"]);
    actor.call(&["start", "ID"]);
    actor.call(&["delete", "ID"]);
    actor.call(&["resume", "ID"]);
    actor.call(&["kill", "ID", "KILL"]);
    actor.wait_for("stopped");
    actor.call(&["state", "ID"]);
    actor.call(&["delete", "ID"]);
    actor.call(&["delete", "ID"]);
    actor.call(&["delete", "--force", "ID"]);
    actor.call(&["run", "--detach", "ID"]);
    actor.call(&["delete", "--force", "ID"]);
    actor.call(&["state", "ID"]);
    actor.call(&["create", "ID"]);
    actor.call(&["delete", "--force", "ID"]);
    actor.call(&["state", "ID"]);
}

/// Each number as a zero: a pid may have a digit more than the one before.
fn without_numbers(text: &str) -> String {
    let mut short = String::new();
    for letter in text.chars() {
        match letter.is_ascii_digit() {
            true if short.ends_with('0') => {}
            true => short.push('0'),
            false => short.push(letter),
        }
    }
    short
}

/// What lists and tables look like, without pids.
fn running(actor: &mut Actor) {
    sleeps(actor);
    actor.must(&["run", "--detach", "ID"]);
    // runc leaves before its process has become the payload.
    harness::wait_until("it sleeps", || {
        let output = actor.command(&["ps", "ID"]).output().expect("run the runtime");
        String::from_utf8_lossy(&output.stdout).contains("sleep")
    });
    for args in [
        &["ps", "ID"][..],
        &["ps", "ID", "-o", "pid,comm"],
        &["ps", "--format", "json", "ID"],
        &["ps", "ID", "-e", "-o", "comm,pid"],
    ] {
        let output = actor.command(args).output().expect("run the runtime");
        let pid = |word: &str| word.parse::<u32>().is_ok();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let lines = text.lines().map(|line| {
            line.split_whitespace()
                .map(|word| if pid(word) { "N" } else { word })
                .collect::<Vec<_>>()
                .join(" ")
        });
        // The time that it began at stands in the fifth column.
        let seen: Vec<String> = lines.map(|line| without_numbers(&line)).collect();
        let digits = if text.starts_with('[') { text.replace(char::is_numeric, "") } else { String::new() };
        actor.note(&args.join(" "), &format!("{}\n{}\n{digits}", output.status, seen.join("\n")));
    }
    for args in [
        &["ps", "ID", "-o", "comm"][..],
        &["ps", "ID", "--frobnicate"],
        &["ps", "--format", "xml", "ID"],
        &["ps", "--format", "", "ID"],
        &["exec", "ID"],
        &["resume", "ID"],
        &["create", "ID"],
    ] {
        actor.call(args);
    }
}

fn kill(actor: &mut Actor) {
    actor.bundle.change(|config| {
        config["process"]["args"] = json!(["sh", "-c", "trap : USR1; while :; do sleep 1000 & wait; done"])
    });
    actor.must(&["run", "--detach", "ID"]);
    for signal in [
        "0", "FOO", "SIGFOO", "", "65", "-1", "-5", "999", "9x", "USR1", "SIGUSR1", "sigusr1", "usr1", "10",
        "WINCH", "28", "URG", "CHLD", "CONT", "IOT", "POLL",
    ] {
        actor.call(&["kill", "ID", signal]);
    }
    actor.call(&["kill", "--all", "ID", "URG"]);
    actor.call(&["kill", "-a", "ID", "FOO"]);
    actor.call(&["kill", "ID", "9"]);
    actor.wait_for("stopped");
    actor.call(&["kill", "ID", "9"]);
    actor.call(&["kill", "ID"]);
    actor.call(&["kill", "ID", "0"]);
    actor.call(&["kill", "ID", "FOO"]);
    actor.call(&["kill", "--all", "ID"]);
    actor.call(&["kill", "--all", "ID", "9"]);
}

fn list(actor: &mut Actor) {
    fs::create_dir(actor.bundle.dir.join("state")).expect("make a folder");
    for args in [
        &["list"][..],
        &["list", "--quiet"],
        &["list", "-q"],
        &["list", "--format", "json"],
        &["list", "--format", "table"],
        &["list", "--format", "xml"],
        &["list", "--format", ""],
        &["list", "-q", "-f", "json"],
        &["list", "-q", "-f", "xml"],
    ] {
        actor.call(args);
    }
    actor.must(&["create", "ID"]);
    for args in [&["list", "-q"][..], &["list", "-f", "json"], &["list", "-q", "-f", "json"]] {
        actor.call(args);
    }
    let output = actor.command(&["list"]).output().expect("run the runtime");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    // Columns are as wide as what stands in them, and that is not equally long.
    let words = text.lines().map(|line| {
        line.split_whitespace().map(|word| word.replace(char::is_numeric, "")).collect::<Vec<_>>().join(" ")
    });
    let words = words.collect::<Vec<_>>().join("\n");
    let name = actor.bundle.id.replace(char::is_numeric, "");
    actor.note("list", &words.replace(&name, "ID").replace("::.Z", "::Z"));
    actor.must(&["kill", "ID", "KILL"]);
    actor.wait_for("stopped");
    actor.call(&["list", "-f", "json"]);
    fs::create_dir(actor.bundle.dir.join("state/other")).expect("make a folder");
    fs::write(actor.bundle.dir.join("state/file"), "").expect("write a file");
    actor.call(&["list", "-q"]);
    actor.call(&["state", "other"]);
    actor.call(&["state", "file"]);
    actor.call(&["delete", "other"]);
    actor.call(&["delete", "--force", "other"]);
    actor.call(&["list", "-q"]);
}

fn exec(actor: &mut Actor) {
    sleeps(actor);
    actor.must(&["run", "--detach", "ID"]);
    for args in [
        &["exec", "ID", "true"][..],
        &["exec", "ID", "sh", "-c", "exit 7"],
        &["exec", "ID", "sh", "-c", "kill -9 $$"],
        &["exec", "ID", "sh", "-c", "kill -15 $$"],
        &["exec", "ID", "sh", "-c", "echo out; echo err >&2"],
        &["exec", "ID", "env"],
        &["exec", "-e", "A=b", "-e", "C=d", "ID", "env"],
        &["exec", "--env", "PATH=/none", "ID", "/bin/env"],
        &["exec", "--env", "HOME=", "ID", "env"],
        &["exec", "--cwd", "/tmp", "ID", "pwd"],
        &["exec", "--cwd", "/tmp/new", "ID", "pwd"],
        &["exec", "--user", "1000", "ID", "id"],
        &["exec", "--user", "1000:5", "ID", "id"],
        &["exec", "-u", "1:2", "-g", "3", "-g", "4", "ID", "id"],
        &["exec", "--cap", "CAP_NET_RAW", "ID", "grep", "Cap", "/proc/self/status"],
        &["exec", "--no-new-privs", "ID", "grep", "NoNewPrivs", "/proc/self/status"],
        &["exec", "ID", "sh", "-c", "umask; ulimit -n"],
        &["exec", "ID", "ls", "--frobnicate=1"],
        &["exec", "ID", "--", "true"],
        &["exec", "--detach", "--pid-file", "pid", "ID", "sleep", "1"],
        &["exec", "--preserve-fds", "0", "ID", "true"],
        &["exec", "--ignore-paused", "ID", "true"],
    ] {
        actor.call(args);
    }
    let process = json!({"cwd": "/tmp", "args": ["sh", "-c", "pwd; id -u; env"], "env": ["PATH=/bin", "X=y"], "user": {"uid": 3, "gid": 4}});
    fs::write(actor.bundle.dir.join("process.json"), process.to_string()).expect("write a file");
    actor.call(&["exec", "--process", "process.json", "ID"]);
    actor.call(&["exec", "-p", "process.json", "ID", "echo", "ignored"]);
}

fn exec_fails(actor: &mut Actor) {
    sleeps(actor);
    actor.must(&["run", "--detach", "ID"]);
    for args in [
        &["exec", "--cwd", "tmp", "ID", "true"][..],
        &["exec", "--cwd", "/bin/busybox", "ID", "true"],
        &["exec", "--user", "root", "ID", "true"],
        &["exec", "--user", "1:root", "ID", "true"],
        &["exec", "--user", "-1", "ID", "true"],
        &["exec", "--user", ":", "ID", "true"],
        &["exec", "--user", "99999999999", "ID", "true"],
        &["exec", "--additional-gids", "x", "ID", "true"],
        &["exec", "--cap", "CAP_FOO", "ID", "true"],
        &["exec", "--env", "FOO", "ID", "env"],
        &["exec", "--apparmor", "none", "ID", "true"],
        &["exec", "--pid-file", "none/pid", "ID", "true"],
        &["exec", "--process", "none.json", "ID"],
        &["exec", "--console-socket", "none", "ID", "true"],
        &["exec", "--tty", "--detach", "ID", "true"],
        &["exec", "--tty", "--console-socket", "none", "ID", "true"],
        &["exec", "--tty", "--detach", "--console-socket", "none", "ID", "true"],
    ] {
        actor.call(args);
    }
    for text in [
        "",
        "{",
        "{}",
        "{\"args\": [\"true\"]}",
        "{\"cwd\": \"/\", \"args\": []}",
        "{\"cwd\": \"x\", \"args\": [\"true\"]}",
    ] {
        fs::write(actor.bundle.dir.join("process.json"), text).expect("write a file");
        actor.note("process.json", text);
        actor.call(&["exec", "--process", "process.json", "ID"]);
    }
}

fn paused(actor: &mut Actor) {
    sleeps(actor);
    actor.must(&["create", "ID"]);
    actor.call(&["pause", "ID"]);
    actor.call(&["state", "ID"]);
    actor.call(&["start", "ID"]);
    actor.call(&["resume", "ID"]);
    actor.call(&["start", "ID"]);
    actor.call(&["pause", "ID"]);
    for args in [
        &["state", "ID"][..],
        &["pause", "ID"],
        &["exec", "ID", "true"],
        &["start", "ID"],
        &["delete", "ID"],
        &["update", "--pids-limit", "20", "ID"],
        &["kill", "ID", "0"],
        &["kill", "ID", "URG"],
        &["resume", "ID"],
        &["resume", "ID"],
        &["pause", "ID"],
        &["kill", "ID", "KILL"],
    ] {
        actor.call(args);
    }
    actor.wait_for("stopped");
    actor.call(&["delete", "ID"]);
    actor.must(&["run", "--detach", "ID"]);
    actor.must(&["pause", "ID"]);
    actor.call(&["delete", "--force", "ID"]);
    actor.call(&["state", "ID"]);
}

fn stopped(actor: &mut Actor) {
    sleeps(actor);
    actor.must(&["run", "--detach", "ID"]);
    actor.must(&["kill", "ID", "KILL"]);
    actor.wait_for("stopped");
    for args in [
        &["state", "ID"][..],
        &["start", "ID"],
        &["create", "ID"],
        &["run", "ID"],
        &["exec", "ID", "true"],
        &["exec", "--detach", "ID", "true"],
        &["exec", "--tty", "--detach", "ID", "true"],
        &["kill", "ID"],
        &["pause", "ID"],
        &["resume", "ID"],
        &["ps", "ID"],
        &["ps", "--format", "json", "ID"],
        &["ps", "--format", "xml", "ID"],
        &["events", "ID"],
        &["events", "--stats", "ID"],
        &["update", "ID"],
        &["update", "--pids-limit", "20", "ID"],
        &["list", "--quiet"],
        &["delete", "ID"],
        &["state", "ID"],
    ] {
        actor.call(args);
    }
}

fn update(actor: &mut Actor) {
    sleeps(actor);
    actor.must(&["run", "--detach", "ID"]);
    for args in [
        &["update", "ID"][..],
        &["update", "--memory", "64m", "--memory-swap", "-1", "ID"],
        &["update", "--memory", "67108864", "ID"],
        &["update", "--pids-limit", "20", "ID"],
        &["update", "--cpu-share", "512", "ID"],
        &["update", "--cpu-period", "100000", "--cpu-quota", "50000", "ID"],
        &["update", "--cpuset-cpus", "0", "ID"],
        &["update", "--memory", "lots", "ID"],
        &["update", "--memory-reservation", "lots", "ID"],
        &["update", "--memory-swap", "lots", "ID"],
        &["update", "--kernel-memory", "64m", "ID"],
        &["update", "--cpu-share", "many", "ID"],
        &["update", "--cpu-share", "-1", "ID"],
        &["update", "--cpu-quota", "many", "ID"],
        &["update", "--pids-limit", "many", "ID"],
        &["update", "--blkio-weight", "many", "ID"],
        &["update", "--blkio-weight", "5", "ID"],
        &["update", "--cpuset-cpus", "none", "ID"],
        &["update", "--cpu-quota", "1", "ID"],
        &["update", "--l3-cache-schema", "L3:0=f", "ID"],
        &["update", "--resources", "none.json", "ID"],
    ] {
        actor.call(args);
    }
    for input in [
        "{}",
        "",
        "{",
        "[]",
        "{\"memory\": {\"limit\": 67108864}}",
        "{\"memory\": {\"limit\": \"64m\"}}",
        "{\"pids\": {\"limit\": 30}}",
        "{\"cpu\": {\"shares\": 300}}",
    ] {
        actor.call_with(&["update", "--resources", "-", "ID"], input);
        actor.call_with(&["update", "--resources=-", "ID"], input);
    }
    let limits = [
        ("pids", "pids.max"),
        ("memory", "memory.limit_in_bytes"),
        ("cpu", "cpu.shares"),
        ("cpu", "cpu.cfs_quota_us"),
    ];
    for (controller, file) in limits {
        let path = format!("/sys/fs/cgroup/{controller}/{}/{file}", actor.bundle.id);
        actor.note(file, &fs::read_to_string(path).unwrap_or_default());
    }
}

/// The keys of what `--stats` prints.
fn events(actor: &mut Actor) {
    actor.must(&["create", "ID"]);
    let output = actor.command(&["events", "--stats", "ID"]).output().expect("run the runtime");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let event: Value = serde_json::from_str(&text).expect("one event");
    let mut keys = Vec::new();
    paths(&event, "", &mut keys);
    // runc does not look at the unified hierarchy of a machine with both, which has this controller here.
    keys.retain(|key| !key.starts_with(".data.hugetlb"));
    actor.note(
        "events --stats ID",
        &format!("{} {} {}\n{}", text.lines().count(), event["type"], event["id"], keys.join("\n")),
    );
}

/// The paths of all members that are neither empty lists nor null.
fn paths(value: &Value, path: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            let mut fields: Vec<_> = fields.iter().collect();
            fields.sort_by_key(|(key, _)| *key);
            fields.iter().for_each(|(key, field)| paths(field, &format!("{path}.{key}"), found));
        }
        _ => found.push(path.to_owned()),
    }
}

fn run(actor: &mut Actor) {
    for script in [
        "exit 0",
        "exit 7",
        "exit 255",
        "kill -9 $$; sleep 1",
        "kill -TERM $$; exit 3",
        "echo out; echo err >&2",
        "cat",
        "umask; ulimit -n; env; pwd; id",
    ] {
        actor.bundle.change(|config| {
            config["process"]["args"] = json!(["sh", "-c", format!("trap 'exit 9' TERM; {script}")])
        });
        actor.note("from here on", script);
        actor.call_with(&["run", "ID"], "typed\n");
        actor.call(&["state", "ID"]);
    }
    actor.call(&["run", "--keep", "ID"]);
    actor.call(&["state", "ID"]);
    actor.call(&["run", "ID"]);
    actor.call(&["delete", "ID"]);
    actor.bundle.change(|config| config["process"]["args"] = json!(["true"]));
    actor.call(&["run", "--detach", "--pid-file", "pid", "ID"]);
    actor.wait_for("stopped");
    actor.call(&["delete", "ID"]);
    actor.bundle.change(|config| config["process"]["args"] = json!(["nonexist"]));
    actor.call(&["run", "--keep", "ID"]);
    actor.call(&["state", "ID"]);
    actor.call(&["run", "--detach", "ID"]);
    actor.call(&["state", "ID"]);
}

fn terminals(actor: &mut Actor) {
    for args in [
        &["create", "--console-socket", "none", "ID"][..],
        &["run", "--console-socket", "none", "ID"],
        &["run", "--detach", "--console-socket", "none", "ID"],
    ] {
        actor.call(args);
    }
    actor.bundle.change(|config| config["process"]["terminal"] = json!(true));
    for args in [
        &["create", "ID"][..],
        &["run", "--detach", "ID"],
        &["run", "--console-socket", "none", "ID"],
        &["create", "--console-socket", "none", "ID"],
        &["create", "--console-socket", "config.json", "ID"],
        &["run", "--detach", "--console-socket", "none", "ID"],
    ] {
        actor.call(args);
        actor.call(&["state", "ID"]);
    }
    actor.call(&["delete", "--force", "ID"]);
    actor.bundle.change(|config| config["process"]["args"] = json!(["sleep", "1000"]));
    take_a_terminal(actor, &["create", "--console-socket", "console", "ID"]);
    actor.must(&["start", "ID"]);
    take_a_terminal(actor, &["exec", "--tty", "--detach", "--console-socket", "console", "ID", "sleep", "1"]);
}

/// What the console socket gets, beside the terminal that it returns.
fn take_a_terminal(actor: &mut Actor, args: &[&str]) -> Vec<i32> {
    let path = actor.bundle.dir.join("console");
    let listener = UnixListener::bind(&path).expect("listen");
    actor.call(args);
    let (stream, _) = listener.accept().expect("a connection");
    let mut bytes = [0; 4096];
    let mut parts = [IoSliceMut::new(&mut bytes)];
    let mut space = nix::cmsg_space!([i32; 4]);
    let message = recvmsg::<()>(stream.as_raw_fd(), &mut parts, Some(&mut space), MsgFlags::empty())
        .expect("a message");
    let descriptors = message.cmsgs().expect("whole").find_map(|part| match part {
        ControlMessageOwned::ScmRights(descriptors) => Some(descriptors),
        _ => None,
    });
    let descriptors = descriptors.unwrap_or_default();
    let length = message.bytes;
    let said = String::from_utf8_lossy(&bytes[..length]).into_owned();
    actor.note("console socket", &format!("{said:?} with {} descriptor(s)", descriptors.len()));
    fs::remove_file(path).expect("remove the socket");
    descriptors
}

fn spec(actor: &mut Actor) {
    actor.call(&["spec"]);
    actor.call(&["spec", "--bundle", "none"]);
    actor.call(&["spec", "-b", "rootfs"]);
    actor.call(&["spec", "--bundle", "rootfs"]);
    for args in [&["spec"][..], &["spec", "--rootless"]] {
        let path = actor.bundle.dir.join("config.json");
        fs::remove_file(&path).expect("remove config.json");
        actor.call(args);
        let text = fs::read_to_string(path).expect("read config.json");
        let mut config: Value = serde_json::from_str(&text).expect("JSON");
        let ambient = config["process"]["capabilities"].as_object_mut().expect("sets").remove("ambient");
        actor.note("ambient capabilities", &ambient.is_some().to_string());
        let kind = |namespace: &Value| namespace["type"].as_str().map(str::to_owned);
        config["linux"]["namespaces"].as_array_mut().expect("a list").sort_by_key(kind);
        config["ociVersion"] = "VERSION".into();
        actor.note("config.json", &format!("{config:#}"));
        actor.note("its form", text.get(..3).unwrap_or_default());
    }
}

/// What runc 1.1.5 knows of itself; whatever else there is may be there.
fn features(actor: &mut Actor) {
    let output = actor.command(&["features"]).output().expect("run the runtime");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let features: Value = serde_json::from_str(&text).expect("JSON");
    let mut keys = Vec::new();
    paths(&features, "", &mut keys);
    for key in [
        "ociVersionMin",
        "ociVersionMax",
        "hooks",
        "mountOptions",
        "linux.namespaces",
        "linux.capabilities",
        "linux.cgroup.v1",
        "linux.cgroup.v2",
        "linux.cgroup.systemd",
        "linux.cgroup.systemdUser",
        "linux.seccomp.enabled",
        "linux.seccomp.actions",
        "linux.seccomp.operators",
        "linux.seccomp.archs",
        "linux.apparmor.enabled",
        "linux.selinux.enabled",
        "annotations.org.opencontainers.runc.checkpoint.enabled",
        "annotations.org.opencontainers.runc.commit",
        "annotations.org.opencontainers.runc.version",
        "annotations.io.github.seccomp.libseccomp.version",
    ] {
        actor.note(key, &keys.contains(&format!(".{key}")).to_string());
    }
    let missing = |path: &str, words: &[&str]| -> String {
        let list = features.pointer(path).and_then(Value::as_array).cloned().unwrap_or_default();
        words.iter().filter(|word| !list.contains(&json!(word))).copied().collect::<Vec<_>>().join(" ")
    };
    for (path, words) in [
        (
            "/hooks",
            &["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"][..],
        ),
        ("/linux/namespaces", &["cgroup", "ipc", "mount", "network", "pid", "user", "uts"]),
        ("/linux/capabilities", &["CAP_CHOWN", "CAP_SYS_ADMIN", "CAP_CHECKPOINT_RESTORE"]),
        ("/mountOptions", RUNC_MOUNT_OPTIONS),
    ] {
        actor.note(&format!("missing in {path}"), &missing(path, words));
    }
    actor.note(
        "the first lines",
        &text
            .lines()
            .take(2)
            .map(|line| line.split('"').next().unwrap_or_default())
            .collect::<Vec<_>>()
            .join("\n"),
    );
}

/// What runc 1.1.5 lists.
const RUNC_MOUNT_OPTIONS: &[&str] = &[
    "acl",
    "async",
    "atime",
    "bind",
    "defaults",
    "dev",
    "diratime",
    "dirsync",
    "exec",
    "iversion",
    "lazytime",
    "loud",
    "mand",
    "noacl",
    "noatime",
    "nodev",
    "nodiratime",
    "noexec",
    "noiversion",
    "nolazytime",
    "nomand",
    "norelatime",
    "nostrictatime",
    "nosuid",
    "nosymfollow",
    "private",
    "ratime",
    "rbind",
    "rdev",
    "rdiratime",
    "relatime",
    "remount",
    "rexec",
    "rnoatime",
    "rnodev",
    "rnodiratime",
    "rnoexec",
    "rnorelatime",
    "rnostrictatime",
    "rnosuid",
    "rnosymfollow",
    "ro",
    "rprivate",
    "rrelatime",
    "rro",
    "rrw",
    "rshared",
    "rslave",
    "rstrictatime",
    "rsuid",
    "rsymfollow",
    "runbindable",
    "rw",
    "shared",
    "silent",
    "slave",
    "strictatime",
    "suid",
    "symfollow",
    "sync",
    "tmpcopyup",
    "unbindable",
];

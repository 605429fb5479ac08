//! Clauses of [runtime-spec 1.3.0](https://github.com/opencontainers/runtime-spec/tree/v1.3.0) that one
//! runtime or another is known to break, one test each. What any runtime can be asked from outside is a
//! case of spec-tests as well; here stands what ours does, error messages included.
//!
//! | | clause | in |
//! |---|---|---|
//! | v01 | a poststop hook that fails is a warning, and the others run | runtime.md#lifecycle 13 |
//! | v02 | delete of what is not stopped is an error: with `--strict`; without, created may go too | runtime.md#delete |
//! | v03 | `process` is wanted by start, not by create | config.md#process |
//! | v04 | edits of config.json after create change nothing | runtime.md#lifecycle 2 |
//! | v05 | the mount option `defaults` | config.md#linux-mount-options |
//! | v06 | the same rlimit twice is an error | config.md#posix-process |
//! | v07 | a device's path with something else at it is an error | config-linux.md#devices |
//! | v08 | ociVersion is SemVer, of a major version that is known | config.md#specification-version |
//! | v09 | a resource that cannot be set is an error | config-linux.md#control-groups |
//! | v10 | device rules allow what they say, in order, and nothing else | config-linux.md#allowed-device-list |
//! | v11 | timeouts are above 0, paths absolute, annotation keys not empty | config.md#posix-platform-hooks ... |
//! | v12 | hooks get the state as it is where they run | config.md#posix-platform-hooks |
//! | v13 | a poststart hook that fails ends and destroys the container | runtime.md#lifecycle 9 |
//! | v14 | an unknown capability is a warning | config.md#linux-process |
//! | v15 | a namespace of another type is an error | config-linux.md#namespaces |
//! | v16 | a hook that fails in create destroys the container before its program ran | runtime.md#lifecycle 4-6 |
//! | v17 | a startContainer hook that fails is start's error, and the program does not run | runtime.md#lifecycle 7 |

mod harness;

use std::fs;
use std::path::Path;

use harness::Bundle;
use serde_json::{Value, json};

/// A hook that runs a line of shell, with a busybox that the container has too.
fn hook(line: &str) -> Value {
    json!({"path": "/bin/sh", "args": ["sh", "-c", line], "env": ["PATH=/bin:/usr/bin"]})
}

/// Where hooks and program leave their marks: a folder of the bundle's that the container has at /marks.
fn with_marks(bundle: Bundle) -> Bundle {
    let marks = bundle.dir.join("marks");
    fs::create_dir(&marks).expect("make the folder");
    bundle.with(|config| {
        let mounts = config["mounts"].as_array_mut().expect("mounts");
        mounts.push(json!({"destination": "/marks", "type": "bind", "source": "marks", "options": ["bind"]}));
    })
}

fn marks(bundle: &Bundle) -> Vec<String> {
    let folder = fs::read_dir(bundle.dir.join("marks")).expect("read the marks");
    let mut names: Vec<String> =
        folder.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// `run` fails with one line that has these words, and leaves nothing.
fn refuses(words: &str, change: impl FnOnce(&mut Value)) {
    let bundle = Bundle::of(&["true"]).with(change);
    let said = bundle.run();
    assert!(said.code == 1 && said.stderr.starts_with("runtime: run failed: "), "{said:?}");
    assert!(said.stderr.contains(words) && said.stderr.lines().count() == 1, "{words:?}: {said:?}");
    bundle.assert_nothing_is_left();
}

#[test]
fn v01_poststop_hooks_all_run_even_if_one_fails() {
    let bundle = with_marks(Bundle::of(&["true"])).with(|config| {
        config["hooks"]["poststop"] =
            json!([hook("touch marks/one; exit 1"), {"path": "/no/such/hook"}, hook("touch marks/three")]);
    });
    bundle.create();
    bundle.start();
    bundle.wait_for("stopped");
    let said = bundle.say(&["--debug", "delete", &bundle.id]);
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(marks(&bundle), ["one", "three"]);
    let warnings: Vec<&str> = said.stderr.lines().collect();
    assert_eq!(warnings.len(), 2, "{said:?}");
    assert!(warnings[0].contains("warning: error running poststop hook #0"), "{said:?}");
    assert!(warnings[1].contains("hook #1: \"/no/such/hook\": start it: No such file"), "{said:?}");
    bundle.assert_nothing_is_left();
}

#[test]
fn v02_delete_of_what_is_not_stopped_is_an_error_when_strict() {
    let bundle = Bundle::of(&["sleep", "1000"]);
    bundle.create();
    let refused = format!("runtime: cannot delete container {} that is not stopped: created\n", bundle.id);
    let by_option = bundle.say(&["--strict", "delete", &bundle.id]);
    assert_eq!((by_option.code, &by_option.stderr), (1, &refused));
    let output = bundle.command(&["delete", &bundle.id]).env("RUNTIME_STRICT", "true").output();
    let by_environment = harness::said(output.expect("run the runtime"));
    assert_eq!((by_environment.code, &by_environment.stderr), (1, &refused));
    assert_eq!(bundle.status(), "created", "an error has no effect");
    bundle.start();
    for option in ["--strict=true", "--strict=false"] {
        let said = bundle.say(&[option, "delete", &bundle.id]);
        assert!(said.code == 1 && said.stderr.contains("that is not stopped: running"), "{said:?}");
    }
    assert_eq!(bundle.say(&["--strict", "delete", "--force", &bundle.id]).code, 0);
    bundle.assert_nothing_is_left();
}

#[test]
fn v02_delete_of_a_created_container_works_for_engines_by_default() {
    let bundle = Bundle::of(&["sleep", "1000"]);
    bundle.create();
    let output = bundle.command(&["delete", &bundle.id]).env("RUNTIME_STRICT", "0").output();
    assert_eq!(harness::said(output.expect("run the runtime")).code, 0);
    bundle.assert_nothing_is_left();
    let output = bundle.command(&["state", "x"]).env("RUNTIME_STRICT", "perhaps").output();
    let said = harness::said(output.expect("run the runtime"));
    assert_eq!(said.stderr, "runtime: RUNTIME_STRICT: \"perhaps\" is neither true nor false\n");
}

#[test]
fn v03_create_works_without_process_and_start_asks_for_it() {
    let bundle =
        Bundle::of(&["true"]).with(|config| drop(config.as_object_mut().expect("object").remove("process")));
    bundle.create();
    assert_eq!(bundle.status(), "created");
    let said = bundle.say(&["start", &bundle.id]);
    assert!(said.code == 1 && said.stderr.contains("process property must not be empty"), "{said:?}");
    assert_eq!(bundle.status(), "created", "an error has no effect");
    let said = bundle.run();
    assert!(said.code == 1 && said.stderr.contains("process property must not be empty"), "{said:?}");
}

#[test]
fn v04_edits_of_the_configuration_after_create_change_nothing() {
    let bundle =
        with_marks(Bundle::of(&["sh", "-c", "touch /marks/$NAME; exec sleep 1000"])).with(|config| {
            config["process"]["env"] = json!(["PATH=/bin", "NAME=before"]);
            config["hooks"]["poststop"] = json!([hook("touch marks/poststop-before")]);
        });
    bundle.create();
    let bundle = bundle.with(|config| {
        config["process"]["env"] = json!(["PATH=/bin", "NAME=after"]);
        config["process"]["cwd"] = json!("/nowhere");
        config["hooks"] = json!({"poststart": [hook("touch marks/poststart-after")]});
    });
    bundle.start();
    harness::wait_until("the program has begun", || marks(&bundle).contains(&"before".to_owned()));
    let said = bundle.exec(&[&bundle.id, "sh", "-c", "echo $NAME; pwd"]);
    assert_eq!(said.stdout, "before\n/\n", "{said:?}");
    fs::remove_file(bundle.dir.join("config.json")).expect("remove it");
    assert_eq!(bundle.say(&["delete", "--force", &bundle.id]).code, 0);
    assert_eq!(marks(&bundle), ["before", "poststop-before"]);
    bundle.assert_nothing_is_left();
}

#[test]
fn v05_the_mount_option_defaults_is_known_everywhere() {
    let bundle = Bundle::of_script("grep -E ' /(bound|fresh) ' /proc/mounts | cut -d' ' -f2,4").with(|config| {
        let mounts = config["mounts"].as_array_mut().expect("mounts");
        mounts.push(
            json!({"destination": "/bound", "type": "bind", "source": "rootfs", "options": ["bind", "defaults", "nodev"]}),
        );
        mounts.push(
            json!({"destination": "/fresh", "type": "tmpfs", "source": "x", "options": ["defaults", "nosuid", "ro"]}),
        );
    });
    let said = bundle.run_well();
    let options = |path: &str| said.lines().find_map(|line| line.strip_prefix(path)).expect(path).to_owned();
    assert!(options("/bound ").split(',').any(|option| option == "nodev"), "{said}");
    assert!(options("/fresh ").starts_with("ro,nosuid,"), "{said}");
}

#[test]
fn v06_the_same_rlimit_twice_is_an_error() {
    refuses("process.rlimits[1].type: RLIMIT_NOFILE is there twice", |config| {
        config["process"]["rlimits"] = json!([
            {"type": "RLIMIT_NOFILE", "soft": 10, "hard": 10}, {"type": "RLIMIT_NOFILE", "soft": 11, "hard": 11}]);
    });
}

#[test]
fn v07_a_device_path_with_something_else_is_an_error() {
    use nix::sys::stat::{Mode, SFlag, makedev, mknod};
    let device = json!([{"path": "/etc/device", "type": "c", "major": 1, "minor": 3, "fileMode": 0o640}]);
    let bundle = || {
        Bundle::of_script("stat -c '%F %t:%T %a' /etc/device").with(|config| {
            config["linux"]["devices"] = device.clone();
        })
    };
    let refused = |bundle: &Bundle| {
        let said = bundle.run();
        let right = said.stderr.contains("linux.devices[0]") && said.stderr.contains("/etc/device");
        assert!(said.code == 1 && right, "{said:?}");
        bundle.assert_nothing_is_left();
    };
    let file = bundle();
    fs::write(file.rootfs("etc/device"), "a file").expect("write");
    refused(&file);
    let make = |bundle: &Bundle, minor| {
        let mode = Mode::from_bits_truncate(0o666);
        mknod(&bundle.rootfs("etc/device"), SFlag::S_IFCHR, mode, makedev(1, minor)).expect("mknod");
    };
    let other_number = bundle();
    make(&other_number, 5);
    refused(&other_number);
    let same = bundle();
    make(&same, 3);
    assert_eq!(same.run_well(), "character special file 1:3 640\n");
}

#[test]
fn v08_the_version_is_semver_of_a_known_major() {
    for version in ["", "abc", "1.0", "1.0.0.0", "01.0.0", "1.0.0-", "1.0.0-a..b", "1.0.0+", "v1.0.0"] {
        let bundle = Bundle::of(&["true"]).with(|config| config["ociVersion"] = json!(version));
        let said = bundle.run();
        let words = format!("ociVersion: {version:?} is not a version (SemVer 2.0.0)\n");
        assert!(said.code == 1 && said.stderr.ends_with(&words), "{said:?}");
        bundle.assert_nothing_is_left();
    }
    let bundle = Bundle::of(&["true"]).with(|config| config["ociVersion"] = json!("2.0.0"));
    assert!(bundle.run().stderr.contains("ociVersion: \"2.0.0\" is not supported"));
    for version in ["1.0.0", "1.0.2-dev", "1.3.0-rc.1+a.b", "1.99.7"] {
        Bundle::of(&["true"]).with(|config| config["ociVersion"] = json!(version)).run_well();
    }
}

#[test]
fn v09_a_resource_that_cannot_be_set_is_an_error() {
    // Or the machine has no cpuset at all.
    refuses("linux.resources.cpu.cpus: ", |config| {
        config["linux"]["resources"] = json!({"cpu": {"cpus": "99999"}});
    });
}

/// Where runc says nothing, a warning; the error when asked to be strict.
#[test]
fn v09_a_resource_without_effect_is_a_warning_and_an_error_when_strict() {
    let version_2 = Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    let cases: &[(&str, &str, Value)] = &[
        ("useHierarchy", "this kernel", json!({"useHierarchy": false})),
        ("swappiness", "cgroup version 2", json!({"swappiness": 30})),
    ];
    for (name, place, memory) in cases {
        if *name == "swappiness" && !version_2 {
            eprintln!("SKIP: cgroup version 1 has memory.swappiness");
            continue;
        }
        let bundle =
            Bundle::of(&["true"]).with(|config| config["linux"]["resources"] = json!({"memory": memory}));
        let words = format!("linux.resources.memory.{name}: has no effect on {place}\n");
        let said = bundle.say(&["--debug", "run", &bundle.id]);
        assert!(said.code == 0 && said.stderr.starts_with(&format!("runtime: warning: {words}")), "{said:?}");
        let said = bundle.say(&["--strict", "run", &bundle.id]);
        assert!(said.code == 1 && said.stderr.ends_with(&words), "{said:?}");
        bundle.assert_nothing_is_left();
    }
}

#[test]
fn v10_device_rules_are_followed_in_order_and_add_nothing() {
    // Opened for both, a denied device is EPERM; an allowed one opens, or its driver is missing (ENXIO).
    let script = "for d in tun zero full fuse; do \
         dd if=/dev/$d of=/dev/null bs=1 count=0 2>&1 | grep -q 'Operation not permitted' && echo $d; done; :";
    let bundle = Bundle::of_script(script).with(|config| {
        config["linux"]["devices"] = json!([
            {"path": "/dev/tun", "type": "c", "major": 10, "minor": 200},
            {"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229},
        ]);
        config["linux"]["resources"]["devices"] = json!([
            {"allow": false, "access": "rwm"},
            {"allow": true, "type": "c", "major": 10, "minor": 200, "access": "rwm"},
            {"allow": true, "type": "c", "major": 10, "minor": 229, "access": "rwm"},
            {"allow": false, "type": "c", "major": 10, "minor": 200, "access": "rwm"},
            {"allow": false, "type": "c", "major": 1, "minor": 7, "access": "rwm"},
        ]);
    });
    assert_eq!(bundle.run_well(), "tun\nfull\n");
}

#[test]
fn v11_what_must_be_above_zero_absolute_or_not_empty_is_refused() {
    for kind in ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"] {
        for timeout in [0, -1] {
            refuses(&format!("hooks.{kind}[1].timeout: must be above 0"), |config| {
                config["hooks"][kind] =
                    json!([{"path": "/bin/true"}, {"path": "/bin/true", "timeout": timeout}]);
            });
        }
        refuses(&format!("hooks.{kind}[0].path: \"bin/true\" is not absolute"), |config| {
            config["hooks"][kind] = json!([{"path": "bin/true"}]);
        });
    }
    refuses("annotations: a key must not be empty", |config| config["annotations"] = json!({"": "x"}));
    for list in ["maskedPaths", "readonlyPaths"] {
        refuses(&format!("linux.{list}[1]: \"proc/kcore\" is not absolute"), |config| {
            config["linux"][list] = json!(["/proc/kcore", "proc/kcore"]);
        });
    }
}

#[test]
fn v12_hooks_get_the_state_as_it_is_where_they_run() {
    let bundle = with_marks(Bundle::of(&["sleep", "1000"])).with(|config| {
        config["annotations"] = json!({"org.example.colour": "blue"});
        for kind in ["prestart", "createRuntime", "poststart", "poststop"] {
            config["hooks"][kind] = json!([hook(&format!("cat > marks/{kind}"))]);
        }
        config["hooks"]["startContainer"] = json!([hook("cat > /marks/startContainer")]);
    });
    // In the container's mount namespace before pivot_root, where the bundle still has its place.
    let mark = bundle.dir.join("marks/createContainer");
    let bundle = bundle.with(|config| {
        config["hooks"]["createContainer"] = json!([hook(&format!("cat > {}", mark.display()))]);
    });
    bundle.create();
    let pid: i64 = fs::read_to_string(bundle.dir.join("pid")).expect("pid").parse().expect("digits");
    bundle.start();
    assert_eq!(bundle.say(&["delete", "--force", &bundle.id]).code, 0);
    for (kind, status, asked) in [
        ("prestart", "creating", Some(pid)),
        ("createRuntime", "creating", Some(pid)),
        ("createContainer", "creating", Some(1)),
        ("startContainer", "created", Some(1)),
        ("poststart", "running", Some(pid)),
        ("poststop", "stopped", None),
    ] {
        let text = fs::read(bundle.dir.join("marks").join(kind)).expect(kind);
        let state: Value = serde_json::from_slice(&text).expect("JSON");
        let mut whole = json!({
            "ociVersion": "1.3.0", "id": bundle.id, "status": status, "bundle": bundle.dir,
            "annotations": {"org.example.colour": "blue"},
        });
        if let Some(pid) = asked {
            whole["pid"] = pid.into();
        }
        assert_eq!(state, whole, "{kind}");
    }
}

#[test]
fn v13_a_failing_poststart_hook_ends_and_destroys_the_container() {
    for verb in ["start", "run"] {
        let bundle = with_marks(Bundle::of(&["sleep", "1000"])).with(|config| {
            config["hooks"] = json!({
                "poststart": [hook("touch marks/first; exit 1"), hook("touch marks/second")],
                "poststop": [hook("touch marks/stopped")],
            });
        });
        let said = if verb == "start" {
            bundle.create();
            bundle.say(&["start", &bundle.id])
        } else {
            bundle.run()
        };
        assert!(said.code == 1 && said.stderr.contains("error running poststart hook #0"), "{said:?}");
        assert_eq!(bundle.status(), "none");
        assert_eq!(marks(&bundle), ["first", "stopped"]);
        bundle.assert_nothing_is_left();
    }
}

#[test]
fn v14_an_unknown_capability_is_a_warning() {
    let bundle = Bundle::of_script("grep CapEff /proc/self/status").with(|config| {
        for set in ["bounding", "effective", "permitted"] {
            config["process"]["capabilities"][set] = json!(["CAP_KILL", "CAP_FROM_THE_FUTURE"]);
        }
    });
    let said = bundle.say(&["--debug", "run", &bundle.id]);
    assert_eq!((said.code, said.stdout.as_str()), (0, "CapEff:\t0000000000000020\n"), "{said:?}");
    assert_eq!(
        said.stderr.matches("ignoring unknown capability \"CAP_FROM_THE_FUTURE\"").count(),
        3,
        "{said:?}"
    );
    // The same in what exec is given.
    bundle.create();
    let process = json!({
        "user": {"uid": 0, "gid": 0}, "cwd": "/", "args": ["/bin/true"],
        "capabilities": {"bounding": ["CAP_FROM_THE_FUTURE"]},
    });
    fs::write(bundle.dir.join("process.json"), process.to_string()).expect("write");
    let said = bundle.exec(&["--process", "process.json", &bundle.id]);
    assert_eq!(said.code, 0, "{said:?}");
}

#[test]
fn v15_a_namespace_of_another_type_is_an_error() {
    for (position, kind) in ["pid", "network", "ipc", "uts", "mount", "cgroup"].into_iter().enumerate() {
        let other = if kind == "uts" { "/proc/self/ns/ipc" } else { "/proc/self/ns/uts" };
        let words = format!("linux.namespaces[{position}].path: \"{other}\" is a namespace of another type");
        refuses(&words, |config| config["linux"]["namespaces"][position]["path"] = json!(other));
    }
}

#[test]
fn v16_a_failing_hook_in_create_destroys_the_container_before_its_program_ran() {
    for kind in ["prestart", "createRuntime", "createContainer"] {
        for verb in ["create", "run"] {
            let bundle = with_marks(Bundle::of(&["touch", "/marks/program"])).with(|config| {
                config["hooks"][kind] = json!([hook("echo out of luck; exit 7"), hook("touch marks/second")]);
                config["hooks"]["poststop"] = json!([hook("touch marks/stopped")]);
            });
            let said = bundle.say_detached(&[verb, &bundle.id]);
            let words =
                format!("error running {kind} hook #0: \"/bin/sh\": exit status: 7, output: out of luck\n");
            assert!(said.code == 1 && said.stderr.ends_with(&words), "{said:?}");
            assert_eq!(marks(&bundle), ["stopped"], "{kind}, {verb}");
            assert_eq!(bundle.status(), "none");
            bundle.assert_nothing_is_left();
        }
    }
}

#[test]
fn v17_a_failing_start_container_hook_is_the_error_of_start() {
    let bundle = with_marks(Bundle::of(&["touch", "/marks/program"])).with(|config| {
        config["hooks"] = json!({
            "startContainer": [hook("touch /marks/first; echo out of luck; exit 3"), hook("touch /marks/second")],
            "poststart": [hook("touch marks/poststart")],
            "poststop": [hook("touch marks/stopped")],
        });
    });
    bundle.create();
    let said = bundle.say(&["start", &bundle.id]);
    let words = "error running startContainer hook #0: \"/bin/sh\": exit status: 3, output: out of luck\n";
    assert!(said.code == 1 && said.stderr.ends_with(words), "{said:?}");
    bundle.wait_for("stopped");
    assert_eq!(marks(&bundle), ["first"]);
    assert_eq!(bundle.say(&["delete", &bundle.id]).code, 0);
    assert_eq!(marks(&bundle), ["first", "stopped"]);
    bundle.assert_nothing_is_left();
}

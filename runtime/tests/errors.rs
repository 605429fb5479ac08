//! Bad input: each gets one sentence that names the thing, a non-zero exit code, and leaves nothing.

mod harness;

use std::fs;

use harness::Bundle;
use serde_json::{Value, json};

/// `run` must fail with an error that contains `words`, on one line.
fn refused(bundle: &Bundle, words: &str) {
    let said = bundle.run();
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.stderr.starts_with("runtime: "), "{said:?}");
    assert!(said.stderr.contains(words), "{:?} is not in {:?}", words, said.stderr);
    assert_eq!(said.stderr.trim_end().lines().count(), 1, "{said:?}");
    tells_each_thing_once(&said.stderr);
    bundle.assert_nothing_is_left();
}

/// No cause stands twice, as it would if a message were wrapped on both sides of the fork.
fn tells_each_thing_once(line: &str) {
    let mut parts: Vec<&str> = line.trim_end().split(": ").collect();
    let count = parts.len();
    parts.sort_unstable();
    parts.dedup();
    assert_eq!(parts.len(), count, "something is said twice in {line:?}");
}

/// A command fails with exactly this line.
fn fails(bundle: &Bundle, args: &[&str], code: i32, line: &str) {
    let said = bundle.say(args);
    assert_eq!((said.code, said.stderr), (code, format!("runtime: {line}\n")), "{args:?}");
}

fn refuses(words: &str, change: impl FnOnce(&mut Value)) {
    refused(&Bundle::of(&["true"]).with(change), words);
}

#[test]
fn config_json_that_is_missing() {
    let bundle = Bundle::of(&["true"]);
    fs::remove_file(bundle.dir.join("config.json")).expect("remove config.json");
    refused(&bundle, "JSON specification file config.json not found");
}

#[test]
fn config_json_that_does_not_parse_names_line_and_column() {
    let bundle = Bundle::of(&["true"]);
    fs::write(bundle.dir.join("config.json"), "{\"ociVersion\": \"1.0.2\", ").expect("write config.json");
    refused(&bundle, "line 1 column");
}

#[test]
fn config_json_of_an_absurd_size() {
    let bundle = Bundle::of(&["true"]);
    let file = fs::File::create(bundle.dir.join("config.json")).expect("make config.json");
    file.set_len(1 << 40).expect("make it long");
    refused(&bundle, "bytes are more than any configuration has");
}

#[test]
fn rootfs_that_is_missing() {
    refuses("root.path \"nowhere\"", |config| config["root"]["path"] = json!("nowhere"));
}

#[test]
fn bundle_that_is_missing() {
    let bundle = Bundle::of(&["true"]);
    let said = bundle.say(&["run", "--bundle", "/no/such/bundle", &bundle.id]);
    assert_eq!(said.code, 1);
    assert!(said.stderr.contains("bundle \"/no/such/bundle\": "), "{said:?}");
}

#[test]
fn id_that_is_taken() {
    let bundle = Bundle::of(&["true"]);
    bundle.create();
    let said = bundle.run();
    assert!(said.code == 1 && said.stderr.contains("container with given ID already exists"), "{said:?}");
    assert_eq!(bundle.status(), "created");
}

#[test]
fn id_that_is_no_name() {
    let bundle = Bundle::of(&["true"]);
    for id in ["..", ".", "a/b", "a b", "\u{e9}"] {
        for verb in ["run", "state", "delete", "kill", "exec"] {
            let said = bundle.say(&[verb, id, "true"][..if verb == "exec" { 3 } else { 2 }]);
            let words = format!("invalid container ID format: {id:?}");
            assert!(said.code != 0 && said.stderr.contains(&words), "{verb} {id:?}: {said:?}");
        }
        bundle.assert_nothing_is_left();
    }
    fails(&bundle, &["run", ""], 1, "run failed: container id cannot be empty");
}

#[test]
fn signal_that_is_unknown() {
    let bundle = Bundle::of(&["true"]);
    bundle.create();
    let said = bundle.say(&["kill", &bundle.id, "SIGFOO"]);
    assert!(said.code == 1 && said.stderr.contains("unknown signal \"SIGFOO\""), "{said:?}");
}

#[test]
fn container_that_is_unknown() {
    let bundle = Bundle::of(&["true"]);
    for verb in ["state", "start", "kill", "delete", "ps"] {
        let said = bundle.say(&[verb, "nobody"]);
        assert!(said.code == 1 && said.stderr.contains("container does not exist"), "{verb}: {said:?}");
    }
    assert_eq!(bundle.say(&["delete", "--force", "nobody"]).code, 0);
    assert_eq!(bundle.say(&["exec", "nobody", "true"]).code, 255);
}

#[test]
fn bind_mount_without_source_names_the_path() {
    refuses(
        "mounts[4]: mount \"/does/not/exist\" on \"/mnt\": ENOENT: No such file or directory",
        |config| {
            let mounts = config["mounts"].as_array_mut().expect("mounts");
            mounts.push(json!({"destination": "/mnt", "source": "/does/not/exist", "options": ["rbind"]}));
        },
    );
}

#[test]
fn mount_options_that_the_file_system_does_not_know_are_named() {
    refuses("tmpfs: Unknown parameter 'flavour'", |config| {
        let mounts = config["mounts"].as_array_mut().expect("mounts");
        mounts.push(
            json!({"destination": "/mnt", "type": "tmpfs", "source": "x", "options": ["flavour=mint"]}),
        );
    });
}

#[test]
fn a_mount_option_with_a_nul_is_named() {
    refuses(r#"option "size=1\0k": EINVAL"#, |config| {
        let mounts = config["mounts"].as_array_mut().expect("mounts");
        mounts.push(json!({"destination": "/mnt", "type": "tmpfs", "options": ["size=1\0k"]}));
    });
}

#[test]
fn mappings_that_overlap_name_their_property() {
    refuses("linux.uidMappings and linux.gidMappings: write", |config| {
        let map = json!({"containerID": 0, "hostID": 1000, "size": 10});
        config["linux"]["namespaces"].as_array_mut().expect("namespaces").push(json!({"type": "user"}));
        config["linux"]["uidMappings"] = json!([map, map]);
        config["linux"]["gidMappings"] = json!([map]);
    });
}

#[test]
fn file_system_that_the_kernel_does_not_know() {
    refuses("open file system type \"nonsensefs\"", |config| {
        let mounts = config["mounts"].as_array_mut().expect("mounts");
        mounts.push(json!({"destination": "/mnt", "type": "nonsensefs", "source": "x"}));
    });
}

#[test]
fn mount_over_the_root() {
    refuses("mountpoint is on the top of rootfs", |config| {
        let mounts = config["mounts"].as_array_mut().expect("mounts");
        mounts.push(json!({"destination": "/tmp/..", "type": "tmpfs", "source": "x"}));
    });
}

#[test]
fn executable_that_is_not_there() {
    refuses("exec: \"nonexist\": executable file not found in $PATH", |config| {
        config["process"]["args"] = json!(["nonexist"]);
    });
    refuses("exec: \"/nope\": stat /nope: no such file or directory", |config| {
        config["process"]["args"] = json!(["/nope"]);
    });
    refuses("exec: \"/etc\": is a directory: permission denied", |config| {
        config["process"]["args"] = json!(["/etc"])
    });
}

#[test]
fn executable_without_permission_or_format() {
    let bundle = Bundle::of(&["/mnt/data"]);
    fs::write(bundle.dir.join("data"), "no program").expect("write a file");
    harness::copy(bundle.dir.join("data"), bundle.rootfs("mnt/data"));
    refused(&bundle, "exec: \"/mnt/data\": permission denied");
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(bundle.rootfs("mnt/data"), fs::Permissions::from_mode(0o755)).expect("chmod");
    refused(&bundle, "exec /mnt/data: exec format error");
}

#[test]
fn process_without_arguments() {
    refuses("args must not be empty", |config| config["process"]["args"] = json!([]));
}

#[test]
fn working_folder_that_is_relative_or_a_file() {
    refuses("Cwd must be an absolute path", |config| config["process"]["cwd"] = json!("tmp"));
    refuses("chdir to cwd (\"/bin/busybox\")", |config| config["process"]["cwd"] = json!("/bin/busybox"));
}

#[test]
fn limits_that_make_no_sense() {
    refuses("process.rlimits[1].type: RLIMIT_NOFILE is there twice", |config| {
        let one = json!({"type": "RLIMIT_NOFILE", "soft": 10, "hard": 10});
        config["process"]["rlimits"] = json!([one, one]);
    });
    refuses("memory+swap limit should be >= memory limit", |config| {
        config["linux"]["resources"] = json!({"memory": {"limit": 2000000, "swap": 1000000}});
    });
}

#[test]
fn namespace_of_the_wrong_type() {
    refuses("linux.namespaces[1].path: \"/proc/self/ns/uts\" is a namespace of another type", |config| {
        config["linux"]["namespaces"][1]["path"] = json!("/proc/self/ns/uts");
    });
    refuses("is not a namespace file", |config| {
        config["linux"]["namespaces"][1]["path"] = json!("/etc/passwd");
    });
}

#[test]
fn user_that_the_user_namespace_does_not_map() {
    refuses("cannot setuid to unmapped uid 5 in user namespace", |config| {
        let namespaces = config["linux"]["namespaces"].as_array_mut().expect("namespaces");
        namespaces.push(json!({"type": "user"}));
        let map = json!([{"containerID": 0, "hostID": 100000, "size": 1}]);
        config["linux"]["uidMappings"] = map.clone();
        config["linux"]["gidMappings"] = map;
        config["process"]["user"]["uid"] = json!(5);
    });
}

#[test]
fn state_folder_on_a_full_disk() {
    let bundle = Bundle::of(&["true"]);
    let script = format!(
        "mkdir small && mount -t tmpfs -o size=4k,nr_inodes=8 small small && {:?} --root small run {}; code=$?; ls -A small; exit $code",
        harness::runtime(),
        bundle.id
    );
    let output = std::process::Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-c", &script])
        .current_dir(&bundle.dir)
        .output()
        .expect("run unshare");
    let said = harness::said(output);
    assert_eq!(said.code, 1, "{said:?}");
    // Two pages of configuration do not fit on one.
    let wide = said.stderr.contains("No space left on device");
    assert!(wide && said.stderr.contains(".json"), "{said:?}");
    assert_eq!(said.stdout, "", "something is left in the state folder");
    bundle.assert_nothing_is_left();
}

#[test]
fn errors_go_to_the_log_as_one_json_object() {
    let bundle = Bundle::of(&["nonexist"]);
    let said = bundle.say(&["--log", "log.json", "--log-format", "json", "run", &bundle.id]);
    assert_eq!(said.code, 1);
    let line = fs::read_to_string(bundle.dir.join("log.json")).expect("read the log");
    let logged: Value = serde_json::from_str(&line).expect("one JSON object");
    assert_eq!(logged["level"], "error");
    assert_eq!(format!("runtime: {}\n", logged["msg"].as_str().expect("a message")), said.stderr);
}

#[test]
fn debug_tells_the_stages_of_a_new_process_in_runcs_words() {
    let bundle = Bundle::of(&["sleep", "1000"]);
    let said = bundle.say_detached(&["--debug", "run", "--detach", &bundle.id]);
    let all = ["nsexec container setup: affinity: 0x", "child process in init()", "init: closing the pipe"];
    assert!(said.code == 0 && all.iter().all(|stage| said.stderr.contains(stage)), "{said:?}");
    let said = bundle.say(&["--debug", "--log", "log", "exec", &bundle.id, "true"]);
    assert_eq!((said.code, said.stderr.as_str()), (0, ""), "{said:?}");
    let log = std::fs::read_to_string(bundle.dir.join("log")).expect("read the log");
    let all =
        ["nsexec container setup: affinity: 0x", "child process in init()", "setns_init: about to exec"];
    assert!(all.iter().all(|stage| log.contains(stage)), "{log}");
    assert!(log.lines().all(|line| line.contains(" level=debug msg=")), "{log}");
}

#[test]
fn list_below_a_root_that_is_missing() {
    let bundle = Bundle::of(&["true"]);
    let root = bundle.dir.join("state");
    fails(&bundle, &["list"], 1, &format!("--root {root:?}: No such file or directory (os error 2)"));
    std::fs::create_dir(root).expect("make a folder");
    assert_eq!(bundle.say(&["list", "--quiet"]).code, 0);
}

#[test]
fn help_for_a_command_that_there_is_not() {
    let bundle = Bundle::of(&["true"]);
    fails(&bundle, &["foo", "-h"], 1, "No help topic for 'foo'");
    fails(&bundle, &["help", "foo"], 1, "No help topic for 'foo'");
    fails(&bundle, &["foo"], 1, "unknown command \"foo\" (see runtime --help)");
}

#[test]
fn unknown_options_are_named() {
    let bundle = Bundle::of(&["true"]);
    let said = bundle.say(&["run", "--frobnicate", &bundle.id]);
    assert!(
        said.code == 1 && said.stderr.ends_with(": flag provided but not defined: -frobnicate\n"),
        "{said:?}"
    );
    let said = bundle.say(&["--cgroup-manager", "frob", "run", &bundle.id]);
    assert!(said.code == 1 && said.stderr.contains("--cgroup-manager: unknown manager \"frob\""), "{said:?}");
}

/// What engines look for, to the letter, with the verb before it and whole.
#[test]
fn messages_that_engines_look_for() {
    let bundle = Bundle::of(&["sleep", "1000"]);
    let id = bundle.id.as_str();
    let line = |text: &str| text.replace("ID", id);
    fails(&bundle, &["start", id], 1, &line("container does not exist: ID"));
    fails(&bundle, &["exec", id, "true"], 255, &line("exec failed: container does not exist: ID"));
    bundle.create();
    fails(
        &bundle,
        &["create", id],
        1,
        &line("create failed: container with given ID already exists: ID")
            .replace(&format!("given {id}"), "given ID"),
    );
    bundle.start();
    fails(&bundle, &["start", id], 1, "cannot start an already running container");
    fails(&bundle, &["delete", id], 1, &line("cannot delete container ID that is not stopped: running"));
    fails(&bundle, &["kill", id, "SIGFOO"], 1, "unknown signal \"SIGFOO\"");
    for (args, words) in [
        (&["nonexist"][..], "exec: \"nonexist\": executable file not found in $PATH"),
        (&["/nope"], "exec: \"/nope\": stat /nope: no such file or directory"),
        (&["/bin/busybox/x"], "exec: \"/bin/busybox/x\": stat /bin/busybox/x: not a directory"),
        (&["/etc"], "exec: \"/etc\": is a directory: permission denied"),
        (
            &["--cwd", "/bin/sh", "true"],
            "chdir to cwd (\"/bin/sh\") set in config.json failed: ENOTDIR: Not a directory",
        ),
    ] {
        let words = format!("exec failed: unable to start container process: {words}");
        let args = match args {
            ["--cwd", cwd, rest @ ..] => [&["exec", "--cwd", cwd, id], rest].concat(),
            args => [&["exec", id], args].concat(),
        };
        fails(&bundle, &args, 255, &words);
    }
    fails(
        &bundle,
        &["exec", "--cwd", "x", id, "true"],
        255,
        "exec failed: process.cwd: \"x\": Cwd must be an absolute path",
    );
    freeze(&bundle, true);
    let paused = "exec failed: cannot exec in a paused container (use --ignore-paused to override)";
    fails(&bundle, &["exec", id, "true"], 255, paused);
    freeze(&bundle, false);
    assert_eq!(bundle.say(&["kill", id, "KILL"]).code, 0);
    bundle.wait_for("stopped");
    fails(&bundle, &["start", id], 1, "cannot start a container that has stopped");
    fails(&bundle, &["kill", id], 1, "container not running");
    fails(&bundle, &["exec", id, "true"], 255, "exec failed: cannot exec in a stopped container");
    assert_eq!(bundle.say(&["kill", "--all", id]).code, 0);
}

/// By hand, in the container's own cgroup.
fn freeze(bundle: &Bundle, on: bool) {
    let (version_1, version_2) = if on { ("FROZEN", "1") } else { ("THAWED", "0") };
    for dir in bundle.cgroups() {
        for (file, value) in [("freezer.state", version_1), ("cgroup.freeze", version_2)] {
            if dir.join(file).exists() {
                fs::write(dir.join(file), value).expect("freeze or thaw");
            }
        }
    }
}

#[test]
fn terminals_without_somebody_to_take_them() {
    let bundle = Bundle::of(&["true"]).with(|config| config["process"]["terminal"] = json!(true));
    let without = "cannot allocate tty if runtime will detach without setting console socket";
    fails(&bundle, &["create", &bundle.id], 1, &format!("create failed: {without}"));
    fails(&bundle, &["run", "--detach", &bundle.id], 1, &format!("run failed: {without}"));
    let needless = "cannot use console socket if runtime will not detach or allocate tty";
    fails(&bundle, &["run", "--console-socket", "x", &bundle.id], 1, &format!("run failed: {needless}"));
    bundle.assert_nothing_is_left();
    let bundle = Bundle::of(&["sleep", "1000"]);
    let args = ["create", "--console-socket", "x", &bundle.id];
    fails(&bundle, &args, 1, &format!("create failed: {needless}"));
    bundle.create();
    let args = ["exec", "--tty", "--detach", &bundle.id, "true"];
    fails(&bundle, &args, 255, &format!("exec failed: {without}"));
    let args = ["exec", "--tty", "--console-socket", "x", &bundle.id, "true"];
    fails(&bundle, &args, 255, &format!("exec failed: {needless}"));
}

#[test]
fn a_memory_limit_that_nothing_fits_in() {
    let words = "unable to start container process: container init was OOM-killed (memory limit too low?)";
    refuses(words, |config| config["linux"]["resources"] = json!({"memory": {"limit": 4096}}));
}

#[test]
fn a_cgroup_that_is_frozen() {
    let bundle = Bundle::of(&["true"]);
    let hierarchy = std::path::Path::new("/sys/fs/cgroup/freezer");
    let (hierarchy, file, value) = if hierarchy.is_dir() {
        (hierarchy, "freezer.state", "FROZEN")
    } else {
        (std::path::Path::new("/sys/fs/cgroup"), "cgroup.freeze", "1")
    };
    let dir = hierarchy.join(&bundle.id);
    fs::create_dir(&dir).expect("make a cgroup");
    fs::write(dir.join(file), value).expect("freeze it");
    let said = bundle.run();
    fs::remove_dir(&dir).expect("it is left alone, and empty");
    assert!(said.stderr.ends_with(": container's cgroup unexpectedly frozen\n"), "{said:?}");
    assert_eq!(said.code, 1);
    bundle.assert_nothing_is_left();
}

/// A value of the wrong type or kind: the parser's own words, behind the property's name.
#[test]
fn values_of_the_wrong_kind_name_their_property() {
    type Change = fn(&mut Value);
    let cases: &[(&str, Change)] = &[
        ("root.path: invalid type: integer `3`", |c| c["root"]["path"] = json!(3)),
        ("process: missing field `cwd`", |c| {
            drop(c["process"].as_object_mut().expect("object").remove("cwd"))
        }),
        ("process.args: invalid type: string \"x\"", |c| c["process"]["args"] = json!("x")),
        ("process.user.uid: invalid value: integer `-1`", |c| c["process"]["user"]["uid"] = json!(-1)),
        ("mounts[1].options[0]: invalid type: map", |c| c["mounts"][1]["options"] = json!([{}])),
        ("linux.namespaces[2].type: unknown variant `foo`", |c| {
            c["linux"]["namespaces"][2]["type"] = json!("foo");
        }),
        ("linux.sysctl[\"net.ipv4.ip_forward\"]: invalid type", |c| {
            c["linux"]["sysctl"] = json!({"net.ipv4.ip_forward": 1});
        }),
        ("linux.resources.memory.limit: invalid type: string \"1g\"", |c| {
            c["linux"]["resources"] = json!({"memory": {"limit": "1g"}});
        }),
        ("hooks.poststop[0]: missing field `path`", |c| c["hooks"] = json!({"poststop": [{}]})),
        ("annotations.a: invalid type", |c| c["annotations"] = json!({"a": 1})),
        ("root.path: must not be empty", |c| c["root"]["path"] = json!("")),
        ("process.cwd: \"/a\\0\" contains a NUL byte", |c| c["process"]["cwd"] = json!("/a\0")),
        ("linux.devices[0]: \"/dev/x\" needs a major number", |c| {
            c["linux"]["devices"] = json!([{"path": "/dev/x", "type": "c"}]);
        }),
    ];
    for (words, change) in cases {
        refuses(words, change);
    }
}

#[test]
fn a_limit_that_cannot_be_raised_is_named() {
    let words = "process.rlimits: set RLIMIT_NOFILE to soft 1, hard 1099511627776";
    refuses(words, |config| {
        config["process"]["rlimits"] = json!([
            {"type": "RLIMIT_CORE", "soft": 0, "hard": 0},
            {"type": "RLIMIT_NOFILE", "soft": 1, "hard": 1_u64 << 40},
        ]);
    });
}

#[test]
fn a_namespace_path_that_is_a_fifo_is_no_hang() {
    let bundle = Bundle::of(&["true"]);
    let fifo = bundle.dir.join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::from_bits_truncate(0o600)).expect("mkfifo");
    let bundle = bundle.with(|config| config["linux"]["namespaces"][0]["path"] = json!(fifo));
    refused(&bundle, "is not a namespace file");
}

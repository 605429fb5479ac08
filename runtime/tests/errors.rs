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
    bundle.assert_nothing_is_left();
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
    for id in ["..", "a/b", "a b", ""] {
        let said = bundle.say(&["run", id]);
        assert!(said.code == 1 && said.stderr.contains("container"), "{id:?}: {said:?}");
        bundle.assert_nothing_is_left();
    }
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
    refuses("exec: \"/etc\": is a directory", |config| config["process"]["args"] = json!(["/etc"]));
}

#[test]
fn executable_without_permission_or_format() {
    let bundle = Bundle::of(&["/mnt/data"]);
    fs::write(bundle.dir.join("data"), "no program").expect("write a file");
    harness::copy(bundle.dir.join("data"), bundle.rootfs("mnt/data"));
    refused(&bundle, "exec: \"/mnt/data\": permission denied");
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(bundle.rootfs("mnt/data"), fs::Permissions::from_mode(0o755)).expect("chmod");
    refused(&bundle, "exec: \"/mnt/data\": exec format error");
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
fn properties_that_are_not_supported_yet_are_named() {
    refuses("linux.intelRdt is not supported yet", |config| {
        config["linux"]["intelRdt"] = json!({"closID": "x"})
    });
    refuses("linux.resources.hugepageLimits is not supported yet", |config| {
        config["linux"]["resources"] = json!({"hugepageLimits": [{"pageSize": "2MB", "limit": 1}]});
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
fn unknown_options_are_named() {
    let bundle = Bundle::of(&["true"]);
    let said = bundle.say(&["run", "--frobnicate", &bundle.id]);
    assert!(said.code == 1 && said.stderr.contains("--frobnicate"), "{said:?}");
    let said = bundle.say(&["--systemd-cgroup", "run", &bundle.id]);
    assert!(said.code == 1 && said.stderr.contains("--systemd-cgroup is not supported yet"), "{said:?}");
}

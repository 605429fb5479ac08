//! Commands around the containers: help for people, answers for engines.
#![allow(missing_docs, reason = "tests are sentences")]

mod harness;

use std::fs;

use harness::{Bundle, have};
use serde_json::Value;

/// Podman asks by the exit code of `checkpoint --help`, and for pods by the words of an option's error.
#[test]
fn checkpoint_and_restore_are_refused_with_any_option_and_harm_nothing() {
    let bundle = Bundle::of_script("while :; do sleep 1; done");
    bundle.create();
    bundle.start();
    let checkpoint =
        ["checkpoint", "--image-path", "/x", "--work-path=/y", "--tcp-established", "--leave-running"];
    let said = bundle.say(&[&checkpoint[..], &[&bundle.id]].concat());
    assert!(said.code == 1 && said.stderr.contains("checkpoint is not supported"), "{said:?}");
    assert_eq!(bundle.status(), "running");
    for args in [
        &["checkpoint", "--help"][..],
        &["restore", "--lsm-mount-context"],
        &["restore", "-no-subreaper", "--bundle", "/b", "x"],
    ] {
        let said = bundle.say(args);
        assert!(said.code == 1 && said.stderr.contains("is not supported"), "{said:?}");
        assert!(!said.stderr.contains("argument"), "{said:?}");
    }
}

#[test]
fn containers_are_killed_and_deleted_by_a_regular_expression() {
    let bundle = Bundle::of_script("while :; do sleep 1; done").with(|config| {
        config["linux"].as_object_mut().expect("linux").remove("cgroupsPath");
    });
    for id in ["web-1", "web-2", "db-1"] {
        let id = format!("{}-{id}", bundle.id);
        assert_eq!(bundle.say_detached(&["run", "-d", &id]).code, 0);
    }
    let pattern = format!("^{}-web-[0-9]+$", bundle.id);
    assert_eq!(bundle.say(&["kill", "--regex", &pattern, "KILL"]).code, 0);
    harness::wait_until("both have ended", || {
        let list = bundle.say(&["list"]).stdout;
        list.matches("stopped").count() == 2 && list.matches("running").count() == 1
    });
    let said = bundle.say(&["delete", "--regex", &bundle.id]);
    assert!(said.code == 1 && said.stderr.contains("that is not stopped: running"), "{said:?}");
    assert_eq!(bundle.say(&["list", "-q"]).stdout, format!("{}-db-1\n", bundle.id));
    assert_eq!(bundle.say(&["delete", "-f", "-r", "nobody|db"]).code, 0);
    assert_eq!(bundle.say(&["list", "-q"]).stdout, "");
    let said = bundle.say(&["delete", "--regex", "("]);
    assert!(said.code == 1 && said.stderr.contains("--regex"), "{said:?}");
}

#[test]
fn every_command_has_a_man_page_that_names_its_options() {
    let bundle = Bundle::of_script("true");
    let pages = bundle.dir.join("man");
    fs::create_dir(&pages).expect("mkdir");
    assert_eq!(bundle.say(&["man", "man"]).code, 0);
    let main = fs::read_to_string(pages.join("runtime.8")).expect("read");
    for word in ["systemd\\-cgroup", "NOTIFY_SOCKET", "run.oci.keep_original_groups", "runtime\\-exec(8)"] {
        assert!(main.contains(word), "{word} is not in {main}");
    }
    let help = bundle.say(&["--help"]).stdout;
    let commands =
        help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    for command in commands.filter_map(|line| line.split_whitespace().next()).filter(|name| *name != "help") {
        assert!(pages.join(format!("runtime-{command}.8")).exists(), "{command} has none");
    }
    let exec = fs::read_to_string(pages.join("runtime-exec.8")).expect("read");
    assert!(exec.contains("preserve\\-fds") && exec.contains("\\-\\-cgroup"), "{exec}");
}

#[test]
fn it_goes_by_the_name_that_it_is_installed_under() {
    let bundle = Bundle::of_script("true");
    let path = bundle.dir.join("runc");
    std::os::unix::fs::symlink(harness::runtime(), &path).expect("link");
    let say = |words: &[&str]| std::process::Command::new(&path).args(words).output().expect("run it");
    let (version, help) = (say(&["--version"]).stdout, say(&["create", "--help"]).stdout);
    assert!(String::from_utf8_lossy(&version).starts_with("runc version "), "{version:?}");
    assert!(String::from_utf8_lossy(&help).starts_with("NAME:\n   runc create - Make a"), "{help:?}");
    let error = say(&["foo"]).stderr;
    assert_eq!(String::from_utf8_lossy(&error), "runc: unknown command \"foo\" (see runc --help)\n");
}

#[test]
fn shells_get_scripts_that_they_can_read() {
    let bundle = Bundle::of_script("true");
    let script = bundle.say(&["completion", "bash"]);
    assert!(script.code == 0 && script.stdout.contains("--preserve-fds"), "{}", script.stderr);
    if have("bash") {
        fs::write(bundle.dir.join("script"), &script.stdout).expect("write");
        let status = std::process::Command::new("bash").arg("-n").arg(bundle.dir.join("script")).status();
        assert!(status.expect("run bash").success());
    }
    for shell in ["zsh", "fish"] {
        assert!(bundle.say(&["completion", shell]).stdout.contains("events"), "{shell}");
    }
    let said = bundle.say(&["completion", "cmd.exe"]);
    assert!(said.code == 1 && said.stderr.contains("cmd.exe"), "{said:?}");
}

#[test]
fn info_says_what_the_host_has() {
    let bundle = Bundle::of_script("true");
    let said = bundle.say(&["info"]);
    assert!(said.stdout.contains("cgroups:          version "), "{said:?}");
    let facts: Value = serde_json::from_str(&bundle.say(&["info", "--format", "json"]).stdout).expect("JSON");
    assert!(facts["kernel"].as_str().is_some_and(|text| text.starts_with("Linux ")), "{facts}");
}

/// CRI-O lets a pod set what stands there only if it trusts whoever wrote it.
#[test]
fn features_list_the_annotations_that_change_the_host() {
    let bundle = Bundle::of_script("true");
    let features: Value = serde_json::from_str(&bundle.say(&["features"]).stdout).expect("JSON");
    let list = features["potentiallyUnsafeConfigAnnotations"].as_array().expect("a list");
    for name in ["bundle", "org.systemd.property.", "run.oci."] {
        assert!(list.contains(&name.into()), "{name}");
    }
}

#[test]
fn errors_go_to_a_file_by_cruns_prefix_too() {
    let bundle = Bundle::of_script("true");
    let said = bundle.say(&["--log", "file:errors", "--log-format=json", "state", "nobody"]);
    assert_eq!(said.code, 1);
    let line: Value =
        serde_json::from_slice(&fs::read(bundle.dir.join("errors")).expect("read")).expect("JSON");
    assert_eq!(line["msg"], "container does not exist: nobody");
    if !std::path::Path::new("/run/systemd/journal/socket").exists() {
        let said = bundle.say(&["--log", "journald:me", "state", "nobody"]);
        assert!(said.stderr.contains("--log: connect to /run/systemd/journal/socket"), "{said:?}");
    }
}

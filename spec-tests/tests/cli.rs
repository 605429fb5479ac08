//! The suite's command line: what it prints, its exit codes, that it always ends and leaves nothing.

mod suite;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use suite::{folder, needs, spec_tests};

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn list_names_every_case_once_with_its_demands() {
    let folder = folder();
    let output = spec_tests(folder.path(), &["--list"]);
    assert!(output.status.success());
    let text = text(&output.stdout);
    let mut names: Vec<&str> = text.lines().filter(|line| !line.starts_with(' ')).collect();
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), count, "a name stands twice");
    assert!(text.contains("kill/sends_the_signal_by_name_and_number\n    MUST kill-sends: "), "{text}");
}

#[test]
fn every_demand_is_proved_by_a_case() {
    let proved: Vec<&str> =
        spec_tests::suite::cases().flat_map(|case| case.proves).map(|requirement| requirement.id).collect();
    for requirement in spec_tests::requirement::ALL {
        assert!(proved.contains(&requirement.id), "{} is proved by nothing", requirement.id);
    }
}

#[test]
fn all_formats_end_with_the_counts() {
    let Some(runc) = needs("runc") else { return };
    let folder = folder();
    let runc = runc.to_string_lossy();
    let run = |format| {
        let args =
            ["--runtime", &runc, "--format", format, "--filter", "kill/of_", "--filter", "hooks/refuses"];
        spec_tests(folder.path(), &args)
    };
    let lines = run("lines");
    assert_eq!(lines.status.code(), Some(1), "{}", text(&lines.stderr));
    assert!(text(&lines.stdout).ends_with("\n2 passed, 2 failed, 0 skipped\n"), "{}", text(&lines.stdout));
    let tap = text(&run("tap").stdout);
    assert!(
        tap.starts_with("TAP version 13\n1..4\nok 1 - kill/of_a_stopped_container_is_an_error\n"),
        "{tap}"
    );
    assert!(
        tap.contains("\nnot ok 3 - hooks/refuses_a_timeout_of_nothing\n# MUST hooks-timeout-positive: "),
        "{tap}"
    );
    assert!(tap.ends_with("# 2 passed, 2 failed, 0 skipped\n"), "{tap}");
    let json: serde_json::Value = serde_json::from_slice(&run("json").stdout).expect("JSON");
    assert_eq!((json["passed"].as_u64(), json["failed"].as_u64()), (Some(2), Some(2)), "{json:#}");
    assert_eq!(fs::read_dir(folder.path()).expect("folder").count(), 0, "temporary files are left");
}

#[test]
fn a_run_in_which_all_passes_succeeds() {
    let Some(runc) = needs("runc") else { return };
    let folder = folder();
    let output = spec_tests(folder.path(), &["--runtime", &runc.to_string_lossy(), "--filter", "user/"]);
    assert!(output.status.success(), "{}", text(&output.stdout));
}

#[test]
fn what_cannot_run_is_an_error_of_its_own() {
    let folder = folder();
    for (args, message) in [
        (&["--runtime", "/nowhere/runtime"][..], "runtime /nowhere/runtime: No such file"),
        (&["--runtime", "no-such-runtime"], "runtime no-such-runtime: not on PATH"),
        (&["--runtime", "runc", "--filter", "no such case"], "no case has no such case in its name"),
        (&["--runtime", "runc", "--probe", "/nowhere/probe"], ""),
        (&[], "--runtime"),
    ] {
        let output = spec_tests(folder.path(), args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(text(&output.stderr).contains(message), "{args:?}: {}", text(&output.stderr));
        assert!(output.stdout.is_empty(), "{args:?}: {}", text(&output.stdout));
    }
}

#[test]
fn a_runtime_that_hangs_is_stopped() {
    if needs("sh").is_none() {
        return;
    }
    let folder = folder();
    let script = folder.path().join("hangs");
    fs::write(&script, "#!/bin/sh\nsleep 1000\n").expect("write the script");
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).expect("permissions");
    let args = ["--runtime", &script.to_string_lossy(), "--timeout", "1", "--filter", "state/of_an_unknown"];
    let output = spec_tests(folder.path(), &args);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stdout).contains("did not end within 1 s"), "{}", text(&output.stdout));
}

#[test]
fn an_interrupted_run_leaves_nothing() {
    let Some(runc) = needs("runc") else { return };
    let folder = folder();
    let run = Command::new(env!("CARGO_BIN_EXE_spec-tests"))
        .args(["--probe", env!("CARGO_BIN_EXE_probe"), "--runtime"])
        .arg(runc)
        .env("TMPDIR", folder.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("run spec-tests");
    // As soon as the first bundle is there, so in the middle of a case.
    let start = Instant::now();
    while !bundles(folder.path()) && start.elapsed() < Duration::from_secs(10) {
        std::thread::sleep(Duration::from_millis(5));
    }
    let pid = nix::unistd::Pid::from_raw(run.id().cast_signed());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).expect("interrupt");
    let output = run.wait_with_output().expect("wait");
    assert_eq!(output.status.code(), Some(2), "{}", text(&output.stdout));
    let message = text(&output.stderr);
    assert!(message.starts_with("spec-tests: interrupted in state/"), "{message}");
    assert_eq!(fs::read_dir(folder.path()).expect("folder").count(), 0, "temporary files are left");
}

/// Whether a case has made a bundle: `spec-tests-X/case-Y/bundle-1`.
fn bundles(folder: &Path) -> bool {
    let below = |path: &Path| fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path());
    below(folder).flat_map(|run| below(&run).collect::<Vec<_>>()).any(|case| case.join("bundle-1").exists())
}

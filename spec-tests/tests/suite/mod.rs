//! Runs the suite's program for the tests.
#![allow(dead_code, reason = "each test program uses a part of it")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

/// Runs `spec-tests` with its temporary files below `folder`.
pub(crate) fn spec_tests(folder: &Path, args: &[&str]) -> Output {
    command(folder, args).output().expect("run spec-tests")
}

fn command(folder: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_spec-tests"));
    command.args(["--probe", env!("CARGO_BIN_EXE_probe")]).args(args).env("TMPDIR", folder);
    command
}

/// Runs the cases whose name has `filter`, and returns the JSON report.
pub(crate) fn report(folder: &Path, runtime: &str, filter: &str) -> Value {
    report_within(folder, runtime, filter, "10")
}

/// The same with another time limit for each step, in seconds.
pub(crate) fn report_within(folder: &Path, runtime: &str, filter: &str, timeout: &str) -> Value {
    let args = ["--runtime", runtime, "--format", "json", "--filter", filter, "--timeout", timeout];
    parsed(&spec_tests(folder, &args))
}

/// The same with variables that the runtime finds in its environment.
pub(crate) fn report_with(folder: &Path, runtime: &str, filter: &str, env: &[(&str, &str)]) -> Value {
    let args = ["--runtime", runtime, "--format", "json", "--filter", filter];
    let output = command(folder, &args).envs(env.iter().copied()).output();
    parsed(&output.expect("run spec-tests"))
}

fn parsed(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)))
}

/// The names of the cases with this outcome.
pub(crate) fn with_outcome<'a>(report: &'a Value, outcome: &str) -> Vec<&'a str> {
    let cases = report["cases"].as_array().expect("cases");
    let chosen = cases.iter().filter(|case| case["outcome"] == outcome);
    chosen.map(|case| case["name"].as_str().expect("name")).collect()
}

/// Where a program is, when the test can run at all; else says why not.
pub(crate) fn needs(program: &str) -> Option<PathBuf> {
    if !nix::unistd::geteuid().is_root() {
        println!("SKIP: containers are made as root");
        return None;
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    // sudo and su leave out what only root runs.
    let folders = std::env::split_paths(&path).chain(["/usr/sbin", "/sbin"].map(PathBuf::from));
    let found = folders.map(|folder| folder.join(program)).find(|file| file.is_file());
    if found.is_none() {
        println!("SKIP: there is no {program}");
    }
    found
}

/// A folder that is open to users of containers.
pub(crate) fn folder() -> tempfile::TempDir {
    use std::os::unix::fs::PermissionsExt;
    let permissions = std::fs::Permissions::from_mode(0o755);
    tempfile::Builder::new().permissions(permissions).tempdir().expect("temporary folder")
}

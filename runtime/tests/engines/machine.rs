//! A test on a machine of its own: the script `machine` beside this file runs this program once more in
//! new namespaces, for one test only.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// What a command printed, and its exit code.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Runs the test on a machine with these programs. What it starts or makes there needs no cleaning up.
pub(crate) fn on_a_machine<F: FnOnce()>(programs: &[&str], test: F) {
    if std::env::var_os("ENGINES_MACHINE").is_some() {
        return test();
    }
    if !nix::unistd::geteuid().is_root() {
        println!("SKIP: engines need root");
        return;
    }
    let root = std::env::var_os("ENGINES_ROOT").map_or_else(|| PathBuf::from("/"), PathBuf::from);
    for program in programs.iter().chain(&["unshare", "findmnt", "script", "busybox", "ip"]) {
        let found = ["bin", "sbin", "lib/podman"]
            .iter()
            .any(|folder| root.join("usr").join(folder).join(program).exists());
        assert!(found, "there is no {program} on this machine: .ci/packages installs it");
    }
    // `engines::podman::name_of_the_test::{{closure}}`: libtest knows the part between.
    let name = std::any::type_name::<F>();
    let name = name.trim_start_matches("engines::").trim_end_matches("::{{closure}}");
    let output = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/engines/machine"))
        .arg(std::env::current_exe().expect("this program"))
        .args(["--exact", name, "--nocapture"])
        .env("RUNTIME_BIN", runtime())
        .stdin(Stdio::null())
        .output()
        .expect("run the machine");
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success() && stdout.contains("1 passed"), "on the machine:\n{stdout}\n{stderr}");
    stdout.lines().filter(|line| line.contains("SKIP: ")).for_each(|line| println!("{line}"));
}

pub(crate) fn runtime() -> String {
    let named = std::env::var("RUNTIME_BIN").ok();
    named.unwrap_or_else(|| env!("CARGO_BIN_EXE_runtime").to_owned())
}

/// A file that the project ships for engines.
pub(crate) fn contrib(name: &str) -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../contrib").join(name);
    fs::read_to_string(&file).unwrap_or_else(|error| panic!("read {}: {error}", file.display()))
}

/// Puts the runtime where `contrib/` says it is, as `make install` does; and takes the others away, so
/// that no engine runs anything through them in secret.
pub(crate) fn install_runtime() {
    must(&["install", &runtime(), "/usr/local/bin/runtime"]);
    must(&["rm", "-f", "/usr/bin/crun", "/usr/bin/runc", "/usr/sbin/runc"]);
}

pub(crate) fn write(file: &str, content: &str) {
    let folder = Path::new(file).parent().expect("a path of a file");
    fs::create_dir_all(folder).and_then(|()| fs::write(file, content)).expect(file);
}

/// Runs a command, two minutes at most.
pub(crate) fn say(line: &[&str]) -> Said {
    said(Command::new("timeout").arg("120").args(line).stdin(Stdio::null()).output().expect("run a program"))
}

fn said(output: Output) -> Said {
    Said {
        code: output.status.code().unwrap_or(-1),
        stdout: text(&output.stdout),
        stderr: text(&output.stderr),
    }
}

/// Runs a command that has to work, and gives what it printed.
pub(crate) fn must(line: &[&str]) -> String {
    let said = say(line);
    assert_eq!(said.code, 0, "{line:?}: {}{}", said.stdout, said.stderr);
    said.stdout
}

/// Runs a line of the shell on a terminal of its own, at which somebody sits who types nothing.
pub(crate) fn on_a_terminal(line: &str) -> Said {
    let mut script = Command::new("timeout")
        .args(["120", "script", "--quiet", "--return", "--command", line, "/dev/null"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("run script");
    // Closed at once, it would be an end of file at the terminal.
    let _held = script.stdin.take();
    said(script.wait_with_output().expect("wait for script"))
}

pub(crate) fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(30), "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A daemon that ends with the machine; its log is shown when the test fails.
pub(crate) struct Daemon {
    child: Child,
    log: &'static str,
}

impl Daemon {
    /// Starts it, and waits until `answers` works.
    pub(crate) fn start(line: &[&str], log: &'static str, answers: &[&str]) -> Self {
        let file = File::create(log).expect("make a log");
        let child = Command::new(line[0])
            .args(&line[1..])
            .stdin(Stdio::null())
            .stdout(file.try_clone().expect("the log"))
            .stderr(file)
            .spawn()
            .expect("start a daemon");
        let daemon = Self { child, log };
        wait_until(&format!("{answers:?} answers"), || say(answers).code == 0);
        daemon
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = fs::read_to_string(self.log).unwrap_or_default();
            eprintln!("{}:\n{log}", self.log);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

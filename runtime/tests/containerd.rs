//! A drop-in for runc: Debian's containerd runs containers through the runtime. Its daemon is started
//! with all of its state in a temporary folder, and an image is made of the machine's own busybox.
//!
//! `RUNTIME_BIN` names the runtime; without it the one that cargo built is tested.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

const IMAGE: &str = "example.test/busybox:latest";

/// A containerd of our own; gone with everything it made when dropped.
struct Containerd {
    folder: PathBuf,
    namespace: String,
    daemon: Child,
}

/// The reason why this cannot run here, if there is one.
fn missing() -> Option<String> {
    if !nix::unistd::geteuid().is_root() {
        return Some("containerd needs root".to_owned());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    ["containerd", "ctr", "umoci", "skopeo", "script", "/bin/busybox"]
        .into_iter()
        .find(|program| !std::env::split_paths(&path).any(|folder| folder.join(program).exists()))
        .map(|program| format!("there is no {program}"))
}

fn runtime() -> String {
    let named = std::env::var("RUNTIME_BIN").ok();
    named.unwrap_or_else(|| env!("CARGO_BIN_EXE_runtime").to_owned())
}

/// Runs a program that has to work.
fn must(folder: &Path, line: &[&str]) {
    let (program, args) = line.split_first().expect("a program");
    let output = Command::new(program).args(args).current_dir(folder).output().expect("run");
    assert!(output.status.success(), "{line:?}: {}", String::from_utf8_lossy(&output.stderr));
}

impl Containerd {
    /// Starts it and imports the image. `name` keeps tests apart that run side by side.
    fn start(name: &str) -> Self {
        let namespace = format!("test-{name}-{}", std::process::id());
        let folder = std::env::temp_dir().join(&namespace);
        fs::create_dir(&folder).expect("temporary folder");
        let config = format!(
            r#"version = 2
root = "{folder}/root"
state = "{folder}/state"
disabled_plugins = [
  "io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt", "io.containerd.snapshotter.v1.aufs",
  "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.zfs",
]
[grpc]
address = "{folder}/grpc.sock"
[ttrpc]
address = "{folder}/ttrpc.sock"
"#,
            folder = folder.display()
        );
        fs::write(folder.join("config.toml"), config).expect("write config.toml");
        let log = fs::File::create(folder.join("log")).expect("log");
        let daemon = Command::new("containerd")
            .args(["--config", &folder.join("config.toml").to_string_lossy()])
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("log"))
            .stderr(log)
            .spawn()
            .expect("start containerd");
        // From here on drop cleans up, also when an assertion fails.
        let containerd = Self { folder, namespace, daemon };
        let start = Instant::now();
        while !containerd.ctr(&["version"]).status.success() {
            let log = fs::read_to_string(containerd.folder.join("log")).unwrap_or_default();
            assert!(start.elapsed() < Duration::from_secs(30), "containerd does not answer: {log}");
            std::thread::sleep(Duration::from_millis(50));
        }
        containerd.import_image();
        containerd
    }

    fn import_image(&self) {
        let folder = &self.folder;
        must(folder, &["umoci", "init", "--layout", "image"]);
        must(folder, &["umoci", "new", "--image", "image:latest"]);
        must(folder, &["umoci", "unpack", "--image", "image:latest", "bundle"]);
        let bin = folder.join("bundle/rootfs/bin");
        fs::create_dir_all(&bin).expect("make bin");
        fs::copy("/bin/busybox", bin.join("busybox")).expect("copy busybox");
        for applet in ["sh", "echo", "cat", "tty", "sleep", "test"] {
            std::os::unix::fs::symlink("busybox", bin.join(applet)).expect("link an applet");
        }
        must(folder, &["umoci", "repack", "--image", "image:latest", "bundle"]);
        must(folder, &["umoci", "config", "--image", "image:latest", "--config.env", "PATH=/bin"]);
        let archive = format!("oci-archive:image.tar:{IMAGE}");
        must(folder, &["skopeo", "copy", "--quiet", "oci:image:latest", &archive]);
        let archive = folder.join("image.tar");
        let output = self.ctr(&["images", "import", "--snapshotter", "native", &archive.to_string_lossy()]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    fn ctr(&self, args: &[&str]) -> Output {
        self.command(args).output().expect("run ctr")
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("timeout");
        command.args(["60", "ctr", "--namespace", &self.namespace, "--address"]);
        command.arg(self.folder.join("grpc.sock")).args(args).stdin(Stdio::null());
        command
    }

    /// `ctr run` with options of its own and a command line for the container.
    fn run(&self, options: &[&str], id: &str, words: &[&str]) -> Output {
        let runtime = runtime();
        let mut args = vec!["run", "--snapshotter", "native", "--runc-binary", &runtime];
        args.extend(options);
        args.extend([IMAGE, id]);
        args.extend(words);
        self.ctr(&args)
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        // Whatever a failed test left running; each fails when there is nothing.
        let ids = String::from_utf8_lossy(&self.ctr(&["containers", "list", "--quiet"]).stdout).into_owned();
        for id in ids.split_whitespace() {
            self.ctr(&["tasks", "delete", "--force", id]);
            self.ctr(&["containers", "delete", id]);
        }
        let daemon = nix::unistd::Pid::from_raw(self.daemon.id().cast_signed());
        let _ = nix::sys::signal::kill(daemon, nix::sys::signal::Signal::SIGTERM);
        let _ = self.daemon.wait();
        let _ = fs::remove_dir_all(&self.folder);
        // Where containerd's shim keeps the runtime's state, and the cgroups above the containers'.
        let _ = fs::remove_dir_all(Path::new("/run/containerd/runc").join(&self.namespace));
        for hierarchy in fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
            let _ = fs::remove_dir(hierarchy.path().join(&self.namespace));
        }
        let _ = fs::remove_dir(Path::new("/sys/fs/cgroup").join(&self.namespace));
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn ctr_runs_a_command_and_gets_its_output_and_exit_code() {
    if let Some(reason) = missing() {
        println!("SKIP: {reason}");
        return;
    }
    let containerd = Containerd::start("run");
    let output = containerd.run(&["--rm"], "hello", &["echo", "hello"]);
    assert_eq!(text(&output.stdout), "hello\n", "{}", text(&output.stderr));
    assert!(output.status.success(), "{}", text(&output.stderr));

    let output = containerd.run(&["--rm"], "seven", &["sh", "-c", "exit 7"]);
    assert_eq!(output.status.code(), Some(7), "{}", text(&output.stderr));

    // The message has to come through the runtime's log, and name what is missing.
    let output = containerd.run(&["--rm"], "nothing", &["/no/such/program"]);
    assert!(!output.status.success());
    assert!(text(&output.stderr).contains("/no/such/program"), "{}", text(&output.stderr));
    let left = text(&containerd.ctr(&["containers", "list", "--quiet"]).stdout);
    assert!(!left.contains("hello") && !left.contains("seven"), "left: {left}");
}

#[test]
fn ctr_runs_a_command_on_a_terminal() {
    if let Some(reason) = missing() {
        println!("SKIP: {reason}");
        return;
    }
    let containerd = Containerd::start("tty");
    // script(1) gives ctr the terminal that it wants to have itself.
    let line = format!(
        "ctr --namespace {} --address {}/grpc.sock run --rm --tty --snapshotter native --runc-binary {} {IMAGE} \
         terminal sh -c 'tty; test -t 0 && test -t 1 && echo a terminal; exit 3'",
        containerd.namespace,
        containerd.folder.display(),
        runtime(),
    );
    let output = Command::new("timeout")
        .args(["60", "script", "--quiet", "--return", "--command", &line, "/dev/null"])
        .stdin(Stdio::null())
        .output()
        .expect("run script");
    let seen = text(&output.stdout);
    assert!(seen.contains("/dev/pts/0") && seen.contains("a terminal"), "{seen}");
    assert_eq!(output.status.code(), Some(3), "{seen}");
}

#[test]
fn ctr_execs_into_and_kills_a_detached_container() {
    if let Some(reason) = missing() {
        println!("SKIP: {reason}");
        return;
    }
    let containerd = Containerd::start("exec");
    let output = containerd.run(&["--detach"], "long", &["sleep", "1000"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let tasks = text(&containerd.ctr(&["tasks", "list"]).stdout);
    assert!(tasks.contains("RUNNING"), "{tasks}");

    let output =
        containerd.ctr(&["tasks", "exec", "--exec-id", "one", "long", "sh", "-c", "echo inside; exit 4"]);
    assert_eq!(text(&output.stdout), "inside\n", "{}", text(&output.stderr));
    assert_eq!(output.status.code(), Some(4), "{}", text(&output.stderr));

    let output = containerd.ctr(&["tasks", "kill", "--signal", "SIGKILL", "long"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let start = Instant::now();
    while !text(&containerd.ctr(&["tasks", "list"]).stdout).contains("STOPPED") {
        assert!(start.elapsed() < Duration::from_secs(20), "the task does not stop");
        std::thread::sleep(Duration::from_millis(50));
    }
    let output = containerd.ctr(&["tasks", "delete", "long"]);
    let message = text(&output.stderr);
    assert!(output.status.success() && message.contains("exit code 137"), "{message}");
    let output = containerd.ctr(&["containers", "delete", "long"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
}

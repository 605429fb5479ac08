//! What the tests stand on: one store with one image for all of them, and the runtimes.

use std::collections::HashMap;
use std::fs;
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::Value;

/// The one host of all tests that run at this moment; the last of them takes it away.
static HOST: Mutex<Weak<Host>> = Mutex::new(Weak::new());

/// Programs that are busybox by another name in the image.
const APPLETS: [&str; 30] = [
    "sh", "cat", "chmod", "dd", "df", "echo", "env", "false", "grep", "head", "hostname", "id", "ip", "kill",
    "ls", "mkdir", "mount", "ps", "pwd", "seq", "sleep", "stat", "stty", "touch", "true", "tty", "umask",
    "unshare", "wc", "yes",
];

/// A store with an image in it.
pub(crate) struct Host {
    folder: tempfile::TempDir,
    /// The name of the image.
    pub(crate) image: String,
}

/// A runtime that is here, and how to run it.
#[derive(Clone, Debug)]
pub(crate) struct Runtime {
    /// What to give to `--runtime`.
    pub(crate) program: String,
    /// It refuses a host that has both cgroup v1 and an (empty) v2: hide the latter from it.
    hide_unified: bool,
}

/// The host, or none with the reason printed: a test that cannot run here is skipped.
pub(crate) fn host() -> Option<Arc<Host>> {
    if !nix::unistd::geteuid().is_root() {
        println!("SKIP: not root");
        return None;
    }
    for program in ["docker-registry", "skopeo", "umoci", "busybox"] {
        if find(program).is_none() {
            println!("SKIP: {program} is not installed");
            return None;
        }
    }
    let mut shared = HOST.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    if let Some(host) = shared.upgrade() {
        return Some(host);
    }
    let host = Arc::new(Host::new());
    *shared = Arc::downgrade(&host);
    Some(host)
}

/// Runs a test with each runtime of this machine.
pub(crate) fn each_runtime(test: impl Fn(&Host, &Runtime)) {
    let Some(host) = host() else { return };
    let runtimes = runtimes();
    if runtimes.is_empty() {
        println!("SKIP: no OCI runtime");
    }
    for runtime in runtimes {
        println!("with {}", runtime.program);
        test(&host, &runtime);
    }
}

/// Runs a test with the first runtime: for what does not depend on it.
pub(crate) fn one_runtime(test: impl Fn(&Host, &Runtime)) {
    let Some(host) = host() else { return };
    match runtimes().first() {
        Some(runtime) => test(&host, runtime),
        None => println!("SKIP: no OCI runtime"),
    }
}

/// runc, crun, and ours: `RUNTIME_BIN`, or what a build of the workspace has left.
fn runtimes() -> Vec<Runtime> {
    let hybrid = Path::new("/sys/fs/cgroup/unified").exists();
    let mut all = Vec::new();
    if find("runc").is_some() {
        all.push(Runtime { program: "runc".into(), hide_unified: false });
    }
    if find("crun").is_some() {
        all.push(Runtime { program: "crun".into(), hide_unified: hybrid });
    }
    let beside = Path::new(env!("CARGO_BIN_EXE_manager")).with_file_name("runtime");
    let ours = std::env::var_os("RUNTIME_BIN").map_or(beside, PathBuf::from);
    if Command::new(&ours).arg("--version").output().is_ok_and(|output| output.status.success()) {
        all.push(Runtime { program: ours.display().to_string(), hide_unified: false });
    } else {
        println!("SKIP: {} is not built", ours.display());
    }
    all
}

fn find(program: &str) -> Option<PathBuf> {
    let folders = std::env::var_os("PATH")?;
    std::env::split_paths(&folders).map(|folder| folder.join(program)).find(|path| path.exists())
}

/// A name that no other container of this test run has.
pub(crate) fn unique(what: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("{what}-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

/// Asks until it is so; panics when it is not so in ten seconds.
pub(crate) fn wait_until(what: &str, mut so: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(10);
    while !so() {
        assert!(Instant::now() < end, "{what}");
        sleep(Duration::from_millis(10));
    }
}

/// What a command printed, and its exit code.
#[derive(Debug)]
pub(crate) struct Printed {
    /// Standard output.
    pub(crate) out: String,
    /// Standard error.
    pub(crate) err: String,
    /// The exit code, -1 after a signal.
    pub(crate) code: i32,
}

impl From<Output> for Printed {
    fn from(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Self { out: text(output.stdout), err: text(output.stderr), code: output.status.code().unwrap_or(-1) }
    }
}

impl Printed {
    /// Standard output, once it went well.
    pub(crate) fn ok(self) -> String {
        assert_eq!(self.code, 0, "{self:?}");
        self.out
    }
}

impl Host {
    fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("manager-test-").tempdir().unwrap();
        let registry = Registry::start(folder.path());
        let image = format!("127.0.0.1:{}/busybox:test", registry.port);
        push_image(folder.path(), &image);
        let host = Self { folder, image };
        host.plain(&["pull", "--quiet", &host.image]).ok();
        host
    }

    /// `--root`.
    pub(crate) fn root(&self) -> PathBuf {
        self.folder.path().join("root")
    }

    /// `--run-root`.
    pub(crate) fn run_root(&self) -> PathBuf {
        self.folder.path().join("run")
    }

    /// A new folder that goes away with the host.
    pub(crate) fn scratch(&self) -> PathBuf {
        let path = self.folder.path().join(unique("scratch"));
        fs::create_dir(&path).unwrap();
        path
    }

    /// The manager, ready to be run with `arguments`.
    pub(crate) fn command(&self, runtime: &Runtime, arguments: &[&str]) -> Command {
        let mut command = if runtime.hide_unified {
            let mut command = Command::new("unshare");
            command.args(["--mount", "--propagation", "private", "sh", "-c"]);
            command.arg("mount -t tmpfs tmpfs /sys/fs/cgroup/unified && exec \"$@\"").arg("sh");
            command.arg(env!("CARGO_BIN_EXE_manager"));
            command
        } else {
            Command::new(env!("CARGO_BIN_EXE_manager"))
        };
        command.arg("--root").arg(self.root()).arg("--run-root").arg(self.run_root());
        command.env("MANAGER_RUNTIME", &runtime.program).stdin(Stdio::null()).args(arguments);
        command
    }

    /// Runs the manager.
    pub(crate) fn manager(&self, runtime: &Runtime, arguments: &[&str]) -> Printed {
        self.command(runtime, arguments).output().unwrap().into()
    }

    /// `run --rm IMAGE ...` with flags before the image.
    pub(crate) fn run(&self, runtime: &Runtime, flags: &[&str], words: &[&str]) -> Printed {
        self.manager(runtime, &[&["run", "--rm"], flags, &[&self.image], words].concat())
    }

    /// Runs the manager where no runtime is needed.
    pub(crate) fn plain(&self, arguments: &[&str]) -> Printed {
        self.manager(&Runtime { program: "true".into(), hide_unified: false }, arguments)
    }

    /// `inspect` of one container.
    pub(crate) fn inspect(&self, name: &str) -> Value {
        let mut list: Value = serde_json::from_str(&self.plain(&["inspect", name]).ok()).unwrap();
        list[0].take()
    }

    /// A small file of a container.
    pub(crate) fn state(&self, id: &str, file: &str) -> Option<Value> {
        let text = fs::read(self.root().join("containers").join(id).join(file)).ok()?;
        serde_json::from_slice(&text).ok()
    }

    /// Fails when anything of a container is left anywhere.
    pub(crate) fn assert_gone(&self, id: &str) {
        assert_eq!(id.len(), 64, "{id:?} is no id");
        assert!(!self.root().join("containers").join(id).exists(), "its folder is left");
        assert!(!self.run_root().join(id).exists(), "its run folder is left");
        let names = fs::read_dir(self.root().join("container-names")).into_iter().flatten().flatten();
        let named = names.filter(|name| fs::read_link(name.path()).is_ok_and(|target| target.ends_with(id)));
        assert_eq!(named.count(), 0, "its name is left");
        for hierarchy in fs::read_dir("/sys/fs/cgroup").unwrap().flatten() {
            assert!(
                !hierarchy.path().join("manager").join(id).exists(),
                "a cgroup is left in {:?}",
                hierarchy.path()
            );
        }
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(id), "a mount is left");
        wait_until("a process is left", || processes_with(id).is_empty());
    }
}

impl Drop for Host {
    /// A test that failed may have left containers, which would outlive their folders.
    fn drop(&mut self) {
        for id in self.plain(&["ps", "--all", "--quiet", "--no-trunc"]).out.lines() {
            println!("left: {:?}", self.plain(&["rm", "--force", id]));
        }
    }
}

/// The command lines that have `text` in them.
pub(crate) fn processes_with(text: &str) -> HashMap<i32, String> {
    let mut found = HashMap::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        if line.contains(text) {
            found.insert(pid, line);
        }
    }
    found
}

/// A throw-away docker-registry.
struct Registry {
    child: Child,
    port: u16,
}

impl Registry {
    fn start(folder: &Path) -> Self {
        // Free now, and nobody else asks for it in the next millisecond.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let storage = folder.join("registry");
        let config = folder.join("registry.yml");
        let text = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: 127.0.0.1:{port}}}\n",
            storage.display()
        );
        fs::write(&config, text).unwrap();
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(config).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.process_group(0).spawn().unwrap();
        wait_until("docker-registry does not listen", || {
            std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
        Self { child, port }
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Makes an image of the machine's busybox and pushes it.
fn push_image(folder: &Path, name: &str) {
    let root = folder.join("tree");
    for inner in ["bin", "etc", "data", "root", "tmp", "var/www"] {
        fs::create_dir_all(root.join(inner)).unwrap();
    }
    fs::copy(find("busybox").unwrap(), root.join("bin/busybox")).unwrap();
    for applet in APPLETS {
        std::os::unix::fs::symlink("busybox", root.join("bin").join(applet)).unwrap();
    }
    fs::write(root.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\nweb:x:33:33::/var/www:/bin/sh\n")
        .unwrap();
    fs::write(root.join("etc/group"), "root:x:0:\nweb:x:33:\nlogs:x:4:web\n").unwrap();
    fs::write(root.join("data/seed"), "from the image\n").unwrap();
    std::os::unix::fs::chown(root.join("data/seed"), Some(33), Some(33)).unwrap();
    let layout = folder.join("layout");
    let tag = format!("{}:test", layout.display());
    let call = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).output().unwrap();
        assert!(
            output.status.success(),
            "{program} {arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    };
    call("umoci", &["init", "--layout", &layout.display().to_string()]);
    call("umoci", &["new", "--image", &tag]);
    call("umoci", &["insert", "--image", &tag, &root.display().to_string(), "/"]);
    call(
        "umoci",
        &[
            "config",
            "--image",
            &tag,
            "--config.cmd",
            "sh",
            "--config.env",
            "PATH=/bin",
            "--config.env",
            "FROM_IMAGE=yes",
            "--config.volume",
            "/data",
            "--config.label",
            "made.by=test",
            "--config.label",
            "run.oci.hooks.stdout=/escaped",
        ],
    );
    call("skopeo", &["copy", "--dest-tls-verify=false", &format!("oci:{tag}"), &format!("docker://{name}")]);
}

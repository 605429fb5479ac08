//! Bundles of busybox in a temporary folder, and the runtime to run them with: `RUNTIME_BIN`, the static
//! binary that `make test` builds, or the one that cargo has built. What a test makes is gone after it.
#![allow(dead_code, unreachable_pub, missing_docs, reason = "each test uses a part")]

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{Value, json};

static NUMBER: AtomicU32 = AtomicU32::new(0);

/// A temporary folder with a bundle and a state folder of its own.
pub struct Bundle {
    pub dir: PathBuf,
    /// A container id that no other test has.
    pub id: String,
}

/// What a command printed, and its exit code.
#[derive(Debug)]
pub struct Said {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

pub fn runtime() -> PathBuf {
    std::env::var_os("RUNTIME_BIN").map_or_else(|| env!("CARGO_BIN_EXE_runtime").into(), PathBuf::from)
}

impl Bundle {
    /// A bundle that runs a shell script.
    pub fn of_script(script: &str) -> Self {
        Self::of(&["/bin/sh", "-c", script])
    }

    pub fn of(args: &[&str]) -> Self {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let id = format!("runtime-test-{}-{number}", std::process::id());
        let dir = std::env::temp_dir().join(&id);
        for folder in ["bin", "dev", "proc", "sys", "tmp", "etc", "mnt"] {
            fs::create_dir_all(dir.join("rootfs").join(folder)).expect("make the rootfs");
        }
        copy("/bin/busybox", dir.join("rootfs/bin/busybox"));
        for name in [
            "sh", "cat", "sleep", "true", "id", "ls", "mount", "grep", "echo", "stat", "env", "pwd", "kill",
            "touch", "dd", "mkdir", "rmdir", "cut", "head", "ip",
        ] {
            std::os::unix::fs::symlink("busybox", dir.join("rootfs/bin").join(name))
                .expect("link to busybox");
        }
        let bundle = Self { dir, id };
        let config = default_config(args, &bundle.id);
        bundle.write(&config);
        bundle
    }

    /// Changes the configuration.
    pub fn with(self, change: impl FnOnce(&mut Value)) -> Self {
        self.change(change);
        self
    }

    /// The same where the bundle is in use.
    pub fn change(&self, change: impl FnOnce(&mut Value)) {
        let text = fs::read(self.dir.join("config.json")).expect("read config.json");
        let mut config = serde_json::from_slice(&text).expect("parse config.json");
        change(&mut config);
        self.write(&config);
    }

    fn write(&self, config: &Value) {
        fs::write(self.dir.join("config.json"), config.to_string()).expect("write config.json");
    }

    pub fn rootfs(&self, path: &str) -> PathBuf {
        self.dir.join("rootfs").join(path.trim_start_matches('/'))
    }

    /// A command line of the runtime with this bundle's state folder, in the bundle's folder.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(runtime());
        command.arg("--root").arg(self.dir.join("state")).args(args).current_dir(&self.dir);
        command.stdin(Stdio::null());
        command
    }

    pub fn say(&self, args: &[&str]) -> Said {
        said(self.command(args).output().expect("run the runtime"))
    }

    /// For `create` and `run --detach`, whose container inherits the standard streams: not through pipes
    /// that would then stay open.
    pub fn say_detached(&self, args: &[&str]) -> Said {
        let errors = self.dir.join("stderr");
        let file = fs::File::create(&errors).expect("make a file");
        let status = self.command(args).stdout(Stdio::null()).stderr(file).status().expect("run the runtime");
        Said {
            code: status.code().unwrap_or(-1),
            stdout: String::new(),
            stderr: fs::read_to_string(errors).expect("read the errors"),
        }
    }

    /// The same where a call that hangs is a failure, and beside others.
    pub fn say_in_time(&self, args: &[&str]) -> Said {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = |name: &str| self.dir.join(format!("{name}-{number}"));
        let [out, errors] =
            ["stdout", "stderr"].map(|name| fs::File::create(path(name)).expect("make a file"));
        let mut child = self.command(args).stdout(out).stderr(errors).spawn().expect("run the runtime");
        let begin = std::time::Instant::now();
        let mut pause = std::time::Duration::from_millis(2);
        while child.try_wait().expect("look for its end").is_none() {
            if begin.elapsed().as_secs() > 240 {
                child.kill().expect("kill the runtime");
                panic!("{args:?} hangs");
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(std::time::Duration::from_millis(500)); // hundreds may look at once
        }
        let status = child.wait().expect("wait for the runtime");
        let read = |name: &str| {
            let text = fs::read_to_string(path(name)).expect("read a file");
            fs::remove_file(path(name)).expect("remove a file");
            text
        };
        Said { code: status.code().unwrap_or(-1), stdout: read("stdout"), stderr: read("stderr") }
    }

    /// `run`s the container to its end.
    pub fn run(&self) -> Said {
        self.say(&["run", &self.id])
    }

    /// The same, and it must succeed.
    pub fn run_well(&self) -> String {
        let said = self.run();
        assert_eq!(said.code, 0, "{said:?}");
        said.stdout
    }

    pub fn create(&self) {
        let said = self.say_detached(&["create", "--pid-file", "pid", &self.id]);
        assert_eq!(said.code, 0, "{said:?}");
    }

    pub fn start(&self) {
        let said = self.say(&["start", &self.id]);
        assert_eq!(said.code, 0, "{said:?}");
    }

    pub fn exec(&self, args: &[&str]) -> Said {
        let mut words = vec!["exec"];
        words.extend(args);
        self.say(&words)
    }

    /// `status` of `state`, or `none` if there is no such container.
    pub fn status(&self) -> String {
        let said = self.say(&["state", &self.id]);
        if said.code != 0 {
            assert!(said.stderr.contains("container does not exist"), "{said:?}");
            return "none".to_owned();
        }
        let state: Value = serde_json::from_str(&said.stdout).expect("state is JSON");
        state["status"].as_str().expect("a status").to_owned()
    }

    pub fn wait_for(&self, status: &str) {
        wait_until(&format!("{} is {status}", self.id), || self.status() == status);
    }

    /// Nothing of the container is left: no state, cgroup, mount or process.
    pub fn assert_nothing_is_left(&self) {
        let state = self.dir.join("state");
        let left: Vec<_> =
            fs::read_dir(&state).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
        assert!(left.is_empty(), "state is left: {left:?}");
        assert_eq!(self.cgroups(), Vec::<PathBuf>::new(), "cgroups are left");
        let mounts = fs::read_to_string("/proc/self/mounts").expect("read the mounts");
        let dir = self.dir.to_string_lossy();
        assert!(!mounts.contains(&*dir), "mounts are left below {dir}: {mounts}");
    }

    /// The container's cgroups in all hierarchies.
    pub fn cgroups(&self) -> Vec<PathBuf> {
        cgroups_named(&self.id)
    }
}

/// The cgroups of this name at the top of each hierarchy.
pub fn cgroups_named(name: &str) -> Vec<PathBuf> {
    let roots = fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten().map(|entry| entry.path());
    let roots = roots.chain([PathBuf::from("/sys/fs/cgroup")]);
    // `cpu` is a symbolic link to `cpu,cpuacct`
    let roots = roots.filter(|root| !root.is_symlink());
    roots.map(|root| root.join(name)).filter(|dir| dir.exists()).collect()
}

/// By another process: a descriptor open for writing, inherited by a program that another test starts at
/// that moment, would make the copy "busy" for execve.
pub fn copy(from: impl AsRef<OsStr>, to: impl AsRef<OsStr>) {
    let status = Command::new("cp").arg(from).arg(to).status().expect("run cp");
    assert!(status.success(), "cp gave {status}");
}

impl Drop for Bundle {
    fn drop(&mut self) {
        let ids: Vec<String> = fs::read_dir(self.dir.join("state"))
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect();
        for id in ids {
            let _ = self.command(&["delete", "--force", &id]).output();
        }
        let _ = fs::remove_dir_all(&self.dir);
    }
}

pub fn said(output: Output) -> Said {
    Said {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

pub fn wait_until(what: &str, done: impl Fn() -> bool) {
    for _ in 0..500 {
        if done() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    panic!("waited 5 s in vain until {what}");
}

pub fn have(program: impl AsRef<OsStr>) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| Path::new(&dir).join(program.as_ref()).exists())
}

/// All namespaces but user and time, docker's mounts, few capabilities.
fn default_config(args: &[&str], id: &str) -> Value {
    let capabilities = json!(["CAP_KILL", "CAP_SETUID", "CAP_SETGID", "CAP_CHOWN", "CAP_DAC_OVERRIDE"]);
    json!({
        "ociVersion": "1.3.0",
        "root": {"path": "rootfs"},
        "process": {
            "user": {"uid": 0, "gid": 0},
            "args": args,
            "env": ["PATH=/bin"],
            "cwd": "/",
            "capabilities": {"bounding": capabilities, "effective": capabilities, "permitted": capabilities},
        },
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755", "size=65536k"]},
            {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
             "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]},
            {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]},
        ],
        "linux": {
            "cgroupsPath": format!("/{id}"),
            "namespaces": [
                {"type": "pid"}, {"type": "network"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}, {"type": "cgroup"},
            ],
        },
    })
}

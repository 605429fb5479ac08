//! Makes bundles: a folder with `config.json` and a root filesystem that holds only the probe.
//! The configuration is plain JSON, since some cases need one that is wrong.
//!
//! ```text
//! <bundle>/config.json     written when the container is created
//! <bundle>/rootfs/probe    and its libraries in lib, lib64 when it is not static
//! <bundle>/shared/         the same folder as /shared inside, after `share`
//! <bundle>/stdout, stderr  what the container's process writes
//! ```

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::{Value, json};

/// A bundle that is being made.
#[derive(Debug)]
pub struct Bundle {
    directory: PathBuf,
    probe: PathBuf,
    /// What becomes `config.json`.
    pub config: Value,
}

impl Bundle {
    /// A bundle in a new `directory`. `stage` is where [`crate::probe::Probe::stage`] put the probe,
    /// which the host runs from `probe`.
    pub(crate) fn new(directory: PathBuf, stage: &Path, probe: &Path) -> Result<Self> {
        let rootfs = directory.join("rootfs");
        for folder in ["", "lib", "dev", "proc", "sys", "tmp", "etc", "shared"] {
            fs::create_dir_all(rootfs.join(folder)).with_context(|| format!("make {}", rootfs.display()))?;
        }
        // Links and not copies: the root filesystems of a run share one probe.
        fs::hard_link(stage.join("probe"), rootfs.join("probe")).context("the probe in the bundle")?;
        for library in fs::read_dir(stage.join("lib")).context("the probe's libraries")? {
            let library = library.context("the probe's libraries")?;
            fs::hard_link(library.path(), rootfs.join("lib").join(library.file_name()))
                .context("the probe's libraries in the bundle")?;
        }
        // The loader's path is fixed in the program: /lib64 on most 64-bit machines, else /lib.
        symlink("lib", rootfs.join("lib64")).context("lib64 in the bundle")?;
        fs::create_dir(directory.join("shared")).context("shared folder of the bundle")?;
        Ok(Self { directory, probe: probe.to_owned(), config: default_config() })
    }

    /// The bundle's folder.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// A path in the root filesystem, as the host names it.
    pub fn rootfs(&self, path: &str) -> PathBuf {
        self.directory.join("rootfs").join(path)
    }

    /// Sets a property by its JSON pointer, as `/process/user/uid`, making what is above it.
    pub fn set(&mut self, pointer: &str, value: Value) -> &mut Self {
        let mut place = &mut self.config;
        for key in pointer.split('/').skip(1) {
            place = &mut place[key];
        }
        *place = value;
        self
    }

    /// Adds to a list by its JSON pointer, making the list.
    pub fn add(&mut self, pointer: &str, value: Value) -> &mut Self {
        let mut list = self.config.pointer(pointer).and_then(Value::as_array).cloned().unwrap_or_default();
        list.push(value);
        self.set(pointer, Value::Array(list))
    }

    /// Removes a property of the top level.
    pub fn remove(&mut self, key: &str) -> &mut Self {
        if let Some(config) = self.config.as_object_mut() {
            config.remove(key);
        }
        self
    }

    /// The container's process is the probe with these words.
    pub fn probe(&mut self, words: &[&str]) -> &mut Self {
        let args: Vec<&str> = ["/probe"].into_iter().chain(words.iter().copied()).collect();
        self.set("/process/args", json!(args))
    }

    /// Adds a mount.
    pub fn mount(&mut self, destination: &str, kind: &str, source: &str, options: &[&str]) -> &mut Self {
        self.add(
            "/mounts",
            json!({"destination": destination, "type": kind, "source": source, "options": options}),
        )
    }

    /// Binds the bundle's `shared` to `/shared` inside and names it as the host does.
    pub fn share(&mut self) -> PathBuf {
        let shared = self.directory.join("shared");
        self.mount("/shared", "bind", &shared.to_string_lossy(), &["bind", "rw"]);
        shared
    }

    /// Sets a kind of namespace: a new one, the one of a path, or with `None` the runtime's.
    pub fn namespace(&mut self, kind: &str, namespace: Option<Value>) -> &mut Self {
        let mut list =
            self.config.pointer("/linux/namespaces").and_then(Value::as_array).cloned().unwrap_or_default();
        list.retain(|entry| entry["type"] != kind);
        if let Some(mut namespace) = namespace {
            namespace["type"] = json!(kind);
            list.push(namespace);
        }
        self.set("/linux/namespaces", Value::Array(list))
    }

    /// Adds a hook: the probe, which writes a line to `shared/hooks` ([`crate::container::HookCall`]).
    /// `name` says which hook it was, `rest` is the exit code and the seconds to sleep before.
    pub fn hook(&mut self, kind: &str, name: &str, rest: &[&str]) -> &mut Self {
        let inside = kind == "startContainer";
        let path = if inside { PathBuf::from("/probe") } else { self.probe.clone() };
        let file =
            if inside { PathBuf::from("/shared") } else { self.directory.join("shared") }.join("hooks");
        let file = file.to_string_lossy();
        let mut args = vec!["probe", "hook", name, &file];
        args.extend(rest);
        let hook = json!({"path": path, "args": args});
        self.add(&format!("/hooks/{kind}"), hook)
    }

    /// Writes `config.json`.
    pub fn write(&self) -> Result<()> {
        let path = self.directory.join("config.json");
        fs::write(&path, format!("{:#}\n", self.config)).with_context(|| format!("write {}", path.display()))
    }
}

/// What all cases start from: a small container with the kernel's file systems and no more rights
/// than a case asks for.
fn default_config() -> Value {
    let capabilities = json!(["CAP_CHOWN", "CAP_KILL", "CAP_MKNOD"]);
    json!({
        "ociVersion": "1.0.2",
        "root": {"path": "rootfs"},
        "process": {
            "cwd": "/",
            "args": ["/probe", "report"],
            "env": ["PATH=/"],
            "user": {"uid": 0, "gid": 0},
            "capabilities": {
                "bounding": capabilities, "effective": capabilities, "permitted": capabilities,
            },
        },
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
             "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
            {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
             "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]},
            {"destination": "/dev/shm", "type": "tmpfs", "source": "shm",
             "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]},
            {"destination": "/sys", "type": "sysfs", "source": "sysfs",
             "options": ["nosuid", "noexec", "nodev", "ro"]},
        ],
        "linux": {
            "namespaces": [
                {"type": "pid"}, {"type": "mount"}, {"type": "ipc"}, {"type": "uts"}, {"type": "network"},
            ],
        },
    })
}

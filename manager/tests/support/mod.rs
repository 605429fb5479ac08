//! What the tests of images need: the program under test, images made on the spot, registries that
//! are real and registries that lie.

#![allow(dead_code, reason = "each test binary uses a part of it")]

pub(crate) mod image;
pub(crate) mod registry;
pub(crate) mod server;
pub(crate) mod tar;

use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;

/// The program under test with a root of its own, which goes away with the value.
pub(crate) struct Manager {
    folder: TempDir,
}

/// What a command did.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Manager {
    pub(crate) fn new() -> Self {
        Self { folder: tempfile::tempdir().expect("make a temporary folder") }
    }

    pub(crate) fn root(&self) -> std::path::PathBuf {
        self.folder.path().join("root")
    }

    /// The command, not run yet, and apart from the credentials of whoever runs the tests.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = command_with_root(&self.root(), arguments);
        command.arg("--run-root").arg(self.folder.path().join("run"));
        command.env("HOME", self.folder.path());
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Ran {
        // A command that hangs fails its test, not all of them.
        let command = self.command(arguments);
        let mut limited = Command::new("timeout");
        limited.arg("60").arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => limited.env(name, value),
                None => limited.env_remove(name),
            };
        }
        Ran::of(limited.output().expect("run the manager"))
    }

    /// Runs what must succeed.
    pub(crate) fn ok(&self, arguments: &[&str]) -> String {
        let ran = self.run(arguments);
        assert_eq!(ran.code, Some(0), "{arguments:?}: {}", ran.stderr);
        ran.stdout
    }

    /// Runs what must fail, with one sentence on standard error.
    pub(crate) fn fails(&self, arguments: &[&str]) -> String {
        let ran = self.run(arguments);
        assert_eq!(ran.code, Some(1), "{arguments:?}: {ran:?}");
        assert_eq!(ran.stderr.lines().count(), 1, "{}", ran.stderr);
        assert!(ran.stderr.starts_with("manager: "), "{}", ran.stderr);
        ran.stderr
    }

    /// The names of what is in a folder of the store.
    pub(crate) fn stored(&self, folder: &str) -> Vec<String> {
        names(&self.root().join(folder))
    }

    /// The store has nothing but its own files: no names, layers, blobs, unfinished things.
    pub(crate) fn assert_empty(&self, but_for: &[&str]) {
        for folder in ["refs", "layers", "fixups", "oci/blobs/sha256", "tmp", "trash", "ingest"] {
            if !but_for.contains(&folder) {
                assert_eq!(self.stored(folder), Vec::<String>::new(), "left in {folder}");
            }
        }
    }

    /// After a pull that failed for this layer: nothing is left but parts of other layers, which are
    /// good as far as they go.
    pub(crate) fn assert_only_other_parts(&self, layer: &str) {
        self.assert_empty(&["ingest"]);
        let part = format!("{}.part", layer.replace(':', "-"));
        assert!(!self.stored("ingest").contains(&part), "{part} was kept");
    }

    /// The only layer folder of a store that has one image of one layer.
    pub(crate) fn only_layer(&self) -> std::path::PathBuf {
        let layers = self.stored("layers");
        assert_eq!(layers.len(), 1, "{layers:?}");
        self.root().join("layers").join(&layers[0]).join("fs")
    }
}

pub(crate) fn command_with_root(root: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_manager"));
    command.arg("--root").arg(root).args(arguments);
    for name in ["REGISTRY_AUTH_FILE", "DOCKER_CONFIG", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME"] {
        command.env_remove(name);
    }
    command.env("CONTAINERS_REGISTRIES_CONF", "/dev/null");
    command
}

impl Ran {
    pub(crate) fn of(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// Bytes that do not compress, the same ones for the same seed (xorshift).
pub(crate) fn noise(seed: u64, size: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    (0..size).map(|_| next()).collect()
}

pub(crate) fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut names: Vec<String> = entries
        .map(|entry| entry.expect("read a folder").file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// Whether a program is there; says SKIP when not.
pub(crate) fn has(program: &str) -> bool {
    let found = std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|folder| folder.join(program).exists()));
    if !found {
        eprintln!("SKIP: {program} is not installed");
    }
    found
}

/// Runs a tool that must succeed.
pub(crate) fn tool(program: &str, arguments: &[&str]) -> String {
    let output =
        Command::new(program).args(arguments).output().unwrap_or_else(|error| panic!("{program}: {error}"));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {stderr}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

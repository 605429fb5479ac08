//! What the probe tells: the container as a process inside sees it. The probe
//! (`src/bin/probe.rs`) writes an [`Observation`] as JSON; only the suite judges it.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

/// Everything the probe saw. What needs `/proc` is empty where `/proc` is not mounted.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Observation {
    /// getpid(2)
    pub pid: i32,
    /// Arguments, the program's name first.
    pub args: Vec<String>,
    /// `NAME=value`, in their order.
    pub env: Vec<String>,
    /// getcwd(2)
    pub cwd: String,
    /// Real, effective and saved user id.
    pub uids: [u32; 3],
    /// Real, effective and saved group id.
    pub gids: [u32; 3],
    /// Additional groups, sorted.
    pub groups: Vec<u32>,
    /// The lines of `/proc/self/status`: capabilities, umask, no_new_privs, seccomp mode.
    pub status: BTreeMap<String, String>,
    /// Soft and hard limits by name; `u64::MAX` is unlimited.
    pub rlimits: BTreeMap<String, (u64, u64)>,
    /// `/proc/self/ns/*`: kind and identity, as `net` and `net:[4026531840]`.
    pub namespaces: BTreeMap<String, String>,
    /// uname(2)
    pub hostname: String,
    /// uname(2)
    pub domainname: String,
    /// `/proc/self/mountinfo`, in its order.
    pub mounts: Vec<Mount>,
    /// Open descriptors and what they point to.
    pub fds: BTreeMap<i32, String>,
    /// Whether standard input, output and error are terminals.
    pub terminals: [bool; 3],
    /// Whole small files of `/proc` by path below `/proc/self`.
    pub files: BTreeMap<String, String>,
    /// The paths that the probe was asked about.
    pub paths: BTreeMap<String, Seen>,
}

/// A line of [mountinfo](https://man7.org/linux/man-pages/man5/proc_pid_mountinfo.5.html).
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
pub struct Mount {
    /// Where it is mounted.
    pub target: String,
    /// Which part of the file system is mounted.
    pub root: String,
    /// Options of this mount.
    pub options: Vec<String>,
    /// Propagation: `shared:N`, `master:N`, `unbindable`; none when private.
    pub propagation: Vec<String>,
    /// File system.
    pub kind: String,
    /// Options of the file system.
    pub super_options: Vec<String>,
}

/// What is at a path, and what can be done with it.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
pub struct Seen {
    /// `file`, `directory`, `symlink`, `char`, `block`, `fifo`, `socket`; none when nothing is there.
    pub kind: Option<String>,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Major and minor number of a device.
    pub device: (u64, u64),
    /// Where a symlink points.
    pub link: Option<String>,
    /// Names in a directory, sorted.
    pub entries: Option<Vec<String>>,
    /// The first 4 KiB of a file.
    pub content: Option<String>,
    /// Why reading failed, as `EACCES`; none when it worked.
    pub read_error: Option<String>,
    /// Why writing failed: opening a file for writing, or making a file in a directory.
    pub write_error: Option<String>,
}

impl Observation {
    /// A capability set of `/proc/self/status` (`CapEff` and the like) as its bits.
    pub fn capabilities(&self, set: &str) -> Option<u64> {
        u64::from_str_radix(self.status.get(set)?, 16).ok()
    }

    /// The topmost mount at a path.
    pub fn mount(&self, target: &str) -> Option<&Mount> {
        self.mounts.iter().rev().find(|mount| mount.target == target)
    }

    /// What is at a path; nothing when the probe was not asked about it.
    pub fn path(&self, path: &str) -> Seen {
        self.paths.get(path).cloned().unwrap_or_default()
    }
}

impl Seen {
    /// Whether it can be written.
    pub fn writable(&self) -> bool {
        self.kind.is_some() && self.write_error.is_none()
    }
}

/// The probe's program, and the files it needs to run in an otherwise empty root filesystem.
///
/// Built with `crt-static` it needs none. Built the usual way (`cargo test`) it names the libraries
/// that the loader mapped for it, and they go into the root filesystem with it.
#[derive(Debug)]
pub struct Probe {
    path: PathBuf,
    libraries: Vec<PathBuf>,
}

impl Probe {
    /// Takes the probe at `path`, or else the one beside the suite's own program.
    pub fn find(path: Option<&Path>) -> Result<Self> {
        let path = match path {
            Some(path) => path.to_owned(),
            None => std::env::current_exe().context("own program")?.with_file_name("probe"),
        };
        let path = path.canonicalize().with_context(|| format!("probe {}", path.display()))?;
        let output = Command::new(&path).arg("libraries").output().context("run the probe")?;
        ensure!(output.status.success(), "probe {}: {}", path.display(), output.status);
        let libraries = String::from_utf8(output.stdout).context("libraries of the probe")?;
        Ok(Self { path, libraries: libraries.lines().map(PathBuf::from).collect() })
    }

    /// Where it is on the host: hooks of the runtime namespace run it from there.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it needs no libraries.
    pub fn is_static(&self) -> bool {
        self.libraries.is_empty()
    }

    /// Puts a copy, with its libraries, into `directory`; bundles link to these.
    pub fn stage(&self, directory: &Path) -> Result<()> {
        copy_program(&self.path, &directory.join("probe"))?;
        let library_directory = directory.join("lib");
        std::fs::create_dir(&library_directory).context("folder for the probe's libraries")?;
        for library in &self.libraries {
            let Some(name) = library.file_name() else { bail!("library {}", library.display()) };
            copy_program(library, &library_directory.join(name))?;
        }
        Ok(())
    }
}

fn copy_program(from: &Path, to: &Path) -> Result<()> {
    std::fs::copy(from, to).with_context(|| format!("copy {} to {}", from.display(), to.display()))?;
    // Any user of the container may run it, whatever the umask of the build was.
    std::fs::set_permissions(to, std::fs::Permissions::from_mode(0o755)).context("permissions of the probe")
}

//! `linux.maskedPaths`, `linux.readonlyPaths`: config-linux.md#masked-paths. By descriptor throughout:
//! what is checked is what is covered (CVE-2025-31133, GHSA-3q8j-pf29-vwv8).

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::{Mode, SFlag, fstat, major, minor};
use oci_spec::runtime::Linux;

use super::mounts::clean;
use crate::sys::mount::{Change, NewFs, attach, attr, clone_tree, set_attributes};
use crate::sys::path::open_in_root;

/// The two lists, relative to the root file system.
#[derive(Debug, Default)]
pub(crate) struct Paths {
    masked: Vec<PathBuf>,
    read_only: Vec<PathBuf>,
}

/// Checks that every path is absolute, as the specification demands.
pub(crate) fn plan(linux: &Linux) -> Result<Paths> {
    let read = |name: &str, paths: &Option<Vec<String>>| -> Result<Vec<PathBuf>> {
        let mut list = Vec::new();
        for (n, path) in paths.iter().flatten().enumerate().filter(|(_, path)| !path.is_empty()) {
            ensure!(path.starts_with('/'), "linux.{name}[{n}]: {path:?} is not absolute");
            let path = clean(Path::new(path));
            if !list.contains(&path) {
                list.push(path); // once is enough
            }
        }
        Ok(list)
    };
    Ok(Paths {
        masked: read("maskedPaths", linux.masked_paths())?,
        read_only: read("readonlyPaths", linux.readonly_paths())?,
    })
}

/// The host's `/dev/null` as a detached mount, to cover files with. To be made while the host's tree is in
/// sight and before the container has any say.
fn null_cover() -> Result<OwnedFd> {
    let null = open("/dev/null", OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty())
        .context("open /dev/null")?;
    check_null(&null)?;
    let cover = clone_tree(&null, c"", false, false)?;
    // It is the host's own inode: its mode and owner must be out of the container's reach.
    let set = attr::RDONLY | attr::NOSUID | attr::NOEXEC;
    set_attributes(&cover, &Change { set, ..Change::default() }, false)?;
    Ok(cover)
}

fn check_null(fd: impl AsFd) -> Result<()> {
    let stat = fstat(fd)?;
    let is_device = SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == SFlag::S_IFCHR;
    if !is_device || (major(stat.st_rdev), minor(stat.st_rdev)) != (1, 3) {
        bail!("the host's /dev/null is not the null device");
    }
    Ok(())
}

impl Paths {
    /// First read-only, then masked: a mask may lie in a read-only folder.
    pub(crate) fn apply(&self, root: BorrowedFd) -> Result<()> {
        for path in &self.read_only {
            make_read_only(root, path)
                .with_context(|| format!("make /{} read-only (linux.readonlyPaths)", path.display()))?;
        }
        let mut covers = Covers::default();
        for path in &self.masked {
            mask(root, path, &mut covers)
                .with_context(|| format!("mask /{} (linux.maskedPaths)", path.display()))?;
        }
        Ok(())
    }
}

fn find(root: BorrowedFd, path: &Path) -> Result<Option<OwnedFd>> {
    match open_in_root(root, path, OFlag::O_PATH.bits(), 0) {
        Ok(found) => Ok(Some(found)),
        Err(Errno::ENOENT | Errno::ENOTDIR) => Ok(None), // nothing there to protect
        Err(errno) => Err(errno.into()),
    }
}

fn make_read_only(root: BorrowedFd, path: &Path) -> Result<()> {
    let Some(target) = find(root, path)? else { return Ok(()) };
    let copy = clone_tree(&target, c"", true, false)?;
    set_attributes(&copy, &Change { set: attr::RDONLY, ..Change::default() }, true)?;
    Ok(attach(&copy, &target)?)
}

/// The first cover of each kind, of which all others are copies.
#[derive(Default)]
struct Covers {
    file: Option<OwnedFd>,
    dir: Option<OwnedFd>,
}

fn mask(root: BorrowedFd, path: &Path, covers: &mut Covers) -> Result<()> {
    let Some(target) = find(root, path)? else { return Ok(()) };
    let is_dir = SFlag::from_bits_truncate(fstat(&target)?.st_mode) & SFlag::S_IFMT == SFlag::S_IFDIR;
    let first = if is_dir { &mut covers.dir } else { &mut covers.file };
    match first {
        // A mount can be copied (before Linux 6.15) only once it is attached somewhere.
        Some(first) => Ok(attach(clone_tree(first, c"", false, false)?, &target)?),
        None => {
            let cover = if is_dir { empty_dir()? } else { null_cover()? };
            attach(&cover, &target)?;
            *first = Some(cover);
            Ok(())
        }
    }
}

/// One empty read-only tmpfs serves all masked folders.
fn empty_dir() -> Result<OwnedFd> {
    let fs = NewFs::open(c"tmpfs")?;
    fs.set(c"source", c"tmpfs")?;
    fs.set(c"nr_blocks", c"1")?;
    fs.set(c"nr_inodes", c"1")?;
    Ok(fs.mount(attr::RDONLY | attr::NOSUID | attr::NODEV | attr::NOEXEC)?)
}

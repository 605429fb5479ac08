//! `process.terminal`: a pseudo-terminal of the container's own devpts; pty(7), terminal(5) of runc.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use anyhow::{Context, Result, bail};
use nix::fcntl::OFlag;
use nix::pty::Winsize;
use nix::sys::stat::{SFlag, fstat, major};
use nix::sys::statfs::{FsType, fstatfs};
use nix::unistd::{Uid, dup2_stderr, dup2_stdin, dup2_stdout, fchown};

use super::mounts::make_target;
use crate::sys::mount::{attach, clone_tree};
use crate::sys::path::open_in_root;
use crate::sys::terminal::{make_controlling, open_peer, set_size, unlock};

const DEVPTS: FsType = FsType(0x1cd1);

/// Opens a new pair below `root`; the second is the container's end.
pub(crate) fn open_pair(root: BorrowedFd, size: Option<Winsize>, uid: u32) -> Result<(OwnedFd, OwnedFd)> {
    let flags = OFlag::O_RDWR | OFlag::O_NOCTTY;
    let master = open_in_root(root, Path::new("dev/pts/ptmx"), flags.bits(), 0)
        .context("open /dev/pts/ptmx (process.terminal needs a devpts mount on /dev/pts)")?;
    let stat = fstat(&master)?;
    if fstatfs(&master)?.filesystem_type() != DEVPTS || major(stat.st_rdev) != 5 {
        bail!("/dev/pts/ptmx is not a terminal multiplexer");
    }
    unlock(&master).context("unlock the terminal")?;
    let slave = open_peer(&master).context("open the container's end of the terminal")?;
    if let Some(size) = size {
        set_size(&master, size).context("set process.consoleSize")?;
    }
    fchown(&slave, Some(Uid::from_raw(uid)), None).context("give the terminal to process.user")?;
    Ok((master, slave))
}

/// Shows the terminal as `/dev/console`.
pub(crate) fn bind_console(root: BorrowedFd, slave: &OwnedFd) -> Result<()> {
    // Of a terminal's many majors, devpts has these.
    let stat = fstat(slave)?;
    let is_device = SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == SFlag::S_IFCHR;
    if !is_device || !(136..=143).contains(&major(stat.st_rdev)) {
        bail!("the container's end of the terminal is no terminal");
    }
    let target = make_target(root, Path::new("dev/console"), false).context("make /dev/console")?;
    let tree = clone_tree(slave, c"", false, false).context("bind the terminal")?;
    attach(&tree, &target).context("mount /dev/console")
}

/// Makes it the session's controlling terminal and standard input, output and error.
pub(crate) fn take(slave: impl AsFd) -> Result<()> {
    make_controlling(&slave).context("make it the controlling terminal")?;
    dup2_stdin(&slave)?;
    dup2_stdout(&slave)?;
    dup2_stderr(&slave)?;
    Ok(())
}

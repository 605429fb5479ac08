//! A runtime without the host's root: called by an ordinary user, or as root of a user namespace;
//! user_namespaces(7). What it may not do, and nobody has asked for, it leaves.

use std::os::unix::fs::MetadataExt;

use anyhow::{Result, bail};
use nix::errno::Errno;
use nix::sched::CloneFlags;
use nix::unistd::geteuid;

use super::namespaces::Namespaces;

/// True if we are not the host's root.
pub(crate) fn is_rootless() -> bool {
    !geteuid().is_root() || in_user_namespace()
}

/// True if we are not in the host's user namespace, whose file has had one number since Linux 3.8.
pub(crate) fn in_user_namespace() -> bool {
    const PROC_USER_INIT_INO: u64 = 0xeffffffd;
    std::fs::metadata("/proc/self/ns/user").is_ok_and(|file| file.ino() != PROC_USER_INIT_INO)
}

/// True if setgroups(2) is denied in our user namespace, and with it in those below.
pub(crate) fn setgroups_is_denied() -> bool {
    std::fs::read("/proc/self/setgroups").is_ok_and(|text| text.starts_with(b"deny"))
}

/// True for what the kernel says to somebody without the right.
pub(crate) fn is_refusal(error: &anyhow::Error) -> bool {
    let errno = match error.root_cause().downcast_ref::<std::io::Error>() {
        Some(error) => error.raw_os_error().map(Errno::from_raw),
        None => error.root_cause().downcast_ref().copied(),
    };
    matches!(errno, Some(Errno::EACCES | Errno::EPERM | Errno::EROFS))
}

/// Without a user namespace an ordinary user could make none of the others.
pub(crate) fn check(namespaces: &Namespaces) -> Result<()> {
    if !geteuid().is_root() && !namespaces.has(CloneFlags::CLONE_NEWUSER) {
        bail!("linux.namespaces: rootless container requires user namespaces");
    }
    Ok(())
}

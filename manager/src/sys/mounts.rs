//! [mount_setattr(2)](https://man7.org/linux/man-pages/man2/mount_setattr.2.html)

use std::io::{Error, Result};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::mount::{OpenTreeFlags, open_tree};

/// The same folder on a mount of its own, which has no place and goes with the descriptor: no device opens on
/// it, and no program starts.
pub(crate) fn without_devices(folder: impl AsFd) -> Result<OwnedFd> {
    let flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    let clone = open_tree(folder, "", flags)?;
    let attributes = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_NODEV | libc::MOUNT_ATTR_NOEXEC | libc::MOUNT_ATTR_NOSUID,
        attr_clr: 0,
        propagation: 0,
        userns_fd: 0,
    };
    // SAFETY: int mount_setattr(int dirfd, const char *path, unsigned flags, struct mount_attr *attr, size_t size)
    // reads the string and the structure of this size, which both outlive the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            clone.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    if result == 0 { Ok(clone) } else { Err(Error::last_os_error()) }
}

//! The file-descriptor mount API: fsopen(2), fsconfig(2), fsmount(2), open_tree(2), move_mount(2),
//! mount_setattr(2). A mount made this way never needs a path string inside the container.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use nix::Result;
use nix::errno::Errno;

/// Attributes of a mount (not of its file system): `MOUNT_ATTR_*` of mount_setattr(2).
pub(crate) mod attr {
    pub(crate) const RDONLY: u64 = 0x1;
    pub(crate) const NOSUID: u64 = 0x2;
    pub(crate) const NODEV: u64 = 0x4;
    pub(crate) const NOEXEC: u64 = 0x8;
    /// The mask of the access-time modes; relative access time is the mode 0.
    pub(crate) const ATIME: u64 = 0x70;
    pub(crate) const NOATIME: u64 = 0x10;
    pub(crate) const STRICTATIME: u64 = 0x20;
    pub(crate) const NODIRATIME: u64 = 0x80;
    /// The mount gets the mapping of a user namespace.
    pub(crate) const IDMAP: u64 = 0x10_0000;
    pub(crate) const NOSYMFOLLOW: u64 = 0x20_0000;
}

const FSOPEN_CLOEXEC: u32 = 1;
const FSMOUNT_CLOEXEC: u32 = 1;
const FSCONFIG_SET_FLAG: u32 = 0;
const FSCONFIG_SET_STRING: u32 = 1;
const FSCONFIG_CMD_CREATE: u32 = 6;
const FSCONFIG_CMD_RECONFIGURE: u32 = 7;
const FSPICK_CLOEXEC: u32 = 1;
const FSPICK_EMPTY_PATH: u32 = 8;
const OPEN_TREE_CLONE: u32 = 1;
const AT_RECURSIVE: u32 = 0x8000;
const MOVE_MOUNT_F_EMPTY_PATH: u32 = 0x4;
const MOVE_MOUNT_T_EMPTY_PATH: u32 = 0x40;

/// A file system being configured: fsopen(2) .. fsmount(2).
#[derive(Debug)]
pub(crate) struct NewFs(OwnedFd);

impl NewFs {
    /// `int fsopen(const char *fsname, unsigned int flags)`
    pub(crate) fn open(kind: &CStr) -> Result<Self> {
        // SAFETY: `kind` is NUL-terminated and outlives the call.
        let fd = unsafe { libc::syscall(libc::SYS_fsopen, kind.as_ptr(), FSOPEN_CLOEXEC) };
        owned(fd).map(Self)
    }

    /// `int fspick(int dirfd, "", FSPICK_EMPTY_PATH)`: a file system that is mounted already, to be changed.
    pub(crate) fn pick(mount: impl AsFd) -> Result<Self> {
        let flags = FSPICK_CLOEXEC | FSPICK_EMPTY_PATH;
        // SAFETY: the path is an empty C string with static life.
        let fd = unsafe { libc::syscall(libc::SYS_fspick, mount.as_fd().as_raw_fd(), c"".as_ptr(), flags) };
        owned(fd).map(Self)
    }

    /// Sets `key=value`: `fsconfig(fd, FSCONFIG_SET_STRING, key, value, 0)`.
    pub(crate) fn set(&self, key: &CStr, value: &CStr) -> Result<()> {
        // SAFETY: both strings are NUL-terminated and outlive the call.
        let done = unsafe {
            libc::syscall(
                libc::SYS_fsconfig,
                self.0.as_raw_fd(),
                FSCONFIG_SET_STRING,
                key.as_ptr(),
                value.as_ptr(),
                0,
            )
        };
        Errno::result(done).map(drop)
    }

    /// Sets a flag without a value: `fsconfig(fd, FSCONFIG_SET_FLAG, key, NULL, 0)`.
    pub(crate) fn set_flag(&self, key: &CStr) -> Result<()> {
        // SAFETY: `key` is NUL-terminated and outlives the call.
        let done = unsafe {
            libc::syscall(libc::SYS_fsconfig, self.0.as_raw_fd(), FSCONFIG_SET_FLAG, key.as_ptr(), 0, 0)
        };
        Errno::result(done).map(drop)
    }

    /// Changes the file system picked: `fsconfig(fd, FSCONFIG_CMD_RECONFIGURE, NULL, NULL, 0)`.
    pub(crate) fn reconfigure(&self) -> Result<()> {
        let fd = self.0.as_raw_fd();
        // SAFETY: FSCONFIG_CMD_RECONFIGURE takes no pointers.
        let done = unsafe { libc::syscall(libc::SYS_fsconfig, fd, FSCONFIG_CMD_RECONFIGURE, 0, 0, 0) };
        Errno::result(done).map(drop)
    }

    /// Makes the super block and a detached mount of it with these attributes.
    pub(crate) fn mount(&self, attributes: u64) -> Result<OwnedFd> {
        // SAFETY: FSCONFIG_CMD_CREATE takes no pointers.
        let made =
            unsafe { libc::syscall(libc::SYS_fsconfig, self.0.as_raw_fd(), FSCONFIG_CMD_CREATE, 0, 0, 0) };
        Errno::result(made)?;
        // SAFETY: fsmount takes no pointers.
        let fd = unsafe { libc::syscall(libc::SYS_fsmount, self.0.as_raw_fd(), FSMOUNT_CLOEXEC, attributes) };
        owned(fd)
    }

    /// What the kernel said about the last failure, when it said anything (`e tmpfs: Bad value ...`).
    pub(crate) fn complaint(&self) -> Option<String> {
        let mut line = [0_u8; 512];
        let length = nix::unistd::read(&self.0, &mut line).ok()?;
        let text = String::from_utf8_lossy(&line[..length]);
        let text = text.trim().trim_start_matches(['e', 'w', 'i']).trim();
        (!text.is_empty()).then(|| text.to_owned())
    }
}

/// A detached copy of the mount that `dir`/`path` lies on: `open_tree(dir, path, OPEN_TREE_CLONE|...)`.
/// An empty `path` means `dir` itself. Symbolic links at the end of `path` are followed when `follow`.
pub(crate) fn clone_tree(dir: impl AsFd, path: &CStr, recursive: bool, follow: bool) -> Result<OwnedFd> {
    let mut flags = OPEN_TREE_CLONE | libc::O_CLOEXEC as u32;
    if recursive {
        flags |= AT_RECURSIVE;
    }
    if path.is_empty() {
        flags |= libc::AT_EMPTY_PATH as u32;
    }
    if !follow {
        flags |= libc::AT_SYMLINK_NOFOLLOW as u32;
    }
    // SAFETY: `path` is NUL-terminated and outlives the call.
    let fd = unsafe { libc::syscall(libc::SYS_open_tree, dir.as_fd().as_raw_fd(), path.as_ptr(), flags) };
    owned(fd)
}

/// Attaches a detached mount on the file or folder `target`: `move_mount(2)` by descriptors only.
pub(crate) fn attach(mount: impl AsFd, target: impl AsFd) -> Result<()> {
    // SAFETY: both paths are empty C strings with static life.
    let done = unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            mount.as_fd().as_raw_fd(),
            c"".as_ptr(),
            target.as_fd().as_raw_fd(),
            c"".as_ptr(),
            MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH,
        )
    };
    Errno::result(done).map(drop)
}

/// Attaches a detached mount on `name` in the folder `dir`, which must be ours alone: what the name stands
/// for is not looked at.
pub(crate) fn attach_at(mount: impl AsFd, dir: impl AsFd, name: &CStr) -> Result<()> {
    // SAFETY: both paths are NUL-terminated and outlive the call.
    let done = unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            mount.as_fd().as_raw_fd(),
            c"".as_ptr(),
            dir.as_fd().as_raw_fd(),
            name.as_ptr(),
            MOVE_MOUNT_F_EMPTY_PATH,
        )
    };
    Errno::result(done).map(drop)
}

/// What mount_setattr(2) changes, `struct mount_attr`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Change {
    /// `MOUNT_ATTR_*` bits to set.
    pub(crate) set: u64,
    /// `MOUNT_ATTR_*` bits to clear; naming any access-time bit clears the whole mode first.
    pub(crate) clear: u64,
    /// `MS_SHARED`, `MS_SLAVE`, `MS_PRIVATE`, `MS_UNBINDABLE` or 0.
    pub(crate) propagation: u64,
    /// The user namespace of an id-mapped mount, with `MOUNT_ATTR_IDMAP` in `set`.
    pub(crate) user_namespace: u64,
}

/// `mount_setattr(mount, "", AT_EMPTY_PATH [|AT_RECURSIVE], change, sizeof(change))`
pub(crate) fn set_attributes(mount: impl AsFd, change: &Change, recursive: bool) -> Result<()> {
    let flags = libc::AT_EMPTY_PATH as u32 | if recursive { AT_RECURSIVE } else { 0 };
    // SAFETY: `change` is a `struct mount_attr` of the size given and outlives the call.
    let done = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_fd().as_raw_fd(),
            c"".as_ptr(),
            flags,
            std::ptr::from_ref(change),
            size_of::<Change>(),
        )
    };
    Errno::result(done).map(drop)
}

/// Text for the kernel: refuses an inner NUL as EINVAL.
pub(crate) fn text(value: &str) -> Result<CString> {
    CString::new(value).map_err(|_| Errno::EINVAL)
}

fn owned(fd: libc::c_long) -> Result<OwnedFd> {
    let fd = Errno::result(fd)?;
    // SAFETY: the kernel has just given us this descriptor, and nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

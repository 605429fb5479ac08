//! openat2(2): path look-ups that cannot leave the container's root file system.

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::Result;
use nix::errno::Errno;

const RESOLVE_NO_XDEV: u64 = 0x01;
const RESOLVE_NO_MAGICLINKS: u64 = 0x02;
const RESOLVE_NO_SYMLINKS: u64 = 0x04;
const RESOLVE_BENEATH: u64 = 0x08;
const RESOLVE_IN_ROOT: u64 = 0x10;

#[repr(C)]
struct OpenHow {
    flags: u64,
    mode: u64,
    resolve: u64,
}

/// Opens `path` as if `root` were `/`: symbolic links are followed but cannot lead outside. An empty path is
/// the root itself.
pub(crate) fn open_in_root(root: impl AsFd, path: &Path, flags: i32, mode: u32) -> Result<OwnedFd> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    openat2(root, path, flags, mode, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS)
}

/// Opens `path` below `dir` on the same mount, following no symbolic link at all: for procfs, where
/// a mount or a link on the way would mean that somebody put it there (CVE-2025-52881).
pub(crate) fn open_beneath(dir: impl AsFd, path: &Path, flags: i32) -> Result<OwnedFd> {
    openat2(dir, path, flags, 0, RESOLVE_BENEATH | RESOLVE_NO_XDEV | RESOLVE_NO_SYMLINKS)
}

/// As [`open_in_root`], but any symbolic link on the way is an error (ELOOP).
pub(crate) fn open_no_symlinks(root: impl AsFd, path: &Path, flags: i32) -> Result<OwnedFd> {
    openat2(root, path, flags, 0, RESOLVE_IN_ROOT | RESOLVE_NO_SYMLINKS)
}

/// `long openat2(int dirfd, const char *pathname, struct open_how *how, size_t size)`. A rename
/// storm elsewhere makes the kernel give up with EAGAIN; a bounded number of new tries is enough.
fn openat2(dir: impl AsFd, path: &Path, flags: i32, mode: u32, resolve: u64) -> Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes()).map_err(|_| Errno::EINVAL)?;
    let how = OpenHow { flags: (flags | libc::O_CLOEXEC) as u64, mode: u64::from(mode), resolve };
    for _ in 0..128 {
        // SAFETY: the path is NUL-terminated and `how` has the size given; both outlive the call.
        let fd = unsafe {
            libc::syscall(
                libc::SYS_openat2,
                dir.as_fd().as_raw_fd(),
                path.as_ptr(),
                std::ptr::from_ref(&how),
                size_of::<OpenHow>(),
            )
        };
        match Errno::result(fd) {
            Err(Errno::EAGAIN) => {}
            // SAFETY: the kernel has just given us this descriptor, and nobody else owns it.
            other => return other.map(|fd| unsafe { OwnedFd::from_raw_fd(fd as i32) }),
        }
    }
    Err(Errno::EAGAIN)
}

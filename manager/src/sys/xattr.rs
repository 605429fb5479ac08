//! Extended attributes: <https://man7.org/linux/man-pages/man7/xattr.7.html>

use std::ffi::{CStr, CString, OsStr};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::OsStrExt;

/// No attribute and no list of names is longer (XATTR_SIZE_MAX, XATTR_LIST_MAX).
const LONGEST: usize = 65536;

/// Sets an attribute of an open file or folder.
pub(crate) fn set(file: impl AsFd, name: &CStr, value: &[u8]) -> io::Result<()> {
    // SAFETY: int fsetxattr(int fd, const char *name, const void *value, size_t size, int flags);
    // the name is NUL-terminated, the value has the given length, and neither is kept.
    let result = unsafe {
        libc::fsetxattr(file.as_fd().as_raw_fd(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Sets an attribute of `entry` in `folder`, not following a link: for links and devices, which
/// cannot be opened.
pub(crate) fn set_in(folder: impl AsFd, entry: &OsStr, name: &CStr, value: &[u8]) -> io::Result<()> {
    let path = in_folder(folder, entry)?;
    // SAFETY: int lsetxattr(const char *path, const char *name, const void *value, size_t size,
    // int flags); both strings are NUL-terminated, the value has the given length, none is kept.
    let result =
        unsafe { libc::lsetxattr(path.as_ptr(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// An attribute of an open file or folder; none when it has no such attribute.
pub(crate) fn get(file: impl AsFd, name: &CStr) -> io::Result<Option<Vec<u8>>> {
    let mut value = vec![0; LONGEST];
    // SAFETY: ssize_t fgetxattr(int fd, const char *name, void *value, size_t size); the name is
    // NUL-terminated and the buffer writable for the given length.
    let length = unsafe {
        libc::fgetxattr(file.as_fd().as_raw_fd(), name.as_ptr(), value.as_mut_ptr().cast(), value.len())
    };
    match usize::try_from(length) {
        Ok(length) => {
            value.truncate(length);
            Ok(Some(value))
        }
        Err(_) => match io::Error::last_os_error() {
            error if matches!(error.raw_os_error(), Some(libc::ENODATA | libc::EOPNOTSUPP)) => Ok(None),
            error => Err(error),
        },
    }
}

/// The names of an open file's or folder's attributes.
pub(crate) fn names(file: impl AsFd) -> io::Result<Vec<CString>> {
    let mut list = vec![0u8; LONGEST];
    // SAFETY: ssize_t flistxattr(int fd, char *list, size_t size); the buffer is writable for the
    // given length.
    let length = unsafe { libc::flistxattr(file.as_fd().as_raw_fd(), list.as_mut_ptr().cast(), list.len()) };
    let Ok(length) = usize::try_from(length) else {
        return match io::Error::last_os_error() {
            error if error.raw_os_error() == Some(libc::EOPNOTSUPP) => Ok(Vec::new()),
            error => Err(error),
        };
    };
    let names = list[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty());
    names.map(|name| CString::new(name).map_err(io::Error::other)).collect()
}

/// The folder's descriptor decides where the path starts; only the entry's own name is looked up.
fn in_folder(folder: impl AsFd, entry: &OsStr) -> io::Result<CString> {
    let mut path = format!("/proc/self/fd/{}/", folder.as_fd().as_raw_fd()).into_bytes();
    path.extend_from_slice(entry.as_bytes());
    CString::new(path).map_err(io::Error::other)
}

//! Extended attributes: <https://man7.org/linux/man-pages/man7/xattr.7.html>

use std::ffi::{CStr, CString, OsStr};
use std::os::fd::{AsFd, AsRawFd};

use rustix::fs::{XattrFlags, fgetxattr, flistxattr, fsetxattr, getxattr, listxattr, lsetxattr};
use rustix::io::{Errno, Result};
use rustix::process::fchdir;

/// No attribute and no list of names is longer (XATTR_SIZE_MAX, XATTR_LIST_MAX).
const LONGEST: usize = 65536;

/// Sets an attribute of an open file or folder.
pub(super) fn set(file: impl AsFd, name: &CStr, value: &[u8]) -> Result<()> {
    fsetxattr(file, name, value, XattrFlags::empty())
}

/// Sets an attribute of `entry` in `folder`, not following a link: for links and devices, which
/// cannot be opened. It goes to the folder, which has to be the thread's own affair
/// (`confine::own_mask_and_place`): before Linux 6.13 the call takes no descriptor to start from.
pub(super) fn set_in(folder: impl AsFd, entry: &OsStr, name: &CStr, value: &[u8]) -> Result<()> {
    fchdir(folder)?;
    lsetxattr(entry, name, value, XattrFlags::empty())
}

/// An attribute of an open file or folder; none when it has no such attribute.
pub(super) fn get(file: impl AsFd, name: &CStr) -> Result<Option<Vec<u8>>> {
    let mut value = vec![0; LONGEST];
    match fgetxattr(file, name, &mut value[..]) {
        Ok(length) => {
            value.truncate(length);
            Ok(Some(value))
        }
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// Whether an open file or folder has an attribute.
pub(super) fn has(file: impl AsFd, name: &CStr) -> Result<bool> {
    // Zeroing room for the longest value costs more than asking.
    match fgetxattr(file, name, &mut [0u8; 16][..]) {
        Ok(_) | Err(Errno::RANGE) => Ok(true),
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(false),
        Err(errno) => Err(errno),
    }
}

/// The names of an open file's or folder's attributes.
pub(super) fn names(file: impl AsFd) -> Result<Vec<CString>> {
    let mut list = vec![0u8; 1024];
    let mut length = flistxattr(&file, &mut list[..]);
    if length == Err(Errno::RANGE) {
        list.resize(LONGEST, 0);
        length = flistxattr(&file, &mut list[..]);
    }
    let length = match length {
        Err(Errno::OPNOTSUPP) => 0,
        other => other?,
    };
    split(&list[..length]).collect()
}

/// All attributes of what a descriptor stands for, one with O_PATH too. Those that must not be read are
/// left out.
pub(super) fn all(file: impl AsFd) -> Result<Vec<(CString, Vec<u8>)>> {
    let path = format!("/proc/self/fd/{}", file.as_fd().as_raw_fd());
    let mut list = vec![0u8; 1024];
    let mut length = listxattr(&path, &mut list[..]);
    if length == Err(Errno::RANGE) {
        list.resize(LONGEST, 0);
        length = listxattr(&path, &mut list[..]);
    }
    let length = match length {
        Err(Errno::OPNOTSUPP) => 0,
        other => other?,
    };
    let mut found = Vec::new();
    for name in split(&list[..length]) {
        let name = name?;
        let mut value = vec![0; LONGEST];
        match getxattr(&path, name.as_c_str(), &mut value[..]) {
            Ok(length) => value.truncate(length),
            Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::PERM | Errno::ACCESS) => continue,
            Err(errno) => return Err(errno),
        }
        found.push((name, value));
    }
    Ok(found)
}

fn split(list: &[u8]) -> impl Iterator<Item = Result<CString>> + '_ {
    let names = list.split(|byte| *byte == 0).filter(|name| !name.is_empty());
    names.map(|name| CString::new(name).map_err(|_| Errno::INVAL))
}

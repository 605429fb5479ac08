//! `tmpcopyup`, an extension of runc's: a tmpfs starts with a copy of the folder that it covers.
//! Works on descriptors only; symbolic links are copied, never followed.

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use anyhow::{Context, Result};
use nix::dir::{Dir, Type};
use nix::fcntl::{AtFlags, OFlag, openat, readlinkat};
use nix::sys::stat::{
    FchmodatFlags, Mode, UtimensatFlags, fchmod, fchmodat, fstatat, mkdirat, mknodat, utimensat,
};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, fchownat, symlinkat};

/// Copies all entries of the folder `from` (opened with O_PATH) into `to`.
pub(crate) fn copy(from: &OwnedFd, to: &OwnedFd) -> Result<()> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let source = openat(from, ".", flags, Mode::empty()).context("read the covered folder")?;
    copy_entries(source, to)
}

fn copy_entries(from: OwnedFd, to: &OwnedFd) -> Result<()> {
    let mut dir = Dir::from_fd(from)?;
    let mut entries = Vec::new();
    for entry in dir.iter() {
        let entry = entry?;
        if entry.file_name() != c"." && entry.file_name() != c".." {
            entries.push(entry);
        }
    }
    for entry in entries {
        let name = entry.file_name();
        copy_entry(&dir, name, entry.file_type(), to).with_context(|| format!("copy {name:?}"))?;
    }
    Ok(())
}

fn copy_entry(from: &Dir, name: &CStr, kind: Option<Type>, to: &OwnedFd) -> Result<()> {
    let stat = fstatat(from, name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
    let mode = Mode::from_bits_truncate(stat.st_mode & 0o7777);
    let read = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    match kind {
        Some(Type::Directory) => {
            mkdirat(to, name, mode)?;
            let source = openat(from, name, read | OFlag::O_DIRECTORY, Mode::empty())?;
            let copy = openat(to, name, read | OFlag::O_DIRECTORY, Mode::empty())?;
            copy_entries(source, &copy)?;
        }
        Some(Type::Symlink) => symlinkat(readlinkat(from, name)?.as_os_str(), to, name)?,
        Some(Type::File) => {
            let mut source = File::from(openat(from, name, read | OFlag::O_NONBLOCK, Mode::empty())?);
            let write = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
            let mut copy = File::from(openat(to, name, write, mode)?);
            io::copy(&mut source, &mut copy)?;
            fchmod(copy.as_fd(), mode)?;
        }
        _ => {
            let kind = nix::sys::stat::SFlag::from_bits_truncate(stat.st_mode);
            mknodat(to, name, kind, mode, stat.st_rdev)?;
        }
    }
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    fchownat(to, name, Some(uid), Some(gid), AtFlags::AT_SYMLINK_NOFOLLOW)?;
    if kind != Some(Type::Symlink) {
        fchmodat(to, name, mode, FchmodatFlags::FollowSymlink)?; // chown has dropped setuid bits
    }
    let modified = TimeSpec::new(stat.st_mtime, stat.st_mtime_nsec);
    utimensat(to, name, &modified, &modified, UtimensatFlags::NoFollowSymlink)?;
    Ok(())
}

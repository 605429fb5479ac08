//! Owner, mode, extended attributes and times of an entry, always by descriptor or by a name in an
//! open folder, never through a link (CVE-2021-32760, CVE-2026-33056).

use std::ffi::{CString, OsStr};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;

use anyhow::{Context, Result, bail};
use nix::fcntl::AtFlags;
use nix::sys::stat::{FchmodatFlags, Mode, UtimensatFlags, fchmod, fchmodat, fstat, futimens, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, fchown, fchownat};
use rustix::io::Errno;

use super::xattr;

/// What a tar header says about an entry besides its kind and content.
#[derive(Debug, Clone)]
pub(crate) struct Metadata {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Permissions with setuid, setgid and sticky.
    pub(crate) mode: u32,
    pub(crate) mtime: Time,
    pub(crate) xattrs: Vec<(CString, Vec<u8>)>,
}

/// Seconds and nanoseconds since 1970.
pub(crate) type Time = (i64, i64);

/// Of a folder that no tar entry describes and no lower layer has: docker's and containerd's
/// choice.
pub(crate) const IMPLICIT_MODE: u32 = 0o755;

impl Metadata {
    /// What to make a file or folder with: setuid and setgid come when it has its owner.
    pub(crate) fn permissions(&self) -> Mode {
        Mode::from_bits_truncate(self.mode & 0o777)
    }

    /// Applies all but the time of a folder, whose time comes when nothing is made in it any more.
    pub(crate) fn apply_to_open(&self, file: impl AsFd) -> Result<()> {
        // Most is root's and was made with its mode. To look costs much less than to change: that is a
        // transaction of the file system each time.
        let found = fstat(&file).context("look at it")?;
        let other_owner = (found.st_uid, found.st_gid) != (self.uid, self.gid);
        if other_owner {
            fchown(&file, Some(Uid::from_raw(self.uid)), Some(Gid::from_raw(self.gid)))
                .with_context(|| format!("chown to {}:{}", self.uid, self.gid))?;
        }
        // After that: chown clears setuid and file capabilities.
        if other_owner || found.st_mode & 0o7777 != self.mode {
            fchmod(&file, Mode::from_bits_truncate(self.mode))
                .with_context(|| format!("chmod to {:o}", self.mode))?;
        }
        for (name, value) in &self.xattrs {
            attribute_set(xattr::set(&file, name, value), name)?;
        }
        Ok(())
    }

    /// Applies everything to a link, fifo or device just made as `name` in `folder`.
    pub(crate) fn apply_in(&self, folder: impl AsFd, name: &OsStr, is_link: bool) -> Result<()> {
        let folder = folder.as_fd();
        fchownat(
            folder,
            name,
            Some(Uid::from_raw(self.uid)),
            Some(Gid::from_raw(self.gid)),
            AtFlags::AT_SYMLINK_NOFOLLOW,
        )
        .with_context(|| format!("chown to {}:{}", self.uid, self.gid))?;
        if !is_link {
            // It follows links, but this is none, and nobody else is here who could change that.
            let mode = Mode::from_bits_truncate(self.mode);
            fchmodat(folder, name, mode, FchmodatFlags::FollowSymlink)
                .with_context(|| format!("chmod to {:o}", self.mode))?;
        }
        for (key, value) in &self.xattrs {
            attribute_set(xattr::set_in(folder, name, key, value), key)?;
        }
        let time = TimeSpec::new(self.mtime.0, self.mtime.1);
        utimensat(folder, name, &time, &time, UtimensatFlags::NoFollowSymlink).context("set its time")
    }
}

/// Sets the time of an open file or folder.
pub(crate) fn set_time(file: impl AsFd, time: Time) -> Result<()> {
    let time = TimeSpec::new(time.0, time.1);
    futimens(file, &time, &time).context("set its time")
}

fn attribute_set(result: rustix::io::Result<()>, name: &CString) -> Result<()> {
    match result {
        // Labels and hashes of the machine that made the image; where this one's policy has no use
        // for them it refuses them.
        Err(Errno::OPNOTSUPP | Errno::PERM | Errno::INVAL)
            if [&b"security.selinux"[..], b"security.ima", b"security.evm"].contains(&name.as_bytes()) =>
        {
            Ok(())
        }
        other => other.with_context(|| format!("set its extended attribute {name:?}")),
    }
}

/// The name under which an extended attribute of a tar is stored; none for one that is left out.
///
/// `trusted.overlay.*` would steer our overlay (redirect, metacopy, opaque). Such names are escaped
/// as overlayfs itself does it, so that a container on Linux 6.7 sees the original name; older
/// kernels hide it.
/// <https://docs.kernel.org/filesystems/overlayfs.html#nesting-overlayfs-mounts>
pub(crate) fn stored_xattr_name(name: &[u8]) -> Result<CString> {
    const OURS: &[u8] = b"trusted.overlay.";
    let stored = match name.strip_prefix(OURS) {
        Some(rest) => [OURS, b"overlay.", rest].concat(),
        None => name.to_vec(),
    };
    let prefixes: [&[u8]; 4] = [b"user.", b"trusted.", b"security.", b"system."];
    if !prefixes.iter().any(|prefix| stored.len() > prefix.len() && stored.starts_with(prefix)) {
        bail!("the extended attribute {:?} is in no known namespace", OsStr::from_bytes(name));
    }
    CString::new(stored).context("an extended attribute's name has a zero byte")
}

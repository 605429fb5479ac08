//! `linux.devices` and the devices that every container has: config-linux.md#devices,
//! config-linux.md#default-devices. All below one descriptor of the root file system.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, openat};
use nix::sys::stat::{FchmodatFlags, Mode, SFlag, fchmodat, fstat, makedev, mknodat};
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchownat, symlinkat, unlinkat};
use oci_spec::runtime::{Linux, LinuxDevice, LinuxDeviceType};

use super::mounts::{clean, make_dirs, make_target};
use crate::sys::mount::{attach, clone_tree, text};

/// A node to make.
#[derive(Clone, Debug)]
pub(crate) struct Device {
    /// Relative to the root file system.
    path: PathBuf,
    kind: SFlag,
    number: u64,
    mode: u32,
    uid: u32,
    gid: u32,
    /// Its place in `linux.devices`; none for a default device.
    index: Option<usize>,
}

const DEFAULT: [(&str, u64, u64); 6] = [
    ("dev/null", 1, 3),
    ("dev/zero", 1, 5),
    ("dev/full", 1, 7),
    ("dev/random", 1, 8),
    ("dev/urandom", 1, 9),
    ("dev/tty", 5, 0),
];

const LINKS: [(&str, &str); 5] = [
    ("/proc/self/fd", "fd"),
    ("/proc/self/fd/0", "stdin"),
    ("/proc/self/fd/1", "stdout"),
    ("/proc/self/fd/2", "stderr"),
    ("/proc/kcore", "core"),
];

/// The default devices and the configured ones; a configured one wins over a default of its path.
pub(crate) fn plan(linux: &Linux) -> Result<Vec<Device>> {
    let mut devices: Vec<Device> = DEFAULT
        .iter()
        .map(|(path, major, minor)| Device {
            path: PathBuf::from(path),
            kind: SFlag::S_IFCHR,
            number: makedev(*major, *minor),
            mode: 0o666,
            uid: 0,
            gid: 0,
            index: None,
        })
        .collect();
    for (n, device) in linux.devices().iter().flatten().enumerate() {
        let device = plan_one(n, device).with_context(|| format!("linux.devices[{n}]"))?;
        devices.retain(|other| other.path != device.path || other.index.is_some());
        devices.push(device);
    }
    Ok(devices)
}

fn plan_one(n: usize, device: &LinuxDevice) -> Result<Device> {
    let kind = match device.typ() {
        LinuxDeviceType::C | LinuxDeviceType::U => SFlag::S_IFCHR,
        LinuxDeviceType::B => SFlag::S_IFBLK,
        LinuxDeviceType::P => SFlag::S_IFIFO,
        LinuxDeviceType::A => bail!("type \"a\" is for cgroup rules; a device is c, b, u or p"),
    };
    if !device.path().is_absolute() {
        bail!("path {:?} is not absolute", device.path());
    }
    // No device has 0, which a configuration that leaves the number out comes to.
    if kind != SFlag::S_IFIFO && device.major() == 0 {
        bail!("{:?} needs a major number above 0", device.path());
    }
    // Of a longer number the kernel would take the lower bits, which is another device.
    let number = |name: &str, value: i64, bits: u32| {
        ensure!((0..1 << bits).contains(&value), "{name} {value} is no device number: it has {bits} bits");
        Ok(value.cast_unsigned())
    };
    Ok(Device {
        path: clean(device.path()),
        kind,
        number: if kind == SFlag::S_IFIFO {
            0
        } else {
            makedev(number("major", device.major(), 12)?, number("minor", device.minor(), 20)?)
        },
        mode: device.file_mode().unwrap_or(0o666) & 0o7777,
        uid: device.uid().unwrap_or(0),
        gid: device.gid().unwrap_or(0),
        index: Some(n),
    })
}

/// Makes the nodes and links; the umask must be 0. In a user namespace mknod(2) is not allowed, so the host's nodes are
/// bound in its place.
pub(crate) fn make(root: BorrowedFd, devices: &[Device], user_namespace: bool) -> Result<()> {
    let mut dev = None;
    for device in devices {
        let made = match (device.path.parent(), device.path.file_name()) {
            (Some(parent), Some(name)) => {
                // Nearly all nodes are in /dev: look that up once.
                let in_dev = parent == Path::new("dev");
                let dir = match dev.take() {
                    Some(dir) if in_dev => dir,
                    _ => make_dirs(root, parent)?,
                };
                let made = device.make(root, dir.as_fd(), Path::new(name), user_namespace);
                if in_dev {
                    dev = Some(dir);
                }
                made
            }
            _ => Err(anyhow::anyhow!("the path names no file")),
        };
        made.with_context(|| device.name())?;
    }
    let dev = make_dirs(root, Path::new("dev")).context("open /dev")?;
    link_standard_streams(&dev)
}

fn link_standard_streams(dev: &OwnedFd) -> Result<()> {
    for (target, name) in LINKS {
        match symlinkat(target, dev, name) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(errno) => return Err(errno).with_context(|| format!("link /dev/{name} to {target}")),
        }
    }
    // The ptmx of an image, or of a devtmpfs, would open the host's terminals.
    match unlinkat(dev, "ptmx", UnlinkatFlags::NoRemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => {}
        Err(errno) => return Err(errno).context("replace /dev/ptmx"),
    }
    symlinkat("pts/ptmx", dev, "ptmx").context("link /dev/ptmx to pts/ptmx")
}

impl Device {
    fn name(&self) -> String {
        match self.index {
            Some(n) => format!("linux.devices[{n}]: make /{}", self.path.display()),
            None => format!("make /{}", self.path.display()),
        }
    }

    fn make(&self, root: BorrowedFd, dir: BorrowedFd, name: &Path, user_namespace: bool) -> Result<()> {
        if user_namespace {
            return self.bind(root);
        }
        match mknodat(dir, name, self.kind, Mode::from_bits_truncate(self.mode), self.number) {
            Ok(()) => {}
            Err(Errno::EEXIST) => return self.take_existing(dir, name),
            Err(Errno::EPERM) => return self.bind(root),
            Err(errno) => return Err(errno.into()),
        }
        if self.uid != 0 || self.gid != 0 {
            let (uid, gid) = (Uid::from_raw(self.uid), Gid::from_raw(self.gid));
            fchownat(dir, name, Some(uid), Some(gid), AtFlags::AT_SYMLINK_NOFOLLOW)
                .context("change its owner")?;
        }
        Ok(())
    }

    /// "If a file already exists at path that does not match the requested device, the runtime MUST
    /// generate an error." One that matches gets owner and mode, by descriptor: the name may change hands.
    /// A default device gives way to what is there, as with every other runtime.
    fn take_existing(&self, dir: BorrowedFd, name: &Path) -> Result<()> {
        if self.index.is_none() {
            return Ok(());
        }
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let node = openat(dir, name, flags, Mode::empty())?;
        ensure!(self.is(&node)?, "there is another file that is not this device");
        let (uid, gid) = (Uid::from_raw(self.uid), Gid::from_raw(self.gid));
        fchownat(&node, "", Some(uid), Some(gid), AtFlags::AT_EMPTY_PATH).context("change its owner")?;
        // fchmod(2) takes no O_PATH descriptor; the host's /proc is still in place.
        let path = format!("/proc/self/fd/{}", node.as_raw_fd());
        fchmodat(AT_FDCWD, path.as_str(), Mode::from_bits_truncate(self.mode), FchmodatFlags::FollowSymlink)
            .context("set its mode")
    }

    fn is(&self, node: &OwnedFd) -> Result<bool> {
        let stat = fstat(node)?;
        let kind = SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT;
        Ok(kind == self.kind && (kind == SFlag::S_IFIFO || stat.st_rdev == self.number))
    }

    /// Owner and mode stay the host's: it is the host's node.
    fn bind(&self, root: BorrowedFd) -> Result<()> {
        let source = Path::new("/").join(&self.path);
        let source = source.to_str().context("its path is not UTF-8")?;
        let tree = clone_tree(AT_FDCWD, &text(source)?, false, true)
            .with_context(|| format!("bind the host's {source}, since mknod is not allowed here"))?;
        ensure!(self.is(&tree)?, "the host's {source} is another file, and mknod is not allowed here");
        let target = make_target(root, &self.path, false)?;
        Ok(attach(&tree, &target)?)
    }
}

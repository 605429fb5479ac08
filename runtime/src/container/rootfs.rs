//! `root`, `linux.rootfsPropagation`: config.md#root. The tree that becomes the container's `/`.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use nix::fcntl::{AT_FDCWD, OFlag, open};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::Mode;
use nix::unistd::{chdir, chroot, fchdir, pivot_root};
use oci_spec::runtime::Spec;

use crate::fault::{self, Point};
use crate::sys::mount::{Change, attach, attr, clone_tree, set_attributes, text};

/// The root file system before anything is mounted.
#[derive(Clone, Debug)]
pub(crate) struct RootFs {
    /// Absolute.
    pub(crate) path: PathBuf,
    read_only: bool,
    /// `MS_*` without `MS_REC`, and whether the `r` form was given.
    propagation: (MsFlags, bool),
    /// False if the container sees the host's mounts, and the host its.
    own_mounts: bool,
}

/// Resolves `root.path` against the bundle and checks it.
pub(crate) fn plan(spec: &Spec, bundle: &Path, own_mounts: bool) -> Result<RootFs> {
    let Some(root) = spec.root() else { bail!("root: missing, and Linux needs one") };
    if root.path().as_os_str().is_empty() {
        bail!("root.path: must not be empty");
    }
    let path = bundle.join(root.path());
    let found =
        path.canonicalize().with_context(|| format!("root.path {:?}: rootfs {path:?}", root.path()))?;
    if !found.is_dir() {
        bail!("root.path {:?}: rootfs {found:?} is not a folder", root.path());
    }
    let linux = spec.linux().as_ref();
    let propagation = match linux.and_then(|linux| linux.rootfs_propagation().as_deref()) {
        None | Some("" | "rslave") => (MsFlags::MS_SLAVE, true),
        Some("slave") => (MsFlags::MS_SLAVE, false),
        Some("private") => (MsFlags::MS_PRIVATE, false),
        Some("rprivate") => (MsFlags::MS_PRIVATE, true),
        Some("shared") => (MsFlags::MS_SHARED, false),
        Some("rshared") => (MsFlags::MS_SHARED, true),
        Some("unbindable") => (MsFlags::MS_UNBINDABLE, false),
        Some("runbindable") => (MsFlags::MS_UNBINDABLE, true),
        Some(other) => bail!("linux.rootfsPropagation: unknown value {other:?}"),
    };
    Ok(RootFs { path: found, read_only: root.readonly().unwrap_or(false), propagation, own_mounts })
}

impl RootFs {
    /// What copies of host mounts get: never more than the host's view may receive from them.
    pub(crate) fn source_propagation(&self) -> u64 {
        let kind = self.propagation.0;
        if kind == MsFlags::MS_SHARED { MsFlags::MS_SHARED.bits() } else { slave_or_private(kind).bits() }
    }

    /// Cuts the new mount namespace off from the host's, takes a copy of the root file system's tree
    /// and puts it on its own path. All later steps start from the descriptor that this returns.
    pub(crate) fn attach(&self) -> Result<OwnedFd> {
        if !self.own_mounts {
            return open_dir(&self.path); // put there already
        }
        // Before any mount: what we do must not be seen outside.
        let kind = self.propagation.0;
        let flags = if kind == MsFlags::MS_SHARED { kind } else { slave_or_private(kind) };
        change_propagation("/", flags | MsFlags::MS_REC)?;
        if kind == MsFlags::MS_SHARED {
            self.make_parent_private()?; // before it is copied: the copy would be the host's peer
        }
        let path = text(self.path.to_str().context("root.path is not UTF-8")?)?;
        let tree = clone_tree(AT_FDCWD, &path, true, false)
            .with_context(|| format!("copy the mount of rootfs {:?}", self.path))?;
        let target = open_dir(&self.path)?;
        attach(&tree, &target).with_context(|| format!("mount rootfs {:?}", self.path))?;
        Ok(tree)
    }

    /// Host side, for a container without a mount namespace: puts a copy of the root file system's tree on
    /// its own path, from where one unmount takes away all that the container mounts. Before that, `record` gets the
    /// mount's number: a runtime killed at any point leaves no mount that nobody knows.
    pub(crate) fn attach_on_host(&self, record: impl FnOnce(u64) -> Result<()>) -> Result<()> {
        if self.own_mounts {
            return Ok(());
        }
        let path = text(self.path.to_str().context("root.path is not UTF-8")?)?;
        let context = || format!("mount rootfs {:?}", self.path);
        let tree = clone_tree(AT_FDCWD, &path, true, false).with_context(context)?;
        let change = Change { propagation: MsFlags::MS_PRIVATE.bits(), ..Change::default() };
        set_attributes(&tree, &change, true).with_context(context)?;
        record(number_of(&tree)?)?;
        fault::point(Point::CreateMountRecorded);
        attach(&tree, open_dir(&self.path)?).with_context(context)?;
        fault::point(Point::CreateMount);
        Ok(())
    }

    /// Makes the tree `/`.
    pub(crate) fn enter(&self, root: BorrowedFd, no_pivot: bool) -> Result<()> {
        match (self.own_mounts, no_pivot) {
            (false, _) => enter_root(root),
            (true, false) => self.pivot(root),
            (true, true) => self.move_and_chroot(root),
        }
    }

    /// pivot_root(2) refuses a shared parent, and through one our mounts would be seen outside.
    fn make_parent_private(&self) -> Result<()> {
        for parent in self.path.ancestors() {
            match mount(None::<&str>, parent, None::<&str>, MsFlags::MS_PRIVATE, None::<&str>) {
                Err(nix::errno::Errno::EINVAL) => {} // not a mount point: its parent may be
                other => {
                    return other.with_context(|| format!("make the mount {parent:?} private"));
                }
            }
        }
        Ok(())
    }

    /// Makes the tree `/` and lets go of the host's: pivot_root(".", "."), then detach what lies under.
    fn pivot(&self, root: BorrowedFd) -> Result<()> {
        let old = if self.propagation.0 == MsFlags::MS_SHARED { Some(open_dir("/")?) } else { None };
        fchdir(root).context("enter the rootfs")?;
        pivot_root(".", ".").with_context(|| format!("pivot_root to {:?}", self.path))?;
        // The old root is on top now. A shared one would carry the unmount back to the host.
        if let Some(old) = old {
            fchdir(&old).context("enter the old root")?;
            change_propagation(".", MsFlags::MS_SLAVE | MsFlags::MS_REC)?;
        }
        umount2(".", MntFlags::MNT_DETACH).context("detach the old root")?;
        chdir("/").context("enter the new root")
    }

    /// `--no-pivot`, for a host whose root is a ramdisk: weaker, since the host's tree stays below.
    fn move_and_chroot(&self, root: BorrowedFd) -> Result<()> {
        unmount_kernel_views(&self.path)?;
        fchdir(root).context("enter the rootfs")?;
        mount(Some("."), "/", None::<&str>, MsFlags::MS_MOVE, None::<&str>)
            .with_context(|| format!("move {:?} to /", self.path))?;
        enter_root(root)
    }

    /// After everything else: propagation of `/` as asked, and read-only if asked.
    pub(crate) fn finish(&self, root: impl AsFd) -> Result<()> {
        let (kind, all) = self.propagation;
        if kind == MsFlags::MS_SHARED || kind == MsFlags::MS_UNBINDABLE {
            let flags = if all { kind | MsFlags::MS_REC } else { kind };
            change_propagation("/", flags)?;
        }
        if self.read_only {
            let change = Change { set: attr::RDONLY, ..Change::default() };
            set_attributes(root, &change, false).context("make / read-only (root.readonly)")?;
        }
        Ok(())
    }
}

/// Makes a folder the root of this process alone.
pub(crate) fn enter_root(root: BorrowedFd) -> Result<()> {
    fchdir(root).context("enter the rootfs")?;
    chroot(".").context("chroot to the rootfs")?;
    chdir("/").context("enter the new root")
}

/// Takes away what [`RootFs::attach_on_host`] has put on `rootfs`, with all that was mounted in it; what the
/// engine has mounted there stays.
pub(crate) fn detach_from_host(rootfs: &Path, number: u64) -> Result<()> {
    if number_of(&open_dir(rootfs)?)? != number {
        return Ok(());
    }
    let flags = MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW;
    umount2(rootfs, flags).with_context(|| format!("unmount rootfs {rootfs:?}"))
}

/// A mount's number is its own for as long as it lives, attached or not.
fn number_of(fd: &OwnedFd) -> Result<u64> {
    let path = format!("/proc/self/fdinfo/{}", fd.as_raw_fd());
    let text = std::fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    let number = text.lines().find_map(|line| line.strip_prefix("mnt_id:")?.trim().parse().ok());
    number.with_context(|| format!("{path} has no mnt_id"))
}

fn open_dir(path: impl AsRef<Path>) -> Result<OwnedFd> {
    let path = path.as_ref();
    open(path, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())
        .with_context(|| format!("open {path:?}"))
}

/// Unbindable mounts could not be copied, so until the end they are private.
fn slave_or_private(kind: MsFlags) -> MsFlags {
    if kind == MsFlags::MS_SLAVE { MsFlags::MS_SLAVE } else { MsFlags::MS_PRIVATE }
}

fn change_propagation(path: &str, flags: MsFlags) -> Result<()> {
    mount(None::<&str>, path, None::<&str>, flags, None::<&str>)
        .with_context(|| format!("set the propagation of {path} (linux.rootfsPropagation)"))
}

/// Without pivot_root the host's procfs and sysfs would stay reachable in the mount namespace, unmasked.
fn unmount_kernel_views(rootfs: &Path) -> Result<()> {
    let mounts = std::fs::read_to_string("/proc/self/mounts").context("read /proc/self/mounts")?;
    for line in mounts.lines().rev() {
        let mut fields = line.split(' ').skip(1);
        let (Some(path), Some(kind)) = (fields.next(), fields.next()) else { continue };
        if matches!(kind, "proc" | "sysfs") && !Path::new(path).starts_with(rootfs) {
            umount2(path, MntFlags::MNT_DETACH)
                .or_else(|_| {
                    let ro = MsFlags::MS_RDONLY;
                    mount(Some("tmpfs"), path, Some("tmpfs"), ro, None::<&str>)
                })
                .with_context(|| format!("hide the host's {path} (--no-pivot)"))?;
        }
    }
    Ok(())
}

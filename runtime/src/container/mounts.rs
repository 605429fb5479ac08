//! `mounts`: config.md#mounts. Each is made detached and put on a target that was opened as a
//! descriptor inside the root file system, so no path string can lead outside (CVE-2021-30465).

use std::ffi::{CString, OsStr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail, ensure};
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, openat, readlinkat};
use nix::mount::{MntFlags, umount2};
use nix::sys::stat::{Mode, SFlag, fstat, mkdirat};
use nix::sys::statfs::{PROC_SUPER_MAGIC, fstatfs};
use nix::sys::statvfs::{FsFlags, fstatvfs};
use nix::unistd::{fchdir, symlinkat};
use oci_spec::runtime::Spec;

use super::copy_up;
use super::filesystem::{self, FileSystem};
use super::id_mapped::{self, ContainerIds, Donors, IdMapped};
use super::lsm::MountLabel;
use super::mount_options::{self, Links, MountOptions};
use crate::sys::mount::{Change, attach, attr, clone_tree, set_attributes};
use crate::sys::path::{open_in_root, open_no_symlinks};
use crate::{cgroup, log};

/// One entry of `mounts`, checked.
#[derive(Debug)]
pub(crate) struct Mount {
    /// Its place in the list, for error messages.
    index: usize,
    /// As given, for error messages.
    destination: PathBuf,
    /// Relative to the root file system, without `.` and `..`.
    target: PathBuf,
    kind: Kind,
    options: MountOptions,
    id_mapped: Option<IdMapped>,
}

#[derive(Debug)]
enum Kind {
    /// A detached copy of what is to be seen there; or, with `copy-symlink`, where a link leads.
    /// With `inside`, relative to the root file system, the copy is made when its turn comes.
    Bind { source: PathBuf, tree: Option<OwnedFd>, link: Option<PathBuf>, inside: Option<PathBuf> },
    /// A file system that the kernel makes; it is there already if the host's side had to make it.
    Fs { kind: String, source: String, made: Option<OwnedFd> },
    /// The container's view of its cgroups.
    Cgroup,
    /// Other options for a mount that an earlier entry has made.
    Remount,
}

/// Files of procfs that may be covered: what lxcfs provides.
const PROC_FILES: [&str; 11] = [
    "proc/cpuinfo",
    "proc/diskstats",
    "proc/meminfo",
    "proc/stat",
    "proc/swaps",
    "proc/uptime",
    "proc/loadavg",
    "proc/slabinfo",
    "proc/sys/kernel/ns_last_pid",
    "proc/sys/crypto/fips_enabled",
    "proc/net/dev",
];

/// Checks every entry; touches nothing.
pub(crate) fn plan(spec: &Spec, bundle: &Path, rootfs: &Path, ids: ContainerIds) -> Result<Vec<Mount>> {
    let mounts = spec.mounts().iter().flatten().enumerate();
    let plan = |(n, mount)| plan_one(n, mount, bundle, rootfs, ids).with_context(|| format!("mounts[{n}]"));
    mounts.map(plan).collect()
}

fn plan_one(
    index: usize,
    mount: &oci_spec::runtime::Mount,
    bundle: &Path,
    rootfs: &Path,
    ids: ContainerIds,
) -> Result<Mount> {
    let destination = mount.destination().clone();
    let options = mount_options::parse(mount.options().as_deref().unwrap_or_default());
    // As with runc, a destination may be given as it is outside.
    let target = clean(destination.strip_prefix(rootfs).unwrap_or(&destination));
    if target.as_os_str().is_empty() {
        bail!("destination {destination:?}: mountpoint is on the top of rootfs");
    }
    let typ = mount.typ().as_deref().unwrap_or_default();
    let source = mount.source().clone().unwrap_or_default();
    let id_mapped = id_mapped::plan(mount, options.id_map.as_ref(), ids)?;
    let kind = if options.bind.is_some() || typ == "bind" {
        if source.as_os_str().is_empty() {
            bail!("a bind mount on {destination:?} needs a source");
        }
        if let Some(data) = options.data.first() {
            bail!("option {data:?}: bind mounts cannot have any filesystem-specific options applied");
        }
        if options.remount {
            Kind::Remount
        } else {
            let source = bundle.join(source);
            // With `..` it may as well lead out again.
            let leads_out = source.components().any(|part| part == Component::ParentDir);
            let inside = source.strip_prefix(rootfs).ok().filter(|_| !leads_out).map(Path::to_owned);
            Kind::Bind { source, tree: None, link: None, inside }
        }
    } else if options.remount {
        Kind::Remount
    } else if typ == "cgroup" {
        Kind::Cgroup
    } else if typ.is_empty() || typ == "none" {
        bail!("a mount on {destination:?} needs a type, or the option bind");
    } else {
        let source = source.to_str().ok_or_else(|| anyhow!("source {source:?} is not UTF-8"))?;
        Kind::Fs { kind: typ.to_owned(), source: source.to_owned(), made: None }
    };
    if options.copy_up && !matches!(&kind, Kind::Fs { kind, .. } if kind == "tmpfs") {
        bail!("option tmpcopyup: only a tmpfs can start with what it covers");
    }
    if id_mapped.is_some() && matches!(kind, Kind::Cgroup | Kind::Remount) {
        bail!("options: only a new mount can be id-mapped, and none of type cgroup");
    }
    let links = options.links;
    if links != Links::default() && !matches!(kind, Kind::Bind { .. }) {
        bail!("options: copy-symlink, src-nofollow and dest-nofollow are for bind mounts");
    }
    if links.copy && (links.keep_source || links.keep_destination) {
        bail!("options: copy-symlink excludes src-nofollow and dest-nofollow");
    }
    if !destination.is_absolute() {
        log::warn(&format!("mounts[{index}].destination: {destination:?} is relative, which is deprecated"));
    }
    let mount = Mount { index, destination, target, kind, options, id_mapped };
    mount.check_proc()?;
    Ok(mount)
}

/// Lexically: no leading `/`, no `.`, and `..` takes back one part.
pub(crate) fn clean(path: &Path) -> PathBuf {
    let mut clean = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => drop(clean.pop()),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    clean
}

/// What the mounts of a container are put on and made from.
#[derive(Debug)]
pub(crate) struct Place<'a> {
    /// The root file system, attached.
    pub(crate) root: BorrowedFd<'a>,
    /// The container's cgroups.
    pub(crate) cgroups: &'a cgroup::Place,
    /// True when the container has a cgroup namespace of its own.
    pub(crate) cgroup_namespace: bool,
    /// True when it has a user namespace of its own.
    pub(crate) user_namespace: bool,
    /// `linux.mountLabel`.
    pub(crate) label: Option<&'a MountLabel>,
}

impl Mount {
    /// Where it is to be, relative to the root file system.
    pub(crate) fn target(&self) -> &Path {
        &self.target
    }

    /// True if the whole `/dev` comes from elsewhere, so that nothing may be made in it.
    pub(crate) fn replaces_dev(&self) -> bool {
        matches!(self.kind, Kind::Bind { .. }) && self.target == Path::new("dev")
    }

    /// Host side, in the runtime's own namespaces and with its permissions: takes a detached copy of a bind
    /// mount's source, which might be out of reach from a user namespace; and makes what is to be
    /// id-mapped, since a mapping is for the owner of the file system to give.
    /// `propagation` is what the container's view of the host gets (`rslave` unless told otherwise).
    pub(crate) fn prepare(
        &mut self,
        propagation: u64,
        label: Option<&MountLabel>,
        donors: &mut Donors,
    ) -> Result<()> {
        let context = format!("mount {} on {:?}", self.what(), self.destination);
        self.prepare_source(propagation, label, donors).context(context)
    }

    fn prepare_source(
        &mut self,
        propagation: u64,
        label: Option<&MountLabel>,
        donors: &mut Donors,
    ) -> Result<()> {
        let host_made = match (&self.id_mapped, self.file_system(label)) {
            (Some(_), Some(fs)) => Some(fs.make(self.attributes(), None)?),
            _ => None,
        };
        let links = self.options.links;
        let recursive = self.options.bind == Some(true);
        let tree = match &mut self.kind {
            Kind::Bind { source, tree, link, inside } => {
                if links.copy && source.is_symlink() {
                    *link = Some(source.read_link()?);
                    return Ok(());
                }
                if inside.is_some() {
                    return Ok(());
                }
                let path = CString::new(source.as_os_str().as_encoded_bytes())?;
                let copy = clone_tree(AT_FDCWD, &path, recursive, !links.keep_source)?;
                set_attributes(&copy, &Change { propagation, ..Change::default() }, recursive)?;
                tree.insert(copy)
            }
            Kind::Fs { made, .. } => match host_made {
                Some(host_made) => made.insert(host_made),
                None => return Ok(()),
            },
            Kind::Cgroup | Kind::Remount => return Ok(()),
        };
        match &self.id_mapped {
            Some(mapped) => mapped.apply(tree, donors),
            None => Ok(()),
        }
    }

    /// Container side: makes the mount. Returns the mount when it has to be made read-only after all
    /// the others are there, since later mount points may still have to be created in it.
    /// `late` is what [`Self::clone_inside`] gave.
    pub(crate) fn apply(&self, place: &Place, late: Option<&OwnedFd>) -> Result<Option<OwnedFd>> {
        self.make(place, late).with_context(|| format!("mount {} on {:?}", self.what(), self.destination))
    }

    fn what(&self) -> String {
        match &self.kind {
            Kind::Bind { source, .. } => format!("{source:?}"),
            Kind::Fs { kind, .. } => format!("{kind:?}"),
            Kind::Cgroup => "\"cgroup\"".to_owned(),
            Kind::Remount => format!("again (mounts[{}])", self.index),
        }
    }

    /// Container side: the copy of a source that earlier entries may have made or covered.
    pub(crate) fn clone_inside(&self, root: BorrowedFd) -> Result<Option<OwnedFd>> {
        let Kind::Bind { inside: Some(inside), .. } = &self.kind else { return Ok(None) };
        let context = || format!("mount {} on {:?}", self.what(), self.destination);
        let follow = if self.options.links.keep_source { OFlag::O_NOFOLLOW } else { OFlag::empty() };
        let found = open_in_root(root, inside, (OFlag::O_PATH | follow).bits(), 0).with_context(context)?;
        let recursive = self.options.bind == Some(true);
        clone_tree(found, c"", recursive, false).map(Some).with_context(context)
    }

    pub(crate) fn is_id_mapped(&self) -> bool {
        self.id_mapped.is_some()
    }

    /// Host side: gives a copy that was made inside its mapping.
    pub(crate) fn map_ids(&self, tree: &OwnedFd, donors: &mut Donors) -> Result<()> {
        let mapped = self.id_mapped.as_ref().context("it has no mapping")?;
        let context = || format!("mount {} on {:?}", self.what(), self.destination);
        mapped.apply(tree, donors).with_context(context)
    }

    fn make(&self, place: &Place, late: Option<&OwnedFd>) -> Result<Option<OwnedFd>> {
        match &self.kind {
            Kind::Bind { link: Some(text), .. } => self.make_link(place, text).map(|()| None),
            Kind::Bind { tree, .. } => {
                let tree = tree.as_ref().or(late).context("its source was not opened")?;
                self.change_bound(tree, place.user_namespace)?;
                let is_dir = is_folder(tree)?;
                let target = if self.options.links.keep_destination {
                    make_link_target(place.root, &self.target, is_dir)?
                } else {
                    make_target(place.root, &self.target, is_dir)?
                };
                self.check_behind_links(&target)?;
                self.check_bound_proc(tree)?;
                attach(tree, &target)?;
                self.propagate(tree)?;
                Ok(None)
            }
            Kind::Fs { made, .. } => self.make_fs(place, made.as_ref()),
            Kind::Cgroup => {
                let target = make_target(place.root, &self.target, true)?;
                self.check_behind_links(&target)?;
                let made = place.cgroups.mount(&target, self.options.set, place.cgroup_namespace)?;
                self.change_recursive(&made)?;
                self.propagate(&made)?;
                Ok(None)
            }
            Kind::Remount => {
                let target = open_in_root(place.root, &self.target, OFlag::O_PATH.bits(), 0)
                    .context("open the mount point")?;
                FileSystem::reconfigure(&self.options, &target)?;
                self.change_attributes(&target)?;
                self.propagate(&target)?;
                Ok(None)
            }
        }
    }

    fn file_system<'a>(&'a self, label: Option<&'a MountLabel>) -> Option<FileSystem<'a>> {
        let Kind::Fs { kind, source, .. } = &self.kind else { return None };
        Some(FileSystem { kind, source, options: &self.options, label })
    }

    fn make_fs(&self, place: &Place, made: Option<&OwnedFd>) -> Result<Option<OwnedFd>> {
        let fs = self.file_system(place.label).context("it has no file system")?;
        // What the kernel fills with secrets of its own must land on a real folder, never where a link
        // of the image points (CVE-2019-19921).
        let mode = self.mode_of_covered(place)?;
        let target = if matches!(fs.kind, "proc" | "sysfs") {
            make_real_dir(place.root, &self.target)
                .with_context(|| format!("filesystem {:?} must be mounted on ordinary directory", fs.kind))?
        } else {
            make_target(place.root, &self.target, true)?
        };
        self.check_behind_links(&target)?;
        let deferred = fs.kind == "tmpfs" && self.options.set & attr::RDONLY != 0;
        let made = match made {
            Some(made) => {
                mode.map_or(Ok(()), |mode| filesystem::set_mode(made, mode))?;
                Ok(made.try_clone()?)
            }
            None => fs.make(self.attributes(), mode),
        };
        let made = match made {
            Ok(made) => {
                if self.options.copy_up {
                    copy_up::copy(&target, &made).context("tmpcopyup")?;
                }
                attach(&made, &target)?;
                made
            }
            Err(error) if fs.needs_old_mount(&error) => {
                fs.mount_on(&target)?;
                let made = open_in_root(place.root, &self.target, OFlag::O_PATH.bits(), 0)?;
                self.change_attributes(&made)?;
                made
            }
            Err(error) => return Err(error),
        };
        self.change_recursive(&made)?;
        self.propagate(&made)?;
        Ok(deferred.then_some(made))
    }

    /// A tmpfs looks like the folder that it covers, unless it is told its mode.
    fn mode_of_covered(&self, place: &Place) -> Result<Option<u32>> {
        let is_tmpfs = matches!(&self.kind, Kind::Fs { kind, .. } if kind == "tmpfs");
        if !is_tmpfs || self.options.data.iter().any(|option| option.starts_with("mode=")) {
            return Ok(None);
        }
        match open_in_root(place.root, &self.target, OFlag::O_PATH.bits(), 0) {
            Ok(covered) => Ok(Some(fstat(&covered)?.st_mode & 0o7777)),
            Err(_) => Ok(None), // it is yet to be made
        }
    }

    /// What a new mount has from birth: a tmpfs is made read-only later, since mount points may still
    /// have to be made in it.
    fn attributes(&self) -> u64 {
        let is_tmpfs = matches!(&self.kind, Kind::Fs { kind, .. } if kind == "tmpfs");
        if is_tmpfs { self.options.set & !attr::RDONLY } else { self.options.set }
    }

    /// `copy-symlink`: the link itself is made again, so there is nothing to mount.
    fn make_link(&self, place: &Place, text: &Path) -> Result<()> {
        let (parent, name) = parent_and_name(&self.target)?;
        let parent = make_dirs(place.root, parent).context("make the folders of the link")?;
        self.check_behind_links(&parent)?;
        match symlinkat(text, &parent, name) {
            Err(Errno::EEXIST) if readlinkat(&parent, name).is_ok_and(|found| found == text.as_os_str()) => {
                Ok(())
            }
            other => other.with_context(|| format!("make a link to {text:?}")),
        }
    }

    fn change_attributes(&self, mount: impl AsFd) -> Result<()> {
        let options = &self.options;
        if options.set | options.clear != 0 {
            let change = Change { set: options.set, clear: options.clear, ..Change::default() };
            set_attributes(&mount, &change, false).context("set its mount options")?;
        }
        self.change_recursive(mount)
    }

    /// The kernel would lock nothing of a copy that the host's side has made, so that is looked after here;
    /// where it does, since the runtime itself is in a user namespace, it says EPERM.
    fn change_bound(&self, tree: &OwnedFd, user_namespace: bool) -> Result<()> {
        let change = |locked: bool| -> Result<()> {
            let has = if locked { attributes_of(tree)? } else { 0 };
            let change = self.options.bind_change(has, locked)?;
            if change.set | change.clear != 0 {
                set_attributes(tree, &change, false).context("set its mount options")?;
            }
            Ok(())
        };
        match change(user_namespace) {
            Err(error) if !user_namespace && error.downcast_ref() == Some(&Errno::EPERM) => change(true)?,
            other => other?,
        }
        self.change_recursive(tree)
    }

    fn change_recursive(&self, mount: impl AsFd) -> Result<()> {
        let options = &self.options;
        if options.set_all | options.clear_all == 0 {
            return Ok(());
        }
        let change = Change { set: options.set_all, clear: options.clear_all, ..Change::default() };
        set_attributes(mount, &change, true).context("set its recursive mount options")
    }

    fn propagate(&self, mount: impl AsFd) -> Result<()> {
        for (propagation, all) in &self.options.propagation {
            let change = Change { propagation: *propagation, ..Change::default() };
            set_attributes(&mount, &change, *all).context("set its propagation")?;
        }
        Ok(())
    }

    /// Nothing may cover `/proc` or what is in it but a procfs and the few files that lxcfs serves:
    /// label and sysctl writes would go astray, masks would be bypassed (CVE-2019-16884).
    fn check_proc(&self) -> Result<()> {
        let Ok(below) = self.target.strip_prefix("proc") else { return Ok(()) };
        let allowed = match &self.kind {
            Kind::Remount => true,
            Kind::Fs { kind, .. } if below.as_os_str().is_empty() => kind == "proc",
            Kind::Bind { .. } if below.as_os_str().is_empty() => true, // checked once it is open
            Kind::Bind { .. } => PROC_FILES.iter().any(|file| self.target == Path::new(file)),
            _ => false,
        };
        if !allowed {
            bail!("{:?} cannot be mounted because it is inside /proc", self.destination);
        }
        Ok(())
    }

    /// The same for a mount point that a symbolic link of the image leads into `/proc`.
    fn check_behind_links(&self, target: &OwnedFd) -> Result<()> {
        if !self.target.starts_with("proc") && fstatfs(target)?.filesystem_type() == PROC_SUPER_MAGIC {
            bail!("{:?} cannot be mounted because it is inside /proc", self.destination);
        }
        Ok(())
    }

    fn check_bound_proc(&self, tree: &OwnedFd) -> Result<()> {
        const PROC_ROOT_INODE: u64 = 1;
        if self.target == Path::new("proc")
            && !(fstatfs(tree)?.filesystem_type() == PROC_SUPER_MAGIC
                && fstat(tree)?.st_ino == PROC_ROOT_INODE)
        {
            bail!("{:?} cannot be mounted because it is not of type proc", self.destination);
        }
        Ok(())
    }
}

fn is_folder(fd: &OwnedFd) -> Result<bool> {
    Ok(SFlag::from_bits_truncate(fstat(fd)?.st_mode) & SFlag::S_IFMT == SFlag::S_IFDIR)
}

/// The attributes of the mount that `fd` lies on: `f_flags` of statfs(2).
fn attributes_of(fd: &OwnedFd) -> Result<u64> {
    let flags = fstatvfs(fd)?.flags();
    let mut has = 0;
    for (flag, bit) in [
        (FsFlags::ST_RDONLY, attr::RDONLY),
        (FsFlags::ST_NOSUID, attr::NOSUID),
        (FsFlags::ST_NODEV, attr::NODEV),
        (FsFlags::ST_NOEXEC, attr::NOEXEC),
        (FsFlags::ST_NOATIME, attr::NOATIME),
        (FsFlags::ST_NODIRATIME, attr::NODIRATIME),
    ] {
        has |= if flags.contains(flag) { bit } else { 0 };
    }
    let strict = !flags.intersects(FsFlags::ST_NOATIME | FsFlags::ST_RELATIME);
    Ok(if strict { has | attr::STRICTATIME } else { has })
}

/// Opens the mount point, or makes it: folders 0755, a file 0755 where a file is to be covered.
pub(crate) fn make_target(root: BorrowedFd, target: &Path, is_dir: bool) -> Result<OwnedFd> {
    if is_dir {
        return make_dirs(root, target).context("make the mount point");
    }
    make_file_target(root, target, OFlag::O_PATH, MOST_LINKS)
}

/// The same, but a symbolic link at the end is itself the mount point.
fn make_link_target(root: BorrowedFd, target: &Path, is_dir: bool) -> Result<OwnedFd> {
    match open_in_root(root, target, (OFlag::O_PATH | OFlag::O_NOFOLLOW).bits(), 0) {
        Err(Errno::ENOENT) if is_dir => make_dirs(root, target).context("make the mount point"),
        Err(Errno::ENOENT) => make_file_target(root, target, OFlag::O_PATH | OFlag::O_NOFOLLOW, MOST_LINKS),
        other => other.context("open the mount point"),
    }
}

fn make_file_target(root: BorrowedFd, target: &Path, how: OFlag, left: u8) -> Result<OwnedFd> {
    match open_in_root(root, target, how.bits(), 0) {
        Ok(found) => return Ok(found),
        Err(Errno::ENOENT) => {}
        Err(errno) => return Err(errno).context("open the mount point"),
    }
    let (parent, name) = parent_and_name(target)?;
    let parent = make_dirs(root, parent).context("make the folders of the mount point")?;
    let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    match openat(&parent, name, flags, Mode::from_bits_truncate(0o755)) {
        Ok(_) => Ok(open_in_root(root, target, how.bits(), 0)?),
        Err(Errno::EEXIST) => make_file_target(root, &behind_link(root, target, left)?, how, left - 1),
        Err(errno) => Err(errno).context("make the mount point"),
    }
}

/// As the kernel's own limit.
const MOST_LINKS: u8 = 40;

/// Where a link leads that leads nowhere yet: there the mount point is made, still inside. What is no link
/// has just been made by somebody else, another container on the same folder, say: it is looked at again.
fn behind_link(root: BorrowedFd, path: &Path, left: u8) -> Result<PathBuf> {
    ensure!(left > 0, "/{}: too many symbolic links", path.display());
    let (parent, name) = parent_and_name(path)?;
    let dir = OFlag::O_PATH | OFlag::O_DIRECTORY;
    let leads = match readlinkat(open_in_root(root, parent, dir.bits(), 0)?, name) {
        Err(Errno::EINVAL | Errno::ENOENT) => return Ok(path.to_owned()),
        leads => PathBuf::from(leads?),
    };
    let mut behind = PathBuf::new();
    for part in parent.join(&leads).components() {
        match part {
            Component::Normal(name) => behind.push(name),
            // Taken back by its letters, which is right only where no other link is on the way.
            Component::ParentDir if behind.file_name().is_some() => {
                open_no_symlinks(root, &behind, dir.bits())
                    .with_context(|| format!("follow the link /{} to {leads:?}", path.display()))?;
                behind.pop();
            }
            _ => {}
        }
    }
    Ok(behind)
}

fn parent_and_name(target: &Path) -> Result<(&Path, &OsStr)> {
    match (target.parent(), target.file_name()) {
        (Some(parent), Some(name)) => Ok((parent, name)),
        _ => bail!("{target:?} has no name"),
    }
}

/// `mkdir -p` inside the root file system, part by part and by descriptor (CVE-2024-45310).
pub(crate) fn make_dirs(root: BorrowedFd, path: &Path) -> Result<OwnedFd> {
    make_dirs_behind(root, path, MOST_LINKS)
}

fn make_dirs_behind(root: BorrowedFd, path: &Path, left: u8) -> Result<OwnedFd> {
    let open = |path: &Path| open_in_root(root, path, (OFlag::O_PATH | OFlag::O_DIRECTORY).bits(), 0);
    let shown = || format!("/{}", path.display());
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return open(Path::new(".")).context("open /");
    };
    match open(path) {
        Err(Errno::ENOENT) => {}
        other => return other.with_context(|| format!("open {}", shown())),
    }
    match mkdirat(make_dirs_behind(root, parent, left)?, name, Mode::from_bits_truncate(0o755)) {
        Ok(()) => open(path).with_context(|| format!("open {}", shown())),
        Err(Errno::EEXIST) => make_dirs_behind(root, &behind_link(root, path, left)?, left - 1),
        Err(errno) => Err(errno).with_context(|| format!("mkdir {}", shown())),
    }
}

fn make_real_dir(root: BorrowedFd, target: &Path) -> Result<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY;
    match open_no_symlinks(root, target, flags.bits()) {
        Ok(found) => Ok(found),
        Err(Errno::ENOENT) => {
            make_dirs(root, target)?;
            Ok(open_no_symlinks(root, target, flags.bits())?)
        }
        Err(Errno::ELOOP | Errno::ENOTDIR) => bail!("a symbolic link or a file is in the way"),
        Err(errno) => Err(errno).context("open the mount point"),
    }
}

/// Takes the topmost mount on `target` away, relative to the root file system; who uses it still, keeps it.
pub(crate) fn unmount(root: BorrowedFd, target: &Path) -> Result<()> {
    let (parent, name) = parent_and_name(target)?;
    let parent = open_in_root(root, parent, (OFlag::O_PATH | OFlag::O_DIRECTORY).bits(), 0)?;
    // umount2(2) takes no descriptor. From the folder on, no name is left that could lead elsewhere.
    fchdir(&parent)?;
    Ok(umount2(name, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW)?)
}

/// Makes what was kept writable for the sake of later mount points read-only now.
pub(crate) fn make_read_only(mounts: &[OwnedFd]) -> Result<()> {
    let change = Change { set: attr::RDONLY, ..Change::default() };
    for mount in mounts {
        set_attributes(mount, &change, false)
            .with_context(|| format!("make a tmpfs (descriptor {}) read-only", mount.as_raw_fd()))?;
    }
    Ok(())
}

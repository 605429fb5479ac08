//! `mounts`: config.md#mounts. Each is made detached and put on a target that was opened as a
//! descriptor inside the root file system, so no path string can lead outside (CVE-2021-30465).

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, openat};
use nix::sys::stat::{Mode, SFlag, fstat, mkdirat};
use nix::sys::statfs::{PROC_SUPER_MAGIC, fstatfs};
use oci_spec::runtime::Spec;

use super::copy_up;
use super::mount_options::{self, MountOptions};
use crate::cgroup;
use crate::sys::mount::{Change, NewFs, attach, attr, clone_tree, set_attributes, text};
use crate::sys::path::{open_in_root, open_no_symlinks};

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
}

#[derive(Debug)]
enum Kind {
    /// A detached copy of what is to be seen there.
    Bind { source: PathBuf, tree: Option<OwnedFd>, is_dir: bool },
    /// A file system that the kernel makes.
    Fs { kind: String, source: String },
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
pub(crate) fn plan(spec: &Spec, bundle: &Path) -> Result<Vec<Mount>> {
    let mounts = spec.mounts().iter().flatten().enumerate();
    mounts.map(|(n, mount)| plan_one(n, mount, bundle).with_context(|| format!("mounts[{n}]"))).collect()
}

fn plan_one(index: usize, mount: &oci_spec::runtime::Mount, bundle: &Path) -> Result<Mount> {
    let destination = mount.destination().clone();
    let options = mount_options::parse(mount.options().as_deref().unwrap_or_default());
    let target = clean(&destination);
    if target.as_os_str().is_empty() {
        bail!("destination {destination:?}: mountpoint is on the top of rootfs");
    }
    let typ = mount.typ().as_deref().unwrap_or_default();
    let source = mount.source().clone().unwrap_or_default();
    if options.id_map.is_some() || mount.uid_mappings().is_some() || mount.gid_mappings().is_some() {
        bail!("id-mapped mounts (uidMappings, gidMappings, idmap) are not supported yet");
    }
    let kind = if options.bind.is_some() || typ == "bind" {
        if source.as_os_str().is_empty() {
            bail!("a bind mount on {destination:?} needs a source");
        }
        if options.remount {
            Kind::Remount
        } else {
            if let Some(data) = options.data.first() {
                bail!("option {data:?}: bind mounts cannot have any filesystem-specific options applied");
            }
            Kind::Bind { source: bundle.join(source), tree: None, is_dir: false }
        }
    } else if options.remount {
        Kind::Remount
    } else if typ == "cgroup" {
        Kind::Cgroup
    } else if typ.is_empty() || typ == "none" {
        bail!("a mount on {destination:?} needs a type, or the option bind");
    } else {
        let source = source.to_str().ok_or_else(|| anyhow!("source {source:?} is not UTF-8"))?;
        Kind::Fs { kind: typ.to_owned(), source: source.to_owned() }
    };
    if options.copy_up && !matches!(&kind, Kind::Fs { kind, .. } if kind == "tmpfs") {
        bail!("option tmpcopyup: only a tmpfs can start with what it covers");
    }
    let mount = Mount { index, destination, target, kind, options };
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
    /// `linux.mountLabel`.
    pub(crate) label: Option<&'a str>,
}

impl Mount {
    /// True if the whole `/dev` comes from elsewhere, so that nothing may be made in it.
    pub(crate) fn replaces_dev(&self) -> bool {
        matches!(self.kind, Kind::Bind { .. }) && self.target == Path::new("dev")
    }

    /// Host side: takes a detached copy of a bind mount's source, in the runtime's own mount namespace
    /// and with its permissions; inside a user namespace the path might be out of reach.
    /// `propagation` is what the container's view of the host gets (`rslave` unless told otherwise).
    pub(crate) fn open_source(&mut self, propagation: u64) -> Result<()> {
        let recursive = self.options.bind == Some(true);
        let Kind::Bind { source, tree, is_dir } = &mut self.kind else { return Ok(()) };
        let context = || format!("mount {source:?} on {:?}", self.destination);
        let path = CString::new(source.as_os_str().as_encoded_bytes()).with_context(context)?;
        let copy = clone_tree(AT_FDCWD, &path, recursive, true).with_context(context)?;
        let change = Change { propagation, ..Change::default() };
        set_attributes(&copy, &change, recursive).with_context(context)?;
        let stat = fstat(&copy).with_context(context)?;
        *is_dir = SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == SFlag::S_IFDIR;
        *tree = Some(copy);
        Ok(())
    }

    /// Container side: makes the mount. Returns the mount when it has to be made read-only after all
    /// the others are there, since later mount points may still have to be created in it.
    pub(crate) fn apply(&self, place: &Place) -> Result<Option<OwnedFd>> {
        self.make(place).with_context(|| format!("mount {} on {:?}", self.what(), self.destination))
    }

    fn what(&self) -> String {
        match &self.kind {
            Kind::Bind { source, .. } => format!("{source:?}"),
            Kind::Fs { kind, .. } => format!("{kind:?}"),
            Kind::Cgroup => "\"cgroup\"".to_owned(),
            Kind::Remount => format!("again (mounts[{}])", self.index),
        }
    }

    fn make(&self, place: &Place) -> Result<Option<OwnedFd>> {
        match &self.kind {
            Kind::Bind { tree, is_dir, .. } => {
                let tree = tree.as_ref().context("its source was not opened")?;
                self.change_attributes(tree)?;
                let target = make_target(place.root, &self.target, *is_dir)?;
                self.check_behind_links(&target)?;
                self.check_bound_proc(tree)?;
                attach(tree, &target)?;
                self.propagate(tree)?;
                Ok(None)
            }
            Kind::Fs { kind, source } => self.make_fs(place, kind, source),
            Kind::Cgroup => {
                let target = make_target(place.root, &self.target, true)?;
                place.cgroups.mount(&target, self.options.set, place.cgroup_namespace)?;
                Ok(None)
            }
            Kind::Remount => {
                let target = open_in_root(place.root, &self.target, OFlag::O_PATH.bits(), 0)
                    .context("open the mount point")?;
                if let Some(data) = self.options.data.first() {
                    bail!("option {data:?} cannot be changed by a remount here: give it at the first mount");
                }
                self.change_attributes(&target)?;
                self.propagate(&target)?;
                Ok(None)
            }
        }
    }

    fn make_fs(&self, place: &Place, kind: &str, source: &str) -> Result<Option<OwnedFd>> {
        // What the kernel fills with secrets of its own must land on a real folder, never where a link
        // of the image points (CVE-2019-19921).
        let target = if matches!(kind, "proc" | "sysfs") {
            make_real_dir(place.root, &self.target)?
        } else {
            make_target(place.root, &self.target, true)?
        };
        self.check_behind_links(&target)?;
        let deferred = kind == "tmpfs" && self.options.set & attr::RDONLY != 0;
        let attributes = if deferred { self.options.set & !attr::RDONLY } else { self.options.set };
        let fs = NewFs::open(&text(kind)?).with_context(|| format!("open file system type {kind:?}"))?;
        let made = self.configure(&fs, place, kind, source, &target).and_then(|()| Ok(fs.mount(attributes)?));
        let made = match made {
            Ok(made) => made,
            Err(error) if kind == "sysfs" && error.downcast_ref() == Some(&Errno::EPERM) => {
                host_sysfs(attributes).with_context(|| format!("{error:#}; bind mount /sys instead"))?
            }
            Err(error) => match fs.complaint() {
                Some(words) => return Err(error.context(words)),
                None => return Err(error),
            },
        };
        if self.options.copy_up {
            copy_up::copy(&target, &made).context("tmpcopyup")?;
        }
        attach(&made, &target)?;
        self.propagate(&made)?;
        Ok(deferred.then_some(made))
    }

    fn configure(&self, fs: &NewFs, place: &Place, kind: &str, source: &str, target: &OwnedFd) -> Result<()> {
        if !source.is_empty() {
            fs.set(c"source", &text(source)?)?;
        }
        for option in &self.options.data {
            let done = match option.split_once('=') {
                // One value of fsconfig(2) has at most 255 bytes; overlay takes its layers one by one.
                Some(("lowerdir", layers)) if kind == "overlay" && layers.len() > 255 => {
                    layers.split(':').try_for_each(|layer| fs.set(c"lowerdir+", &text(layer)?))
                }
                Some((key, value)) => fs.set(&text(key)?, &text(value)?),
                None => fs.set_flag(&text(option)?),
            };
            done.with_context(|| format!("option {option:?}"))?;
        }
        for flag in &self.options.super_flags {
            match fs.set_flag(&text(flag)?) {
                // A file system without a counter of versions, as mount(2) has always let pass.
                Err(Errno::EINVAL) if *flag == "iversion" => {}
                other => other.with_context(|| format!("option {flag:?}"))?,
            }
        }
        // A tmpfs looks like the folder that it covers, unless it is told its mode.
        if kind == "tmpfs" && !self.options.data.iter().any(|option| option.starts_with("mode=")) {
            let mode = fstat(target)?.st_mode & 0o7777;
            fs.set(c"mode", &text(&format!("{mode:o}"))?)?;
        }
        // A block device or an image is opened read-only; the kernel's own file systems share one super
        // block with everybody else, which must stay as it is.
        const KERNELS_OWN: [&str; 7] = ["proc", "sysfs", "tmpfs", "devpts", "mqueue", "cgroup2", "overlay"];
        if self.options.set & attr::RDONLY != 0 && !KERNELS_OWN.contains(&kind) {
            fs.set_flag(c"ro")?;
        }
        if let Some(label) = place.label
            && matches!(kind, "tmpfs" | "mqueue" | "devpts" | "overlay")
        {
            fs.set(c"context", &text(label)?).with_context(|| format!("linux.mountLabel {label:?}"))?;
        }
        Ok(())
    }

    fn change_attributes(&self, mount: impl AsFd) -> Result<()> {
        let options = &self.options;
        if options.set | options.clear != 0 {
            let change = Change { set: options.set, clear: options.clear, ..Change::default() };
            set_attributes(&mount, &change, false).context("set its mount options")?;
        }
        if options.set_all | options.clear_all != 0 {
            let change = Change { set: options.set_all, clear: options.clear_all, ..Change::default() };
            set_attributes(&mount, &change, true).context("set its recursive mount options")?;
        }
        Ok(())
    }

    fn propagate(&self, mount: impl AsFd) -> Result<()> {
        if !matches!(self.kind, Kind::Bind { .. } | Kind::Remount)
            && self.options.set_all | self.options.clear_all != 0
        {
            self.change_recursive(&mount)?;
        }
        for (propagation, all) in &self.options.propagation {
            let change = Change { propagation: *propagation, ..Change::default() };
            set_attributes(&mount, &change, *all).context("set its propagation")?;
        }
        Ok(())
    }

    fn change_recursive(&self, mount: impl AsFd) -> Result<()> {
        let change = Change { set: self.options.set_all, clear: self.options.clear_all, ..Change::default() };
        set_attributes(mount, &change, true).context("set its recursive mount options")
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

/// A user namespace without a network namespace of its own may not mount sysfs: the host's, then.
fn host_sysfs(attributes: u64) -> Result<OwnedFd> {
    let tree = clone_tree(AT_FDCWD, c"/sys", true, true)?;
    set_attributes(&tree, &Change { set: attributes, ..Change::default() }, true)?;
    Ok(tree)
}

/// Opens the mount point, or makes it: folders 0755, a file 0755 where a file is to be covered.
pub(crate) fn make_target(root: BorrowedFd, target: &Path, is_dir: bool) -> Result<OwnedFd> {
    if is_dir {
        return make_dirs(root, target).context("make the mount point");
    }
    match open_in_root(root, target, OFlag::O_PATH.bits(), 0) {
        Ok(found) => return Ok(found),
        Err(Errno::ENOENT) => {}
        Err(errno) => return Err(errno).context("open the mount point"),
    }
    let (Some(parent), Some(name)) = (target.parent(), target.file_name()) else {
        bail!("{target:?} has no name");
    };
    let parent = make_dirs(root, parent).context("make the folders of the mount point")?;
    let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    match openat(&parent, name, flags, Mode::from_bits_truncate(0o755)) {
        Ok(_) | Err(Errno::EEXIST) => {}
        Err(errno) => return Err(errno).context("make the mount point"),
    }
    Ok(open_in_root(root, target, OFlag::O_PATH.bits(), 0)?)
}

/// `mkdir -p` inside the root file system, part by part and by descriptor (CVE-2024-45310).
pub(crate) fn make_dirs(root: BorrowedFd, path: &Path) -> Result<OwnedFd> {
    let open = |path: &Path| open_in_root(root, path, (OFlag::O_PATH | OFlag::O_DIRECTORY).bits(), 0);
    let shown = || format!("/{}", path.display());
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return open(Path::new(".")).context("open /");
    };
    match open(path) {
        Err(Errno::ENOENT) => {}
        other => return other.with_context(|| format!("open {}", shown())),
    }
    match mkdirat(make_dirs(root, parent)?, name, Mode::from_bits_truncate(0o755)) {
        Ok(()) | Err(Errno::EEXIST) => open(path).with_context(|| format!("open {}", shown())),
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
        Err(Errno::ELOOP | Errno::ENOTDIR) => bail!("the mount point is not a real folder"),
        Err(errno) => Err(errno).context("open the mount point"),
    }
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

//! `linux.namespaces`: namespaces(7), config-linux.md#namespaces. Which are made, which are joined.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::stat::fstat;
use nix::unistd::Pid;
use oci_spec::runtime::{Linux, LinuxNamespaceType};

/// What to do with each kind of namespace.
#[derive(Debug)]
pub(crate) struct Namespaces {
    /// `CLONE_NEW*` of those that are made.
    new: CloneFlags,
    /// Those that are joined, opened and checked already.
    joined: Vec<Joined>,
    /// True if the runtime could not return from the pid namespace that is joined, to which its children
    /// belong once it has entered.
    no_way_back: bool,
    /// Lines for `/proc/PID/timens_offsets`.
    time_offsets: String,
}

#[derive(Debug)]
struct Joined {
    kind: CloneFlags,
    file: OwnedFd,
    path: PathBuf,
}

/// Reads the list; opens and checks the paths. Nothing is entered yet. The user namespace that we are in
/// cannot be joined, and need not be.
pub(crate) fn plan(linux: &Linux) -> Result<Namespaces> {
    let mut plan = Namespaces {
        new: CloneFlags::empty(),
        joined: Vec::new(),
        no_way_back: false,
        time_offsets: String::new(),
    };
    let mut seen = CloneFlags::empty();
    for (n, namespace) in linux.namespaces().iter().flatten().enumerate() {
        let kind = flag(namespace.typ());
        if seen.contains(kind) {
            bail!("linux.namespaces[{n}]: malformed spec file: duplicated ns {:?}", namespace.typ());
        }
        seen |= kind;
        match namespace.path().as_ref().filter(|path| !path.as_os_str().is_empty()) {
            None => plan.new |= kind,
            Some(path) => {
                let file = open(path, kind).with_context(|| format!("linux.namespaces[{n}].path"))?;
                if kind == CloneFlags::CLONE_NEWUSER && is_own(&file)? {
                    continue;
                }
                plan.joined.push(Joined { kind, file, path: path.clone() });
            }
        }
    }
    plan.no_way_back = plan.file(CloneFlags::CLONE_NEWPID).is_some() && !may_enter_own_pid_namespace()?;
    for (clock, offset) in linux.time_offsets().iter().flatten() {
        if !plan.new.contains(NEWTIME) {
            bail!("linux.timeOffsets: needs a new time namespace in linux.namespaces");
        }
        if !["monotonic", "boottime"].contains(&clock.as_str()) {
            bail!("linux.timeOffsets: unknown clock {clock:?} (monotonic and boottime have offsets)");
        }
        plan.time_offsets +=
            &format!("{clock} {} {}\n", offset.secs().unwrap_or(0), offset.nanosecs().unwrap_or(0));
    }
    Ok(plan)
}

/// `CLONE_NEWTIME`; nix has no name for it.
pub(crate) const NEWTIME: CloneFlags = CloneFlags::from_bits_retain(0x80);

fn flag(kind: LinuxNamespaceType) -> CloneFlags {
    match kind {
        LinuxNamespaceType::Mount => CloneFlags::CLONE_NEWNS,
        LinuxNamespaceType::Cgroup => CloneFlags::CLONE_NEWCGROUP,
        LinuxNamespaceType::Uts => CloneFlags::CLONE_NEWUTS,
        LinuxNamespaceType::Ipc => CloneFlags::CLONE_NEWIPC,
        LinuxNamespaceType::User => CloneFlags::CLONE_NEWUSER,
        LinuxNamespaceType::Pid => CloneFlags::CLONE_NEWPID,
        LinuxNamespaceType::Network => CloneFlags::CLONE_NEWNET,
        LinuxNamespaceType::Time => NEWTIME,
    }
}

/// Opens a namespace file and MUST-checks that it is one of `kind` (config-linux.md#namespaces).
fn open(path: &PathBuf, kind: CloneFlags) -> Result<OwnedFd> {
    nix::ioctl_none!(ns_get_nstype, 0xb7, 0x3);
    if !path.is_absolute() {
        bail!("{path:?} is not absolute");
    }
    // O_NONBLOCK: the path may lead to a fifo, which nobody writes to.
    let file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path);
    let file = file.with_context(|| format!("open {path:?}"))?;
    #[expect(
        unsafe_code,
        reason = "nix generates ioctls as unsafe functions; NS_GET_NSTYPE takes no argument"
    )]
    // SAFETY: NS_GET_NSTYPE reads and writes no memory of ours.
    let found = unsafe { ns_get_nstype(file.as_raw_fd()) };
    match found {
        Ok(found) if found == kind.bits() => Ok(file.into()),
        Ok(found) => {
            bail!("{path:?} is a namespace of another type ({found:#x} instead of {:#x})", kind.bits())
        }
        Err(_) => bail!("{path:?} is not a namespace file"),
    }
}

fn is_own(file: &OwnedFd) -> Result<bool> {
    let own = std::fs::metadata("/proc/self/ns/user").context("stat /proc/self/ns/user")?;
    let other = fstat(file)?;
    Ok((own.dev(), own.ino()) == (other.st_dev, other.st_ino))
}

/// Root of a user namespace may not, where the pid namespace is one from outside: Podman of an ordinary user
/// is that for a container of a pod with a pid namespace.
fn may_enter_own_pid_namespace() -> Result<bool> {
    let own = File::open("/proc/self/ns/pid").context("open /proc/self/ns/pid")?;
    match setns(own, CloneFlags::CLONE_NEWPID) {
        Err(Errno::EPERM) => Ok(false),
        other => other.context("enter the runtime's own pid namespace").map(|()| true),
    }
}

impl Namespaces {
    /// True if the container gets a namespace of this kind that is not the runtime's own.
    pub(crate) fn has(&self, kind: CloneFlags) -> bool {
        self.is_new(kind) || self.joined.iter().any(|joined| joined.kind == kind)
    }

    /// True if a namespace of this kind is made.
    pub(crate) fn is_new(&self, kind: CloneFlags) -> bool {
        self.new.contains(kind)
    }

    /// The namespace of this kind that is joined, opened.
    pub(crate) fn file(&self, kind: CloneFlags) -> Option<BorrowedFd<'_>> {
        self.joined.iter().find(|joined| joined.kind == kind).map(|joined| joined.file.as_fd())
    }

    /// The network namespace that the container's first process has, or will have in a moment.
    pub(crate) fn network_of(&self, init: Pid) -> Option<OwnedFd> {
        match self.file(CloneFlags::CLONE_NEWNET) {
            Some(file) => file.try_clone_to_owned().ok(),
            None => File::open(format!("/proc/{init}/ns/net")).ok().map(OwnedFd::from),
        }
    }

    /// The path that a namespace of this kind is joined by.
    pub(crate) fn path(&self, kind: CloneFlags) -> Option<&PathBuf> {
        self.joined.iter().find(|joined| joined.kind == kind).map(|joined| &joined.path)
    }

    /// Flags for clone3: all new ones but the cgroup namespace, whose root must be the container's
    /// cgroup, which the child has yet to enter; and the time namespace, which takes effect on fork.
    pub(crate) fn clone_flags(&self) -> u64 {
        (self.new - CloneFlags::CLONE_NEWCGROUP - NEWTIME).bits() as u64
    }

    /// True if the new process must come from one that has entered namespaces first: a joined user
    /// namespace must own the new ones, and joined ones must be entered before a new user namespace
    /// takes the permission away; or because the runtime could not return from the one that is joined.
    pub(crate) fn need_a_step_between(&self) -> bool {
        let user = CloneFlags::CLONE_NEWUSER;
        !self.joined.is_empty() && self.has(user) || self.no_way_back
    }

    /// Host side, before the fork: a pid namespace is entered by children only. What this changes for the
    /// runtime's later children, the hooks, is to be restored after the fork.
    pub(crate) fn before_fork(&self) -> Result<Before> {
        let mut before = Before(Vec::new());
        let pid = CloneFlags::CLONE_NEWPID;
        if !self.need_a_step_between() && self.path(pid).is_some() {
            before.remember("/proc/self/ns/pid", pid)?;
            self.enter(|kind| kind == pid)?;
        }
        Ok(before)
    }

    /// In the child, once its user namespace is mapped, which is to own this one; but before it changes its
    /// ids, after which its files in /proc belong to the host's root. A time namespace is made for children;
    /// its offsets are set before anyone is in it, then the child enters it itself.
    pub(crate) fn make_time_namespace(&self) -> Result<()> {
        if !self.new.contains(NEWTIME) {
            return Ok(());
        }
        unshare(NEWTIME).context("make a time namespace (linux.namespaces)")?;
        if !self.time_offsets.is_empty() {
            std::fs::write("/proc/self/timens_offsets", &self.time_offsets)
                .context("set linux.timeOffsets in /proc/self/timens_offsets")?;
        }
        let made = File::open("/proc/self/ns/time_for_children").context("open the new time namespace")?;
        setns(made, NEWTIME).context("enter the new time namespace")
    }

    /// In the step between: enters everything.
    pub(crate) fn enter_all(&self) -> Result<()> {
        self.enter(|_| true)
    }

    /// In the child: enters what was not entered before the fork.
    pub(crate) fn enter_in_child(&self) -> Result<()> {
        if self.need_a_step_between() { Ok(()) } else { self.enter(|kind| kind != CloneFlags::CLONE_NEWPID) }
    }

    fn enter(&self, which: impl Fn(CloneFlags) -> bool) -> Result<()> {
        let enter = |joined: &Joined| setns(joined.file.as_fd(), joined.kind);
        let told = |joined: &Joined| format!("join the namespace {:?}", joined.path);
        // What the joined user namespace does not own takes the rights that we have outside of it; where
        // those are not enough, it may have them.
        let (user, others): (Vec<_>, Vec<_>) = (self.joined.iter().filter(|joined| which(joined.kind)))
            .partition(|joined| joined.kind == CloneFlags::CLONE_NEWUSER);
        let mut later = Vec::new();
        for joined in others {
            match enter(joined) {
                Err(Errno::EPERM) if !user.is_empty() => later.push(joined),
                other => other.with_context(|| told(joined))?,
            }
        }
        user.into_iter().chain(later).try_for_each(|joined| enter(joined).with_context(|| told(joined)))
    }

    /// In the child, once it is in its cgroup: makes the cgroup namespace.
    pub(crate) fn make_cgroup_namespace(&self) -> Result<()> {
        if self.is_new(CloneFlags::CLONE_NEWCGROUP) {
            unshare(CloneFlags::CLONE_NEWCGROUP).context("make a cgroup namespace")?;
        }
        Ok(())
    }
}

/// The runtime's own namespaces that its children would have been born in.
#[derive(Debug)]
pub(crate) struct Before(Vec<(OwnedFd, CloneFlags)>);

impl Before {
    fn remember(&mut self, path: &str, kind: CloneFlags) -> Result<()> {
        let file = File::open(path).with_context(|| format!("open {path}"))?;
        self.0.push((file.into(), kind));
        Ok(())
    }

    /// Children are born in the runtime's own namespaces again.
    pub(crate) fn restore(self) -> Result<()> {
        for (file, kind) in &self.0 {
            setns(file, *kind).context("return to the runtime's own namespace")?;
        }
        Ok(())
    }
}

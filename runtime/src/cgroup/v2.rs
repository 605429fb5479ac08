//! cgroup version 2: the unified hierarchy.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, openat};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::{Uid, fchownat};
use serde::{Deserialize, Serialize};

use super::devices::DeviceRules;
use super::layout::{collect_pids, deepest_there, open_dir};
use super::write::{self, Target};
use crate::container::rootless;
use crate::sys::file::read_text;
use crate::sys::mount::{Change, NewFs, attr, clone_tree, set_attributes, text};

/// The container's folder in the unified hierarchy.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct Group {
    pub(super) dir: PathBuf,
    pub(super) mount: PathBuf,
    /// The folder that the runtime is in itself.
    #[serde(skip)]
    pub(super) own: PathBuf,
}

impl Group {
    /// Makes and limits the folder, and gives it to `owner`; notes in `made` what was not there before.
    /// `enable` passes every controller that there is down to it.
    pub(super) fn set_up(
        &self,
        limits: &[Target],
        devices: Option<&DeviceRules>,
        enable: bool,
        owner: Option<Uid>,
        made: &mut Vec<PathBuf>,
    ) -> Result<OwnedFd> {
        let domain = limits.iter().any(Target::needs_a_domain);
        let dir =
            self.create(enable, domain, made).with_context(|| format!("make the cgroup {:?}", self.dir))?;
        self.limit(&dir, limits, devices, owner)?;
        Ok(dir)
    }

    /// Limits the folder, and gives it to `owner`.
    pub(super) fn limit(
        &self,
        dir: &OwnedFd,
        limits: &[Target],
        devices: Option<&DeviceRules>,
        owner: Option<Uid>,
    ) -> Result<()> {
        write::write_all(limits).with_context(|| format!("limit the cgroup {:?}", self.dir))?;
        if let Some(rules) = devices {
            // Without the host's root there are no device nodes but those that the host has and lets one
            // open, so there is nothing to keep anybody from.
            match self.limit_devices(dir, rules) {
                Err(error) if rootless::is_refusal(&error) && rootless::is_rootless() => {}
                other => other?,
            }
        }
        match owner.map_or(Ok(()), |owner| self.delegate(dir, owner)) {
            Err(error) if rootless::is_refusal(&error) && rootless::is_rootless() => Ok(()),
            other => other,
        }
    }

    /// Makes the folder and all above it. `domain` tells that a limit needs a controller that limits whole
    /// processes only.
    fn create(&self, enable: bool, domain: bool, made: &mut Vec<PathBuf>) -> Result<OwnedFd> {
        let mut dir = self.mount.clone();
        let mut existed = true;
        let mut passes_memory = false;
        for part in self.dir.strip_prefix(&self.mount)?.components() {
            passes_memory = enable && enable_controllers(&dir);
            dir.push(part);
            match mkdirat(AT_FDCWD, &dir, Mode::from_bits_truncate(0o755)) {
                Ok(()) => {
                    existed = false;
                    made.push(dir.clone());
                }
                Err(Errno::EEXIST) => existed = true,
                Err(errno) => return Err(errno).with_context(|| format!("mkdir {dir:?}")),
            }
        }
        if existed {
            self.refuse_if_populated()?;
        }
        // Nobody passes a controller of whole processes on to a cgroup for threads.
        if !passes_memory {
            self.check_type(domain)?;
        }
        if (existed || self.dir.parent() != Some(&self.mount)) && self.has_event("frozen 1") {
            bail!("container's cgroup unexpectedly frozen");
        }
        open_dir(&self.dir)
    }

    /// Passes all controllers down to the folder, which somebody else has made.
    pub(super) fn pass_controllers_on(&self) {
        let above: Vec<&Path> =
            self.dir.ancestors().skip(1).take_while(|dir| dir.starts_with(&self.mount)).collect();
        for dir in above.into_iter().rev() {
            enable_controllers(dir);
        }
    }

    fn refuse_if_populated(&self) -> Result<()> {
        let mut pids = Vec::new();
        collect_pids(&self.dir, &mut pids)?;
        if !pids.is_empty() {
            bail!("container's cgroup is not empty: {} process(es) found", pids.len());
        }
        Ok(())
    }

    /// Below a threaded cgroup, or beside one, a new cgroup takes no process before it is threaded too, and
    /// then has no controllers of whole processes.
    fn check_type(&self, domain: bool) -> Result<()> {
        let path = self.dir.join("cgroup.type");
        let kind = std::fs::read_to_string(&path).with_context(|| format!("read {path:?}"))?;
        match kind.trim() {
            "domain" => Ok(()),
            "domain invalid" if domain => {
                bail!(
                    "cannot enter cgroupv2 {:?} with domain controllers -- it is in an invalid state",
                    self.dir
                )
            }
            "domain invalid" => {
                std::fs::write(&path, "threaded").with_context(|| format!("write threaded to {path:?}"))
            }
            other if domain => {
                bail!("cannot enter cgroupv2 {:?} with domain controllers -- it is in {other} mode", self.dir)
            }
            _ => Ok(()),
        }
    }

    /// Attaches the device program.
    fn limit_devices(&self, dir: &OwnedFd, rules: &DeviceRules) -> Result<()> {
        let folder =
            openat(dir, ".", OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
        rules.attach(&folder).context("linux.resources.devices: attach the device program")
    }

    /// The controllers at the top of the hierarchy, with spaces between.
    pub(super) fn controllers(&self) -> String {
        read_text(self.mount.join("cgroup.controllers")).unwrap_or_default().trim_end().to_owned()
    }

    /// True if the hierarchy has the controller at its top.
    pub(super) fn has(&self, controller: &str) -> bool {
        self.controllers().split_whitespace().any(|name| name == controller)
    }

    /// Gives the folder and the files that the kernel names for that to the container's root user, who may
    /// then make cgroups below and pass controllers on:
    /// [cgroup-v2.html#delegation](https://docs.kernel.org/admin-guide/cgroup-v2.html#delegation).
    fn delegate(&self, dir: &OwnedFd, owner: Uid) -> Result<()> {
        let named = std::fs::read_to_string("/sys/kernel/cgroup/delegate");
        let named =
            named.unwrap_or_else(|_| "cgroup.procs\ncgroup.subtree_control\ncgroup.threads".to_owned());
        fchownat(dir, ".", Some(owner), None, AtFlags::empty())
            .with_context(|| format!("give {:?} to user {owner}", self.dir))?;
        for file in named.lines() {
            match fchownat(dir, file, Some(owner), None, AtFlags::AT_SYMLINK_NOFOLLOW) {
                Ok(()) | Err(Errno::ENOENT) => {} // not every kernel and cgroup has all
                Err(errno) => {
                    return Err(errno)
                        .with_context(|| format!("give {:?} to user {owner}", self.dir.join(file)));
                }
            }
        }
        Ok(())
    }

    /// What the container sees of it. Without a namespace the whole hierarchy would show, of which only
    /// its own part is bound.
    pub(super) fn mount(&self, attributes: u64, namespace: bool) -> Result<OwnedFd> {
        if namespace {
            let made = NewFs::open(c"cgroup2").and_then(|fs| fs.mount(attributes & !attr::RDONLY));
            match made {
                Ok(mount) => {
                    let change = Change { set: attributes, ..Change::default() };
                    set_attributes(&mount, &change, false)?;
                    return Ok(mount);
                }
                Err(Errno::EPERM | Errno::EBUSY) => {}
                Err(errno) => return Err(errno).context("mount cgroup2"),
            }
        }
        let tree = clone_tree(AT_FDCWD, &text(&self.dir.to_string_lossy())?, true, true)
            .with_context(|| format!("copy the mount of {:?}", self.dir))?;
        set_attributes(&tree, &Change { set: attributes, ..Change::default() }, false)?;
        Ok(tree)
    }

    pub(super) fn is_frozen(&self) -> bool {
        std::fs::read_to_string(self.dir.join("cgroup.freeze")).is_ok_and(|state| state.trim() == "1")
    }

    /// True if `cgroup.events` has this line.
    fn has_event(&self, line: &str) -> bool {
        has_event(&self.dir, line)
    }

    /// True if a process would stop at once here: the cgroup is frozen, or where it is not there yet, what
    /// will be above it.
    pub(super) fn holds_still(&self) -> bool {
        deepest_there(&self.dir).is_some_and(|dir| has_event(dir, "frozen 1"))
    }

    /// Freezes all and waits until they are, of which `cgroup.events` gives notice.
    pub(super) fn freeze(&self) -> Result<()> {
        const LONGEST: Duration = Duration::from_secs(10);
        let path = self.dir.join("cgroup.events");
        let events = std::fs::File::open(&path).with_context(|| format!("open {path:?}"))?;
        self.write_freeze("1")?;
        let end = Instant::now() + LONGEST;
        loop {
            // Reading it is what makes the next poll wait for the next change.
            let mut text = [0; 256];
            let read = events.read_at(&mut text, 0).with_context(|| format!("read {path:?}"))?;
            if text[..read].split(|byte| *byte == b'\n').any(|line| line == b"frozen 1") {
                return Ok(());
            }
            let left = end.saturating_duration_since(Instant::now());
            let mut fds = [PollFd::new(events.as_fd(), PollFlags::POLLPRI)];
            let timeout = PollTimeout::try_from(left.as_millis()).unwrap_or(PollTimeout::MAX);
            match poll(&mut fds, timeout) {
                Ok(0) => bail!("unable to freeze: processes do not stop within {} s", LONGEST.as_secs()),
                Ok(_) | Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno).context("wait for cgroup.events"),
            }
        }
    }

    /// Lets all go on.
    pub(super) fn thaw(&self) -> Result<()> {
        self.write_freeze("0")
    }

    fn write_freeze(&self, state: &str) -> Result<()> {
        let path = self.dir.join("cgroup.freeze");
        std::fs::write(&path, state).with_context(|| format!("write {state} to {path:?}"))
    }

    /// Kills everything below at once; false where the kernel (before 5.14) has no such file.
    pub(super) fn kill(&self) -> bool {
        std::fs::write(self.dir.join("cgroup.kill"), "1").is_ok()
    }
}

/// Passes all controllers on; true if memory is among them. What cannot be passed on is not fatal here: a
/// limit that needs it will say so. In a cgroup with processes (EBUSY) none is: the few that would work
/// there would make it the root of a threaded tree, below which no ordinary process may be.
fn enable_controllers(dir: &std::path::Path) -> bool {
    let Ok(available) = read_text(dir.join("cgroup.controllers")) else { return false };
    let file = dir.join("cgroup.subtree_control");
    let enabled = read_text(&file).unwrap_or_default();
    let has = |list: &str, name: &str| list.split_whitespace().any(|one| one == name);
    let missing: Vec<String> = available
        .split_whitespace()
        .filter(|name| !has(&enabled, name))
        .map(|name| format!("+{name}"))
        .collect();
    if missing.is_empty() {
        return has(&enabled, "memory");
    }
    match std::fs::write(&file, missing.join(" ")) {
        Ok(()) => return has(&available, "memory"),
        Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {}
        Err(_) => missing.iter().for_each(|one| drop(std::fs::write(&file, one))),
    }
    false
}

fn has_event(dir: &Path, line: &str) -> bool {
    read_text(dir.join("cgroup.events")).is_ok_and(|text| text.lines().any(|found| found == line))
}

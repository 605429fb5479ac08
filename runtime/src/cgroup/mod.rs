//! Control groups: where a container's are, limits, joining, killing, removing.
//! Documentation/admin-guide/cgroup-v1 and cgroup-v2 of the kernel.

pub(crate) mod below;
pub(crate) mod devices;
mod layout;
pub(crate) mod oom;
pub(crate) mod resources;
pub(crate) mod stats;
mod systemd;
mod v1;
mod v2;
mod write;

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::unistd::{Pid, Uid};
use serde::{Deserialize, Serialize};

pub(crate) use below::Below;
pub(crate) use resources::Limits;
use resources::{Action, Column, Setting};
use write::Target;

use crate::container::rootless;
use crate::fault::{self, Point};
use crate::log;
use crate::sys::mount::attach;

/// True if the host has the unified hierarchy and no other.
pub(crate) fn is_version_2() -> bool {
    layout::is_unified(Path::new(layout::ROOT))
}

/// Which versions this host has, and their controllers, for people.
pub(crate) fn describe() -> Result<String> {
    let own = layout::find(None, "any")?;
    let v1: Vec<&str> = own.v1.iter().map(|group| &*group.name).collect();
    let v2 = own.v2.as_ref().map(v2::Group::controllers);
    Ok(match (&v1[..], v2) {
        ([], None) => "none mounted".to_owned(),
        ([], Some(v2)) => format!("version 2: {v2}"),
        (v1, None) => format!("version 1: {}", v1.join(" ")),
        (v1, Some(v2)) => format!("version 1: {}; beside it version 2: {v2}", v1.join(" ")),
    })
}

/// The container's cgroups, one folder in each hierarchy. Kept in the container's state.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(crate) struct Place {
    /// In each hierarchy of version 1.
    v1: Vec<v1::Group>,
    /// In the unified hierarchy.
    v2: Option<v2::Group>,
    /// True if `linux.cgroupsPath` says where.
    #[serde(skip)]
    asked: bool,
    /// The hierarchies in which the container stays where the runtime is, see [`Place::create`].
    #[serde(skip)]
    stayed: Stayed,
    /// Who makes and removes them, if we do not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    unit: Option<systemd::Unit>,
    /// True if warnings of limits without effect have been given.
    #[serde(skip)]
    is_told: bool,
    /// True if none are wanted.
    #[serde(skip)]
    is_unwanted: bool,
}

/// Who makes the cgroups: `--cgroup-manager`.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) enum Manager {
    /// The runtime, in the cgroup file system.
    #[default]
    Files,
    Systemd,
    /// Nobody: the container stays in the runtime's own.
    Nobody,
}

/// The runtime's own cgroups, for the container to see.
#[derive(Clone, Debug, Default)]
struct Stayed {
    v1: Vec<v1::Group>,
    v2: Option<v2::Group>,
}

/// Open descriptors through which a new process gets into its cgroups.
#[derive(Debug, Default)]
pub(crate) struct Door {
    /// The `tasks` file of each version 1 hierarchy.
    tasks: Vec<(PathBuf, OwnedFd)>,
    /// The folder in the unified hierarchy, for CLONE_INTO_CGROUP.
    pub(crate) unified: Option<OwnedFd>,
    /// Where below the container's cgroup that is, if somebody asked for it: then it is that one or none.
    pub(crate) below: Option<PathBuf>,
}

impl Place {
    /// Finds where the container's cgroups are to be: an absolute `cgroupsPath` counts from the mount
    /// point, a relative one or none from the cgroup that we are in.
    pub(crate) fn find(path: Option<&Path>, id: &str) -> Result<Self> {
        layout::find(path, id)
    }

    /// No cgroups of the container's own, whatever `cgroupsPath` says.
    pub(crate) fn find_none(id: &str) -> Result<Self> {
        Ok(Self { is_unwanted: true, ..layout::find(None, id)? })
    }

    /// Makes the folders and sets the limits; a folder in the unified hierarchy becomes `owner`'s. If a step
    /// fails, the folders made here are removed again, and no others.
    ///
    /// Who is not the host's root may often make none. Where nobody asked for a place or for limits, the
    /// container then stays in the runtime's own cgroup.
    pub(crate) fn create(&mut self, limits: &Limits, owner: Option<Uid>) -> Result<Door> {
        if let Some(unit) = &self.unit {
            let door = self.before_unit(unit, limits)?;
            self.is_told = true;
            return Ok(door);
        }
        if self.is_unwanted {
            return self.stay_everywhere(limits);
        }
        if !self.has_any() {
            bail!("no cgroup file system is mounted below /sys/fs/cgroup");
        }
        let mut made = Vec::new();
        self.create_all(limits, owner, &mut made).inspect_err(|_| {
            for dir in made.iter().rev() {
                let _ = rmdir(dir); // the error that is on its way says more
            }
        })
    }

    fn create_all(&mut self, limits: &Limits, owner: Option<Uid>, made: &mut Vec<PathBuf>) -> Result<Door> {
        let placed = self.place(limits)?;
        let (has_v1, has_v1_devices) = (!self.v1.is_empty(), self.has_v1("devices"));
        let rules = limits.devices.as_ref();
        let mut door = Door::default();
        for (n, group) in std::mem::take(&mut self.v1).into_iter().enumerate() {
            let targets = targets(&placed, Home::V1(n), &group.dir);
            match group.set_up(&targets, rules, made) {
                Ok(tasks) => {
                    fault::point(Point::CreateOneCgroup);
                    door.tasks.push((group.dir.clone(), tasks));
                    self.v1.push(group);
                }
                Err(error) if self.may_stay(&error, !targets.is_empty()) => {
                    self.stayed.v1.push(v1::Group { dir: group.own.clone(), ..group });
                }
                Err(error) => return Err(delegation(error)),
            }
        }
        if let Some(group) = self.v2.take() {
            let targets = targets(&placed, Home::V2, &group.dir);
            let enable = !has_v1 || !targets.is_empty();
            let rules = rules.filter(|_| !has_v1_devices);
            match group.set_up(&targets, rules, enable, owner.filter(|_| !has_v1), made) {
                Ok(dir) => {
                    fault::point(Point::CreateOneCgroup);
                    door.unified = Some(dir);
                    self.v2 = Some(group);
                }
                Err(error) if self.may_stay(&error, !targets.is_empty()) => {
                    self.stayed.v2 = Some(v2::Group { dir: group.own.clone(), ..group });
                }
                Err(error) => return Err(delegation(error)),
            }
        }
        Ok(door)
    }

    /// Nothing can be limited then. Rules for devices come with every configuration, so they are no limit
    /// that somebody has asked for.
    fn stay_everywhere(&mut self, limits: &Limits) -> Result<Door> {
        let has_effect = |action: &Action| !matches!(action, Action::Nothing);
        let limit =
            limits.settings.iter().find(|one| has_effect(&one.v1.action) || has_effect(&one.v2.action));
        if let Some(limit) = limit {
            bail!(
                "linux.resources.{}: without cgroups (--cgroup-manager disabled) nothing is limited",
                limit.property
            );
        }
        let stay = |group: v1::Group| v1::Group { dir: group.own.clone(), ..group };
        self.stayed.v1 = std::mem::take(&mut self.v1).into_iter().map(stay).collect();
        self.stayed.v2 = self.v2.take().map(|group| v2::Group { dir: group.own.clone(), ..group });
        Ok(Door::default())
    }

    fn may_stay(&self, error: &anyhow::Error, limited: bool) -> bool {
        !self.asked && !limited && rootless::is_refusal(error) && rootless::is_rootless()
    }

    /// True if [`Place::create`] has left out hierarchies.
    pub(crate) fn is_reduced(&self) -> bool {
        !self.stayed.v1.is_empty() || self.stayed.v2.is_some()
    }

    /// True if the container has a cgroup of its own in at least one hierarchy.
    pub(crate) fn has_any(&self) -> bool {
        !self.v1.is_empty() || self.v2.is_some()
    }

    /// Sets limits in cgroups that exist, all or none.
    pub(crate) fn update<'a>(&'a self, limits: &'a Limits) -> Result<()> {
        let placed = self.place(limits)?;
        if let (Some(check), Some(group)) = (limits.above_usage, &self.v2)
            && !self.has_v1("memory")
        {
            check.check(write::read_number(&group.dir, "memory.current"))?;
        }
        // In the order of the table, whichever hierarchy each is in.
        let targets: Vec<Target> = placed.iter().filter_map(|one| self.target(one)).collect();
        let undo = self.tell_systemd(&targets)?;
        write::replace_all(&targets).map_err(|error| match undo() {
            Ok(()) => error,
            Err(other) => error.context(format!("and then, to take it back: {other:#}")),
        })
    }

    fn target<'a>(&'a self, one: &Placed<'a>) -> Option<Target<'a>> {
        let dir = match one.home {
            Home::V1(n) => self.v1.get(n).map(|group| &*group.dir),
            Home::V2 => self.v2.as_ref().map(|group| &*group.dir),
        };
        Some(one.target(dir?))
    }

    /// Finds the hierarchy of each limit. One that cannot be set is an error, never ignored.
    fn place<'a>(&self, limits: &'a Limits) -> Result<Vec<Placed<'a>>> {
        if self.v1.is_empty() && self.v2.is_none() {
            bail!("the container has no cgroup of its own");
        }
        let mut placed = Vec::new();
        let now = || self.v2.as_ref().and_then(|group| write::period(&group.dir));
        let period = self.unit.as_ref().map(|_| now().unwrap_or(100_000));
        for setting in &limits.settings {
            let (home, column) = self.home(setting)?;
            match column.action {
                Action::Write(_) | Action::IfThere(_) => {
                    placed.push(Placed { home, setting, column, period })
                }
                Action::Nothing => {}
                Action::Warn(_) if self.is_told => {}
                Action::Warn(why) if limits.strict => bail!("linux.resources.{}: {why}", setting.property),
                Action::Warn(why) => log::warn(&format!("linux.resources.{}: {why}", setting.property)),
                Action::Refuse(why) => bail!("linux.resources.{}: {why}", setting.property),
            }
        }
        let devices = self.has_v1("devices") || self.v2.is_some();
        if limits.devices_asked && !devices {
            bail!("linux.resources.devices: the cgroup controller devices is not mounted here");
        }
        Ok(placed)
    }

    /// A controller is in one hierarchy only. Of one that is in none, the unified hierarchy names the file
    /// that is missing.
    fn home<'a>(&self, setting: &'a Setting) -> Result<(Home, &'a Column)> {
        let v1 = self.v1.iter().position(|group| group.has(&setting.v1.controller));
        if let Some(n) = v1 {
            return Ok((Home::V1(n), &setting.v1));
        }
        match &self.v2 {
            Some(group) if self.v1.is_empty() || group.has(&setting.v2.controller) => {
                Ok((Home::V2, &setting.v2))
            }
            _ if matches!(setting.v1.action, Action::Refuse(_)) => Ok((Home::V1(0), &setting.v1)),
            _ => bail!(
                "linux.resources.{}: the cgroup controller {} is not mounted here",
                setting.property,
                setting.v1.controller
            ),
        }
    }

    fn has_v1(&self, controller: &str) -> bool {
        self.v1.iter().any(|group| group.has(controller))
    }

    /// Opens the way into cgroups that exist already, for `exec`.
    pub(crate) fn open(&self, below: &Below) -> Result<Door> {
        if !below.is_empty() {
            let way = self.below(below)?.open(&Below::default());
            let way = way.context("--cgroup: adding pid to the sub cgroup")?; // in runc's words
            return Ok(Door { below: Some(below.unified().unwrap_or(Path::new("")).to_owned()), ..way });
        }
        let mut door = Door::default();
        for group in &self.v1 {
            door.tasks.push((group.dir.clone(), group.open_tasks()?));
        }
        if let Some(group) = &self.v2 {
            door.unified = Some(layout::open_dir(&group.dir)?);
        }
        Ok(door)
    }

    /// The folder in the unified hierarchy that `pid` is in now. A payload may have moved itself into a
    /// sub-cgroup and given the controllers on, after which its first cgroup takes no process (EBUSY).
    pub(crate) fn unified_of(&self, pid: Pid) -> Result<Option<OwnedFd>> {
        let Some(group) = &self.v2 else { return Ok(None) };
        let Some(now) = layout::unified_path_of(pid)? else { return Ok(None) };
        layout::open_dir(&group.mount.join(now)).map(Some)
    }

    /// Shows the container its cgroups at `target`: `type: cgroup` of `mounts`. Returns the mount.
    pub(crate) fn mount(&self, target: &OwnedFd, attributes: u64, namespace: bool) -> Result<OwnedFd> {
        let groups: Vec<&v1::Group> = self.v1.iter().chain(&self.stayed.v1).collect();
        if groups.is_empty() {
            let group = self.v2.as_ref().or(self.stayed.v2.as_ref());
            let group = group.context("no cgroup file system is mounted here")?;
            let made = group.mount(attributes, namespace)?;
            attach(&made, target)?;
            return Ok(made);
        }
        v1::mount_all(&groups, target, attributes)
    }

    /// All processes in the container's cgroups and those below, by their pids here.
    pub(crate) fn processes(&self) -> Result<Vec<Pid>> {
        let mut pids = Vec::new();
        if let Some(dir) = self.process_dir() {
            layout::collect_pids(dir, &mut pids).with_context(|| format!("list the processes of {dir:?}"))?;
        }
        pids.sort_unstable();
        pids.dedup();
        Ok(pids)
    }

    /// The freezer's list has everybody: it is the first to be joined, and never threaded.
    fn process_dir(&self) -> Option<&Path> {
        let v1 = self.freezer().or(self.v1.first());
        v1.map(|group| group.dir.as_path()).or(self.v2.as_ref().map(|group| group.dir.as_path()))
    }

    /// True if the container is frozen.
    pub(crate) fn is_frozen(&self) -> bool {
        match self.freezer() {
            Some(freezer) => freezer.is_frozen(),
            None => self.v2.as_ref().is_some_and(v2::Group::is_frozen),
        }
    }

    /// Kills every process in the cgroups, for containers that share a pid namespace: with cgroup.kill
    /// where the kernel has it, else frozen meanwhile, so that none forks away.
    pub(crate) fn kill_all(&self) -> Result<()> {
        if self.is_anothers() {
            return Ok(());
        }
        if self.v2.as_ref().is_some_and(v2::Group::kill) {
            self.thaw(); // a frozen process of version 1 cannot die
            return Ok(());
        }
        let _ = self.freeze(); // one that gets away now is told by the removal of the cgroups
        let pids = self.processes();
        for pid in pids.iter().flatten() {
            let _ = nix::sys::signal::kill(*pid, nix::sys::signal::SIGKILL); // gone is as good
        }
        self.thaw();
        pids.map(drop)
    }

    /// Stops all processes and waits until they stand still.
    pub(crate) fn freeze(&self) -> Result<()> {
        let frozen = match (self.freezer(), &self.v2) {
            (Some(freezer), _) => freezer.freeze(),
            (None, Some(group)) => group.freeze(),
            (None, None) => bail!("the container has no cgroup with a freezer"),
        };
        frozen.inspect_err(|_| self.thaw())
    }

    /// Lets frozen processes go on.
    pub(crate) fn resume(&self) -> Result<()> {
        match (self.freezer(), &self.v2) {
            (Some(freezer), _) => freezer.thaw(),
            (None, Some(group)) => group.thaw(),
            (None, None) => bail!("the container has no cgroup with a freezer"),
        }
    }

    /// The same where nothing may be frozen.
    pub(crate) fn thaw(&self) {
        let _ = self.resume(); // nothing frozen, nothing to do
    }

    fn freezer(&self) -> Option<&v1::Group> {
        self.v1.iter().find(|group| group.has("freezer"))
    }

    /// See [`Place::thaw`].
    pub(crate) fn thaw_if(&self, frozen: bool) {
        if frozen {
            self.thaw();
        }
    }

    /// Removes the folders with all below them. A process that has just died may keep one busy for a
    /// moment.
    pub(crate) fn remove(&self) -> Result<()> {
        if self.is_anothers() {
            return Ok(());
        }
        if let Some(unit) = &self.unit {
            self.stop_unit(unit)?;
        }
        let dirs = self.v1.iter().map(|group| &group.dir).chain(self.v2.iter().map(|group| &group.dir));
        let mut first_failure = Ok(());
        for dir in dirs {
            if let Err(error) = remove_tree(dir) {
                first_failure = first_failure.and(Err(error));
            }
            fault::point(Point::DeleteOneCgroup);
        }
        first_failure
    }
}

/// A limit, and where it is to be set.
#[derive(Debug)]
struct Placed<'a> {
    home: Home,
    setting: &'a Setting,
    column: &'a Column,
    /// See [`Target`].
    period: Option<u64>,
}

impl<'a> Placed<'a> {
    fn target(&self, dir: &'a Path) -> Target<'a> {
        Target { dir, setting: self.setting, column: self.column, period: self.period }
    }
}

/// One of a container's cgroups.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Home {
    /// By its place in the list.
    V1(usize),
    V2,
}

fn targets<'a>(placed: &[Placed<'a>], home: Home, dir: &'a Path) -> Vec<Target<'a>> {
    let ours = placed.iter().filter(|one| one.home == home);
    ours.map(|one| one.target(dir)).collect()
}

impl Door {
    /// In the new process, which must still have one thread only: the kernel then skips the lock that
    /// makes a move by `cgroup.procs` wait some 9 ms for a grace period.
    pub(crate) fn enter(&self) -> Result<()> {
        for (dir, tasks) in &self.tasks {
            nix::unistd::write(tasks, b"0").with_context(|| format!("join the cgroup {dir:?}"))?;
        }
        Ok(())
    }

    /// The unified hierarchy's folder, to be born into.
    pub(crate) fn unified(&self) -> Option<std::os::fd::BorrowedFd<'_>> {
        self.unified.as_ref().map(AsFd::as_fd)
    }
}

/// Tells an ordinary user what to do about it.
fn delegation(error: anyhow::Error) -> anyhow::Error {
    if rootless::is_refusal(&error) && rootless::is_rootless() {
        return error.context("without the host's root this needs a cgroup that is delegated to you");
    }
    error
}

fn remove_tree(dir: &Path) -> Result<()> {
    const TRIES: u32 = 14; // 0.1 ms, doubled each time: 1.6 s in all
    for n in 0..TRIES {
        match rmdir(dir) {
            Ok(()) | Err(Errno::ENOENT) => return Ok(()),
            Err(Errno::EBUSY | Errno::ENOTEMPTY) => {
                for below in layout::folders_in(dir) {
                    remove_tree(&below)?;
                }
                if matches!(rmdir(dir), Ok(()) | Err(Errno::ENOENT)) {
                    return Ok(());
                }
                std::thread::sleep(Duration::from_micros(100 << n));
            }
            Err(errno) => return Err(errno).with_context(|| format!("remove the cgroup {dir:?}")),
        }
    }
    bail!("remove the cgroup {dir:?}: processes are still in it")
}

fn rmdir(dir: &Path) -> nix::Result<()> {
    nix::unistd::unlinkat(nix::fcntl::AT_FDCWD, dir, nix::unistd::UnlinkatFlags::RemoveDir)
}

//! A container's place whose folders systemd makes: what differs from making them ourselves.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use nix::unistd::{Pid, Uid};

use super::super::resources::{Action, Value};
use super::super::write::Target;
use super::super::{Door, Home, Limits, Place, layout, targets, v1, v2};
use super::Unit;
use super::properties::{of_devices, of_files};
use crate::sys::file::read_text;

impl Place {
    /// Finds the unit that is to be the container's, and where its cgroups will be. Asks systemd, and changes
    /// nothing.
    pub(crate) fn find_unit<'a>(
        path: Option<&Path>,
        id: &str,
        annotations: impl Iterator<Item = (&'a str, &'a str)>,
    ) -> Result<Self> {
        let (unit, cgroup) = Unit::find(path, id, annotations)?;
        let mut place = layout::find(Some(&cgroup), id)?;
        place.unit = Some(unit);
        Ok(place)
    }

    /// Instead of making folders: the door stays shut until [`Place::start_unit`].
    pub(in super::super) fn before_unit(&self, unit: &Unit, limits: &Limits) -> Result<Door> {
        self.place(limits)?; // refuses what cannot be set here
        let populated = if unit.is_slice() { 0 } else { self.processes()?.len() };
        ensure!(populated == 0, "container's cgroup is not empty: {populated} process(es) found");
        // systemd would put the process into it all the same, and it would never go on.
        let frozen = self.v1.iter().any(v1::Group::holds_still)
            || self.v2.as_ref().is_some_and(v2::Group::holds_still);
        ensure!(!frozen, "container's cgroup unexpectedly frozen");
        Ok(Door::default())
    }

    /// True if a new process has to wait for [`Place::start_unit`].
    pub(crate) fn is_made_by_systemd(&self) -> bool {
        self.unit.is_some()
    }

    /// Has systemd make the unit around a new process, which must not go on before, and adds what systemd
    /// does not do: controllers of version 1 that it does not know, all limits, devices, the folder's owner.
    pub(crate) fn start_unit(&self, pid: Pid, limits: &Limits, owner: Option<Uid>) -> Result<()> {
        let Some(unit) = &self.unit else { return Ok(()) };
        let placed = self.place(limits)?;
        let version = unit.version()?;
        let all: Vec<Target> = placed.iter().filter_map(|one| self.target(one)).collect();
        let files: Vec<(&str, String)> =
            contents(&all).into_iter().map(|(_, file, text)| (file, text)).collect();
        let mut properties = of_files(&files, version)?;
        let rules = limits.devices.as_ref();
        if let Some(rules) = rules.filter(|_| self.has_v1("devices")) {
            let lines = rules.v1_lines();
            let everything = lines.first().is_some_and(|line| line.allow);
            let allowed: Vec<&str> = lines.iter().filter(|line| line.allow).map(|line| &*line.text).collect();
            if !everything {
                properties.extend(of_devices(&allowed, version));
            }
        }
        // On version 2 it is told nothing of devices. Then it attaches no program of its own, neither now nor
        // when it is reloaded: with one, a device that it cannot name, or that was added behind its back
        // (a GPU's driver does that), would be lost at the next reload.
        let is_in = || self.processes().is_ok_and(|pids| pids.contains(&pid));
        unit.start(pid, properties, &is_in)?;
        unit.hang_up();
        self.join_all(unit, pid)?;
        for (n, group) in self.v1.iter().enumerate() {
            group.limit(&targets(&placed, Home::V1(n), &group.dir), rules)?;
        }
        if let Some(group) = &self.v2 {
            let dir = layout::open_dir(&group.dir)?;
            let rules = rules.filter(|_| !self.has_v1("devices"));
            let owner = owner.filter(|_| self.v1.is_empty());
            let targets = targets(&placed, Home::V2, &group.dir);
            if self.v1.is_empty() || !targets.is_empty() {
                // systemd does so with those only that it has properties for: hugetlb, rdma and misc are not.
                group.pass_controllers_on();
            }
            group.limit(&dir, &targets, rules, owner)?;
        }
        Ok(())
    }

    /// systemd moves processes into scopes only, and leaves hierarchies out that it makes no use of.
    fn join_all(&self, unit: &Unit, pid: Pid) -> Result<()> {
        let join = |dir: &Path| {
            let mut pids = Vec::new();
            layout::collect_pids(dir, &mut pids)?;
            if pids.contains(&pid) {
                return Ok(());
            }
            let procs = dir.join("cgroup.procs");
            std::fs::write(&procs, pid.to_string()).with_context(|| format!("write {pid} to {procs:?}"))
        };
        for group in &self.v1 {
            group.make_missing().with_context(|| format!("make the cgroup {:?}", group.dir))?;
            join(&group.dir)?;
        }
        match &self.v2 {
            Some(group) if !group.dir.is_dir() => {
                bail!("systemd has put the unit {unit} elsewhere than in {:?}", group.dir)
            }
            Some(group) => join(&group.dir),
            None => Ok(()),
        }
    }

    /// True if we may not move processes into the cgroup ourselves: those of an ordinary user's systemd are
    /// in another part of the tree than his session, and the part above both is root's.
    pub(crate) fn is_joined_by_systemd(&self) -> bool {
        self.unit.as_ref().is_some_and(Unit::is_users)
    }

    /// Has systemd move one more process into the unit, to the cgroup `below` it that is asked for; or,
    /// where `init` has passed controllers on and no process may be any more, to where `init` is.
    pub(crate) fn attach(&self, pid: Pid, init: Pid, below: Option<&Path>) -> Result<()> {
        let (Some(unit), Some(group)) = (&self.unit, &self.v2) else { return Ok(()) };
        if let Some(below) = below {
            return unit.attach(pid, &Path::new("/").join(below));
        }
        let first = unit.attach(pid, Path::new(""));
        if first.is_err() {
            let now = layout::unified_path_of(init)?.map(|path| group.mount.join(path));
            let below = now.as_ref().and_then(|now| now.strip_prefix(&group.dir).ok());
            if let Some(below) = below.filter(|below| !below.as_os_str().is_empty()) {
                return unit.attach(pid, &Path::new("/").join(below));
            }
        }
        first
    }

    /// Tells systemd of limits that are about to be written. Returns what takes that back.
    pub(in super::super) fn tell_systemd(&self, targets: &[Target]) -> Result<impl FnOnce() -> Result<()>> {
        let mut undo = None;
        if let Some(unit) = &self.unit {
            let version = unit.version()?;
            let new = contents(targets);
            let old: Vec<(&str, String)> = new
                .iter()
                .flat_map(|(dir, file, _)| {
                    companion(file).into_iter().chain([*file]).map(|file| (*dir, file))
                })
                .filter_map(|(dir, file)| Some((file, read_text(dir.join(file)).ok()?)))
                .collect();
            let new: Vec<(&str, String)> = new.into_iter().map(|(_, file, text)| (file, text)).collect();
            unit.set(&of_files(&[&old[..], &new[..]].concat(), version)?)?;
            undo = Some((unit, of_files(&old, version)?));
        }
        Ok(move || undo.map_or(Ok(()), |(unit, old)| unit.set(&old)))
    }

    /// True if it has turned out that the unit is somebody else's.
    pub(in super::super) fn is_anothers(&self) -> bool {
        self.unit.as_ref().is_some_and(Unit::is_foreign)
    }

    /// Stops the unit. Without its systemd there is none, if the cgroups are gone as well.
    pub(in super::super) fn stop_unit(&self, unit: &Unit) -> Result<()> {
        if !unit.is_slice() && self.processes().is_ok_and(|pids| !pids.is_empty()) {
            self.kill_all()?; // systemd would ask them to end, and wait
        }
        unit.stop().or_else(|error| {
            let v1 = self.v1.iter().map(|group| &group.dir);
            let mut dirs = v1.chain(self.v2.iter().map(|group| &group.dir));
            if dirs.any(|dir: &PathBuf| dir.exists()) { Err(error) } else { Ok(()) }
        })
    }
}

/// What will be in the files of limits: the folder, the file, the text.
fn contents<'a>(targets: &[Target<'a>]) -> Vec<(&'a Path, &'a str, String)> {
    let mut all = Vec::new();
    for target in targets {
        let (Action::Write(files) | Action::IfThere(files)) = &target.column.action else { continue };
        for (file, value) in files {
            let text = match value {
                // In a cgroup that is not there yet.
                Value::Period(period) if !target.dir.exists() => Ok(format!("max {period}")),
                value => value.text(target.dir),
            };
            all.extend(text.ok().map(|text| (target.dir, &**file, text))); // the writing will tell
        }
    }
    all
}

/// A file that changes with this one, or that a property takes together with it.
fn companion(file: &str) -> Option<&'static str> {
    Some(match file {
        "cpu.idle" => "cpu.weight",
        "cpu.cfs_quota_us" => "cpu.cfs_period_us",
        "cpu.cfs_period_us" => "cpu.cfs_quota_us",
        _ => return None,
    })
}

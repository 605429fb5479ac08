//! cgroup version 1: one hierarchy for each controller or bundle of controllers.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, open};
use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::{symlinkat, write};
use serde::{Deserialize, Serialize};

use super::layout::collect_pids;
use super::resources::Limits;
use crate::container::rootless;
use crate::sys::file::read_text;
use crate::sys::mount::{Change, NewFs, attach, attach_at, attr, clone_tree, set_attributes, text};

/// The container's folder in one hierarchy.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct Group {
    /// As the kernel lists it: `memory`, `cpu,cpuacct`, `systemd`.
    pub(super) name: String,
    pub(super) dir: PathBuf,
    pub(super) mount: PathBuf,
    /// The folder that the runtime is in itself.
    #[serde(skip)]
    pub(super) own: PathBuf,
}

impl Group {
    /// True if this hierarchy has the controller.
    pub(super) fn has(&self, controller: &str) -> bool {
        self.name.split(',').any(|name| name == controller)
    }

    /// Makes and limits the folder; notes it if it was not there before. Gives the way in.
    pub(super) fn set_up(&self, limits: &Limits, made: &mut Vec<PathBuf>) -> Result<OwnedFd> {
        let new = self.create().with_context(|| format!("make the cgroup {:?}", self.dir))?;
        made.extend(new.then(|| self.dir.clone()));
        self.limit(limits).with_context(|| format!("limit the cgroup {:?}", self.dir))?;
        self.open_tasks()
    }

    /// True if a limit is asked of this hierarchy's controllers.
    pub(super) fn is_limited(&self, limits: &Limits) -> bool {
        limits.v1.iter().any(|setting| self.has(setting.controller))
    }

    /// Makes the folder, all above it too; `true` if it was not there before.
    pub(super) fn create(&self) -> Result<bool> {
        let mut new = true;
        match mkdirat(AT_FDCWD, &self.dir, Mode::from_bits_truncate(0o755)) {
            Ok(()) => {}
            Err(Errno::EEXIST) => {
                self.refuse_if_used()?;
                new = false;
            }
            Err(Errno::ENOENT) => self.create_from_the_top()?,
            Err(errno) => return Err(errno.into()),
        }
        if self.has("cpuset") {
            fill_cpuset(&self.mount, &self.dir, new)?;
        }
        Ok(new)
    }

    fn create_from_the_top(&self) -> Result<()> {
        let mut dir = self.mount.clone();
        for part in self.dir.strip_prefix(&self.mount)?.components() {
            dir.push(part);
            match mkdirat(AT_FDCWD, &dir, Mode::from_bits_truncate(0o755)) {
                Ok(()) | Err(Errno::EEXIST) => {}
                Err(errno) => return Err(errno).with_context(|| format!("mkdir {dir:?}")),
            }
            if self.has("cpuset") {
                fill_cpuset(&self.mount, &dir, false)?;
            }
        }
        Ok(())
    }

    fn refuse_if_used(&self) -> Result<()> {
        let mut pids = Vec::new();
        collect_pids(&self.dir, &mut pids)?;
        if !pids.is_empty() {
            bail!("container's cgroup is not empty: {} process(es) found", pids.len());
        }
        if self.has("freezer") && self.is_frozen() {
            bail!("container's cgroup unexpectedly frozen");
        }
        Ok(())
    }

    /// Writes the limits that this hierarchy's controllers have.
    pub(super) fn limit(&self, limits: &Limits) -> Result<()> {
        for setting in limits.v1.iter().filter(|setting| self.has(setting.controller)) {
            let file = self.open(setting.file);
            file.and_then(|file| write(&file, setting.value.as_bytes())).with_context(|| {
                format!("{}: write {:?} to {}", setting.property, setting.value, setting.file)
            })?;
        }
        if self.has("devices") {
            // Without the host's root there are no device nodes but those that the host has and lets one
            // open, so there is nothing to keep anybody from.
            match self.limit_devices(limits) {
                Err(error) if rootless::is_refusal(&error) && rootless::is_rootless() => {}
                other => other?,
            }
        }
        Ok(())
    }

    fn open(&self, file: &str) -> nix::Result<OwnedFd> {
        open(&self.dir.join(file), OFlag::O_WRONLY | OFlag::O_CLOEXEC, Mode::empty())
    }

    fn limit_devices(&self, limits: &Limits) -> Result<()> {
        let Some(rules) = &limits.devices else { return Ok(()) };
        let (mut allow, mut deny) = (None, None);
        for line in rules.v1_lines() {
            let (file, name) =
                if line.allow { (&mut allow, "devices.allow") } else { (&mut deny, "devices.deny") };
            if file.is_none() {
                *file = Some(self.open(name).context(name)?);
            }
            let Some(file) = file else { continue };
            write(&*file, line.text.as_bytes())
                .with_context(|| format!("linux.resources.devices: write {:?} to {name}", line.text))?;
        }
        Ok(())
    }

    /// The file that a single-threaded process writes `0` to, to move itself at no cost.
    pub(super) fn open_tasks(&self) -> Result<OwnedFd> {
        self.open("tasks").with_context(|| format!("open {:?}", self.dir.join("tasks")))
    }

    pub(super) fn is_frozen(&self) -> bool {
        let state = std::fs::read_to_string(self.dir.join("freezer.state")).unwrap_or_default();
        matches!(state.trim(), "FROZEN" | "FREEZING")
    }

    pub(super) fn write_freezer(&self, state: &str) {
        let _ = std::fs::write(self.dir.join("freezer.state"), state); // the signals that follow tell
    }
}

/// A new cpuset is empty and lets nobody in: it takes its parent's, which another runtime may have made a
/// moment ago and not filled yet.
fn fill_cpuset(mount: &Path, dir: &Path, new: bool) -> Result<()> {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        inherit(mount, dir, file, new)?;
    }
    Ok(())
}

/// The content of `file`, after taking it from the folder above if it is empty.
fn inherit(mount: &Path, dir: &Path, file: &str, new: bool) -> Result<String> {
    let path = dir.join(file);
    if !new {
        let own = read_text(&path).with_context(|| format!("read {path:?}"))?;
        if !own.trim().is_empty() || dir == mount {
            return Ok(own);
        }
    }
    let parent = dir.parent().context("it has no parent")?;
    let above = inherit(mount, parent, file, false)?;
    std::fs::write(&path, above.trim()).with_context(|| format!("write {path:?}"))?;
    Ok(above)
}

/// A tmpfs with each hierarchy's own folder bound into it, as every other runtime shows it.
pub(super) fn mount_all(groups: &[&Group], target: &OwnedFd, attributes: u64) -> Result<OwnedFd> {
    let fs = NewFs::open(c"tmpfs")?;
    fs.set(c"mode", c"755")?;
    fs.set(c"source", c"cgroup")?;
    let top = fs.mount(attributes & !attr::RDONLY)?;
    for group in groups {
        let tree = clone_tree(AT_FDCWD, &text(&group.dir.to_string_lossy())?, false, true)
            .with_context(|| format!("copy the mount of {:?}", group.dir))?;
        set_attributes(&tree, &Change { set: attributes, ..Change::default() }, false)?;
        mkdirat(&top, group.name.as_str(), Mode::from_bits_truncate(0o755))?;
        attach_at(&tree, &top, &text(&group.name)?).with_context(|| format!("show {:?}", group.name))?;
        // cpu -> cpu,cpuacct
        for name in group.name.split(',').filter(|name| *name != group.name) {
            symlinkat(group.name.as_str(), &top, name)?;
        }
    }
    if attributes & attr::RDONLY != 0 {
        set_attributes(top.as_fd(), &Change { set: attr::RDONLY, ..Change::default() }, false)?;
    }
    attach(&top, target)?;
    Ok(top)
}

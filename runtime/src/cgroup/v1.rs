//! cgroup version 1: one hierarchy for each controller or bundle of controllers.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, open};
use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::{symlinkat, write};
use serde::{Deserialize, Serialize};

use super::devices::DeviceRules;
use super::layout::{collect_pids, deepest_there};
use super::write::{self, Target};
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

    /// Makes and limits the folder; notes in `made` what was not there before. Gives the way in.
    pub(super) fn set_up(
        &self,
        limits: &[Target],
        devices: Option<&DeviceRules>,
        made: &mut Vec<PathBuf>,
    ) -> Result<OwnedFd> {
        self.create(made).with_context(|| format!("make the cgroup {:?}", self.dir))?;
        self.limit(limits, devices)?;
        self.open_tasks()
    }

    /// Limits the folder.
    pub(super) fn limit(&self, limits: &[Target], devices: Option<&DeviceRules>) -> Result<()> {
        write::write_all(limits).with_context(|| format!("limit the cgroup {:?}", self.dir))?;
        if let Some(rules) = devices.filter(|_| self.has("devices")) {
            // Without the host's root there are no device nodes but those that the host has and lets one
            // open, so there is nothing to keep anybody from.
            match self.limit_devices(rules) {
                Err(error) if rootless::is_refusal(&error) && rootless::is_rootless() => {}
                other => other?,
            }
        }
        Ok(())
    }

    /// Makes the folder where it is missing: it may be in use already.
    pub(super) fn make_missing(&self) -> Result<()> {
        self.create_from_the_top(&mut Vec::new())
    }

    /// Makes the folder, all above it too.
    fn create(&self, made: &mut Vec<PathBuf>) -> Result<()> {
        let mut new = false;
        match mkdirat(AT_FDCWD, &self.dir, Mode::from_bits_truncate(0o755)) {
            Ok(()) => {
                new = true;
                made.push(self.dir.clone());
            }
            Err(Errno::EEXIST) => self.refuse_if_populated()?,
            Err(Errno::ENOENT) => self.create_from_the_top(made)?,
            Err(errno) => return Err(errno.into()),
        }
        if self.has("cpuset") {
            fill_cpuset(&self.mount, &self.dir, new)?;
        }
        // One that was there, or is below another: a process that joins a frozen cgroup stops at once.
        let below_another = self.dir.parent() != Some(&self.mount);
        if self.has("freezer") && (below_another || !new) && self.is_frozen() {
            bail!("container's cgroup unexpectedly frozen");
        }
        Ok(())
    }

    fn create_from_the_top(&self, made: &mut Vec<PathBuf>) -> Result<()> {
        let mut dir = self.mount.clone();
        for part in self.dir.strip_prefix(&self.mount)?.components() {
            dir.push(part);
            match mkdirat(AT_FDCWD, &dir, Mode::from_bits_truncate(0o755)) {
                Ok(()) => made.push(dir.clone()),
                Err(Errno::EEXIST) => {}
                Err(errno) => return Err(errno).with_context(|| format!("mkdir {dir:?}")),
            }
            if self.has("cpuset") {
                fill_cpuset(&self.mount, &dir, false)?;
            }
        }
        Ok(())
    }

    fn refuse_if_populated(&self) -> Result<()> {
        let mut pids = Vec::new();
        collect_pids(&self.dir, &mut pids)?;
        if !pids.is_empty() {
            bail!("container's cgroup is not empty: {} process(es) found", pids.len());
        }
        Ok(())
    }

    fn open(&self, file: &str) -> nix::Result<OwnedFd> {
        open(&self.dir.join(file), OFlag::O_WRONLY | OFlag::O_CLOEXEC, Mode::empty())
    }

    /// Writes the device rules.
    fn limit_devices(&self, rules: &DeviceRules) -> Result<()> {
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
        self.freezer_state().is_ok_and(|state| matches!(state.trim(), "FROZEN" | "FREEZING"))
    }

    /// True if a process would stop at once here: the cgroup is frozen, or where it is not there yet, what
    /// will be above it.
    pub(super) fn holds_still(&self) -> bool {
        let there = deepest_there(&self.dir).filter(|_| self.has("freezer"));
        let state = there.and_then(|dir| read_text(dir.join("freezer.state")).ok());
        state.is_some_and(|state| matches!(state.trim(), "FROZEN" | "FREEZING"))
    }

    /// Freezes all and waits until they are. A process that is just being forked can keep the kernel from
    /// getting there for ever; to ask again helps, or to let all go on for a moment.
    pub(super) fn freeze(&self) -> Result<()> {
        const ROUNDS: u32 = 50;
        const LOOKS: u32 = 9; // 10 us, doubled each time: 5 ms in all
        for _ in 0..ROUNDS {
            for n in 0..LOOKS {
                self.write_freezer("FROZEN")?;
                let state = self.freezer_state()?;
                match state.trim() {
                    "FROZEN" => return Ok(()),
                    "FREEZING" => std::thread::sleep(Duration::from_micros(10 << n)),
                    other => bail!("freezer.state says {other:?} after FROZEN was written"),
                }
            }
            self.write_freezer("THAWED")?;
            std::thread::sleep(Duration::from_millis(10));
        }
        bail!("unable to freeze: processes do not stop")
    }

    /// Lets all go on.
    pub(super) fn thaw(&self) -> Result<()> {
        self.write_freezer("THAWED")
    }

    fn write_freezer(&self, state: &str) -> Result<()> {
        let path = self.dir.join("freezer.state");
        std::fs::write(&path, state).with_context(|| format!("write {state} to {path:?}"))
    }

    fn freezer_state(&self) -> Result<String> {
        let path = self.dir.join("freezer.state");
        std::fs::read_to_string(&path).with_context(|| format!("read {path:?}"))
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

//! cgroup version 2: the unified hierarchy.

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, openat};
use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::write;
use serde::{Deserialize, Serialize};

use super::layout::{collect_pids, open_dir};
use super::resources::Limits;
use crate::container::rootless;
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
    /// Makes the folder, and limits it if the controllers are here; notes it if it was not there before.
    pub(super) fn set_up(
        &self,
        limits: &Limits,
        controllers: bool,
        made: &mut Vec<PathBuf>,
    ) -> Result<OwnedFd> {
        let (dir, new) =
            self.create(controllers).with_context(|| format!("make the cgroup {:?}", self.dir))?;
        made.extend(new.then(|| self.dir.clone()));
        if controllers {
            self.limit(&dir, limits).with_context(|| format!("limit the cgroup {:?}", self.dir))?;
        }
        Ok(dir)
    }

    /// Makes the folder and all above it; `true` if it was not there before. `enable` passes every controller that there is down to it.
    pub(super) fn create(&self, enable: bool) -> Result<(OwnedFd, bool)> {
        let mut dir = self.mount.clone();
        let mut existed = true;
        for part in self.dir.strip_prefix(&self.mount)?.components() {
            if enable {
                enable_controllers(&dir);
            }
            dir.push(part);
            match mkdirat(AT_FDCWD, &dir, Mode::from_bits_truncate(0o755)) {
                Ok(()) => existed = false,
                Err(Errno::EEXIST) => existed = true,
                Err(errno) => return Err(errno).with_context(|| format!("mkdir {dir:?}")),
            }
        }
        if existed {
            self.refuse_if_used()?;
        }
        Ok((open_dir(&self.dir)?, !existed))
    }

    fn refuse_if_used(&self) -> Result<()> {
        let mut pids = Vec::new();
        collect_pids(&self.dir, &mut pids)?;
        if !pids.is_empty() {
            bail!("container's cgroup is not empty: {} process(es) found", pids.len());
        }
        if self.is_frozen() {
            bail!("container's cgroup unexpectedly frozen");
        }
        Ok(())
    }

    /// Writes the limits and attaches the device program.
    pub(super) fn limit(&self, dir: &OwnedFd, limits: &Limits) -> Result<()> {
        for setting in limits.v2.iter().chain(&limits.only_v2) {
            let written = openat(dir, setting.file, OFlag::O_WRONLY | OFlag::O_CLOEXEC, Mode::empty())
                .and_then(|file| write(&file, setting.value.as_bytes()));
            match written {
                Ok(_) => {}
                // A kernel that does not count swap cannot give more of it than it has.
                Err(Errno::ENOENT)
                    if setting.file == "memory.swap.max" && matches!(&*setting.value, "0" | "max") => {}
                Err(Errno::ENOENT) => bail!(
                    "{}: there is no {} here: the controller {} is not available to this cgroup",
                    setting.property,
                    setting.file,
                    setting.controller
                ),
                Err(errno) => {
                    return Err(errno).with_context(|| {
                        format!("{}: write {:?} to {}", setting.property, setting.value, setting.file)
                    });
                }
            }
        }
        if let Some(rules) = &limits.devices {
            let folder =
                openat(dir, ".", OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
            match rules.attach(&folder).context("linux.resources.devices: attach the device program") {
                // Without the host's root there are no device nodes but those that the host has and lets
                // one open, so there is nothing to keep anybody from.
                Err(error) if rootless::is_refusal(&error) && rootless::is_rootless() => {}
                other => other?,
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

    pub(super) fn thaw(&self) {
        let _ = std::fs::write(self.dir.join("cgroup.freeze"), "0"); // nothing frozen, nothing to do
    }

    /// Kills everything below at once; false where the kernel (before 5.14) has no such file.
    pub(super) fn kill(&self) -> bool {
        std::fs::write(self.dir.join("cgroup.kill"), "1").is_ok()
    }
}

/// Passes all controllers on. What cannot be passed on is not fatal here: a limit that needs it will say
/// so. In a cgroup with processes (EBUSY) none is: the few that would work there would make it the root
/// of a threaded tree, below which no ordinary process may be.
fn enable_controllers(dir: &std::path::Path) {
    let Ok(available) = std::fs::read_to_string(dir.join("cgroup.controllers")) else { return };
    let file = dir.join("cgroup.subtree_control");
    let enabled = std::fs::read_to_string(&file).unwrap_or_default();
    let missing: Vec<String> = available
        .split_whitespace()
        .filter(|name| !enabled.split_whitespace().any(|on| on == *name))
        .map(|name| format!("+{name}"))
        .collect();
    if missing.is_empty() {
        return;
    }
    match std::fs::write(&file, missing.join(" ")) {
        Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {}
        Err(_) => missing.iter().for_each(|one| drop(std::fs::write(&file, one))),
        Ok(()) => {}
    }
}

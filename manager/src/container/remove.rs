//! Taking a container away, whatever state a crash left it in.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use super::state::State;
use super::{Container, cgroup, files, lock, name};
use crate::cli::Context;

/// How long the monitor may take to clean up after the process it watched.
const MONITOR_LIMIT: Duration = Duration::from_secs(10);

/// Removes a container. One that runs is refused, or killed with `force`.
pub(crate) fn remove(context: &Context, container: &Container, force: bool) -> Result<()> {
    if let State::Running { started, .. } = container.state()? {
        ensure!(
            force,
            "you cannot remove a running container {}: stop the container before attempting removal or force remove",
            container.record.id
        );
        started.process.signal(libc::SIGKILL)?;
        ensure!(
            started.process.wait(Some(MONITOR_LIMIT))?,
            "process {} does not die of SIGKILL: it waits for the kernel",
            started.process.pid
        );
        if !started.monitor.wait(Some(MONITOR_LIMIT))? {
            // It hangs: take over what it should have done.
            started.monitor.signal(libc::SIGKILL)?;
            started.monitor.wait(Some(MONITOR_LIMIT))?;
        }
    }
    let _lock = match lock(&container.folder) {
        Ok(lock) => lock,
        // Somebody else (`rm`, or the monitor because of `--rm`) was faster.
        Err(_) if !container.folder.exists() => return Ok(()),
        Err(error) => return Err(error),
    };
    if let State::Running { .. } = container.state()? {
        bail!("container {} was started meanwhile", container.record.id);
    }
    clean_run(container)?;
    remove_locked(context, container)
}

/// Removes what a start made: the runtime's container, control groups, the run folder. Cheap when
/// the monitor has done it already, which is the case unless it was killed.
pub(crate) fn clean_run(container: &Container) -> Result<()> {
    let id = &container.record.id;
    if container.run_folder.join("runtime").exists()
        && let Err(error) = container.runtime().delete(id)
    {
        // The runtime may be gone or may no longer read its half-written state; what matters is
        // that no process and no group of this container is left.
        if !cgroup::remove(id) {
            return Err(error).context("remove what the runtime left");
        }
    }
    ensure!(cgroup::remove(id), "control groups {} cannot be removed", cgroup::path(id));
    files::remove_folder(&container.run_folder)
}

/// Removes the container's name and folder, in an order that a crash may cut anywhere. The caller
/// holds the folder's lock.
pub(crate) fn remove_locked(context: &Context, container: &Container) -> Result<()> {
    name::release(context, &container.record.name, &container.record.id);
    // Without this file the folder is debris, which anybody may sweep.
    files::remove_file(&container.folder.join("container.json"))?;
    files::remove_folder(&container.folder)
}

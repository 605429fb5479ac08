//! Taking a container away, whatever state a crash left it in.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::state::{Started, State};
use super::{Container, Locked, cgroup, files, name, try_lock};
use crate::cli::Context;

/// How long another process may take for its part.
const LIMIT: Duration = Duration::from_secs(10);

/// Removes a container. One that runs is refused, or killed with `force`.
pub(crate) fn remove(context: &Context, container: &Container, force: bool) -> Result<()> {
    let end = Instant::now() + LIMIT;
    let _lock = loop {
        if let State::Running { started, .. } = container.state()? {
            ensure!(
                force,
                "you cannot remove a running container {}: stop the container before attempting removal or force remove",
                container.record.id
            );
            kill(&started)?;
        }
        // Not waited for: its holder may be a monitor that is just starting the container, and will
        // hold it until the container ends.
        match try_lock(&container.folder)? {
            Locked::Gone => return Ok(()),
            Locked::Yes(lock) if container.state()?.running().is_none() => break lock,
            _ => {}
        }
        ensure!(
            Instant::now() < end,
            "container {} is being started, stopped or removed by another command",
            container.record.id
        );
        sleep(Duration::from_millis(5));
    };
    clean_run(container)?;
    remove_locked(context, container)
}

/// Removes a container of which nothing is known but its id: `container.json` cannot be read.
pub(crate) fn remove_damaged(context: &Context, id: &str) -> Result<()> {
    let folder = super::containers(context).join(id);
    if let State::Running { started, .. } = State::of(&folder)? {
        kill(&started)?;
    }
    let end = Instant::now() + LIMIT;
    let _lock = loop {
        match try_lock(&folder)? {
            Locked::Gone => return Ok(()),
            Locked::Yes(lock) => break lock,
            Locked::No => {}
        }
        ensure!(Instant::now() < end, "container {id} is being stopped or removed by another command");
        sleep(Duration::from_millis(5));
    };
    // Which runtime it had is not known either; its state goes with the folder, the processes with
    // their control groups.
    ensure!(cgroup::remove(id), "control groups {} cannot be removed", cgroup::path(id));
    files::remove_folder(&context.run_root.join(id))?;
    name::release_all(context, id)?;
    files::remove_file(&folder.join("container.json"))?;
    files::remove_folder(&folder)
}

/// Ends a container's process, and its monitor when that hangs.
fn kill(started: &Started) -> Result<()> {
    started.process.signal(libc::SIGKILL)?;
    ensure!(
        started.process.wait(Some(LIMIT))?,
        "process {} does not die of SIGKILL: it waits for the kernel",
        started.process.pid
    );
    if !started.monitor.wait(Some(LIMIT))? {
        started.monitor.signal(libc::SIGKILL)?;
        started.monitor.wait(Some(LIMIT))?;
    }
    Ok(())
}

/// Removes what a start made: the runtime's container, control groups, the run folder. Cheap when
/// the monitor has done it already, which is the case unless it was killed.
pub(crate) fn clean_run(container: &Container) -> Result<()> {
    clean_runtime(container)?;
    files::remove_folder(&container.run_folder)
}

/// The same but for the run folder, and so for the socket that tells how it ended.
pub(crate) fn clean_runtime(container: &Container) -> Result<()> {
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
    Ok(())
}

/// Removes the container's name and folder, in an order that a crash may cut anywhere. The caller
/// holds the folder's lock.
pub(crate) fn remove_locked(context: &Context, container: &Container) -> Result<()> {
    name::release(context, &container.record.name, &container.record.id);
    // Without this file the folder is debris, which anybody may sweep.
    files::remove_file(&container.folder.join("container.json"))?;
    files::remove_folder(&container.folder)
}

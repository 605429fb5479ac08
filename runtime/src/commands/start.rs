//! `start`: runtime.md#start. Opens the gate, and tells the truth about what came of it.

use anyhow::{Context as _, Result, bail};
use clap::{ArgMatches, Command};

use super::create;
use crate::cli::{self, Context};
use crate::container::annotations::Annotations;
use crate::container::hooks::{Output, Surroundings};
use crate::container::{hooks, process};
use crate::fault::{self, Point};
use crate::launch::gate;
use crate::launch::notify::Listener;
use crate::state_dir::{self, Init, StateDir, Status};
use crate::sys::process::pidfd_send_signal;

pub(super) fn flags(command: Command) -> Command {
    command.about("Run the process of a created container").arg(cli::id())
}

pub(super) fn run(context: &Context, matches: &ArgMatches) -> Result<u8> {
    let id = cli::text(matches, "id");
    let dir = StateDir::open(&context.root, id)?;
    let state = state_dir::load(&context.root, id)?;
    let init = state_dir::init(&context.root, id)?;
    match state_dir::status(&context.root, &state, init.as_ref()) {
        Status::Created => {}
        Status::Stopped => bail!("cannot start a container that has stopped"),
        Status::Paused => bail!("cannot start a container in the paused state"),
        _ => bail!("cannot start an already running container"),
    }
    let Some(init) = init else { bail!("cannot start a container that has stopped") };
    let spec = state_dir::load_spec(&context.root, id)?;
    let wanted = spec.process().as_ref().context("process: process property must not be empty")?;
    let process = process::plan(wanted, None, &Annotations::default())?;
    // What can fail without the container having run at all.
    let output = if spec.hooks().is_some() { state.hook_output()? } else { Output::default() };
    let listener = Listener::bind(&dir.path)?;
    gate::open(&dir.gate(), &process).context("unable to start container process")?;
    // From here on it is running.
    fault::point(Point::StartOpened);
    std::fs::remove_file(dir.gate()).with_context(|| format!("remove {:?}", dir.gate()))?;
    fault::point(Point::StartGateRemoved);
    let Some(all) = spec.hooks() else { return until_ready(listener, dir, &init) };
    let json = create::for_hooks(&state, Status::Running, init.pid.as_raw());
    let around = Surroundings { state: &json, cwd: &state.bundle, output: &output };
    // Hooks may call us, and nobody is kept from a container whose hooks do not end.
    let (dir, ran) = dir.unlocked_while(|| hooks::run("poststart", all.poststart(), around))?;
    let Some(dir) = dir else { return ran.map(|()| 0) };
    if let Err(error) = ran {
        // "... generate an error, stop the container, and continue the lifecycle at step 12"
        let _ = pidfd_send_signal(&init.pidfd, libc::SIGKILL);
        super::delete::wait_for_end(&init)?;
        super::delete::kill_rest(&state)?;
        create::remove_all(&state, dir, Some(all));
        return Err(error);
    }
    fault::point(Point::StartHooks);
    until_ready(listener, dir, &init)
}

/// As long as it takes, so nobody else is kept waiting for the lock.
fn until_ready(listener: Option<Listener>, lock: StateDir, init: &Init) -> Result<u8> {
    drop(lock);
    listener.map_or(Ok(()), |listener| listener.wait(init.pid, &init.pidfd))?;
    Ok(0)
}

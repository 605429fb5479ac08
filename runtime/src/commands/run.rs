//! `run`: create, start, wait for the end, delete; in one process, so without the gate.

use anyhow::{Context as _, Result};
use clap::{ArgMatches, Command};

use super::create::{self, Made};
use crate::cli::{self, Context};
use crate::container::hooks::{self, Surroundings};
use crate::fault::{self, Point};
use crate::launch::notify::Listener;
use crate::launch::supervise::{self, Signals};
use crate::state_dir::Status;
use crate::sys::process::set_child_subreaper;

pub(super) fn flags(command: Command) -> Command {
    create::shared_flags(command.about("Create and start a container, and wait for its end"))
        .arg(cli::flag("detach", "Do not wait").short('d'))
        .arg(cli::flag("keep", "Do not delete the container at its end"))
        .arg(cli::flag("no-subreaper", "Leave orphans of the container to the caller"))
        .arg(cli::id())
}

pub(super) fn run(context: &Context, matches: &ArgMatches) -> Result<u8> {
    let detach = matches.get_flag("detach");
    let signals = if detach { None } else { Some(Signals::hold()?) };
    if !detach && !matches.get_flag("no-subreaper") {
        set_child_subreaper().context("become a subreaper")?;
    }
    let id = cli::text(matches, "id");
    let mut made = create::make(context, id, matches, false).context("run failed")?;
    let listener = match start(&mut made, matches) {
        Ok(listener) => listener,
        Err(error) => {
            made.take_back();
            return Err(error.context("run failed"));
        }
    };
    let Some(signals) = signals else {
        made.unlock();
        listener.map_or(Ok(()), |listener| listener.wait(made.process.pid, &made.process.pidfd))?;
        return Ok(0);
    };
    made.process.net_devices = None; // what keeps them would keep the container's network namespace
    let code = made.unlocked_while(|made| supervise::wait(&made.process, &signals, listener))?;
    let code = code.inspect_err(|_| made.process.kill_and_reap());
    fault::point(Point::RunEnded);
    if !matches.get_flag("keep") {
        made.remove();
    }
    code
}

/// Returns where it says that it is ready, if somebody wants to know.
fn start(made: &mut Made, matches: &ArgMatches) -> Result<Option<Listener>> {
    if !matches.get_flag("detach") {
        supervise::keep_line_ends(&made.process)?;
    }
    let listener = made.listener()?;
    made.pass_on(matches)?;
    made.process.release(&made.plan.process).context("unable to start container process")?;
    fault::point(Point::RunReleased);
    if made.plan.spec.hooks().is_some() {
        made.unlocked_while(poststart)??;
    }
    Ok(listener)
}

/// Hooks may call us, and nobody is kept from a container whose hooks do not end.
fn poststart(made: &Made) -> Result<()> {
    let Some(all) = made.plan.spec.hooks() else { return Ok(()) };
    let state = create::for_hooks(&made.state, Status::Running, made.process.pid.as_raw());
    let output = made.plan.annotations.hook_output()?;
    let around = Surroundings { state: &state, cwd: &made.state.bundle, output: &output };
    hooks::run("poststart", all.poststart(), around)
}

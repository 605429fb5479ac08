//! `delete`: runtime.md#delete.

use std::os::fd::AsFd;

use anyhow::{Context as _, Result, anyhow, bail};
use clap::{ArgMatches, Command};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::create::remove_all;
use crate::cli::{self, Context};
use crate::container::intel_rdt::Groups;
use crate::fault::{self, Point};
use crate::state_dir::{self, Init, State, StateDir, Status};
use crate::sys::process::pidfd_send_signal;

pub(super) fn flags(command: Command) -> Command {
    command
        .about("Remove what is left of a container")
        .arg(cli::flag("force", "Kill it first if it runs; an unknown container is no error").short('f'))
        .arg(super::regex_flag())
        .arg(cli::id())
}

pub(super) fn run(context: &Context, matches: &ArgMatches) -> Result<u8> {
    let force = matches.get_flag("force");
    super::each(&super::ids(context, matches)?, |id| delete(context, id, force))
}

fn delete(context: &Context, id: &str, force: bool) -> Result<()> {
    let Some(dir) = StateDir::find(&context.root, id)? else {
        return if force { Ok(()) } else { Err(anyhow!("container does not exist: {id}")) };
    };
    let state = match state_dir::load(&context.root, id) {
        Ok(state) => state,
        // Killed before it had made anything but the folder.
        Err(_) if force => return dir.remove(),
        Err(error) => return Err(error),
    };
    let init = state_dir::init(&context.root, id)?;
    let status = state_dir::status(&context.root, &state, init.as_ref());
    if let Some(init) = &init {
        // The specification allows `stopped` only; every engine expects `created` to go as well.
        if !force && (status != Status::Created || context.strict) {
            bail!("cannot delete container {id} that is not stopped: {status}");
        }
        state.cgroups.thaw_if(state.cgroups.is_frozen());
        pidfd_send_signal(&init.pidfd, libc::SIGKILL).with_context(|| format!("kill {}", init.pid))?;
        fault::point(Point::DeleteKilled);
        wait_for_end(init)?;
    }
    fault::point(Point::DeleteEnded);
    if state_dir::has_init_record(&context.root, id) {
        kill_rest(&state)?;
    } else {
        state.cgroups.kill_all()?; // a runtime killed at birth may have left somebody it did not know
    }
    fault::point(Point::DeleteAllKilled);
    let spec = state_dir::load_spec(&context.root, id);
    let hooks = spec.as_ref().ok().and_then(|spec| spec.hooks().as_ref());
    state.cgroups.remove()?;
    fault::point(Point::DeleteCgroups);
    state.intel_rdt.as_ref().map_or(Ok(()), Groups::remove)?;
    remove_all(&state, dir, hooks);
    Ok(())
}

/// Waits until a killed init is gone, at most 10 s.
pub(super) fn wait_for_end(init: &Init) -> Result<()> {
    let mut fds = [PollFd::new(init.pidfd.as_fd(), PollFlags::POLLIN)];
    if poll(&mut fds, PollTimeout::from(10_000_u16)).context("wait for the container's init")? == 0 {
        bail!("container init still running");
    }
    Ok(())
}

/// Without a pid namespace of the container's own, its init does not take the others with it.
pub(super) fn kill_rest(state: &State) -> Result<()> {
    if state.shares_pids { state.cgroups.kill_all() } else { Ok(()) }
}

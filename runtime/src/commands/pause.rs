//! `pause`: all processes of a container stand still.

use anyhow::{Context as _, Result, bail};
use clap::{ArgMatches, Command};

use crate::cli::{self, Context};
use crate::state_dir::{self, StateDir, Status};

pub(super) fn flags(command: Command) -> Command {
    command.about("Stop all processes of a container where they are").arg(cli::id())
}

pub(super) fn run(context: &Context, matches: &ArgMatches) -> Result<u8> {
    let id = cli::text(matches, "id");
    let _lock = StateDir::open(&context.root, id)?;
    let state = state_dir::load(&context.root, id)?;
    let init = state_dir::init(&context.root, id)?;
    match state_dir::status(&context.root, &state, init.as_ref()) {
        Status::Created | Status::Running => {
            state.cgroups.freeze().context("pause")?;
            // A kill from just before has seen nothing frozen; one from now on will, and thaws it.
            if init.is_none_or(|init| init.is_killed()) {
                state.cgroups.thaw();
                bail!("container not running");
            }
        }
        Status::Paused => bail!("container not running: it is paused already"),
        _ => bail!("container not running"),
    }
    Ok(0)
}

//! `resume`: undoes `pause`.

use anyhow::{Context as _, Result, bail};
use clap::{ArgMatches, Command};

use crate::cli::{self, Context};
use crate::state_dir::{self, StateDir, Status};

pub(super) fn flags(command: Command) -> Command {
    command.about("Let the processes of a paused container go on").arg(cli::id())
}

pub(super) fn run(context: &Context, matches: &ArgMatches) -> Result<u8> {
    let id = cli::text(matches, "id");
    let _lock = StateDir::open(&context.root, id)?;
    let state = state_dir::load(&context.root, id)?;
    let init = state_dir::init(&context.root, id)?;
    if state_dir::status(&context.root, &state, init.as_ref()) != Status::Paused {
        bail!("container not paused");
    }
    state.cgroups.resume().context("resume")?;
    Ok(0)
}

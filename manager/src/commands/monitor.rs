//! `monitor`: not for people. The process that `run` and `start` leave with a container.

use anyhow::Result;

use crate::cli::Context;

/// The process that stays with a container
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The container's full id
    id: String,
}

/// Watches over one container until it has ended.
pub(crate) fn run(args: Args, context: &Context) -> Result<u8> {
    crate::monitor::run(context, &args.id)?;
    Ok(0)
}

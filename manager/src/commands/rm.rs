//! `rm`: remove containers.

use anyhow::Result;

use crate::cli::Context;
use crate::container::{Container, remove};
use crate::output;

/// Remove containers
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Kill the container when it runs; do not mind when there is none
    #[arg(short, long)]
    force: bool,
    /// Remove its anonymous volumes, which happens without this flag, too: they are part of it
    #[arg(short, long)]
    volumes: bool,
    /// Names or ids
    #[arg(required = true)]
    containers: Vec<String>,
}

/// Removes containers and prints what they were called.
pub(crate) fn run(args: Args, context: &Context) -> Result<u8> {
    super::each(&args.containers, |wanted| {
        let container = match Container::find(context, wanted) {
            Err(error) if args.force && error.to_string().starts_with("no such container") => {
                eprintln!("manager: {error}");
                return Ok(0);
            }
            Err(error) if args.force => {
                let Some(id) = Container::find_damaged(context, wanted)? else { return Err(error) };
                remove::remove_damaged(context, &id)?;
                output::print(&format!("{wanted}\n"))?;
                return Ok(0);
            }
            other => other?,
        };
        remove::remove(context, &container, args.force)?;
        output::print(&format!("{wanted}\n"))?;
        Ok(0)
    })
}

//! `start`: start containers that were created, or have ended.

use anyhow::{Result, anyhow, ensure};

use super::run::{check_input, start};
use crate::cli::{Coded, Context};
use crate::container::Container;
use crate::container::attach::{How, Outcome};
use crate::output;

/// Start containers that were created or have ended
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Stay with the container: print what it prints, pass signals on
    #[arg(short, long)]
    attach: bool,
    /// Pass standard input on
    #[arg(short, long)]
    interactive: bool,
    /// Names or ids
    #[arg(required = true)]
    containers: Vec<String>,
}

/// Starts containers and prints what they were called.
pub(crate) fn run(args: Args, context: &Context) -> Result<u8> {
    let stay = args.attach || args.interactive;
    ensure!(!stay || args.containers.len() == 1, "you cannot start and attach multiple containers at once");
    super::each(&args.containers, |wanted| {
        let container = Container::find(context, wanted)?;
        if container.state()?.running().is_some() {
            output::print(&format!("{wanted}\n"))?;
            return Ok(0);
        }
        let asked = &container.record.process;
        let how =
            How { input: args.interactive && asked.open_stdin, terminal: asked.terminal, signals: true };
        check_input(how, !stay)?;
        match start(context, &container, how, !stay)? {
            Outcome::Failed(code, message) => Err(Coded { code, error: anyhow!(message) }.into()),
            Outcome::Exited(code) if stay => Ok(code),
            _ => {
                if !stay {
                    output::print(&format!("{wanted}\n"))?;
                }
                Ok(0)
            }
        }
    })
}

//! `run`: make a container, start it, stay with it unless told otherwise.

use std::io::{IsTerminal, stdin};

use anyhow::{Result, anyhow, ensure};

use super::create::{ContainerArgs, create};
use crate::cli::{Coded, Context};
use crate::container::attach::{How, Outcome, attach, request, wait_for_start};
use crate::container::state::State;
use crate::container::{Container, remove, terminal};
use crate::monitor;
use crate::monitor::protocol::Request;
use crate::output;

/// Make a container of an image and run a program in it
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Run in the background and print the container's id
    #[arg(short, long)]
    detach: bool,
    /// Pass signals on to the container
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    sig_proxy: bool,
    #[command(flatten)]
    container: ContainerArgs,
}

/// Runs a container; returns its exit code.
pub(crate) fn run(args: Args, context: &Context) -> Result<u8> {
    let container = create(context, &args.container, !args.detach)?;
    let asked = &container.record.process;
    let how = How { input: asked.open_stdin, terminal: asked.terminal, signals: args.sig_proxy };
    let started = check_input(how, args.detach).and_then(|()| start(context, &container, how, args.detach));
    match started {
        // If it never ran there is nothing to look at afterwards. One that ran has files and a log, which
        // are not to go because our output could not be written.
        Err(error) => {
            if matches!(container.state()?, State::Created(_)) {
                remove::remove(context, &container, false)?;
            }
            Err(error)
        }
        Ok(Outcome::Failed(code, message)) => {
            remove::remove(context, &container, false)?;
            Err(Coded { code, error: anyhow!(message) }.into())
        }
        Ok(Outcome::Exited(code)) if !args.detach => Ok(code),
        Ok(Outcome::Detached) if !args.detach => Ok(0),
        Ok(_) => {
            output::print(&format!("{}\n", container.record.id))?;
            Ok(0)
        }
    }
}

/// Bytes from a pipe are not typed: a program with a terminal would wait for keys for ever.
pub(crate) fn check_input(how: How, detach: bool) -> Result<()> {
    let typed = !how.terminal || !how.input || detach || stdin().is_terminal();
    ensure!(typed, "the input device is not a TTY: leave out -t, or give a terminal");
    Ok(())
}

/// Starts a container that exists, and stays with it unless `detach`.
pub(crate) fn start(context: &Context, container: &Container, how: How, detach: bool) -> Result<Outcome> {
    let socket = monitor::spawn(context, &container.record.id)?;
    if let Some((rows, columns)) = terminal::size().filter(|_| how.terminal) {
        request(&socket, &Request::Window(rows, columns))?;
    }
    request(&socket, &Request::Start)?;
    if detach { wait_for_start(&socket) } else { attach(container, &socket, how, false) }
}

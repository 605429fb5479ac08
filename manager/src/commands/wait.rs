//! `wait`: until containers have ended.

use std::thread::sleep;
use std::time::Duration;

use anyhow::{Result, bail};
use nix::sys::socket::MsgFlags;

use super::kill::wait_for_cleanup;
use crate::cli::Context;
use crate::container::Container;
use crate::container::state::State;
use crate::monitor::protocol::{Event, connect_to, receive_packet};
use crate::output;

/// Wait for containers to end and print their exit codes
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Names or ids
    #[arg(required = true)]
    containers: Vec<String>,
}

/// Waits for containers and prints their exit codes.
pub(crate) fn run(args: Args, context: &Context) -> Result<u8> {
    super::each(&args.containers, |wanted| {
        let container = Container::find(context, wanted)?;
        output::print(&format!("{}\n", wait(&container)?))?;
        Ok(0)
    })
}

/// The exit code of a container, when it has one.
fn wait(container: &Container) -> Result<u8> {
    loop {
        // Asked first: the monitor says the code even of a container that `--rm` removes at once.
        if let Some(code) = hear_exit(container) {
            return Ok(code);
        }
        match container.state()? {
            State::Exited(exit) => return Ok(exit.code),
            State::Created(Some(exit)) => return Ok(exit.code),
            // Docker waits for a container that was never started, too.
            State::Created(None) if container.folder.exists() => sleep(Duration::from_millis(50)),
            State::Created(None) => {
                bail!("container {} was removed before its exit code could be asked for", container.record.id)
            }
            State::Running { started, .. } => {
                started.process.wait(None)?;
                wait_for_cleanup(container, &started)?;
            }
        }
    }
}

/// The code, as the monitor tells those who are attached; none when there is no monitor.
fn hear_exit(container: &Container) -> Option<u8> {
    let socket = connect_to(&container.run_folder, "attach").ok()?;
    loop {
        match Event::decode(&receive_packet(&socket, MsgFlags::empty()).ok()?)? {
            Event::Exited(code) | Event::Failed(code, _) => return Some(code),
            Event::Running | Event::Output(_) | Event::Error(_) => {}
        }
    }
}

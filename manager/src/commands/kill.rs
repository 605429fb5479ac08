//! `kill`: send a signal to containers.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use crate::cli::Context;
use crate::container::state::Started;
use crate::container::{Container, Locked, remove, signal, try_lock};
use crate::output;

/// Send a signal to containers
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The signal, by name or number
    #[arg(short, long, default_value = "KILL")]
    signal: String,
    /// Names or ids
    #[arg(required = true)]
    containers: Vec<String>,
}

/// Signals containers and prints what they were called.
pub(crate) fn run(args: Args, context: &Context) -> Result<u8> {
    let signal = signal::parse(&args.signal)?;
    super::each(&args.containers, |wanted| {
        let container = Container::find(context, wanted)?;
        let state = container.state()?;
        let started =
            state.running().with_context(|| format!("cannot kill container {wanted}: it is not running"))?;
        started.process.signal(signal)?;
        if signal == libc::SIGKILL && started.process.wait(Some(Duration::from_secs(10)))? {
            wait_for_cleanup(&container, started)?;
        }
        output::print(&format!("{wanted}\n"))?;
        Ok(0)
    })
}

/// Waits until the monitor of a container whose process has ended has said so. Without a monitor
/// the cleaning is ours.
pub(crate) fn wait_for_cleanup(container: &Container, started: &Started) -> Result<()> {
    let end = Instant::now() + Duration::from_secs(10);
    while started.monitor.is_alive() && Instant::now() < end {
        if container.state()?.running().is_none() {
            return Ok(());
        }
        sleep(Duration::from_millis(2));
    }
    // `--rm` leaves nothing to clean, and a monitor that is at it must not be disturbed.
    if !container.folder.exists() || started.monitor.is_alive() {
        return Ok(());
    }
    // Under the lock, and only what we waited for: somebody may have started it again meanwhile.
    match try_lock(&container.folder)? {
        Locked::Yes(_lock) if container.state()?.running().is_none() => remove::clean_run(container),
        _ => Ok(()),
    }
}

//! `stop`: ask containers to end, then make them.

use std::time::Duration;

use anyhow::{Result, ensure};

use crate::cli::Context;
use crate::container::{Container, signal};
use crate::output;

/// Stop containers
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Seconds to wait before killing it; -1 waits for ever
    #[arg(short, long, visible_alias = "timeout", value_name = "SECONDS", allow_hyphen_values = true)]
    time: Option<i64>,
    /// The signal to send first
    #[arg(short, long)]
    signal: Option<String>,
    /// Names or ids
    #[arg(required = true)]
    containers: Vec<String>,
}

/// Stops containers and prints what they were called.
pub(crate) fn run(args: Args, context: &Context) -> Result<u8> {
    let asked = args.signal.as_deref().map(signal::parse).transpose()?;
    super::each(&args.containers, |wanted| {
        let container = Container::find(context, wanted)?;
        let timeout = args.time.unwrap_or_else(|| i64::try_from(container.record.stop_timeout).unwrap_or(-1));
        stop(&container, asked.unwrap_or(container.record.stop_signal), u64::try_from(timeout).ok())?;
        output::print(&format!("{wanted}\n"))?;
        Ok(0)
    })
}

fn stop(container: &Container, signal: i32, timeout: Option<u64>) -> Result<()> {
    let state = container.state()?;
    let Some(started) = state.running() else { return Ok(()) };
    started.process.signal(signal)?;
    if !started.process.wait(timeout.map(Duration::from_secs))? {
        started.process.signal(libc::SIGKILL)?;
        let gone = started.process.wait(Some(Duration::from_secs(10)))?;
        ensure!(gone, "process {} does not die of SIGKILL: it waits for the kernel", started.process.pid);
    }
    super::kill::wait_for_cleanup(container, started)
}

//! `attach`: connect a terminal or pipes to a running container. Many may be attached at once.

use anyhow::{Context as _, Result, anyhow, bail};

use super::run::check_input;
use crate::cli::{Coded, Context};
use crate::container::Container;
use crate::container::attach::{How, Outcome, attach};
use crate::container::state::State;
use crate::monitor::protocol::connect_to;

/// Connect to a running container
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Do not pass standard input on
    #[arg(long)]
    no_stdin: bool,
    /// Pass signals on to the container
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    sig_proxy: bool,
    /// A name or an id
    container: String,
}

/// Attaches; returns the container's exit code, 0 after ctrl-p ctrl-q.
pub(crate) fn run(args: Args, context: &Context) -> Result<u8> {
    let container = Container::find(context, &args.container)?;
    match container.state()? {
        State::Running { monitored: true, .. } => {}
        State::Running { .. } => {
            bail!("container {} has lost its monitor: there is nothing to attach to", args.container)
        }
        _ => bail!("you cannot attach to a stopped container, start it first"),
    }
    let asked = &container.record.process;
    let how =
        How { input: asked.open_stdin && !args.no_stdin, terminal: asked.terminal, signals: args.sig_proxy };
    check_input(how, false)?;
    let socket = connect_to(&container.run_folder, "attach").context("connect to the container's monitor")?;
    match attach(&container, &socket, how, true)? {
        Outcome::Exited(code) => Ok(code),
        Outcome::Detached => Ok(0),
        Outcome::Failed(code, message) => Err(Coded { code, error: anyhow!(message) }.into()),
    }
}

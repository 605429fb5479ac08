//! Every flag once: `--help`, man pages and completions come from here. A verb's own flags stand in
//! its file in `commands/`.

use std::fmt;
use std::path::{PathBuf, absolute};
use std::process::ExitCode;

use clap::Parser;

use crate::commands::Command;

/// A daemonless image manager: pull images, make OCI bundles of them, run them with an OCI runtime.
#[derive(Debug, Parser)]
#[command(name = "manager", version, max_term_width = 100)]
struct Cli {
    /// Where images, layers and containers are kept
    #[arg(long, value_name = "DIR", default_value = "/var/lib/manager", global = true)]
    root: PathBuf,
    /// Where this boot's truth is kept: sockets and locks of running containers (a tmpfs)
    #[arg(long, value_name = "DIR", default_value = "/run/manager", global = true)]
    run_root: PathBuf,
    #[command(subcommand)]
    command: Command,
}

/// What every command is given: the two folders that hold all state.
#[derive(Debug)]
pub(crate) struct Context {
    /// `--root`: images, layers, containers; survives a reboot.
    pub(crate) root: PathBuf,
    /// `--run-root`: sockets and locks; gone after a reboot.
    pub(crate) run_root: PathBuf,
}

/// An error with an exit code of its own: 126 and 127, as docker has them.
#[derive(Debug)]
pub(crate) struct Coded {
    /// The exit code.
    pub(crate) code: u8,
    /// What went wrong.
    pub(crate) error: anyhow::Error,
}

impl fmt::Display for Coded {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:#}", self.error)
    }
}

impl std::error::Error for Coded {}

/// Reads the command line. `Err` carries the exit code when there is nothing to run: 0 after
/// `--help`, 125 after a usage error of `run` and `exec`, 1 after any other (docker's codes).
pub(crate) fn parse() -> Result<(Context, Command), ExitCode> {
    match Cli::try_parse() {
        Ok(cli) => {
            // The monitor lives on in another folder.
            let whole = |path: PathBuf| absolute(&path).unwrap_or(path);
            Ok((Context { root: whole(cli.root), run_root: whole(cli.run_root) }, cli.command))
        }
        Err(error) => {
            let _ = error.print();
            if !error.use_stderr() {
                return Err(ExitCode::SUCCESS);
            }
            let runs = std::env::args().any(|word| word == "run" || word == "exec");
            Err(ExitCode::from(if runs { 125 } else { 1 }))
        }
    }
}

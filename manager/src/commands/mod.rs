//! One file a verb. Each has its flags (`Args`) and `run`, which returns the exit code.

use anyhow::Result;

use crate::cli::Context;

/// Every verb of the command line.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {}

impl Command {
    /// The exit code when the manager itself fails: 125 where the container's own code is returned
    /// otherwise (docker's rule), 1 everywhere else.
    pub(crate) fn error_code(&self) -> u8 {
        1
    }
}

/// Runs one verb.
pub(crate) fn run(command: Command, _context: &Context) -> Result<u8> {
    match command {}
}

//! One file a verb. Each has its flags (`Args`) and `run`, which returns the exit code.

pub(crate) mod image;
pub(crate) mod image_inspect;
pub(crate) mod images;
pub(crate) mod pull;
pub(crate) mod rmi;
pub(crate) mod tag;

use anyhow::Result;

use crate::cli::Context;

/// Every verb of the command line.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    Image(image::Args),
    Images(images::Args),
    Pull(pull::Args),
    Rmi(rmi::Args),
    Tag(tag::Args),
}

impl Command {
    /// The exit code when the manager itself fails: 125 where the container's own code is returned
    /// otherwise (docker's rule), 1 everywhere else.
    pub(crate) fn error_code(&self) -> u8 {
        1
    }
}

/// Runs one verb.
pub(crate) fn run(command: Command, context: &Context) -> Result<u8> {
    match command {
        Command::Image(args) => image::run(args, context),
        Command::Images(args) => images::run(args, context),
        Command::Pull(args) => pull::run(args, context),
        Command::Rmi(args) => rmi::run(args, context),
        Command::Tag(args) => tag::run(args, context),
    }
}

//! `image`: docker's group of the verbs on images.

use anyhow::Result;

use super::{image_inspect, images, pull, rmi, tag};
use crate::cli::Context;

/// Manage images
#[derive(Debug, clap::Args)]
#[command(subcommand_required = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    Inspect(image_inspect::Args),
    #[command(visible_alias = "list")]
    Ls(images::Args),
    Pull(pull::Args),
    #[command(visible_alias = "remove")]
    Rm(rmi::Args),
    Tag(tag::Args),
}

/// Hands on to the verb.
pub(crate) fn run(args: Args, context: &Context) -> Result<u8> {
    match args.verb {
        Verb::Inspect(args) => image_inspect::run(args, context),
        Verb::Ls(args) => images::run(args, context),
        Verb::Pull(args) => pull::run(args, context),
        Verb::Rm(args) => rmi::run(args, context),
        Verb::Tag(args) => tag::run(args, context),
    }
}

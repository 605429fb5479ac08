//! `image`: docker's group of the verbs on images.

use anyhow::Result;

use super::{copy, history, image_inspect, images, import, load, prune, pull, push, rmi, save, tag};
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
    Copy(copy::Args),
    History(history::Args),
    Inspect(image_inspect::Args),
    Import(import::Args),
    Load(load::Args),
    #[command(visible_alias = "list")]
    Ls(images::Args),
    Prune(prune::Args),
    Pull(pull::Args),
    Push(push::Args),
    #[command(visible_alias = "remove")]
    Rm(rmi::Args),
    Save(save::Args),
    Tag(tag::Args),
}

/// Hands on to the verb.
pub(crate) fn run(args: Args, context: &Context) -> Result<u8> {
    match args.verb {
        Verb::Copy(args) => copy::run(args, context),
        Verb::History(args) => history::run(args, context),
        Verb::Inspect(args) => image_inspect::run(args, context),
        Verb::Import(args) => import::run(args, context),
        Verb::Load(args) => load::run(args, context),
        Verb::Ls(args) => images::run(args, context),
        Verb::Prune(args) => prune::run(args, context),
        Verb::Pull(args) => pull::run(args, context),
        Verb::Push(args) => push::run(args, context),
        Verb::Rm(args) => rmi::run(args, context),
        Verb::Save(args) => save::run(args, context),
        Verb::Tag(args) => tag::run(args, context),
    }
}

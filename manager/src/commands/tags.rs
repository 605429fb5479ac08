//! `tags`: the tags that a repository has at its registry.

use anyhow::{Result, bail};
use serde_json::json;

use super::{at_registry, with_first};
use crate::cli::Context;
use crate::output;
use crate::reference::without_suffix;
use crate::registry::{Access, RegistryArgs, Repository};

/// List the tags of a repository at its registry
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Show so many at most
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..))]
    limit: Option<u32>,
    /// `json`: {"Repository":..., "Tags":[...]}, as skopeo
    #[arg(long, value_name = "FORMAT", value_parser = ["json"])]
    format: Option<String>,
    #[command(flatten)]
    registry: RegistryArgs,
    /// The repository, without a tag
    #[arg(value_name = "NAME")]
    name: String,
}

/// Lists.
pub(crate) fn run(args: Args, _: &Context) -> Result<u8> {
    if without_suffix(&args.name) != args.name {
        bail!("{:?} has a tag or digest: give the repository only", args.name);
    }
    let limit = args.limit.map(|limit| limit as usize);
    let (reference, tags) = with_first(&at_registry(&args.name)?, |reference| {
        Repository::open(reference, Access::Pull, &args.registry)?.tags(limit)
    })?;
    let text = match args.format {
        Some(_) => {
            let value = json!({"Repository": reference.repository(), "Tags": tags});
            serde_json::to_string_pretty(&value)? + "\n"
        }
        None => tags.iter().map(|tag| format!("{tag}\n")).collect(),
    };
    output::print(&text)?;
    Ok(0)
}

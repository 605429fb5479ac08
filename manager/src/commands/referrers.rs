//! `referrers`: what refers to an image at its registry, as signatures do.

use anyhow::{Context as _, Result};
use serde_json::json;

use super::{at_registry, with_first};
use crate::cli::Context;
use crate::human;
use crate::output;
use crate::registry::{Access, RegistryArgs, Repository};
use crate::table;

/// List what refers to an image at its registry: signatures, bills of materials
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only of this type
    #[arg(long, value_name = "TYPE")]
    artifact_type: Option<String>,
    /// `json`: the descriptors, with their annotations
    #[arg(long, value_name = "FORMAT", value_parser = ["json"])]
    format: Option<String>,
    #[command(flatten)]
    registry: RegistryArgs,
    /// NAME, NAME:TAG or NAME@DIGEST
    #[arg(value_name = "NAME")]
    name: String,
}

/// Lists.
pub(crate) fn run(args: Args, _: &Context) -> Result<u8> {
    let (_, referrers) = with_first(&at_registry(&args.name)?, |reference| {
        let repository = Repository::open(reference, Access::Pull, &args.registry)?;
        let digest = match reference.digest() {
            Some(digest) => digest.clone(),
            None => repository.manifest(reference)?.digest,
        };
        repository.referrers(&digest, args.artifact_type.as_deref())
    })
    .with_context(|| format!("list the referrers of {}", args.name))?;
    if args.format.is_some() {
        output::print(&(serde_json::to_string_pretty(&json!(referrers))? + "\n"))?;
        return Ok(0);
    }
    let mut rows = vec![vec!["DIGEST".to_owned(), "TYPE".to_owned(), "SIZE".to_owned()]];
    for one in &referrers {
        let kind = one.artifact_type().as_ref().unwrap_or(one.media_type()).to_string();
        // Strangers choose the type.
        let kind = kind.chars().filter(|letter| !letter.is_control()).collect();
        rows.push(vec![one.digest().to_string(), kind, human::size(one.size(), 3)]);
    }
    output::print(&table::render(&rows))?;
    Ok(0)
}

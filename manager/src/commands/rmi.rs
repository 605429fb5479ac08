//! `rmi`: takes names away, and images that have none left. Docker's rules and lines.

use anyhow::{Result, anyhow, bail};

use crate::cli::Context;
use crate::digest::Digest;
use crate::image::config;
use crate::output;
use crate::store::Store;
use crate::store::names::Record;

/// Remove images
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Remove even if containers use it or it has several names; containers keep what they need
    #[arg(short, long)]
    force: bool,
    /// NAME, NAME:TAG, NAME@DIGEST, or an image id
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
}

/// Removes one after the other; what cannot be removed does not keep the others.
pub(crate) fn run(args: Args, context: &Context) -> Result<u8> {
    let store = Store::open(&context.root)?;
    let failures: Vec<String> = args
        .images
        .iter()
        .filter_map(|image| remove(&store, image, args.force).err())
        .map(|error| format!("{error:#}"))
        .collect();
    if failures.is_empty() { Ok(0) } else { Err(anyhow!(failures.join("; "))) }
}

fn remove(store: &Store, image: &str, force: bool) -> Result<()> {
    let Some((record, by_name)) = store.find_record(image)? else { bail!("no such image: {image}") };
    let names: Vec<Record> =
        store.records()?.into_iter().filter(|other| other.config == record.config).collect();
    let user = store.images_in_use()?.into_iter().find(|(used, _)| used.as_ref() == Some(&record.config));
    let user = user.map(|(_, container)| container.chars().take(12).collect::<String>());
    let short = record.config.short();
    if !force {
        match user {
            Some(container) if by_name && names.len() == 1 => bail!(
                "unable to remove {image} (must force): container {container} is using its image {short}"
            ),
            Some(container) if !by_name => {
                bail!("unable to delete {short} (must be forced): container {container} is using it")
            }
            _ => {}
        }
        if !by_name && names.len() > 1 {
            bail!("unable to delete {short} (must be forced): it has several names");
        }
    }
    let (gone, left): (Vec<Record>, Vec<Record>) =
        names.into_iter().partition(|other| !by_name || other.name == record.name);
    let diff_ids = layers(store, &record.config);
    for gone in &gone {
        untag(store, gone, &left)?;
    }
    if !left.is_empty() {
        return Ok(());
    }
    store.sweep()?;
    if user_remains(store, &record.config)? {
        return Ok(());
    }
    output::print(&format!("Deleted: {}\n", record.config))?;
    let chain_ids = config::chain_ids(&diff_ids);
    for (diff_id, chain_id) in diff_ids.iter().zip(chain_ids).rev() {
        if store.layer(diff_id)?.is_none() {
            output::print(&format!("Deleted: {chain_id}\n"))?;
        }
    }
    Ok(())
}

fn untag(store: &Store, gone: &Record, left: &[Record]) -> Result<()> {
    store.remove_record(&gone.name)?;
    let reference = gone.reference()?;
    if reference.tag().is_some() {
        output::print(&format!("Untagged: {}\n", reference.familiar()))?;
    }
    // Its last name in this repository takes the digest along.
    let repository = reference.repository();
    let kept = left.iter().any(|other| other.reference().is_ok_and(|other| other.repository() == repository));
    if !kept {
        output::print(&format!("Untagged: {}\n", reference.with_digest(&gone.target).familiar()))?;
    }
    Ok(())
}

/// The layers of an image that may be damaged: it can be removed all the same.
fn layers(store: &Store, config_digest: &Digest) -> Vec<Digest> {
    let read = || config::diff_ids(&config::read(&store.read_blob(config_digest)?)?);
    read().unwrap_or_default()
}

fn user_remains(store: &Store, image: &Digest) -> Result<bool> {
    // A container whose image is not known may use this one.
    Ok(store.images_in_use()?.iter().any(|(used, _)| used.as_ref().is_none_or(|used| used == image)))
}

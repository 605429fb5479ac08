//! After the machine went down before all that was pulled had reached the disk (`store::unsettled`): what was lost is
//! taken away, and what is left is made whole, before anybody uses it.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::Source;
use super::into_store::restore;
use crate::digest::Digest;
use crate::image::config;
use crate::image::layout::Layout;
use crate::platform;
use crate::store::names::Record;
use crate::store::unsettled::Lost;
use crate::store::{Store, remove_tree};

/// Looks for notes of an earlier boot in the store below `root`, and at everything that they tell of.
pub(crate) fn recover(root: &Path) -> Result<()> {
    if !root.join("unsettled").exists() {
        return Ok(());
    }
    let store = Store::open(root)?;
    let lost = store.lost()?;
    if lost.is_empty() {
        return Ok(());
    }
    eprintln!(
        "manager: the machine went down before all that was pulled had reached the disk: looking at it"
    );
    let _hold = store.hold()?;
    make_whole(&store, &lost).context("make whole what was pulled before the machine went down")?;
    // The notes go when this is on the disk.
    nix::unistd::syncfs(std::fs::File::open(store.root())?).context("sync the store")
}

fn make_whole(store: &Store, lost: &[Lost]) -> Result<()> {
    let mut suspect: HashSet<PathBuf> = HashSet::new();
    for Lost { what, .. } in lost {
        for digest in &what.blobs {
            let path = store.blob_path(digest);
            if !store.is_good(digest) {
                remove_tree(&path)?;
            }
            suspect.insert(path);
        }
        for folder in &what.folders {
            // To unpack it again costs less than to compare it.
            let path = store.path(folder);
            remove_tree(&path)?;
            suspect.insert(path);
        }
    }
    store.rebuild_index()?;
    for record in store.records()? {
        if !needs(store, &record).is_some_and(|needed| needed.is_disjoint(&suspect))
            && let Err(error) = unpack_anew(store, &record)
        {
            let notes = lost.iter().map(|lost| &lost.what);
            let own = notes.filter(|what| what.name.as_ref() == Some(&record.name));
            give_up(store, &record, own.filter_map(|what| what.before.clone()), &error)?;
        }
    }
    store.rebuild_index()
}

/// Everything that an image needs; none if that cannot be told any more.
fn needs(store: &Store, record: &Record) -> Option<HashSet<PathBuf>> {
    let manifest = store.manifest(record).ok()?;
    let config = config::read(&store.read_blob(&record.config).ok()?).ok()?;
    let diff_ids = config::layer_ids(&manifest, &config).ok()?;
    let chain_ids = config::chain_ids(&diff_ids);
    let mut needed: HashSet<PathBuf> = diff_ids.iter().map(|id| store.layer_folder(id)).collect();
    needed.extend(chain_ids.iter().map(|id| store.rerouted_folder(id)));
    needed.extend(chain_ids.last().map(|id| store.fixup_folder(id)));
    let blobs = manifest.layers().iter().chain([manifest.config(), &record.manifest]);
    needed.extend(blobs.filter_map(|blob| Some(store.blob_path(&Digest::of_descriptor(blob).ok()?))));
    needed.insert(store.blob_path(&record.target));
    Some(needed)
}

/// Makes the folders of an image's layers again, of the blobs that are here.
pub(crate) fn unpack_anew(store: &Store, record: &Record) -> Result<()> {
    let here = Source::Layout(Layout::open(&store.path("oci"))?);
    let top = if record.whole { store.descriptor(&record.target)? } else { Some(record.manifest.clone()) };
    let top = top.filter(|top| here.has(top)).context("not all of its blobs are here")?;
    let config = config::read(&store.read_blob(&record.config)?)?;
    restore(store, &here, here.described(&top)?, &platform::of(&config), record.whole)
}

/// The name goes back to what it was before, if that is whole; or it goes.
fn give_up(
    store: &Store,
    record: &Record,
    mut before: impl Iterator<Item = Record>,
    why: &anyhow::Error,
) -> Result<()> {
    let name = record.familiar();
    // First this, so that what it stood for does not become an image without a name.
    store.remove_record(&record.name)?;
    let Some(before) = before.find(|before| unpack_anew(store, before).is_ok()) else {
        eprintln!("manager: {name} is lost: {why:#}: pull it again");
        return Ok(());
    };
    eprintln!("manager: {name} is again what it was before: {why:#}: pull it again");
    store.write_record(&before)
}

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
    let _hold = store.hold()?;
    make_whole(&store, &lost).context("make whole what was pulled before the machine went down")?;
    store.sync()?;
    // Not before: whoever comes next would find nothing wrong.
    lost.into_iter().for_each(|lost| lost.note.remove());
    Ok(())
}

fn make_whole(store: &Store, lost: &[Lost]) -> Result<()> {
    let blobs: HashSet<&Digest> = lost.iter().flat_map(|lost| &lost.what.blobs).collect();
    let folders = lost.iter().flat_map(|lost| &lost.what.folders).filter(|folder| is_made_by_pulls(folder));
    let folders: HashSet<PathBuf> = folders.map(|folder| store.path(folder)).collect();
    let mut suspect: HashSet<PathBuf> = blobs.iter().map(|digest| store.blob_path(digest)).collect();
    suspect.extend(folders.iter().cloned());
    // Nothing is there of a pull that was killed before anything had got to its place.
    if suspect.iter().any(|path| path.exists()) {
        eprintln!(
            "manager: the machine may have gone down before all that was pulled had reached the disk: looking at it"
        );
    }
    for digest in blobs.into_iter().filter(|digest| !store.is_good(digest)) {
        remove_tree(&store.blob_path(digest))?;
    }
    for folder in &folders {
        // To unpack it again costs less than to compare it.
        remove_tree(folder)?;
    }
    let mut failed = Ok(());
    for record in store.records()? {
        let named = |lost: &&Lost| lost.what.name.as_ref() == Some(&record.name);
        let notes = || lost.iter().filter(named);
        // What no note tells of was on the disk: if something is wrong with it, that is not for us to judge.
        if notes().next().is_none() && needs(store, &record).is_disjoint(&suspect) {
            continue;
        }
        if let Err(missing) = store.complete(&record) {
            let mut before: Vec<Record> = notes().filter_map(|lost| lost.what.before.clone()).collect();
            before.sort_by(|one, other| other.tagged_at.cmp(&one.tagged_at));
            give_up(store, &record, before, &missing)?;
        } else if let Err(error) = unpack_anew(store, &record) {
            // It may be for want of room: the name stays, and the next command tries again.
            failed = Err(error.context(record.familiar()));
        }
    }
    store.rebuild_index()?;
    failed
}

/// What a note may tell of: `layers/NAME` and `fixups/NAME`.
fn is_made_by_pulls(folder: &str) -> bool {
    let name = folder.strip_prefix("layers/").or_else(|| folder.strip_prefix("fixups/"));
    name.is_some_and(|name| {
        !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    })
}

/// Where everything is that an image needs, as far as that can be told.
fn needs(store: &Store, record: &Record) -> HashSet<PathBuf> {
    let mut needed = HashSet::from([store.blob_path(&record.target), store.blob_path(&record.config)]);
    if record.whole {
        store.blobs_below(&record.target, &mut needed, 0);
    }
    if let Ok(digest) = Digest::of_descriptor(&record.manifest) {
        store.blobs_below(&digest, &mut needed, 0);
    }
    let Ok(manifest) = store.manifest(record) else { return needed };
    let config = store.read_blob(&record.config).and_then(|bytes| config::read(&bytes));
    let Ok(diff_ids) = config.and_then(|config| config::layer_ids(&manifest, &config)) else { return needed };
    needed.extend(store.folders_of(&diff_ids));
    needed
}

/// Makes the folders of an image's layers again, of the blobs that are here.
pub(crate) fn unpack_anew(store: &Store, record: &Record) -> Result<()> {
    store.complete(record)?;
    let here = Source::Layout(Layout::unnamed(&store.path("oci")));
    let top = if record.whole { store.descriptor(&record.target)? } else { Some(record.manifest.clone()) };
    let top = top.context("its manifest is not here")?;
    let config = config::read(&store.read_blob(&record.config)?)?;
    restore(store, &here, here.described(&top)?, &platform::of(&config), record.whole)
}

/// The name goes back to what it was before, if that is whole; or it goes.
fn give_up(store: &Store, record: &Record, before: Vec<Record>, why: &anyhow::Error) -> Result<()> {
    let name = record.familiar();
    if let Some(before) = before.iter().find(|before| store.complete(before).is_ok()) {
        eprintln!("manager: {name} is again what it was before: {why:#}: pull it again");
        store.put_back(before)?;
        return unpack_anew(store, before);
    }
    eprintln!("manager: {name} is lost: {why:#}: pull it again");
    store.remove_record(&record.name)
}

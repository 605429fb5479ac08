//! What `system check` finds only by doing once more what a pull does: unpacking.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use super::Source;
use super::layer::unpack_again;
use super::stack::{Places, for_this_stack};
use super::tree::{Take, Tree};
use crate::digest::Digest;
use crate::image::config;
use crate::image::layout::Layout;
use crate::rootfs::reroute::Routes;
use crate::rootfs::same::difference;
use crate::rootfs::unpacker::is_disk_full;
use crate::store::Store;
use crate::store::check::Faults;
use crate::store::layers::read_meta;
use crate::store::names::Record;

/// Everything that is wrong with the store. Unless it is to be `quick`, all layers are unpacked once more, one
/// after the other, and compared with what is here.
pub(crate) fn check(store: &Store, quick: bool) -> Result<Faults> {
    let mut faults = store.check()?;
    let mut compared = BTreeMap::new();
    for record in store.records()? {
        if faults.images.iter().any(|(damaged, _)| damaged.name == record.name) {
            continue;
        }
        let mut look = || -> Result<()> {
            if record.whole {
                other_platforms(store, &record, &faults)?;
            }
            if quick { Ok(()) } else { layers(store, &record, &mut compared) }
        };
        if let Err(error) = look() {
            if is_disk_full(&error) {
                return Err(error.context("compare layers with their blobs (--quick does without)"));
            }
            faults.images.push((record, format!("{error:#}")));
        }
    }
    let damaged = compared.into_iter().filter_map(|(folder, what)| Some((folder, what?)));
    faults.layers.extend(damaged);
    Ok(faults)
}

/// Everything that its index names.
fn other_platforms(store: &Store, record: &Record, faults: &Faults) -> Result<()> {
    let source = Source::Layout(Layout::unnamed(&store.path("oci")));
    let target =
        store.descriptor(&record.target)?.with_context(|| format!("blob {} is missing", record.target))?;
    let tree = Tree::read(&source, source.described(&target)?, Take::All)?;
    for blob in &tree.blobs {
        let digest = Digest::of_descriptor(blob)?;
        ensure!(store.has_blob(&digest, blob.size()), "blob {digest} is missing");
        ensure!(!faults.blobs.contains(&store.blob_path(&digest)), "blob {digest} is damaged");
    }
    Ok(())
}

/// The folders of an image's layers against what its blobs hold.
fn layers(store: &Store, record: &Record, compared: &mut BTreeMap<PathBuf, Option<String>>) -> Result<()> {
    let manifest = store.manifest(record)?;
    let diff_ids = config::layer_ids(&manifest, &config::read(&store.read_blob(&record.config)?)?)?;
    let mut verdict = |folder: PathBuf, look: &dyn Fn(&Path) -> Result<Option<String>>| -> Result<()> {
        let what = match compared.get(&folder) {
            Some(known) => known,
            None => {
                let found = look(&folder)?;
                compared.entry(folder.clone()).or_insert(found)
            }
        };
        what.as_ref().map_or(Ok(()), |what| bail!("layer {}: {what}", folder.display()))
    };
    for (descriptor, diff_id) in manifest.layers().iter().zip(&diff_ids) {
        verdict(store.layer_folder(diff_id), &|folder| {
            let scratch = store.scratch()?;
            let again = scratch.path().join("layer");
            let blob = store.blob_path(&Digest::of_descriptor(descriptor)?);
            unpack_again(blob, descriptor.size(), &again, diff_id, Routes::default())
                .with_context(|| format!("unpack layer {diff_id} once more"))?;
            compare(folder, &again)
        })?;
    }
    let scratch = store.scratch()?;
    let made = for_this_stack(store, &manifest, &diff_ids, &[], &scratch, Places::Doubted)?;
    for (again, place) in &made {
        verdict(place.clone(), &|folder| {
            if !folder.exists() {
                return Ok(Some("it is missing".to_owned()));
            }
            compare(folder, again)
        })?;
    }
    for chain_id in config::chain_ids(&diff_ids) {
        let rerouted = store.rerouted_folder(&chain_id);
        if rerouted.exists() && !made.iter().any(|(_, place)| *place == rerouted) {
            verdict(rerouted, &|_| Ok(Some("nothing asks for it".to_owned())))?;
        }
    }
    Ok(())
}

fn compare(found: &Path, expected: &Path) -> Result<Option<String>> {
    let (have, want) = (read_meta(found)?, read_meta(expected)?);
    if have != want {
        return Ok(Some("its meta.json is not what its blob makes of it".to_owned()));
    }
    let implicit = want.map(|meta| meta.implicit).unwrap_or_default();
    difference(&found.join("fs"), &expected.join("fs"), &implicit)
}

//! The layers of an image on top of each other, and all of it to its place in the store.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use oci_spec::image::ImageManifest;

use super::into_store::Image;
use super::layer::{Done, unpack_again};
use crate::digest::Digest;
use crate::image::config;
use crate::rootfs::parents;
use crate::rootfs::reroute::Routes;
use crate::store::{Scratch, Store};

/// Everything to its place.
pub(super) fn commit(store: &Store, image: &Image, layers: Vec<Done>, scratch: &Scratch) -> Result<()> {
    let diff_ids = config::layer_ids(&image.manifest, &image.config)?;
    let made = for_this_stack(store, &image.manifest, &diff_ids, &layers, scratch, Places::Kept)?;
    for (digest, bytes) in &image.documents {
        store.write_blob(digest, bytes)?;
    }
    for done in layers {
        if let Some((ingest, digest)) = done.ingest {
            store.commit_ingest(ingest, &digest)?;
        }
        if let Some((folder, diff_id)) = done.folder {
            store.install_folder(&folder, &store.layer_folder(&diff_id))?;
        }
    }
    for (folder, place) in made {
        store.install_folder(&folder, &place)?;
    }
    Ok(())
}

/// What to do about a folder that is in its place already.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Places {
    /// It is right.
    Kept,
    /// It is made once more, to be compared.
    Doubted,
}

/// Folders for this stack of layers alone, and their places: layers that go through links of lower ones
/// (`rootfs::reroute`), and the folders that no layer describes (`rootfs::parents`).
pub(super) fn for_this_stack(
    store: &Store,
    manifest: &ImageManifest,
    diff_ids: &[Digest],
    done: &[Done],
    scratch: &Scratch,
    places_are: Places,
) -> Result<Vec<(PathBuf, PathBuf)>> {
    let kept = |place: &Path| places_are == Places::Kept && place.exists();
    let chain_ids = config::chain_ids(diff_ids);
    let mut made = Vec::new();
    let mut stack: Vec<parents::Layer> = Vec::with_capacity(diff_ids.len());
    let mut places: Vec<PathBuf> = Vec::with_capacity(diff_ids.len());
    for (index, (diff_id, chain_id)) in diff_ids.iter().zip(&chain_ids).enumerate() {
        let rerouted = store.rerouted_folder(chain_id);
        if kept(&rerouted) {
            stack.push(open_layer(&rerouted)?);
            places.push(rerouted);
            continue;
        }
        let place = store.layer_folder(diff_id);
        let fresh = done.iter().filter_map(|one| one.folder.as_ref()).find(|(_, id)| id == diff_id);
        let folder = fresh.map_or(&place, |(folder, _)| folder);
        stack.push(open_layer(folder).with_context(|| format!("layer {diff_id}"))?);
        let routes = Routes::find(&stack, index).with_context(|| format!("layer {diff_id}"))?;
        if routes.is_empty() {
            places.push(place);
            continue;
        }
        let descriptor = &manifest.layers()[index];
        let digest = Digest::of_descriptor(descriptor)?;
        let fresh = done.iter().filter_map(|one| one.ingest.as_ref()).find(|(_, id)| *id == digest);
        let blob = fresh.map_or_else(|| store.blob_path(&digest), |(ingest, _)| ingest.path().to_owned());
        let folder = scratch.path().join(format!("rerouted-{index}"));
        unpack_again(blob, descriptor.size(), &folder, diff_id, routes)
            .with_context(|| format!("layer {digest}"))?;
        stack[index] = open_layer(&folder)?;
        places.push(rerouted.clone());
        made.push((folder, rerouted));
    }
    // What stands twice stands once in the mount, at its upper place.
    let mut upper = places.iter().enumerate().map(|(index, place)| !places[index + 1..].contains(place));
    stack.retain(|_| upper.next().unwrap_or(true));
    if let Some(place) = chain_ids.last().map(|id| store.fixup_folder(id)).filter(|place| !kept(place)) {
        let folder = scratch.path().join("fixup");
        DirBuilder::new()
            .mode(0o700)
            .create(&folder)
            .with_context(|| format!("create {}", folder.display()))?;
        if parents::correct(&stack, &folder.join("fs"))? {
            made.push((folder, place));
        }
    }
    Ok(made)
}

fn open_layer(folder: &Path) -> Result<parents::Layer> {
    let meta = crate::store::layers::read_meta(folder)?.context("it is missing from the store")?;
    parents::Layer::open(&folder.join("fs"), &meta)
}

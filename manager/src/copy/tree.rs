//! All that one name stands for: a manifest with its configuration and layers; or an index with the
//! manifests of several platforms, or with other indexes.

use std::collections::HashSet;

use anyhow::{Context, Result, bail, ensure};
use oci_spec::image::{Descriptor, ImageManifest, MediaType, Platform};

use super::Source;
use crate::digest::Digest;
use crate::image::manifest::{self, Document};
use crate::image::media_type;
use crate::platform;
use crate::registry::Fetched;

/// An index may hold indexes; one such level is in use, more are a way to keep us busy.
const DEEPEST: u32 = 3;

/// As many manifests as one index may name: each is a request.
const MOST_MANIFESTS: usize = 1000;

/// How much of an index is wanted.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Take<'a> {
    /// The image of one platform, as if there were no index.
    Platform(&'a Platform),
    /// Everything, attestations included.
    All,
}

/// Documents and blobs, each once.
#[derive(Debug)]
pub(super) struct Tree {
    /// Every manifest and index; what others name stands before them, and what the name stands for last.
    pub(super) documents: Vec<(Descriptor, Vec<u8>)>,
    /// Configurations and layers.
    pub(super) blobs: Vec<Descriptor>,
}

impl Tree {
    /// Reads all documents from what a name stands for on.
    pub(super) fn read(source: &Source, top: Fetched, take: Take) -> Result<Self> {
        let mut tree = Self { documents: Vec::new(), blobs: Vec::new() };
        let top = match take {
            Take::Platform(wanted) => choose(source, top, wanted)?,
            Take::All => top,
        };
        tree.add(source, top, &mut HashSet::new(), 0)?;
        Ok(tree)
    }

    /// What the name stands for.
    pub(super) fn top(&self) -> Result<&Descriptor> {
        Ok(&self.documents.last().context("an image has a manifest")?.0)
    }

    fn add(&mut self, source: &Source, found: Fetched, seen: &mut HashSet<String>, depth: u32) -> Result<()> {
        let Fetched { bytes, digest, media_type } = found;
        let (descriptor, document) = describe(&bytes, &digest, media_type)?;
        match document {
            Document::Index(index) => {
                ensure!(depth < DEEPEST, "manifest {digest}: indexes are nested too deep");
                for entry in index.manifests() {
                    ensure!(seen.len() < MOST_MANIFESTS, "it names more than {MOST_MANIFESTS} manifests");
                    if seen.insert(entry.digest().to_string()) {
                        self.add(source, source.described(entry)?, seen, depth + 1)?;
                    }
                }
            }
            Document::Manifest(manifest) => {
                for blob in std::iter::once(manifest.config()).chain(manifest.layers()) {
                    if seen.insert(blob.digest().to_string()) {
                        self.blobs.push(blob.clone());
                    }
                }
            }
        }
        self.documents.push((descriptor, bytes));
        Ok(())
    }
}

/// Reads a document for passing it on: it need not be an image that can be run. Its descriptor carries the
/// media type that it says itself; a plain docker manifest without one would be taken for OCI's by others.
fn describe(bytes: &[u8], digest: &Digest, declared: Option<String>) -> Result<(Descriptor, Document)> {
    let context = || format!("manifest {digest}");
    let document = manifest::read_any(bytes, declared.as_deref()).with_context(context)?;
    let own = match &document {
        Document::Index(index) => index.media_type().clone(),
        Document::Manifest(manifest) => manifest.media_type().clone(),
    };
    let declared = declared.filter(|name| media_type::kind(name).is_ok_and(|kind| kind.is_some()));
    let name = own.or(declared.map(|name| MediaType::from(name.as_str())));
    let name = name.unwrap_or(match document {
        Document::Index(_) => MediaType::ImageIndex,
        Document::Manifest(_) => MediaType::ImageManifest,
    });
    Ok((digest.describe(name, bytes.len() as u64).with_context(context)?, document))
}

/// Follows a document down to the manifest of one platform.
fn choose(source: &Source, top: Fetched, wanted: &Platform) -> Result<Fetched> {
    let mut found = top;
    for _ in 0..=DEEPEST {
        let context = || format!("manifest {}", found.digest);
        match manifest::read_any(&found.bytes, found.media_type.as_deref()).with_context(context)? {
            Document::Manifest(_) => return Ok(found),
            Document::Index(index) => {
                let Some(entry) = platform::choose(index.manifests(), wanted) else {
                    bail!("no matching manifest for {} in the manifest list entries", platform::text(wanted));
                };
                found = source.described(entry)?;
            }
        }
    }
    bail!("manifest {}: indexes are nested too deep", found.digest)
}

/// The one image of a tree that can be run here: of an index this platform's, or else the first.
pub(super) fn main_image(tree: &Tree, source: &Source, top: &Fetched, wanted: &Platform) -> Result<Digest> {
    let copy =
        Fetched { bytes: top.bytes.clone(), digest: top.digest.clone(), media_type: top.media_type.clone() };
    if let Ok(found) = choose(source, copy, wanted) {
        return Ok(found.digest);
    }
    let image = tree.documents.iter().find(|(descriptor, bytes)| {
        let declared = descriptor.media_type().to_string();
        matches!(manifest::read(bytes, Some(&declared)), Ok(Document::Manifest(_)))
    });
    Digest::of_descriptor(&image.context("none of its manifests is a container image")?.0)
}

/// The manifest of a tree by its digest, as an image that can be run.
pub(super) fn image_of(tree: &Tree, digest: &Digest) -> Result<(Descriptor, ImageManifest)> {
    let is_it = |(descriptor, _): &&(Descriptor, Vec<u8>)| descriptor.digest().as_ref() == digest.to_string();
    let (descriptor, bytes) = tree.documents.iter().find(is_it).context("a manifest that was read")?;
    let declared = descriptor.media_type().to_string();
    match manifest::read(bytes, Some(&declared)).with_context(|| format!("manifest {digest}"))? {
        Document::Manifest(manifest) => Ok((descriptor.clone(), *manifest)),
        Document::Index(_) => bail!("{digest} is an index, not a manifest"),
    }
}

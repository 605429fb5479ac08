//! What `docker save` wrote before it wrote image layouts, and other tools still do.
//!
//! <https://github.com/moby/docker-image-spec/blob/v1.3.1/README.md#combined-image-json--filesystem-changeset-format>
//!
//! ```text
//! manifest.json     [{"Config": "<id>.json", "RepoTags": ["name:tag"], "Layers": ["<id>/layer.tar"]}]
//! <id>.json         the configuration: its digest is the image's id
//! <id>/layer.tar    a layer, mostly plain
//! ```
//! There is no OCI manifest in it, so one is made; the configuration stays as it is, and the id with it.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;

use anyhow::{Context, Result, ensure};
use oci_spec::image::{Descriptor, MediaType};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::layout::Named;
use super::media_type::{Compression, sniff};
use super::tar_index::Part;
use super::{MOST_LAYERS, config};
use crate::digest::{Algorithm, Digest, Hasher};

/// One image in `manifest.json`.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Entry {
    pub(crate) config: String,
    #[serde(default)]
    pub(crate) repo_tags: Option<Vec<String>>,
    #[serde(default)]
    pub(crate) layers: Vec<String>,
}

/// The same as a layout.
#[derive(Debug, Default)]
pub(super) struct Translated {
    pub(super) documents: HashMap<Digest, Vec<u8>>,
    pub(super) parts: HashMap<Digest, Part>,
    pub(super) images: Vec<Named>,
}

/// Makes a layout of what an archive's `manifest.json` names.
pub(super) fn translate(
    manifest: &[u8],
    entries: &HashMap<Vec<u8>, Part>,
    file: &File,
) -> Result<Translated> {
    let list: Vec<Entry> =
        serde_json::from_slice(manifest).context("its manifest.json is not a list of images")?;
    let mut translated = Translated::default();
    for image in &list {
        let manifest =
            translated.add(image, entries, file).with_context(|| format!("image {}", image.config))?;
        let names = image.repo_tags.as_deref().unwrap_or_default();
        for name in names {
            translated.images.push(Named { name: Some(name.clone()), descriptor: manifest.clone() });
        }
        if names.is_empty() {
            translated.images.push(Named { name: None, descriptor: manifest });
        }
    }
    Ok(translated)
}

impl Translated {
    fn add(&mut self, image: &Entry, entries: &HashMap<Vec<u8>, Part>, file: &File) -> Result<Descriptor> {
        let part = |name: &str| entries.get(name.as_bytes()).with_context(|| format!("{name} is not in it"));
        let bytes = part(&image.config)?.read_all(file).context("its configuration")?;
        let diff_ids = config::diff_ids(&config::read(&bytes)?)?;
        ensure!(
            diff_ids.len() == image.layers.len() && diff_ids.len() <= MOST_LAYERS,
            "its configuration names {} layers and its manifest.json {}",
            diff_ids.len(),
            image.layers.len()
        );
        let mut layers = Vec::new();
        for (name, diff_id) in image.layers.iter().zip(diff_ids) {
            let part = *part(name)?;
            let layer = (MediaType::ImageLayer, MediaType::ImageLayerGzip, MediaType::ImageLayerZstd);
            let (media_type, digest) = match sniff(&part.start::<4>(file)?) {
                // A plain layer's digest is its diffID; whoever reads it checks that.
                Compression::None => (layer.0, diff_id),
                Compression::Gzip => (layer.1, hash(part, file).with_context(|| name.clone())?),
                Compression::Zstd => (layer.2, hash(part, file).with_context(|| name.clone())?),
            };
            layers.push(digest.describe(media_type, part.size)?);
            self.parts.insert(digest, part);
        }
        let config = self.keep(MediaType::ImageConfig, bytes)?;
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MediaType::ImageManifest,
            "config": config,
            "layers": layers,
        });
        self.keep(MediaType::ImageManifest, manifest.to_string().into_bytes())
    }

    fn keep(&mut self, media_type: MediaType, bytes: Vec<u8>) -> Result<Descriptor> {
        let digest = Digest::sha256(&bytes);
        let descriptor = digest.describe(media_type, bytes.len() as u64)?;
        self.documents.insert(digest, bytes);
        Ok(descriptor)
    }
}

fn hash(part: Part, file: &File) -> Result<Digest> {
    let mut hasher = Hasher::new(Algorithm::Sha256);
    let mut buffer = vec![0; 1 << 20];
    let (mut position, end) = (part.offset, part.offset + part.size);
    while position < end {
        let wanted = buffer.len().min(usize::try_from(end - position).unwrap_or(usize::MAX));
        let count = file.read_at(&mut buffer[..wanted], position).context("read it")?;
        ensure!(count > 0, "the archive ends in the middle of it");
        hasher.update(&buffer[..count]);
        position += count as u64;
    }
    Ok(hasher.finish())
}

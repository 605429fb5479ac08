//! How much is here: `system df`, and what a prune has gained.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::Result;

use super::Store;
use crate::digest::Digest;
use crate::image::config;

impl Store {
    /// The bytes of blobs and unpacked layers, partial downloads and the like included.
    pub(crate) fn size(&self) -> u64 {
        ["oci/blobs", "ingest", "tmp", "trash"].iter().map(|folder| on_disk(&self.path(folder))).sum::<u64>()
            + self.layer_sizes().map(|(_, size)| size).sum::<u64>()
    }

    /// Each layer here, by its digits, and the bytes of its files.
    fn layer_sizes(&self) -> impl Iterator<Item = (String, u64)> {
        fs::read_dir(self.path("layers")).into_iter().flatten().flatten().filter_map(|entry| {
            let meta = super::layers::read_meta(&entry.path()).ok()??;
            Some((entry.file_name().to_string_lossy().into_owned(), meta.size))
        })
    }

    /// The bytes of all layers, and of those that images in use need.
    pub(crate) fn layers_in_use(&self) -> Result<(u64, u64)> {
        let mut needed = HashSet::new();
        for (image, _) in self.images_in_use()? {
            needed.extend(image.iter().flat_map(|image| self.layers_of(image)));
        }
        let (mut all, mut used) = (0, 0);
        for (layer, size) in self.layer_sizes() {
            all += size;
            used += if needed.contains(&layer) { size } else { 0 };
        }
        Ok((all, used))
    }

    fn layers_of(&self, image: &Digest) -> Vec<String> {
        let read = || config::diff_ids(&config::read(&self.read_blob(image)?)?);
        read().unwrap_or_default().iter().map(|diff_id| diff_id.hex().to_owned()).collect()
    }
}

/// What a folder takes on its disk, in bytes; each file once, however many names it has.
pub(crate) fn on_disk(path: &Path) -> u64 {
    let mut seen = HashSet::new();
    add(path, &mut seen)
}

fn add(path: &Path, seen: &mut HashSet<(u64, u64)>) -> u64 {
    let Ok(found) = fs::symlink_metadata(path) else { return 0 };
    if !found.is_dir() {
        let first = found.nlink() == 1 || seen.insert((found.dev(), found.ino()));
        return if first { found.blocks() * 512 } else { 0 };
    }
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    entries.map(|entry| add(&entry.path(), seen)).sum()
}

//! `system check`: whether everything that a name stands for is here and is what it says.
//!
//! | checked                         | repaired by                                              |
//! |---------------------------------|----------------------------------------------------------|
//! | every blob against its digest   | removing it, and pulling the image again by its digest   |
//! | layers unpacked and described   | removing the folder, and unpacking the blob again        |
//! | their files against their blobs | the same; see `copy::check`                              |
//! | index.json against the names    | writing it again                                         |
//! | what no name reaches            | the sweep; it is no fault, a killed command leaves it    |

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::Read;
use std::path::PathBuf;

use anyhow::Result;

use super::Store;
use super::gc::list;
use super::names::Record;
use crate::digest::{Digest, Hasher};
use crate::image::layout::Layout;
use crate::image::{config, layout};

/// What is wrong with the store.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    /// Blobs whose content is not what their name says.
    pub(crate) blobs: BTreeSet<PathBuf>,
    /// Folders of layers that are none or not what their blobs hold, and what is wrong with them.
    pub(crate) layers: BTreeMap<PathBuf, String>,
    /// Images of which something is missing or damaged, and what.
    pub(crate) images: Vec<(Record, String)>,
    /// `oci/index.json` is not what the names make of it.
    pub(crate) index: bool,
}

impl Faults {
    /// True if there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.blobs.is_empty() && self.layers.is_empty() && self.images.is_empty() && !self.index
    }
}

impl Store {
    /// Reads everything. Nothing is changed.
    pub(crate) fn check(&self) -> Result<Faults> {
        let mut faults = Faults::default();
        for algorithm in list(&self.path("oci/blobs"))? {
            let name = algorithm.file_name().unwrap_or_default().to_string_lossy().into_owned();
            for blob in list(&algorithm)? {
                let hex = blob.file_name().unwrap_or_default().to_string_lossy().into_owned();
                let good = Digest::parse(&format!("{name}:{hex}")).is_ok_and(|digest| self.is_good(&digest));
                if !good {
                    faults.blobs.insert(blob);
                }
            }
        }
        for layer in list(&self.path("layers"))? {
            let described = super::layers::read_meta(&layer).is_ok_and(|meta| meta.is_some());
            if !described || !layer.join("fs").is_dir() {
                faults.layers.insert(layer, "it is not a whole layer".to_owned());
            }
        }
        for record in self.records()? {
            if let Err(error) = self.check_image(&record, &faults) {
                faults.images.push((record, format!("{error:#}")));
            }
        }
        faults.index = !self.index_is_right()?;
        Ok(faults)
    }

    /// What of an image is missing or among the faults.
    pub(crate) fn check_image(&self, record: &Record, faults: &Faults) -> Result<()> {
        let present = |digest: &Digest| -> Result<()> {
            let path = self.blob_path(digest);
            anyhow::ensure!(path.exists(), "blob {digest} is missing");
            anyhow::ensure!(!faults.blobs.contains(&path), "blob {digest} is damaged");
            Ok(())
        };
        present(&record.target)?;
        present(&Digest::of_descriptor(&record.manifest)?)?;
        present(&record.config)?;
        let manifest = self.manifest(record)?;
        for layer in manifest.layers() {
            present(&Digest::of_descriptor(layer)?)?;
        }
        let config = config::read(&self.read_blob(&record.config)?)?;
        let diff_ids = config::layer_ids(&manifest, &config)?;
        for (diff_id, chain_id) in diff_ids.iter().zip(config::chain_ids(&diff_ids)) {
            let folder = self.layer_folder(diff_id);
            anyhow::ensure!(folder.exists(), "layer {diff_id} is missing");
            let damaged = |folder| faults.layers.contains_key(&folder);
            anyhow::ensure!(
                !damaged(folder) && !damaged(self.rerouted_folder(&chain_id)),
                "layer {diff_id} is damaged"
            );
        }
        Ok(())
    }

    fn index_is_right(&self) -> Result<bool> {
        let images: Vec<_> =
            self.records()?.into_iter().map(|record| (record.name, record.manifest)).collect();
        let found = fs::read_to_string(self.path("oci/index.json")).unwrap_or_default();
        Ok(found == layout::index(&images)?)
    }

    /// Takes away what is not what it says, so that it can be brought again.
    pub(crate) fn discard_faults(&self, faults: &Faults) -> Result<()> {
        for path in faults.blobs.iter().chain(faults.layers.keys()) {
            super::remove_tree(path)?;
        }
        if faults.index { self.rebuild_index() } else { Ok(()) }
    }

    /// An error that names a document or blob of an image that is not here. Documents are read, layers are not.
    pub(crate) fn complete(&self, record: &Record) -> Result<()> {
        let here = Layout::unnamed(&self.path("oci"));
        self.read_blob(&record.target)?;
        self.read_blob(&record.config)?;
        let target = if record.whole { self.descriptor(&record.target)? } else { None };
        let top = target.as_ref().unwrap_or(&record.manifest);
        anyhow::ensure!(here.has(top), "not all of its blobs are here");
        Ok(())
    }

    /// Whether a blob is here and is what its digest says: reads all of it.
    pub(crate) fn is_good(&self, digest: &Digest) -> bool {
        let hash = || -> std::io::Result<Digest> {
            let mut file = File::open(self.blob_path(digest))?;
            let mut hasher = Hasher::new(digest.algorithm());
            let mut buffer = vec![0; 1 << 20];
            loop {
                match file.read(&mut buffer)? {
                    0 => return Ok(hasher.finish()),
                    count => hasher.update(&buffer[..count]),
                }
            }
        };
        hash().is_ok_and(|found| found == *digest)
    }
}

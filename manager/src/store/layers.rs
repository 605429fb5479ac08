//! Unpacked layers: `layers/<diffid>/fs`, shared by all images that have the layer.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use super::Store;
use crate::digest::Digest;
use crate::image::config::chain_ids;

/// What is known of an unpacked layer. It is written into its folder last: a layer folder without
/// it is not a layer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct LayerMeta {
    /// The bytes of its files.
    pub(crate) size: u64,
    /// Its tar entries.
    pub(crate) entries: u64,
    /// Folders that it has without an entry of their own, `""` for the root: their attributes come
    /// from the layers below. Parents stand before what is in them.
    pub(crate) implicit: Vec<String>,
    /// Folders that hold whiteouts: see `rootfs::parents`.
    #[serde(default)]
    pub(crate) with_whiteouts: Vec<String>,
    /// Folders that it has for nothing but the whiteouts in them.
    #[serde(default)]
    pub(crate) hollow: Vec<String>,
    /// It hides everything below: an opaque marker in its root, which overlayfs does not look at.
    pub(crate) opaque_root: bool,
}

impl Store {
    /// The folder of a layer.
    pub(crate) fn layer_folder(&self, diff_id: &Digest) -> PathBuf {
        self.path("layers").join(diff_id.hex())
    }

    /// The folder of the topmost of these layers as it has to be on the others, if it goes through links of theirs:
    /// see `rootfs::reroute`.
    pub(crate) fn rerouted_folder(&self, chain_id: &Digest) -> PathBuf {
        self.path("layers").join(rerouted(chain_id))
    }

    /// What is known of a layer; none when it is not here.
    pub(crate) fn layer(&self, diff_id: &Digest) -> Result<Option<LayerMeta>> {
        read_meta(&self.layer_folder(diff_id)).with_context(|| format!("layer {diff_id}"))
    }

    /// The folders to stack for these layers, lowest first.
    pub(crate) fn lower_folders(&self, diff_ids: &[Digest]) -> Result<Vec<PathBuf>> {
        let mut folders = Vec::with_capacity(diff_ids.len() + 1);
        let chain_ids = chain_ids(diff_ids);
        for (diff_id, chain_id) in diff_ids.iter().zip(&chain_ids) {
            let Some(meta) = self.layer(diff_id)? else {
                bail!("layer {diff_id} is missing from the store: pull the image again");
            };
            let rerouted = self.rerouted_folder(chain_id);
            if meta.opaque_root {
                folders.clear();
            }
            let folder = if rerouted.exists() { rerouted } else { self.layer_folder(diff_id) }.join("fs");
            // overlayfs refuses a folder that stands twice (ELOOP), and images do repeat layers: empty
            // ones, mostly. The upper one adds and hides all that the lower one does.
            folders.retain(|below| *below != folder);
            folders.push(folder);
        }
        if let Some(chain_id) = chain_ids.last() {
            let fixup = self.fixup_folder(chain_id).join("fs");
            if fixup.is_dir() {
                folders.push(fixup);
            }
        }
        if folders.is_empty() {
            folders.push(self.path("empty"));
        }
        Ok(folders)
    }

    /// The folder that corrects the parents that a chain of layers left out.
    pub(crate) fn fixup_folder(&self, chain_id: &Digest) -> PathBuf {
        self.path("fixups").join(chain_id.hex())
    }

    /// Every folder that the root filesystem of these layers may be made of.
    pub(crate) fn folders_of(&self, diff_ids: &[Digest]) -> Vec<PathBuf> {
        let chain_ids = chain_ids(diff_ids);
        let layers = diff_ids.iter().map(|id| self.layer_folder(id));
        let stack = chain_ids.iter().flat_map(|id| [self.rerouted_folder(id), self.fixup_folder(id)]);
        layers.chain(stack).collect()
    }

    /// Moves a finished folder to its place; when somebody else was first, theirs stays.
    pub(crate) fn install_folder(&self, from: &Path, to: &Path) -> Result<()> {
        match fs::rename(from, to) {
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOTEMPTY | libc::EEXIST)) => Ok(()),
            other => other.with_context(|| format!("move {} to {}", from.display(), to.display())),
        }
    }
}

/// The name of such a folder; no digest is named like it.
pub(super) fn rerouted(chain_id: &Digest) -> String {
    format!("on-{}", chain_id.hex())
}

/// Writes a layer's meta.json into its folder.
pub(crate) fn write_meta(folder: &Path, meta: &LayerMeta) -> Result<()> {
    let path = folder.join("meta.json");
    fs::write(&path, serde_json::to_vec(meta)?).with_context(|| format!("write {}", path.display()))
}

/// Reads it; none when the folder is not a layer.
pub(crate) fn read_meta(folder: &Path) -> Result<Option<LayerMeta>> {
    match fs::read(folder.join("meta.json")) {
        Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes).context("its meta.json is damaged")?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).context("read its meta.json"),
    }
}

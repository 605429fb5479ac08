//! The image store: a valid OCI image layout plus unpacked layers.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use oci_spec::image::{Descriptor, ImageConfiguration};

/// The store below `--root`.
#[derive(Debug)]
pub(crate) struct Store {
    root: PathBuf,
}

/// An image that is here, whole and unpacked.
#[derive(Debug)]
pub(crate) struct LocalImage {
    /// The normalised reference it was found by, as `docker.io/library/busybox:latest`; none when
    /// it was found by its id.
    pub(crate) name: Option<String>,
    /// Its manifest: digest, size, media type.
    pub(crate) manifest: Descriptor,
    /// Its configuration; the digest of these bytes is the image's id.
    pub(crate) config: ImageConfiguration,
    /// `sha256:...` of the configuration: docker's image id.
    pub(crate) id: String,
    /// The folders to give to overlayfs, lowest first.
    pub(crate) layers: Vec<PathBuf>,
}

impl Store {
    /// Opens the store below `root`, making its folders when they are missing.
    pub(crate) fn open(root: &Path) -> Result<Self> {
        Ok(Self { root: root.to_owned() })
    }

    /// Finds an image by reference (`name[:tag][@digest]`) or by (a prefix of) its id.
    pub(crate) fn find(&self, reference: &str) -> Result<Option<LocalImage>> {
        bail!("{}: {reference}", self.root.display())
    }
}

//! Where an image comes from: a registry, or an image layout on this machine, the store's among them.

use std::io::Read;

use anyhow::{Context, Result};
use oci_spec::image::Descriptor;

use crate::digest::Digest;
use crate::image::layout::Layout;
use crate::reference::Reference;
use crate::registry::{BlobBody, Fetched, Repository};

/// One place with documents and blobs.
pub(crate) enum Source {
    /// A repository of a registry.
    Registry(Repository),
    /// A folder or an archive.
    Layout(Layout),
}

impl Source {
    /// What a reference names there.
    pub(crate) fn named(&self, reference: &Reference) -> Result<Fetched> {
        match self {
            Self::Registry(repository) => repository.manifest(reference),
            Self::Layout(layout) => self.described(&layout.find(Some(&reference.to_string()))?),
        }
    }

    /// What a descriptor names there.
    pub(crate) fn described(&self, descriptor: &Descriptor) -> Result<Fetched> {
        let digest = Digest::of_descriptor(descriptor)?;
        let bytes = self.manifest(descriptor).with_context(|| format!("manifest {digest}"))?;
        Ok(Fetched { bytes, digest, media_type: Some(descriptor.media_type().to_string()) })
    }

    /// A manifest or index, checked against its descriptor.
    pub(super) fn manifest(&self, descriptor: &Descriptor) -> Result<Vec<u8>> {
        match self {
            Self::Registry(repository) => repository.document("manifests", descriptor),
            Self::Layout(layout) => layout.document(descriptor),
        }
    }

    /// A configuration, checked against its descriptor.
    pub(super) fn config(&self, descriptor: &Descriptor) -> Result<Vec<u8>> {
        match self {
            Self::Registry(repository) => repository.document("blobs", descriptor),
            Self::Layout(layout) => layout.document(descriptor),
        }
    }

    /// A blob's bytes from `start` to `end`, or all of them where that is not possible. Whoever reads
    /// them checks them.
    pub(super) fn blob(&self, descriptor: &Descriptor, start: u64, end: u64) -> Result<BlobBody> {
        match self {
            Self::Registry(repository) => repository.blob(descriptor, start, end),
            Self::Layout(layout) => {
                let reader = layout.blob(descriptor, start)?;
                // Reading ahead at several places would only make the disk seek.
                Ok(BlobBody { reader: Box::new(reader) as Box<dyn Read + Send>, start, is_part: false })
            }
        }
    }

    /// Goes on without mirrors, one of which sent something wrong; false if there are none.
    pub(super) fn give_up_mirrors(&self) -> bool {
        match self {
            Self::Registry(repository) => repository.give_up_mirrors(),
            Self::Layout(_) => false,
        }
    }

    /// Whether all of an image is here without going over a network.
    pub(crate) fn has(&self, descriptor: &Descriptor) -> bool {
        match self {
            Self::Registry(_) => true,
            Self::Layout(layout) => layout.has(descriptor),
        }
    }

    /// For records and messages.
    pub(crate) fn address(&self) -> String {
        match self {
            Self::Registry(repository) => repository.address(),
            Self::Layout(layout) => layout.address(),
        }
    }
}

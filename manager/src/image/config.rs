//! The image configuration and what its layers are called.
//!
//! <https://github.com/opencontainers/image-spec/blob/v1.1.1/config.md>

use anyhow::{Context, Result, bail};
use oci_spec::image::{ImageConfiguration, ImageManifest};

use crate::digest::Digest;

/// Reads a configuration.
pub(crate) fn read(bytes: &[u8]) -> Result<ImageConfiguration> {
    let config: ImageConfiguration =
        serde_json::from_slice(bytes).context("it is not a valid image configuration")?;
    if config.rootfs().typ() != "layers" {
        bail!("its rootfs type is {:?}, not \"layers\"", config.rootfs().typ());
    }
    Ok(config)
}

/// The digests of the layers' plain tars, lowest first.
pub(crate) fn diff_ids(config: &ImageConfiguration) -> Result<Vec<Digest>> {
    config.rootfs().diff_ids().iter().map(|text| Digest::parse(text)).collect()
}

/// The same for an image, after a check that every layer has one.
pub(crate) fn layer_ids(manifest: &ImageManifest, config: &ImageConfiguration) -> Result<Vec<Digest>> {
    let ids = diff_ids(config)?;
    if ids.len() != manifest.layers().len() {
        bail!("its configuration names {} layers and its manifest {}", ids.len(), manifest.layers().len());
    }
    Ok(ids)
}

/// The chain ids: one digest for a layer and all below it, lowest first.
/// <https://github.com/opencontainers/image-spec/blob/v1.1.1/config.md#layer-chainid>
pub(crate) fn chain_ids(diff_ids: &[Digest]) -> Vec<Digest> {
    let mut chain: Vec<Digest> = Vec::with_capacity(diff_ids.len());
    for diff_id in diff_ids {
        let next = match chain.last() {
            None => diff_id.clone(),
            Some(below) => Digest::sha256(format!("{below} {diff_id}").as_bytes()),
        };
        chain.push(next);
    }
    chain
}

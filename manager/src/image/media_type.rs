//! Media types: what we ask for, and what a name says about the bytes.
//!
//! <https://github.com/opencontainers/image-spec/blob/v1.1.1/media-types.md>

use anyhow::{Result, bail};

/// `Accept` of a manifest request, the preferred ones first.
pub(crate) const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, \
    application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, \
    application/vnd.docker.distribution.manifest.v2+json";

/// What an image manifest is when it does not say so itself.
pub(crate) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// What an index is when it does not say so itself.
pub(crate) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// The two kinds of documents that a tag can name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// One manifest a platform.
    Index,
    /// One image.
    Manifest,
}

/// What a media type says a document is; none for types that say nothing, as `application/json`.
pub(crate) fn kind(media_type: &str) -> Result<Option<Kind>> {
    Ok(Some(match media_type {
        OCI_INDEX | "application/vnd.docker.distribution.manifest.list.v2+json" => Kind::Index,
        OCI_MANIFEST | "application/vnd.docker.distribution.manifest.v2+json" => Kind::Manifest,
        "application/vnd.docker.distribution.manifest.v1+json"
        | "application/vnd.docker.distribution.manifest.v1+prettyjws" => bail!(SCHEMA1),
        _ => return Ok(None),
    }))
}

/// Why docker's first manifest format is not read.
pub(crate) const SCHEMA1: &str = "it is a docker schema 1 manifest, an old format that is not supported: push the image again with a newer tool";

/// How a layer's tar is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compression {
    /// A plain tar.
    None,
    /// RFC 1952
    Gzip,
    /// RFC 8878
    Zstd,
}

/// What a layer's media type promises, after a check that it is a layer at all. Which compression
/// it really has is seen in its first bytes.
pub(crate) fn check_layer(media_type: &str) -> Result<()> {
    let known = matches!(
        media_type,
        "application/vnd.docker.image.rootfs.diff.tar"
            | "application/vnd.docker.image.rootfs.diff.tar.gzip"
            | "application/vnd.docker.image.rootfs.diff.tar.zstd"
            | "application/vnd.docker.image.rootfs.foreign.diff.tar"
            | "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
    ) || ["", "+gzip", "+zstd"].iter().any(|suffix| {
        ["layer.v1.tar", "layer.nondistributable.v1.tar"]
            .iter()
            .any(|layer| media_type == format!("application/vnd.oci.image.{layer}{suffix}"))
    });
    if !known {
        bail!("media type {media_type:?} is not an image layer");
    }
    Ok(())
}

/// The compression that the first bytes of a layer show.
pub(crate) fn sniff(start: &[u8]) -> Compression {
    match start {
        [0x1f, 0x8b, ..] => Compression::Gzip,
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Compression::Zstd,
        // A skippable frame may come first (zstd:chunked, seekable zstd).
        [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Compression::Zstd,
        _ => Compression::None,
    }
}

/// A header's media type without parameters, which registries add and nobody may rely on.
pub(crate) fn without_parameters(header: &str) -> &str {
    header.split(';').next().unwrap_or("").trim()
}

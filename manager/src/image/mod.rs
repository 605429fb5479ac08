//! The documents of an image: index, manifest, configuration, and the layout they are kept in.
//!
//! <https://github.com/opencontainers/image-spec/blob/v1.1.1/spec.md>

pub(crate) mod archive;
pub(crate) mod config;
pub(crate) mod docker_archive;
pub(crate) mod inflate;
pub(crate) mod layout;
pub(crate) mod manifest;
pub(crate) mod media_type;
pub(crate) mod tar_index;

/// No manifest, index or configuration is read beyond this: it is the size that registries must
/// support, and more than any honest one has.
pub(crate) const LARGEST_DOCUMENT: u64 = 4 * 1024 * 1024;

/// As many lower folders as overlayfs takes in one mount.
pub(crate) const MOST_LAYERS: usize = 500;

//! From what was asked for to an OCI bundle: `config.json` and the files it names.
//! [bundle.md](https://github.com/opencontainers/runtime-spec/blob/main/bundle.md),
//! [conversion.md](https://github.com/opencontainers/image-spec/blob/main/conversion.md)

pub(crate) mod capabilities;
pub(crate) mod config;
pub(crate) mod etc;
pub(crate) mod seccomp;
pub(crate) mod user;
pub(crate) mod volumes;

use std::fs::OpenOptions;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::{Context as _, Result};

use crate::container::{Container, files};

/// Writes the bundle of a container whose root filesystem is mounted at `rootfs`.
pub(crate) fn write(container: &Container, rootfs: &Path) -> Result<()> {
    let root = OpenOptions::new().read(true).custom_flags(libc::O_PATH | libc::O_DIRECTORY).open(rootfs);
    let root = OwnedFd::from(root.with_context(|| format!("open the root filesystem {}", rootfs.display()))?);
    let user = user::look_up(&root, &container.record.process.user)?;
    etc::write(container)?;
    let sources = volumes::prepare(container, &root)?;
    let config = config::build(container, rootfs, &user, &sources)?;
    files::write_json(&container.folder.join("config.json"), &config)
}

//! Blobs: content under its digest, and downloads on their way to become one.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use super::Store;
use crate::digest::{Digest, Verified};
use crate::image::LARGEST_DOCUMENT;

impl Store {
    /// Where a blob is, or would be.
    pub(crate) fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.path("oci/blobs").join(digest.algorithm().name()).join(digest.hex())
    }

    /// Whether a blob is here with this size.
    pub(crate) fn has_blob(&self, digest: &Digest, size: u64) -> bool {
        fs::symlink_metadata(self.blob_path(digest)).is_ok_and(|found| found.is_file() && found.len() == size)
    }

    /// Reads a manifest, index or configuration, and checks that it still is what it was.
    pub(crate) fn read_blob(&self, digest: &Digest) -> Result<Vec<u8>> {
        let path = self.blob_path(digest);
        let file = File::open(&path).with_context(|| format!("open blob {digest}"))?;
        let size = file.metadata().with_context(|| format!("stat blob {digest}"))?.len();
        if size > LARGEST_DOCUMENT {
            bail!("blob {digest} has {size} bytes, more than a document of an image may have");
        }
        let mut bytes = Vec::new();
        Verified::new(file, digest, size)
            .read_to_end(&mut bytes)
            .with_context(|| format!("the stored blob {digest} is damaged"))?;
        Ok(bytes)
    }

    /// Stores a document that is in memory and was checked.
    pub(crate) fn write_blob(&self, digest: &Digest, bytes: &[u8]) -> Result<()> {
        if self.has_blob(digest, bytes.len() as u64) {
            return Ok(());
        }
        let path = self.blob_path(digest);
        self.make_parent(&path)?;
        let temporary = self.temporary_path();
        // Not synced here: see `unsettled`.
        let write = || -> io::Result<()> {
            File::options().write(true).create_new(true).open(&temporary)?.write_all(bytes)?;
            fs::rename(&temporary, &path)
        };
        write().map_err(|error| {
            let _ = fs::remove_file(&temporary);
            anyhow::Error::new(error).context(format!("store blob {digest}"))
        })
    }

    /// Opens the partial download of a blob, locked, and says how much of it is here.
    pub(crate) fn ingest(&self, digest: &Digest) -> Result<Ingest> {
        let path = self.path("ingest").join(format!("{}-{}.part", digest.algorithm().name(), digest.hex()));
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .with_context(|| format!("open {}", path.display()))?;
        let file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(file) => file,
            Err((_, Errno::EWOULDBLOCK)) => bail!("blob {digest} is being downloaded by another process"),
            Err((_, errno)) => return Err(errno).with_context(|| format!("lock {}", path.display())),
        };
        Ok(Ingest { path, file })
    }

    /// Makes a complete and checked download a blob.
    pub(crate) fn commit_ingest(&self, ingest: Ingest, digest: &Digest) -> Result<()> {
        let path = self.blob_path(digest);
        self.make_parent(&path)?;
        fs::rename(&ingest.path, &path).with_context(|| format!("store blob {digest}"))
    }

    fn make_parent(&self, path: &Path) -> Result<()> {
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).with_context(|| format!("create {}", parent.display()))?;
        }
        Ok(())
    }
}

/// A partial download. It stays when it is dropped, so that the next pull goes on from there.
#[derive(Debug)]
pub(crate) struct Ingest {
    path: PathBuf,
    file: Flock<File>,
}

impl Ingest {
    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The file: bytes of the blob from its start.
    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// Throws the download away: its content proved wrong.
    pub(crate) fn discard(&self) {
        // When even this fails the next pull finds the same wrong content and tries again.
        let _ = fs::remove_file(&self.path);
    }
}

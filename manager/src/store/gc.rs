//! Removing what no name and no container reaches: mark from `refs/` and `containers/`, sweep the
//! rest. It runs only while nobody brings anything in (see `lock`), and moves things to `trash/`
//! first, so that the lock is held shortly.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};

use super::{Store, remove_tree};
use crate::digest::Digest;
use crate::image;
use crate::image::manifest::Document;

/// Partial downloads that nobody came back for.
const INGEST_LIFE: Duration = Duration::from_secs(24 * 60 * 60);

/// Left behind when a sweep was wanted while somebody held the store.
const WANTED: &str = "sweep-wanted";

/// What names and containers reach.
#[derive(Default)]
struct Marked {
    blobs: HashSet<PathBuf>,
    /// Names of folders in `layers/`.
    layers: HashSet<String>,
    /// Names of folders in `fixups/`.
    fixups: HashSet<String>,
    /// A container uses nobody knows what: everything stays.
    unknown: bool,
}

impl Store {
    /// Removes everything unreachable, or leaves a note to do so later when the store is busy.
    pub(crate) fn sweep(&self) -> Result<()> {
        let Some(lock) = self.try_alone()? else {
            return self.write_file(&self.path("locks").join(WANTED), b"");
        };
        let marked = self.mark()?;
        if marked.unknown {
            self.trash_leftovers()?;
            drop(lock);
            self.write_file(&self.path("locks").join(WANTED), b"")?;
            return self.empty_trash();
        }
        for folder in self.entries("oci/blobs")? {
            for blob in list(&folder)? {
                if !marked.blobs.contains(&blob) {
                    self.trash(&blob)?;
                }
            }
        }
        self.trash_unmarked("layers", &marked.layers)?;
        self.trash_unmarked("fixups", &marked.fixups)?;
        self.trash_leftovers()?;
        let _ = fs::remove_file(self.path("locks").join(WANTED));
        drop(lock);
        self.empty_trash()
    }

    /// Cleans up after killed commands, when nobody else is at work; sweeps when that is due.
    pub(crate) fn tidy(&self) -> Result<()> {
        if self.path("locks").join(WANTED).exists() {
            return self.sweep();
        }
        let Some(lock) = self.try_alone()? else { return Ok(()) };
        self.trash_leftovers()?;
        drop(lock);
        self.empty_trash()
    }

    fn mark(&self) -> Result<Marked> {
        let mut marked = Marked::default();
        for record in self.records()? {
            self.blobs_below(&record.target, &mut marked.blobs, 0);
            marked.blobs.insert(self.blob_path(&Digest::of_descriptor(&record.manifest)?));
            // A damaged image keeps nothing but itself: what cannot be read cannot be run either.
            if let Ok(manifest) = self.manifest(&record) {
                for layer in manifest.layers() {
                    marked.blobs.insert(self.blob_path(&Digest::of_descriptor(layer)?));
                }
            }
            let _ = self.mark_config(&record.config, &mut marked);
        }
        for (config, container) in self.images_in_use()? {
            // Better to sweep nothing than a layer below a running container.
            if config.is_none_or(|config| self.mark_config(&config, &mut marked).is_err()) {
                eprintln!(
                    "manager: which image container {container} uses cannot be read: \
                     nothing unused is removed as long as it is there"
                );
                marked.unknown = true;
            }
        }
        Ok(marked)
    }

    /// A document with all that it names, as far as it is here: an index was perhaps pulled for one platform
    /// only.
    pub(crate) fn blobs_below(&self, digest: &Digest, blobs: &mut HashSet<PathBuf>, depth: u32) {
        const DEEPEST: u32 = 4;
        blobs.insert(self.blob_path(digest));
        let Ok(bytes) = self.read_blob(digest) else { return };
        match image::manifest::read_any(&bytes, None) {
            Ok(Document::Index(index)) if depth < DEEPEST => {
                let entries = index.manifests().iter().filter_map(|entry| Digest::of_descriptor(entry).ok());
                entries.for_each(|entry| self.blobs_below(&entry, blobs, depth + 1));
            }
            Ok(Document::Manifest(manifest)) => {
                let named = std::iter::once(manifest.config()).chain(manifest.layers());
                let named = named.filter_map(|blob| Digest::of_descriptor(blob).ok());
                blobs.extend(named.map(|blob| self.blob_path(&blob)));
            }
            _ => {}
        }
    }

    fn mark_config(&self, digest: &Digest, marked: &mut Marked) -> Result<()> {
        marked.blobs.insert(self.blob_path(digest));
        let diff_ids = image::config::diff_ids(&image::config::read(&self.read_blob(digest)?)?)?;
        let chain_ids = image::config::chain_ids(&diff_ids);
        marked.fixups.extend(chain_ids.iter().map(|id| id.hex().to_owned()));
        marked.layers.extend(chain_ids.iter().map(super::layers::rerouted));
        marked.layers.extend(diff_ids.iter().map(|id| id.hex().to_owned()));
        Ok(())
    }

    fn trash_unmarked(&self, folder: &str, keep: &HashSet<String>) -> Result<()> {
        for path in self.entries(folder)? {
            let kept =
                path.file_name().and_then(|name| name.to_str()).is_some_and(|name| keep.contains(name));
            if !kept {
                self.trash(&path)?;
            }
        }
        Ok(())
    }

    /// With the store alone: unfinished things have no owner, old downloads no taker, and no
    /// layer's or blob's lock is held.
    fn trash_leftovers(&self) -> Result<()> {
        for path in self.entries("tmp")? {
            if !owner_lives(&path) {
                self.trash(&path)?;
            }
        }
        for path in self.entries("ingest")? {
            let age = fs::symlink_metadata(&path).and_then(|found| found.modified());
            let age = age.ok().and_then(|time| SystemTime::now().duration_since(time).ok());
            if age.is_some_and(|age| age > INGEST_LIFE) {
                self.trash(&path)?;
            }
        }
        for path in self.entries("locks")? {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or("");
            if name.starts_with("layer-") || name.starts_with("blob-") {
                remove_tree(&path)?;
            }
        }
        Ok(())
    }

    fn trash(&self, path: &Path) -> Result<()> {
        let name = self.temporary_path();
        let name = name.file_name().context("a temporary path has a name")?.to_owned();
        let mut target = self.path("trash").join(&name);
        while target.symlink_metadata().is_ok() {
            let next = self.temporary_path();
            target = self.path("trash").join(next.file_name().unwrap_or(&name));
        }
        fs::rename(path, &target).with_context(|| format!("move {} to the trash", path.display()))
    }

    fn empty_trash(&self) -> Result<()> {
        // Two commands may be at it together; each entry goes once.
        self.entries("trash")?.iter().try_for_each(|path| remove_tree(path))
    }

    fn entries(&self, folder: &str) -> Result<Vec<PathBuf>> {
        list(&self.path(folder))
    }
}

/// Whether the process that made a thing in `tmp/` (its name starts with the id) still runs. Small
/// writes (a tag, index.json) happen without the store's lock.
fn owner_lives(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or("");
    let process = name.split('-').next().unwrap_or("");
    !process.is_empty() && Path::new("/proc").join(process).exists()
}

/// What is in a folder.
pub(crate) fn list(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| format!("read {}", folder.display()))?;
    let path = |entry: std::io::Result<fs::DirEntry>| entry.map(|entry| entry.path());
    entries.map(path).collect::<std::io::Result<_>>().with_context(|| format!("read {}", folder.display()))
}

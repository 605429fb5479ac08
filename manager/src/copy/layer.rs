//! One layer on its way into the store.

use std::fs::{self, DirBuilder, File};
use std::io::{Seek, SeekFrom};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, bail};
use oci_spec::image::Descriptor;

use super::Source;
use super::download::{Interrupted, WrongContent, read_chunk};
use super::parts::{Incoming, present};
use super::permits::Permits;
use crate::digest::{Digest, Hasher};
use crate::progress::LayerProgress;
use crate::rootfs::reroute::Routes;
use crate::rootfs::unpacker::{Order, Unpacker, is_disk_full};
use crate::store::Store;
use crate::store::blobs::Ingest;
use crate::store::layers::{LayerMeta, write_meta};

/// What is to do for one layer.
pub(super) struct Job {
    pub(super) descriptor: Descriptor,
    pub(super) digest: Digest,
    /// Of a layer of the image that is unpacked.
    pub(super) diff_id: Option<Digest>,
    /// Its folder is not in the store yet.
    pub(super) unpack: bool,
    /// Its blob is not in the store yet.
    pub(super) download: bool,
}

/// What was done for it.
#[derive(Default)]
pub(super) struct Done {
    pub(super) ingest: Option<(Ingest, Digest)>,
    pub(super) folder: Option<(PathBuf, Digest)>,
}

/// One layer being brought.
pub(super) struct Worker<'a> {
    pub(super) store: &'a Store,
    pub(super) source: &'a Source,
    pub(super) job: &'a Job,
    pub(super) folder: PathBuf,
    pub(super) line: &'a LayerProgress<'a>,
    pub(super) stop: &'a AtomicBool,
    pub(super) network: &'a Network,
}

/// What all layers of an image may take of the network together.
pub(super) struct Network {
    /// Blobs at once: enough to fill a line, few enough to be polite to a registry.
    blobs: Permits,
    /// Connections besides one for each blob, for parts.
    extra: Permits,
}

impl Default for Network {
    fn default() -> Self {
        Self { blobs: Permits::new(4), extra: Permits::new(4) }
    }
}

impl Worker<'_> {
    /// Does it.
    pub(super) fn run(&self) -> Result<Done> {
        if !self.job.unpack && !self.job.download {
            return Ok(Done::default());
        }
        let ingest = if self.job.download { Some(self.store.ingest(&self.job.digest)?) } else { None };
        let (is_resumed, resumed) = match &ingest {
            Some(ingest) => self.usable(ingest)?,
            None => (false, 0),
        };
        let mut result = self.bring(ingest.as_ref(), resumed);
        if !self.stop.load(Ordering::Relaxed) {
            // The part that was here may have been the bad one, or a mirror: once more, all of it.
            if let (Err(error), Some(ingest)) = (&result, &ingest)
                && error.is::<WrongContent>()
                && self.source.give_up_mirrors() | is_resumed
            {
                ingest.file().set_len(0).context("start the download anew")?;
                result = self.bring(Some(ingest), 0);
            }
        }
        if let (Err(error), Some(ingest)) = (&result, &ingest) {
            // Right content that cannot be unpacked is not worth keeping either: it stays wrong.
            let keep = error.is::<Interrupted>() && !is_disk_full(error);
            if !keep {
                ingest.discard();
            }
        }
        let meta = result?;
        let mut done = Done { ingest: ingest.map(|ingest| (ingest, self.job.digest.clone())), folder: None };
        if let Some(meta) = meta {
            write_meta(&self.folder, &meta)?;
            done.folder = self.job.diff_id.clone().map(|diff_id| (self.folder.clone(), diff_id));
        }
        self.line.finish("Pull complete");
        Ok(done)
    }

    /// Whether there is a partial download to go on with, and how much of it is there from its beginning.
    fn usable(&self, ingest: &Ingest) -> Result<(bool, u64)> {
        let length = ingest.file().metadata().context("look at the partial download")?.len();
        if length > self.job.descriptor.size() {
            ingest.file().set_len(0).context("start the download anew")?;
            return Ok((false, 0));
        }
        let first = present(ingest.file()).context("look at the partial download")?.into_iter().next();
        Ok((length > 0, first.filter(|range| range.start == 0).map_or(0, |range| range.end)))
    }

    /// Reads the blob from wherever it is, checks it, and unpacks it if that is wanted.
    fn bring(&self, ingest: Option<&Ingest>, resumed: u64) -> Result<Option<LayerMeta>> {
        self.line.show("Waiting");
        let turn = self.network.blobs.take();
        self.line.show("Downloading");
        let Some(wanted) = self.job.diff_id.as_ref().filter(|_| self.job.unpack) else {
            self.read(ingest, resumed, |_| false)?;
            return Ok(None);
        };
        let blob = match ingest {
            Some(ingest) => ingest.path().to_owned(),
            None => self.store.blob_path(&self.job.digest),
        };
        let mut unpacker = Unpacker::start(&Order {
            folder: empty_folder(&self.folder)?,
            blob,
            size: self.job.descriptor.size(),
            expected: wanted.clone(),
            routes: Routes::default(),
        })?;
        if let Err(error) = self.read(ingest, resumed, |bytes| unpacker.arrived(bytes)) {
            // Content that is not what was promised explains every trouble in unpacking it.
            let unpack_error = unpacker.give_up();
            return Err(if is_disk_full(&unpack_error) { unpack_error } else { error });
        }
        // While this is being unpacked, the next one comes.
        drop(turn);
        self.line.show("Extracting");
        unpacker.finish().map(Some)
    }

    /// Reads the whole blob and checks it; tells how much of it is in its file, as long as that is wanted.
    fn read(
        &self,
        ingest: Option<&Ingest>,
        resumed: u64,
        mut arrived: impl FnMut(u64) -> bool,
    ) -> Result<()> {
        let size = self.job.descriptor.size();
        let mut hasher = Hasher::new(self.job.digest.algorithm());
        let mut position = 0;
        let mut wanted = true;
        let mut count = |chunk: &[u8]| {
            position += chunk.len() as u64;
            wanted = wanted && arrived(position);
            hasher.update(chunk);
            self.line.advance(chunk.len() as u64);
            position
        };
        let stored = match ingest {
            Some(ingest) => ingest.file().try_clone().context("open the partial download")?,
            None => File::open(self.store.blob_path(&self.job.digest)).context("open the stored blob")?,
        };
        let mut stored = stored;
        stored.seek(SeekFrom::Start(0)).context("read the blob")?;
        let in_file = if ingest.is_some() { resumed } else { size };
        let mut read = 0;
        while read < in_file {
            let chunk = read_chunk(&mut stored, in_file - read).context("read the blob")?;
            if chunk.is_empty() {
                bail!("the stored blob ends after {read} of {size} bytes");
            }
            read = count(&chunk);
        }
        if let Some(ingest) = ingest {
            let blob = Incoming {
                source: self.source,
                descriptor: &self.job.descriptor,
                file: ingest.file(),
                stop: self.stop,
            };
            blob.fetch(read, &self.network.extra, |chunk| {
                count(chunk);
            })?;
            self.line.state("Verifying Checksum");
        }
        let found = hasher.finish();
        if found != self.job.digest {
            return Err(WrongContent(format!("its content hashes to {found}")).into());
        }
        if ingest.is_some() {
            self.line.state("Download complete");
        }
        Ok(())
    }
}

/// A fresh `fs` folder in a layer's folder.
fn empty_folder(layer: &Path) -> Result<PathBuf> {
    crate::store::remove_tree(layer)?;
    let fs = layer.join("fs");
    let make = || -> std::io::Result<()> {
        DirBuilder::new().mode(0o700).create(layer)?;
        DirBuilder::new().mode(0o755).create(&fs)?;
        // Apart, since the umask cuts the mode above: the root of a layer without an entry for it.
        fs::set_permissions(&fs, fs::Permissions::from_mode(0o755))
    };
    make().with_context(|| format!("create {}", fs.display()))?;
    Ok(fs)
}

/// Unpacks a blob that is here, checked when it came, into a layer's folder, its entries where the routes lead.
pub(super) fn unpack_again(
    blob: PathBuf,
    size: u64,
    layer: &Path,
    expected: &Digest,
    routes: Routes,
) -> Result<()> {
    let order = Order { folder: empty_folder(layer)?, blob, size, expected: expected.clone(), routes };
    let mut unpacker = Unpacker::start(&order)?;
    unpacker.arrived(size);
    write_meta(layer, &unpacker.finish()?)
}

//! Into the store.
//!
//! ```text
//! source ─► documents (of an index: this platform's) ─► configuration ─► layers ─► name
//!
//! a layer:   source ─► ingest file + sha256 ─► rootfs::stream: inflate + sha256 ─► files
//! ```
//!
//! Layers come in parallel, each unpacked while it arrives. All of it is made in `tmp/` and
//! `ingest/`; when the last layer is there the file system is synced once, everything moves to its
//! place with rename(2), and the name is written last. A pull that dies leaves downloads to go on
//! from, and nothing that looks like an image.

use std::collections::{BTreeSet, HashSet};
use std::fs::{self, DirBuilder, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use oci_spec::image::{Descriptor, ImageConfiguration, ImageManifest, Platform};

use super::Source;
use super::tree::{Take, Tree, image_of, main_image};
use crate::digest::{Digest, Hasher};
use crate::image::config;
use crate::progress::{LayerProgress, Output, Progress};
use crate::registry::{BlobBody, Fetched};
use crate::rootfs::parents;
use crate::rootfs::reroute::Routes;
use crate::rootfs::stream::CHUNK;
use crate::rootfs::unpacker::{Order, Unpacker, is_disk_full};
use crate::store::blobs::Ingest;
use crate::store::layers::{LayerMeta, write_meta};
use crate::store::lock::Lock;
use crate::store::names::Record;
use crate::store::{Scratch, Store};
use crate::sys::writeback::write_out;

/// Layers under way at once: enough to fill a line, few enough to be polite to a registry.
const LAYERS_AT_ONCE: usize = 4;

/// How often a broken download is taken up again without a single new byte.
const TRIES_WITHOUT_PROGRESS: u32 = 3;

/// So much of a download is on its way to the disk before the sync at the end, which has to wait for the rest.
const WRITE_OUT_EVERY: usize = 4 * 1024 * 1024;

/// What is to be kept.
pub(crate) struct Wanted<'a> {
    /// What its name stands for at the source.
    pub(crate) top: Fetched,
    /// The whole reference that it gets here.
    pub(crate) name: String,
    pub(crate) platform: &'a Platform,
    /// True to keep the images of an index's other platforms too. They are not unpacked.
    pub(crate) all_platforms: bool,
}

/// What was done.
pub(crate) struct Kept {
    /// What the name stands for now.
    pub(crate) record: Record,
    /// It stood for the same before.
    pub(crate) up_to_date: bool,
}

/// Brings an image into the store. Hold the store around this (`Store::hold`) if the image is to be used
/// without its name.
pub(crate) fn keep(store: &Store, source: &Source, wanted: Wanted, progress: &Progress) -> Result<Kept> {
    store.tidy()?;
    let hold = store.hold()?;
    let kept = keep_held(store, source, wanted, progress);
    drop(hold);
    if kept.is_err() {
        // Whatever got to its place without getting a name.
        let _ = store.sweep();
    }
    kept
}

/// One image, and what comes along with it.
struct Image {
    manifest: ImageManifest,
    manifest_descriptor: Descriptor,
    config: ImageConfiguration,
    config_digest: Digest,
    /// Everything to store as it came: indexes, manifests, the configuration.
    documents: Vec<(Digest, Vec<u8>)>,
    /// Configurations and layers of other platforms.
    others: Vec<Descriptor>,
}

fn keep_held(store: &Store, source: &Source, wanted: Wanted, progress: &Progress) -> Result<Kept> {
    let Wanted { top, name, platform, all_platforms } = wanted;
    let target = top.digest.clone();
    let image = image(source, top, platform, all_platforms)?;
    let scratch = store.scratch()?;
    let _locks = locks(store, &image)?;
    let layers = layers(store, source, &image, &scratch, progress)?;

    let record = Record {
        name: name.clone(),
        manifest: image.manifest_descriptor.clone(),
        target: target.clone(),
        config: image.config_digest.clone(),
        tagged_at: jiff::Timestamp::now().to_string(),
        source: Some(source.address()),
    };
    let before = store.record(&name)?;
    let up_to_date = before.is_some_and(|old| old.target == target && old.config == record.config);
    commit(store, source, &image, layers, &scratch)?;
    store.write_record(&record)?;
    Ok(Kept { record, up_to_date })
}

/// Reads all documents, and checks that the image can be kept: before anything large is on its way.
fn image(source: &Source, top: Fetched, platform: &Platform, all: bool) -> Result<Image> {
    let index = (top.digest.clone(), top.bytes.clone());
    let again =
        Fetched { bytes: top.bytes.clone(), digest: top.digest.clone(), media_type: top.media_type.clone() };
    let take = if all { Take::All } else { Take::Platform(platform) };
    let tree = Tree::read(source, top, take)?;
    let main = match take {
        Take::All => main_image(&tree, source, &again, platform)?,
        Take::Platform(_) => Digest::of_descriptor(tree.top()?)?,
    };
    let (manifest_descriptor, manifest) = image_of(&tree, &main)?;
    let config_digest = Digest::of_descriptor(manifest.config())?;
    let read = || -> Result<_> {
        let bytes = source.config(manifest.config())?;
        let config = config::read(&bytes)?;
        if config.os() != platform.os() {
            bail!("it is for {}, not for {}", config.os(), platform.os());
        }
        config::layer_ids(&manifest, &config)?;
        Ok((bytes, config))
    };
    let (bytes, config) = read().with_context(|| format!("image configuration {config_digest}"))?;
    let own: HashSet<&str> = std::iter::once(manifest.config())
        .chain(manifest.layers())
        .map(|blob| blob.digest().as_ref())
        .collect();
    let others = tree.blobs.iter().filter(|blob| !own.contains(blob.digest().as_ref())).cloned().collect();
    let mut documents = vec![(config_digest.clone(), bytes), index];
    for (descriptor, bytes) in tree.documents {
        documents.push((Digest::of_descriptor(&descriptor)?, bytes));
    }
    Ok(Image { manifest, manifest_descriptor, config, config_digest, documents, others })
}

/// What is to do for one layer.
struct Job {
    descriptor: Descriptor,
    digest: Digest,
    /// Of a layer of the image that is unpacked.
    diff_id: Option<Digest>,
    /// Its folder is not in the store yet.
    unpack: bool,
    /// Its blob is not in the store yet.
    download: bool,
}

/// What was done for it.
#[derive(Default)]
struct Done {
    ingest: Option<(Ingest, Digest)>,
    folder: Option<(PathBuf, Digest)>,
}

/// Locks everything that is not here, in the order of the names, so that another pull of some of it waits
/// for this one and finds it done. The caller keeps the locks until it is in its place.
fn locks(store: &Store, image: &Image) -> Result<Vec<Lock>> {
    let missing = jobs(store, image)?.into_iter().filter(|job| job.unpack || job.download);
    let missing: BTreeSet<String> = missing
        .map(|job| match job.diff_id {
            Some(diff_id) => format!("layer-{}", diff_id.hex()),
            None => format!("blob-{}", job.digest.hex()),
        })
        .collect();
    missing.iter().map(|name| store.lock_exclusive(name)).collect()
}

/// Brings all layers that are not here.
fn layers(
    store: &Store,
    source: &Source,
    image: &Image,
    scratch: &Scratch,
    progress: &Progress,
) -> Result<Vec<Done>> {
    let jobs = jobs(store, image)?;
    let lines: Vec<LayerProgress<'_>> =
        jobs.iter().map(|job| progress.layer(job.digest.short(), job.descriptor.size())).collect();
    for (job, line) in jobs.iter().zip(&lines) {
        if job.unpack || job.download {
            line.state("Pulling fs layer");
        } else {
            line.finish("Already exists");
        }
    }
    let next = AtomicUsize::new(0);
    let stop = AtomicBool::new(false);
    let done: Mutex<Vec<Done>> = Mutex::new(Vec::new());
    let failed: Mutex<Option<anyhow::Error>> = Mutex::new(None);
    let work = || {
        while !stop.load(Ordering::Relaxed) {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(job) = jobs.get(index) else { return };
            let folder = scratch.path().join(format!("layer-{index}"));
            let routes = Routes::default();
            let worker = Worker { store, source, job, folder, routes, line: &lines[index], stop: &stop };
            match worker.run() {
                Ok(one) => lock(&done).push(one),
                Err(error) => {
                    // The first failure is the cause; the others were told to stop.
                    if !stop.swap(true, Ordering::Relaxed) {
                        *lock(&failed) = Some(error.context(format!("layer {}", job.digest)));
                    }
                }
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..LAYERS_AT_ONCE.min(jobs.len()) {
            scope.spawn(work);
        }
        work();
    });
    let done = std::mem::take(&mut *lock(&done));
    match lock(&failed).take() {
        None => Ok(done),
        Some(error) => {
            drop(done);
            if is_disk_full(&error) {
                // What was downloaded would only keep the disk full.
                let downloads = jobs.iter().filter(|job| job.download);
                downloads
                    .filter_map(|job| store.ingest(&job.digest).ok())
                    .for_each(|ingest| ingest.discard());
            }
            Err(error)
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// One job a blob; a blob or folder that is wanted twice is brought once.
fn jobs(store: &Store, image: &Image) -> Result<Vec<Job>> {
    let diff_ids = config::layer_ids(&image.manifest, &image.config)?;
    let mut blobs = HashSet::new();
    let mut folders = HashSet::new();
    let mut jobs = Vec::new();
    for (descriptor, diff_id) in image.manifest.layers().iter().zip(diff_ids) {
        let digest = Digest::of_descriptor(descriptor)?;
        if !blobs.insert(digest.clone()) {
            continue;
        }
        let unpack = folders.insert(diff_id.clone()) && store.layer(&diff_id)?.is_none();
        let download = !store.has_blob(&digest, descriptor.size());
        jobs.push(Job { descriptor: descriptor.clone(), digest, diff_id: Some(diff_id), unpack, download });
    }
    for descriptor in &image.others {
        let digest = Digest::of_descriptor(descriptor)?;
        let download = !store.has_blob(&digest, descriptor.size());
        jobs.push(Job { descriptor: descriptor.clone(), digest, diff_id: None, unpack: false, download });
    }
    Ok(jobs)
}

/// One layer being brought.
struct Worker<'a> {
    store: &'a Store,
    source: &'a Source,
    job: &'a Job,
    folder: PathBuf,
    routes: Routes,
    line: &'a LayerProgress<'a>,
    stop: &'a AtomicBool,
}

impl Worker<'_> {
    fn run(&self) -> Result<Done> {
        if !self.job.unpack && !self.job.download {
            return Ok(Done::default());
        }
        let ingest = if self.job.download { Some(self.store.ingest(&self.job.digest)?) } else { None };
        let resumed = match &ingest {
            Some(ingest) => self.usable(ingest)?,
            None => 0,
        };
        let mut result = self.bring(ingest.as_ref(), resumed);
        if !self.stop.load(Ordering::Relaxed) {
            // The part that was here may have been the bad one, or a mirror: once more, all of it.
            if let (Err(error), Some(ingest)) = (&result, &ingest)
                && error.is::<WrongContent>()
                && self.source.give_up_mirrors() | (resumed > 0)
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

    /// How much of a partial download can be gone on from.
    fn usable(&self, ingest: &Ingest) -> Result<u64> {
        let length = ingest.file().metadata().context("look at the partial download")?.len();
        if length <= self.job.descriptor.size() {
            return Ok(length);
        }
        ingest.file().set_len(0).context("start the download anew")?;
        Ok(0)
    }

    /// Reads the blob from wherever it is, checks it, and unpacks it if that is wanted.
    fn bring(&self, ingest: Option<&Ingest>, resumed: u64) -> Result<Option<LayerMeta>> {
        let Some(wanted) = self.job.diff_id.as_ref().filter(|_| self.job.unpack) else {
            self.read(ingest, resumed, |_| false)?;
            return Ok(None);
        };
        let blob = match ingest {
            Some(ingest) => ingest.path().to_owned(),
            None => self.store.blob_path(&self.job.digest),
        };
        let mut unpacker = Unpacker::start(&Order {
            folder: self.empty_folder()?,
            blob,
            size: self.job.descriptor.size(),
            expected: wanted.clone(),
            routes: self.routes.clone(),
        })?;
        if let Err(error) = self.read(ingest, resumed, |bytes| unpacker.arrived(bytes)) {
            // Content that is not what was promised explains every trouble in unpacking it.
            let unpack_error = unpacker.give_up();
            return Err(if is_disk_full(&unpack_error) { unpack_error } else { error });
        }
        let (diff_id, meta) = unpacker.finish()?;
        if diff_id != *wanted {
            bail!("its tar hashes to {diff_id}, not to {wanted} as its image says");
        }
        Ok(Some(meta))
    }

    /// A fresh `fs` folder in the layer's folder.
    fn empty_folder(&self) -> Result<PathBuf> {
        crate::store::remove_tree(&self.folder)?;
        let fs = self.folder.join("fs");
        let make = || -> std::io::Result<()> {
            DirBuilder::new().mode(0o700).create(&self.folder)?;
            DirBuilder::new().mode(0o755).create(&fs)?;
            // Apart, since the umask cuts the mode above: the root of a layer without an entry for it.
            fs::set_permissions(&fs, fs::Permissions::from_mode(0o755))
        };
        make().with_context(|| format!("create {}", fs.display()))?;
        Ok(fs)
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
        if ingest.is_some() {
            let mut download = Download::new(self.source, &self.job.descriptor, read);
            let mut written = 0;
            while let Some(chunk) = download.next(self.stop)? {
                stored.write_all(&chunk).context("write the download")?;
                written += chunk.len();
                if written >= WRITE_OUT_EVERY {
                    write_out(&stored);
                    written = 0;
                }
                count(&chunk);
            }
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

/// The bytes that came are not those that were promised.
#[derive(Debug)]
struct WrongContent(String);

impl std::fmt::Display for WrongContent {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for WrongContent {}

/// The bytes that came are good, as far as one can tell, but not all came.
#[derive(Debug)]
struct Interrupted(String);

impl std::fmt::Display for Interrupted {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for Interrupted {}

/// A blob coming over the network, taken up again where it broke off.
struct Download<'a> {
    source: &'a Source,
    descriptor: &'a Descriptor,
    position: u64,
    body: Option<BlobBody>,
    /// Breaks since the last byte.
    breaks: u32,
}

impl<'a> Download<'a> {
    fn new(source: &'a Source, descriptor: &'a Descriptor, position: u64) -> Self {
        Self { source, descriptor, position, body: None, breaks: 0 }
    }

    /// The next bytes; none at the end.
    fn next(&mut self, stop: &AtomicBool) -> Result<Option<Vec<u8>>> {
        let size = self.descriptor.size();
        loop {
            if stop.load(Ordering::Relaxed) {
                return Err(Interrupted("another layer failed".to_owned()).into());
            }
            if self.position == size && self.body.is_none() {
                return Ok(None);
            }
            let reason = match self.read() {
                Ok(chunk) if !chunk.is_empty() => {
                    self.breaks = 0;
                    self.position += chunk.len() as u64;
                    if self.position > size {
                        return Err(WrongContent(format!("more than its {size} bytes came")).into());
                    }
                    return Ok(Some(chunk));
                }
                Ok(_) if self.position == size => return Ok(None),
                Ok(_) => "the connection ended".to_owned(),
                Err(error) => format!("{error:#}"),
            };
            self.body = None;
            self.breaks += 1;
            if self.breaks >= TRIES_WITHOUT_PROGRESS {
                return Err(Interrupted(format!("{} of {size} bytes came: {reason}", self.position)).into());
            }
            std::thread::sleep(Duration::from_millis(200) * self.breaks);
        }
    }

    fn read(&mut self) -> Result<Vec<u8>> {
        let size = self.descriptor.size();
        let body = match &mut self.body {
            Some(body) => body,
            None => {
                let mut body = self.source.blob(self.descriptor, self.position)?;
                let skip = self.position - body.start;
                let skipped = std::io::copy(&mut body.by_ref().take(skip), &mut std::io::sink())?;
                if skipped < skip {
                    bail!("the connection ended");
                }
                self.body.insert(body)
            }
        };
        // One byte more than promised, to see an endless body.
        Ok(read_chunk(body, size - self.position + 1)?)
    }
}

fn read_chunk(reader: &mut impl Read, most: u64) -> std::io::Result<Vec<u8>> {
    let mut chunk = vec![0; CHUNK.min(usize::try_from(most).unwrap_or(CHUNK))];
    loop {
        match reader.read(&mut chunk) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            other => {
                chunk.truncate(other?);
                return Ok(chunk);
            }
        }
    }
}

/// Everything to its place: on disk first, then renamed.
fn commit(store: &Store, source: &Source, image: &Image, layers: Vec<Done>, scratch: &Scratch) -> Result<()> {
    let made = for_this_stack(store, source, image, &layers, scratch)?;
    for (digest, bytes) in &image.documents {
        store.write_blob(digest, bytes)?;
    }
    let root = File::open(store.root()).with_context(|| format!("open {}", store.root().display()))?;
    // Once for all files: fsync for each would double the cost of each.
    nix::unistd::syncfs(&root).context("sync the store")?;
    for done in layers {
        if let Some((ingest, digest)) = done.ingest {
            store.commit_ingest(ingest, &digest)?;
        }
        if let Some((folder, diff_id)) = done.folder {
            store.install_folder(&folder, &store.layer_folder(&diff_id))?;
        }
    }
    for (folder, place) in made {
        store.install_folder(&folder, &place)?;
    }
    for folder in ["layers", "oci/blobs/sha256"] {
        let folder = store.path(folder);
        let sync = File::open(&folder).and_then(|open| open.sync_all());
        sync.with_context(|| format!("sync {}", folder.display()))?;
    }
    Ok(())
}

/// Folders for this stack of layers alone, and their places: layers that go through links of lower ones
/// (`rootfs::reroute`), and the folders that no layer describes (`rootfs::parents`).
fn for_this_stack(
    store: &Store,
    source: &Source,
    image: &Image,
    done: &[Done],
    scratch: &Scratch,
) -> Result<Vec<(PathBuf, PathBuf)>> {
    let diff_ids = config::layer_ids(&image.manifest, &image.config)?;
    let chain_ids = config::chain_ids(&diff_ids);
    let mut made = Vec::new();
    let mut stack: Vec<parents::Layer> = Vec::with_capacity(diff_ids.len());
    let mut places: Vec<PathBuf> = Vec::with_capacity(diff_ids.len());
    for (index, (diff_id, chain_id)) in diff_ids.iter().zip(&chain_ids).enumerate() {
        let rerouted = store.rerouted_folder(chain_id);
        if rerouted.exists() {
            stack.push(open_layer(&rerouted)?);
            places.push(rerouted);
            continue;
        }
        let place = store.layer_folder(diff_id);
        let fresh = done.iter().filter_map(|one| one.folder.as_ref()).find(|(_, id)| id == diff_id);
        let folder = fresh.map_or(&place, |(folder, _)| folder);
        stack.push(open_layer(folder).with_context(|| format!("layer {diff_id}"))?);
        let routes = Routes::find(&stack, index).with_context(|| format!("layer {diff_id}"))?;
        if routes.is_empty() {
            places.push(place);
            continue;
        }
        let descriptor = &image.manifest.layers()[index];
        let folder = scratch.path().join(format!("rerouted-{index}"));
        unpack_again(store, source, descriptor, diff_id, done, &folder, routes)?;
        stack[index] = open_layer(&folder)?;
        places.push(rerouted.clone());
        made.push((folder, rerouted));
    }
    // What stands twice stands once in the mount, at its upper place.
    let mut upper = places.iter().enumerate().map(|(index, place)| !places[index + 1..].contains(place));
    stack.retain(|_| upper.next().unwrap_or(true));
    if let Some(place) = chain_ids.last().map(|id| store.fixup_folder(id)).filter(|place| !place.exists()) {
        let folder = scratch.path().join("fixup");
        DirBuilder::new()
            .mode(0o700)
            .create(&folder)
            .with_context(|| format!("create {}", folder.display()))?;
        if parents::correct(&stack, &folder.join("fs"))? {
            made.push((folder, place));
        }
    }
    Ok(made)
}

fn open_layer(folder: &Path) -> Result<parents::Layer> {
    let meta = crate::store::layers::read_meta(folder)?.context("it is missing from the store")?;
    parents::Layer::open(&folder.join("fs"), &meta)
}

/// Unpacks a layer whose blob is here, its entries where the routes lead.
fn unpack_again(
    store: &Store,
    source: &Source,
    descriptor: &Descriptor,
    diff_id: &Digest,
    done: &[Done],
    folder: &Path,
    routes: Routes,
) -> Result<()> {
    let digest = Digest::of_descriptor(descriptor)?;
    let (descriptor, diff_id) = (descriptor.clone(), Some(diff_id.clone()));
    let job = Job { descriptor, digest, diff_id, unpack: true, download: false };
    let progress = Progress::new(Output::Nowhere);
    let line = &progress.layer(job.digest.short(), job.descriptor.size());
    let stop = &AtomicBool::new(false);
    let worker = Worker { store, source, job: &job, folder: folder.to_owned(), routes, line, stop };
    let ingest = done.iter().filter_map(|one| one.ingest.as_ref()).find(|(_, digest)| *digest == job.digest);
    let meta = worker.bring(ingest.map(|(ingest, _)| ingest), job.descriptor.size());
    let meta = meta.and_then(|meta| meta.context("it was not unpacked"));
    write_meta(folder, &meta.with_context(|| format!("layer {}", job.digest))?)
}

//! Into the store.
//!
//! ```text
//! source ─► documents (of an index: this platform's) ─► configuration ─► layers ─► name
//!
//! a layer:   source ─► ingest file + sha256 ─► rootfs::stream: inflate + sha256 ─► files
//! ```
//!
//! Layers come in parallel, each unpacked while it arrives. All of it is made in `tmp/` and
//! `ingest/`; when the last layer is there everything moves to its place with rename(2), and the name is
//! written last. A pull that dies leaves downloads to go on from, and nothing that looks like an image.
//! That all of it gets to the disk is seen to behind the pull (`store::unsettled`).

use std::collections::{BTreeSet, HashSet};
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use anyhow::{Context, Result, bail};
use oci_spec::image::{Descriptor, ImageConfiguration, ImageManifest, Platform};

use super::Source;
use super::layer::{Done, Job, Network, Worker};
use super::stack::commit;
use super::tree::{Take, Tree, image_of, main_image};
use crate::digest::Digest;
use crate::image::config;
use crate::progress::{LayerProgress, Output, Progress};
use crate::registry::Fetched;
use crate::rootfs::unpacker::is_disk_full;
use crate::store::lock::Lock;
use crate::store::names::Record;
use crate::store::unsettled::{Note, Unsettled};
use crate::store::{Scratch, Store};

/// Layers under way at once. Some wait for their turn at the network (`Network`), some are here and being unpacked.
const LAYERS_AT_ONCE: usize = 8;

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
pub(super) struct Image {
    pub(super) manifest: ImageManifest,
    manifest_descriptor: Descriptor,
    pub(super) config: ImageConfiguration,
    config_digest: Digest,
    /// Everything to store as it came: indexes, manifests, the configuration.
    pub(super) documents: Vec<(Digest, Vec<u8>)>,
    /// Configurations and layers of other platforms.
    others: Vec<Descriptor>,
}

fn keep_held(store: &Store, source: &Source, wanted: Wanted, progress: &Progress) -> Result<Kept> {
    let Wanted { top, name, platform, all_platforms } = wanted;
    let target = top.digest.clone();
    let before = store.record(&name)?;
    let new = Unsettled::new(Some(&name), before.clone());
    let (image, note) = bring(store, source, top, platform, all_platforms, new, progress)?;
    let record = Record {
        name: name.clone(),
        manifest: image.manifest_descriptor,
        target: target.clone(),
        config: image.config_digest,
        tagged_at: jiff::Timestamp::now().to_string(),
        source: Some(source.address()),
        whole: all_platforms,
    };
    let up_to_date = before.is_some_and(|old| old.target == target && old.config == record.config);
    store.write_record(&record)?;
    drop(note);
    // Also what commands have left that were killed.
    if store.has_notes() {
        store.settle_behind()?;
    }
    Ok(Kept { record, up_to_date })
}

/// Brings again what is missing of an image that has its name, to the disk. Hold the store around this.
pub(crate) fn restore(
    store: &Store,
    source: &Source,
    top: Fetched,
    platform: &Platform,
    all_platforms: bool,
) -> Result<()> {
    let (_, note) = bring(
        store,
        source,
        top,
        platform,
        all_platforms,
        Unsettled::new(None, None),
        &Progress::new(Output::Nowhere),
    )?;
    drop(note);
    store.settle(false)
}

/// Everything but the name, and the note of what came.
fn bring(
    store: &Store,
    source: &Source,
    top: Fetched,
    platform: &Platform,
    all_platforms: bool,
    new: Unsettled,
    progress: &Progress,
) -> Result<(Image, Option<Note>)> {
    let image = image(source, top, platform, all_platforms)?;
    let scratch = store.scratch()?;
    let _locks = locks(store, &image)?;
    // With the locks: what another pull has brought by now needs nothing more.
    let jobs = jobs(store, &image)?;
    let mut note = note(store, &image, &jobs, new)?;
    let layers = layers(store, source, &jobs, &scratch, progress)?;
    note.iter_mut().for_each(Note::stay);
    commit(store, &image, layers, &scratch)?;
    Ok((image, note))
}

/// Notes what is going to be new; none if nothing is.
fn note(store: &Store, image: &Image, jobs: &[Job], mut new: Unsettled) -> Result<Option<Note>> {
    let mut folders: Vec<PathBuf> = Vec::new();
    for job in jobs {
        folders.extend(job.diff_id.iter().filter(|_| job.unpack).map(|diff_id| store.layer_folder(diff_id)));
        new.blobs.extend(job.download.then(|| job.digest.clone()));
    }
    let is_new = |(digest, bytes): &&(Digest, Vec<u8>)| !store.has_blob(digest, bytes.len() as u64);
    new.blobs.extend(image.documents.iter().filter(is_new).map(|(digest, _)| digest.clone()));
    // What may have to be made for this stack alone.
    let chain_ids = config::chain_ids(&config::layer_ids(&image.manifest, &image.config)?);
    let places = chain_ids.iter().map(|id| store.rerouted_folder(id));
    let places = places.chain(chain_ids.last().map(|id| store.fixup_folder(id)));
    folders.extend(places.filter(|place| !place.exists()));
    let below = |path: &PathBuf| Some(path.strip_prefix(store.root()).ok()?.to_str()?.to_owned());
    new.folders = folders.iter().filter_map(below).collect();
    let nothing = new.blobs.is_empty() && new.folders.is_empty();
    (!nothing).then(|| store.note(&new)).transpose()
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
    jobs: &[Job],
    scratch: &Scratch,
    progress: &Progress,
) -> Result<Vec<Done>> {
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
    let network = Network::default();
    let done: Mutex<Vec<Done>> = Mutex::new(Vec::new());
    let failed: Mutex<Option<anyhow::Error>> = Mutex::new(None);
    let work = || {
        while !stop.load(Ordering::Relaxed) {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(job) = jobs.get(index) else { return };
            let folder = scratch.path().join(format!("layer-{index}"));
            let line = &lines[index];
            let worker = Worker { store, source, job, folder, line, stop: &stop, network: &network };
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
        let workers = 1..LAYERS_AT_ONCE.min(jobs.len());
        workers.for_each(|_| drop(scope.spawn(work)));
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

//! Into a registry: blobs in parallel, each unless it is there; then the manifests, what others name first;
//! and the name last, so that nobody ever finds half an image under it.

use std::collections::HashMap;
use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result};
use oci_spec::image::{Descriptor, MediaType};

use super::Source;
use super::compress::{How, Packed, plain_layers};
use super::tree::{Take, Tree};
use crate::digest::Digest;
use crate::image::layout::Blob;
use crate::progress::{LayerProgress, Progress};
use crate::registry::{Arrived, Fetched, Repository};

const BLOBS_AT_ONCE: usize = 4;

/// What a push did.
pub(crate) struct Pushed {
    /// What the name stands for there now.
    pub(crate) digest: Digest,
    pub(crate) size: u64,
}

/// How to push.
pub(crate) struct Options<'a> {
    /// The tag or digest to push to.
    pub(crate) selector: String,
    /// Layers that may be had elsewhere only (`nondistributable`) go too.
    pub(crate) foreign: bool,
    /// What to do with plain layers, if anything, and a folder for what comes out.
    pub(crate) compress: Option<(How, PathBuf)>,
    /// Repositories of the same registry that have a blob, by its digest.
    pub(crate) mounts: &'a HashMap<String, String>,
}

/// Pushes what `top` stands for at the source.
pub(crate) fn push(
    source: &Source,
    top: Fetched,
    take: Take,
    to: &Repository,
    options: &Options,
    progress: &Progress,
) -> Result<Pushed> {
    let mut tree = Tree::read(source, top, take)?;
    let packed = match &options.compress {
        Some((how, spool)) => plain_layers(source, &mut tree, *how, spool, progress)?,
        None => Packed::new(),
    };
    let blobs: Vec<&Descriptor> =
        tree.blobs.iter().filter(|blob| options.foreign || !is_foreign(blob.media_type())).collect();
    push_blobs(source, &packed, &blobs, to, options, progress)?;
    let last = tree.documents.len() - 1;
    for (n, (descriptor, bytes)) in tree.documents.iter().enumerate() {
        let digest = descriptor.digest().as_ref();
        let selector = if n == last { &options.selector } else { digest };
        to.put_manifest(selector, descriptor.media_type().as_ref(), bytes)
            .with_context(|| format!("manifest {digest}"))?;
    }
    let top = tree.top()?;
    Ok(Pushed { digest: Digest::of_descriptor(top)?, size: top.size() })
}

/// "Non-distributable": their licence lets only their maker hand them out.
fn is_foreign(media_type: &MediaType) -> bool {
    let name = media_type.as_ref();
    name.contains(".nondistributable.") || name.contains(".foreign.")
}

fn push_blobs(
    source: &Source,
    packed: &Packed,
    blobs: &[&Descriptor],
    to: &Repository,
    options: &Options,
    progress: &Progress,
) -> Result<()> {
    let digests: Vec<Digest> = blobs.iter().map(|blob| Digest::of_descriptor(blob)).collect::<Result<_>>()?;
    let lines: Vec<LayerProgress<'_>> =
        digests.iter().zip(blobs).map(|(digest, blob)| progress.layer(digest.short(), blob.size())).collect();
    lines.iter().for_each(|line| line.state("Preparing"));
    let next = AtomicUsize::new(0);
    let failed: Mutex<Option<anyhow::Error>> = Mutex::new(None);
    let work = || {
        loop {
            let n = next.fetch_add(1, Ordering::Relaxed);
            let (Some(blob), Some(line), Some(digest)) = (blobs.get(n), lines.get(n), digests.get(n)) else {
                return;
            };
            let from = options.mounts.get(blob.digest().as_ref()).map(String::as_str);
            let open = |start: u64| -> io::Result<Box<dyn Read + Send>> {
                if let Some(file) = packed.get(blob.digest().as_ref()) {
                    return Ok(Box::new(Blob::of(file, start, blob.size())?));
                }
                let body = source.blob(blob, start, blob.size()).map_err(io::Error::other)?;
                if body.start != start {
                    return Err(io::Error::other("the blob cannot be read from its middle on"));
                }
                Ok(body.reader)
            };
            match to.push_blob(blob, from, &|start| {
                Ok(Box::new(Counted { reader: open(start)?, line: line.share() }))
            }) {
                Ok(Arrived::Existed) => line.finish("Layer already exists"),
                Ok(Arrived::MountedFrom(name)) => line.finish(&format!("Mounted from {name}")),
                Ok(Arrived::Pushed) => line.finish("Pushed"),
                Err(error) => {
                    next.store(blobs.len(), Ordering::Relaxed); // the others need not begin any more
                    let mut failed = failed.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                    failed.get_or_insert(error.context(format!("blob {digest}")));
                }
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..BLOBS_AT_ONCE.min(blobs.len()) {
            scope.spawn(work);
        }
        work();
    });
    match failed.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner) {
        None => Ok(()),
        Some(error) => Err(error),
    }
}

/// Tells how much has been read.
pub(super) struct Counted<'a> {
    pub(super) reader: Box<dyn Read + Send + 'a>,
    pub(super) line: crate::progress::Shared,
}

impl Read for Counted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.reader.read(buffer)?;
        self.line.advance(count as u64);
        Ok(count)
    }
}

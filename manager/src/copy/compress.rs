//! Plain layers, packed on their way to a registry: an image that was loaded from a docker archive has such, and
//! nobody wants to send or fetch three times the bytes. Its manifest becomes another one; its configuration, and
//! the id with it, stays. What was pulled is not touched: it is pushed back to the byte.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;
use flate2::write::GzEncoder;
use oci_spec::image::{Descriptor, MediaType};
use serde_json::{Value, json};

use super::Source;
use super::into_registry::Counted;
use super::tree::Tree;
use crate::digest::{Algorithm, Digest, Hasher, Verified};
use crate::image::archive::nameless;
use crate::image::media_type::{Compression, sniff};
use crate::progress::Progress;

/// Flags of commands that write to registries.
#[derive(Debug, clap::Args)]
pub(crate) struct CompressArgs {
    /// Pack plain layers like this, `none` to leave them plain; without it, those of images that were pulled stay
    /// as they are, and others go as gzip. The manifest is another one then, with a digest of its own
    #[arg(long, value_name = "FORMAT")]
    compression_format: Option<Format>,
    /// How hard to try: 1 to 9 for gzip (6), 1 to 22 for zstd (3)
    #[arg(long, value_name = "LEVEL")]
    compression_level: Option<u8>,
}

/// `--compression-format`
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    Gzip,
    Zstd,
    None,
}

/// How to pack.
#[derive(Clone, Copy, Debug)]
pub(crate) struct How {
    format: Format,
    level: u8,
}

/// gzip that costs little: for what goes nowhere yet.
pub(crate) const FAST: How = How { format: Format::Gzip, level: 1 };

impl CompressArgs {
    /// True if the flags were given.
    pub(crate) fn is_given(&self) -> bool {
        self.compression_format.is_some() || self.compression_level.is_some()
    }

    /// What is to be done with plain layers, and `by_default` if nothing is said; none to leave them.
    pub(crate) fn how(&self, by_default: Format) -> Result<Option<How>> {
        let format = self.compression_format.unwrap_or(by_default);
        let (usual, most) = match format {
            Format::Gzip => (6, 9),
            Format::Zstd => (3, 22),
            Format::None => {
                ensure!(self.compression_level.is_none(), "--compression-level: nothing is compressed");
                return Ok(None);
            }
        };
        let level = self.compression_level.unwrap_or(usual);
        ensure!((1..=most).contains(&level), "--compression-level {level} is not between 1 and {most}");
        Ok(Some(How { format, level }))
    }
}

/// Blobs that are only here, by their digests.
pub(super) type Packed = HashMap<String, File>;

/// Packs the plain layers of a tree, and makes its documents name what comes out.
pub(super) fn plain_layers(
    source: &Source,
    tree: &mut Tree,
    how: How,
    spool: &Path,
    progress: &Progress,
) -> Result<Packed> {
    let mut layers = Vec::new();
    for blob in tree.blobs.iter().filter(|blob| is_plain(blob.media_type())) {
        let mut start = Vec::new();
        source.blob(blob, 0, blob.size())?.reader.take(4).read_to_end(&mut start).context("read a layer")?;
        // A media type may be wrong.
        if sniff(&start) == Compression::None {
            layers.push(blob.clone());
        }
    }
    let packed = pack_all(source, &layers, how, spool, progress)?;
    let mut instead: HashMap<String, (Digest, u64)> = HashMap::new();
    let mut files = Packed::new();
    for (layer, (digest, size, file)) in layers.iter().zip(packed) {
        files.insert(digest.to_string(), file);
        instead.insert(layer.digest().to_string(), (digest, size));
    }
    for blob in &mut tree.blobs {
        if let Some((digest, size)) = instead.get(blob.digest().as_ref()) {
            *blob = digest.describe(packed_type(blob.media_type(), how.format)?, *size)?;
        }
    }
    // What others name stands first.
    for (descriptor, bytes) in &mut tree.documents {
        let old = descriptor.digest().to_string();
        if let Some(changed) =
            rewrite(bytes, &instead, how.format).with_context(|| format!("manifest {old}"))?
        {
            let digest = Digest::sha256(&changed);
            *descriptor = digest.describe(descriptor.media_type().clone(), changed.len() as u64)?;
            *bytes = changed;
            instead.insert(old, (digest, bytes.len() as u64));
        }
    }
    Ok(files)
}

/// A manifest or index with the new names of what it names; none if there is nothing new.
fn rewrite(
    document: &[u8],
    instead: &HashMap<String, (Digest, u64)>,
    format: Format,
) -> Result<Option<Vec<u8>>> {
    let mut document: Value = serde_json::from_slice(document)?;
    let mut changed = false;
    for list in ["layers", "manifests"] {
        for entry in document.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            let old = entry.get("digest").and_then(Value::as_str).unwrap_or_default();
            let Some((digest, size)) = instead.get(old) else { continue };
            if list == "layers" {
                let old = MediaType::from(entry.get("mediaType").and_then(Value::as_str).unwrap_or_default());
                entry["mediaType"] = json!(packed_type(&old, format)?);
            }
            entry["digest"] = json!(digest.to_string());
            entry["size"] = json!(size);
            changed = true;
        }
    }
    changed.then(|| serde_json::to_vec(&document).map_err(Into::into)).transpose()
}

fn is_plain(media_type: &MediaType) -> bool {
    matches!(
        media_type.as_ref(),
        "application/vnd.oci.image.layer.v1.tar" | "application/vnd.docker.image.rootfs.diff.tar"
    )
}

/// The media type of a plain layer when it is packed.
fn packed_type(plain: &MediaType, format: Format) -> Result<MediaType> {
    let name = match (plain.as_ref(), format) {
        (name @ "application/vnd.oci.image.layer.v1.tar", Format::Gzip) => format!("{name}+gzip"),
        (name @ "application/vnd.oci.image.layer.v1.tar", Format::Zstd) => format!("{name}+zstd"),
        (name @ "application/vnd.docker.image.rootfs.diff.tar", Format::Gzip) => format!("{name}.gzip"),
        (name, _) => bail!("docker's manifests have no zstd layers ({name}): --compression-format gzip"),
    };
    Ok(MediaType::from(name.as_str()))
}

/// As many at once as there are processors.
fn pack_all(
    source: &Source,
    layers: &[Descriptor],
    how: How,
    spool: &Path,
    progress: &Progress,
) -> Result<Vec<(Digest, u64, File)>> {
    let next = AtomicUsize::new(0);
    let results: Vec<Mutex<Option<Result<_>>>> = layers.iter().map(|_| Mutex::new(None)).collect();
    let pack_one = |layer: &Descriptor| -> Result<(Digest, u64, File)> {
        let digest = Digest::of_descriptor(layer)?;
        let line = progress.layer(digest.short(), layer.size());
        line.show("Compressing");
        let reader = Verified::new(source.blob(layer, 0, layer.size())?.reader, &digest, layer.size());
        let mut reader =
            BufReader::with_capacity(1 << 18, Counted { reader: Box::new(reader), line: line.share() });
        let file = nameless(spool)?;
        let (packed, size) =
            pack(&mut reader, &file, how).with_context(|| format!("compress layer {digest}"))?;
        line.finish("Compressed");
        Ok((packed, size, file))
    };
    let work = || {
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let (Some(layer), Some(result)) = (layers.get(index), results.get(index)) else { return };
            *result.lock().unwrap_or_else(PoisonError::into_inner) = Some(pack_one(layer));
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(layers.len());
    std::thread::scope(|scope| {
        (1..threads).for_each(|_| drop(scope.spawn(work)));
        work();
    });
    let taken = |result: Mutex<Option<Result<_>>>| {
        let result = result.into_inner().unwrap_or_else(PoisonError::into_inner);
        result.unwrap_or_else(|| bail!("a thread that compresses panicked"))
    };
    results.into_iter().map(taken).collect()
}

/// Packs what comes into a file: the digest of what is in it then, and its bytes.
pub(crate) fn pack(input: &mut impl Read, file: &File, how: How) -> Result<(Digest, u64)> {
    let hashed = Hashed { file, hasher: Hasher::new(Algorithm::Sha256), size: 0 };
    let Hashed { hasher, size, .. } = match how.format {
        Format::Gzip => {
            let mut encoder = GzEncoder::new(hashed, flate2::Compression::new(how.level.into()));
            io::copy(input, &mut encoder)?;
            encoder.finish()?
        }
        Format::Zstd => {
            let mut encoder = zstd::Encoder::new(hashed, how.level.into())?;
            io::copy(input, &mut encoder)?;
            encoder.finish()?
        }
        Format::None => bail!("nothing is to be compressed"),
    };
    Ok((hasher.finish(), size))
}

struct Hashed<'a> {
    file: &'a File,
    hasher: Hasher,
    size: u64,
}

impl Write for Hashed<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.file.write(bytes)?;
        self.hasher.update(&bytes[..count]);
        self.size += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

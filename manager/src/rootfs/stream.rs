//! From a layer's compressed bytes to its folder: two threads, one inflating and hashing, one
//! writing files, so that neither waits for the other.
//!
//! ```text
//! blob's file ──► inflate ► sha256 (diffID) ──64 KiB──► tar ► files
//! ```

use std::fs::File;
use std::io::{self, BufRead, Read};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Barrier};

use super::confine;
use super::reroute::Routes;
use crate::digest::{Digest, Hasher};
use crate::image::media_type::{Compression, sniff};
use crate::store::layers::LayerMeta;
use anyhow::{Context, Result, anyhow, bail};

/// Small enough that the allocator keeps the pages, large enough that channels cost nothing.
pub(crate) const CHUNK: usize = 64 * 1024;

/// Chunks on their way between two threads: a megabyte.
const IN_FLIGHT: usize = 16;

/// zstd's own limit for receivers (RFC 8878 asks for 8 MiB, the tools allow 128).
pub(crate) const LARGEST_ZSTD_WINDOW_LOG: u32 = 27;

/// A layer may unpack to this much whatever its size ...
pub(crate) const FREE_BYTES: u64 = 1024 * 1024 * 1024;
/// ... and to this many times what was read of it beyond: its size is only what a manifest says. Gzip cannot exceed 1032, zstd can by far.
pub(crate) const LARGEST_RATIO: u64 = 200;

/// Unpacks a blob into the empty folder `root`: the digest of its plain tar, and what was unpacked. The process
/// has one thread before, and can do no more than unpack from here on (`confine`).
pub(super) fn unpack(
    blob: Arriving<impl Read + Send>,
    root: OwnedFd,
    expected: &Digest,
    routes: &Routes,
) -> Result<(Digest, LayerMeta)> {
    let (sender, plain) = sync_channel::<Vec<u8>>(IN_FLIGHT);
    let hasher = Hasher::new(expected.algorithm());
    let go = &Barrier::new(2);
    let (inflated, written) = std::thread::scope(|scope| {
        let inflating = scope.spawn(move || {
            go.wait();
            inflate(blob, &sender, hasher)
        });
        // Now that all threads are there, and none has read anything.
        let confined = confine::only_files_and_memory();
        go.wait();
        let written = confined.and_then(|()| super::unpack(Chunks::new(plain), root, routes));
        (inflating.join(), written)
    });
    let inflated = inflated.map_err(|_| anyhow!("the inflating thread panicked"))?;
    match (inflated, written) {
        // Inflating stops for want of a taker when writing fails: that is the cause, then.
        (Err(error), Err(cause)) if error.is::<Stopped>() => Err(cause),
        // And a tar cut short by broken compression is not the tar's fault.
        (Err(error), _) => Err(error),
        (Ok(_), Err(error)) => Err(error),
        (Ok(diff_id), Ok(meta)) => Ok((diff_id, meta)),
    }
}

/// The writing thread is gone.
#[derive(Debug)]
struct Stopped;

impl std::fmt::Display for Stopped {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("unpacking stopped")
    }
}

impl std::error::Error for Stopped {}

fn inflate(
    mut input: Arriving<impl Read>,
    output: &SyncSender<Vec<u8>>,
    mut hasher: Hasher,
) -> Result<Digest> {
    let (size, fed) = (input.size, Arc::clone(&input.read));
    let compression = sniff(input.fill_buf().context("read the blob")?);
    let (name, mut reader): (&str, Box<dyn Read>) = match compression {
        Compression::None => ("tar", Box::new(input)),
        Compression::Gzip => ("gzip stream", gunzip(input)?),
        Compression::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(input).context("start zstd")?;
            decoder.window_log_max(LARGEST_ZSTD_WINDOW_LOG).context("limit zstd")?;
            ("zstd stream", Box::new(decoder))
        }
    };
    let mut total: u64 = 0;
    loop {
        let mut chunk = vec![0; CHUNK];
        let count = fill(&mut reader, &mut chunk).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => anyhow!("its {name} is truncated"),
            _ => anyhow!("its {name} is damaged: {error}"),
        })?;
        if count == 0 {
            return Ok(hasher.finish());
        }
        chunk.truncate(count);
        total += count as u64;
        let allowed = FREE_BYTES.saturating_add(fed.load(Ordering::Relaxed).saturating_mul(LARGEST_RATIO));
        if total > allowed {
            bail!(
                "it unpacks to more than {allowed} bytes from the first {} of {size}, which no honest layer does",
                fed.load(Ordering::Relaxed)
            );
        }
        hasher.update(&chunk);
        if output.send(chunk).is_err() {
            return Err(Stopped.into());
        }
    }
}

/// With ISA-L where that was there when we were built.
#[cfg(isal)]
pub(crate) fn gunzip<'a>(input: impl BufRead + 'a) -> Result<Box<dyn Read + 'a>> {
    Ok(Box::new(crate::sys::isal::Gunzip::new(input).context("start inflating")?))
}

#[cfg(not(isal))]
pub(crate) fn gunzip<'a>(input: impl BufRead + 'a) -> Result<Box<dyn Read + 'a>> {
    Ok(Box::new(flate2::bufread::MultiGzDecoder::new(input)))
}

/// Reads until the buffer is full or the input ends: decoders like to return small pieces.
fn fill(reader: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match reader.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// A blob that is still being written to its file.
pub(super) struct Arriving<P> {
    file: File,
    size: u64,
    /// Tells, in eight bytes, least significant first, how much of it is there; it ends when no more will come.
    progress: P,
    arrived: u64,
    buffer: Vec<u8>,
    position: usize,
    /// The bytes that were read, for whoever holds on to this.
    read: Arc<AtomicU64>,
}

impl<P: Read> Arriving<P> {
    pub(super) fn new(file: File, size: u64, progress: P) -> Self {
        Self { file, size, progress, arrived: 0, buffer: Vec::new(), position: 0, read: Arc::default() }
    }

    /// Waits until there is more than was read, or all; how much that is.
    fn wait(&mut self) -> io::Result<u64> {
        let read = self.read.load(Ordering::Relaxed);
        // The first bytes tell the compression, so they come together.
        let wanted = if read == 0 { 4 } else { read + 1 };
        while self.arrived < wanted.min(self.size) {
            let mut bytes = [0; 8];
            self.progress.read_exact(&mut bytes)?;
            self.arrived = u64::from_le_bytes(bytes).min(self.size);
        }
        Ok(self.arrived - read)
    }
}

impl<P: Read> BufRead for Arriving<P> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.position == self.buffer.len() {
            let more = usize::try_from(self.wait()?).unwrap_or(CHUNK).min(CHUNK);
            self.buffer.resize(more, 0);
            self.position = 0;
            self.file.read_exact(&mut self.buffer)?;
            self.read.fetch_add(more as u64, Ordering::Relaxed);
        }
        Ok(&self.buffer[self.position..])
    }

    fn consume(&mut self, count: usize) {
        self.position += count;
    }
}

impl<P: Read> Read for Arriving<P> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let count = available.len().min(buffer.len());
        buffer[..count].copy_from_slice(&available[..count]);
        self.consume(count);
        Ok(count)
    }
}

/// A channel as a reader.
struct Chunks {
    channel: Receiver<Vec<u8>>,
    chunk: Vec<u8>,
    position: usize,
}

impl Chunks {
    fn new(channel: Receiver<Vec<u8>>) -> Self {
        Self { channel, chunk: Vec::new(), position: 0 }
    }
}

impl Read for Chunks {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.position == self.chunk.len() {
            // The channel closes at the end, also when the sender failed; whoever reports that knows which.
            let Ok(chunk) = self.channel.recv() else { return Ok(0) };
            self.chunk = chunk;
            self.position = 0;
        }
        let count = buffer.len().min(self.chunk.len() - self.position);
        buffer[..count].copy_from_slice(&self.chunk[self.position..self.position + count]);
        self.position += count;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Seek, Write};

    use super::*;
    use crate::digest::Algorithm;

    #[test]
    fn a_bomb_stops_whatever_its_manifest_says_of_its_size() {
        let frame = zstd::encode_all(&vec![0u8; 64 << 20][..], 1).unwrap();
        let mut file = tempfile::tempfile().unwrap();
        for _ in 0..48 {
            file.write_all(&frame).unwrap();
        }
        let length = file.stream_position().unwrap();
        file.rewind().unwrap();
        let blob = Arriving::new(file, u64::MAX, io::Cursor::new(length.to_le_bytes()));
        let (sender, plain) = sync_channel::<Vec<u8>>(IN_FLIGHT);
        let error = std::thread::scope(|scope| {
            let inflating = scope.spawn(move || inflate(blob, &sender, Hasher::new(Algorithm::Sha256)));
            let total: u64 = plain.iter().map(|chunk| chunk.len() as u64).sum();
            assert!(total < 3 * FREE_BYTES, "{total} bytes");
            inflating.join().unwrap().unwrap_err()
        });
        assert!(error.to_string().contains("which no honest layer does"), "{error}");
    }

    #[test]
    fn a_blob_is_read_as_it_arrives() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"abcdefgh").unwrap();
        file.rewind().unwrap();
        let told: Vec<u8> = [1u64, 3, 6, 9].into_iter().flat_map(u64::to_le_bytes).collect();
        let mut blob = Arriving::new(file, 8, &told[..]);
        let mut pieces = Vec::new();
        loop {
            let piece = blob.fill_buf().unwrap().to_vec();
            if piece.is_empty() {
                break;
            }
            blob.consume(piece.len());
            pieces.push(String::from_utf8(piece).unwrap());
        }
        assert_eq!(pieces, ["abcdef", "gh"]);
        let mut cut = Arriving::new(tempfile::tempfile().unwrap(), 8, &told[..8]);
        assert!(cut.fill_buf().is_err(), "the rest never comes");
    }
}

//! From a layer's compressed bytes to its folder: two threads, one inflating and hashing, one
//! writing files, so that neither waits for the other.
//!
//! ```text
//! Feed::send ──64 KiB──► inflate ► sha256 (diffID) ──64 KiB──► tar ► files
//! ```

use std::cell::Cell;
use std::fs::File;
use std::io::{self, BufRead, Read};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{Scope, ScopedJoinHandle};

use super::reroute::Routes;
use super::{confine, unpack};
use crate::digest::{Digest, Hasher};
use crate::image::media_type::{Compression, sniff};
use crate::store::layers::LayerMeta;
use anyhow::{Context, Result, anyhow, bail};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::{Mode, umask};

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

/// The two threads of one layer.
pub(crate) struct Unpacker<'scope> {
    feed: Option<SyncSender<Vec<u8>>>,
    inflate: ScopedJoinHandle<'scope, Result<Digest>>,
    write: ScopedJoinHandle<'scope, Result<LayerMeta>>,
}

impl<'scope> Unpacker<'scope> {
    /// Starts to unpack a layer of `size` compressed bytes into the empty folder `root`.
    pub(crate) fn start(
        scope: &'scope Scope<'scope, '_>,
        root: File,
        expected: &Digest,
        size: u64,
        routes: &'scope Routes,
    ) -> Self {
        let (feed, compressed) = sync_channel::<Vec<u8>>(IN_FLIGHT);
        let (plain_sender, plain) = sync_channel::<Vec<u8>>(IN_FLIGHT);
        let hasher = Hasher::new(expected.algorithm());
        let inflate = scope.spawn(move || inflate(Chunks::new(compressed), &plain_sender, hasher, size));
        let write = scope.spawn(move || {
            confine::to(&root)?;
            // A mask of this thread's own, which lets files be made with their modes.
            unshare(CloneFlags::CLONE_FS).context("unshare(CLONE_FS)")?;
            umask(Mode::empty());
            unpack(Chunks::new(plain), OwnedFd::from(root), routes)
        });
        Self { feed: Some(feed), inflate, write }
    }

    /// Hands on the next compressed bytes; false when nobody wants more, since something failed.
    pub(crate) fn send(&self, chunk: Vec<u8>) -> bool {
        self.feed.as_ref().is_some_and(|feed| feed.send(chunk).is_ok())
    }

    /// Ends the input and waits: the digest of the plain tar, and what was unpacked.
    pub(crate) fn finish(mut self) -> Result<(Digest, LayerMeta)> {
        drop(self.feed.take());
        let inflated = self.inflate.join().map_err(|_| anyhow!("the inflating thread panicked"))?;
        let written = self.write.join().map_err(|_| anyhow!("the unpacking thread panicked"))?;
        match (inflated, written) {
            // Inflating stops for want of a taker when writing fails: that is the cause, then.
            (Err(error), Err(cause)) if is_stopped(&error) => Err(cause),
            // And a tar cut short by broken compression is not the tar's fault.
            (Err(error), _) => Err(error),
            (Ok(_), Err(error)) => Err(error),
            (Ok(diff_id), Ok(meta)) => Ok((diff_id, meta)),
        }
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

fn is_stopped(error: &anyhow::Error) -> bool {
    error.is::<Stopped>()
}

fn inflate(mut input: Chunks, output: &SyncSender<Vec<u8>>, mut hasher: Hasher, size: u64) -> Result<Digest> {
    let fed = Rc::clone(&input.received);
    let compression = sniff(input.start(4)?);
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
        let allowed = FREE_BYTES.saturating_add(fed.get().saturating_mul(LARGEST_RATIO));
        if total > allowed {
            bail!(
                "it unpacks to more than {allowed} bytes from the first {} of {size}, which no honest layer does",
                fed.get()
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

/// A channel as a reader.
struct Chunks {
    channel: Receiver<Vec<u8>>,
    chunk: Vec<u8>,
    position: usize,
    /// The bytes that came, for whoever holds on to this.
    received: Rc<Cell<u64>>,
}

impl Chunks {
    fn new(channel: Receiver<Vec<u8>>) -> Self {
        Self { channel, chunk: Vec::new(), position: 0, received: Rc::default() }
    }

    /// The next chunk; none at the end. The channel closes then, also when the sender failed;
    /// whoever reports that knows which.
    fn receive(&self) -> Option<Vec<u8>> {
        let chunk = self.channel.recv().ok()?;
        self.received.set(self.received.get() + chunk.len() as u64);
        Some(chunk)
    }

    /// The first bytes, at least `count` if there are so many.
    fn start(&mut self, count: usize) -> io::Result<&[u8]> {
        while self.chunk.len() < count {
            let Some(more) = self.receive() else { break };
            self.chunk.extend_from_slice(&more);
        }
        self.fill_buf()
    }
}

impl BufRead for Chunks {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.position == self.chunk.len() {
            let Some(chunk) = self.receive() else { return Ok(&[]) };
            self.chunk = chunk;
            self.position = 0;
        }
        Ok(&self.chunk[self.position..])
    }

    fn consume(&mut self, count: usize) {
        self.position += count;
    }
}

impl Read for Chunks {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let count = available.len().min(buffer.len());
        buffer[..count].copy_from_slice(&available[..count]);
        self.consume(count);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Algorithm;

    #[test]
    fn a_bomb_stops_whatever_its_manifest_says_of_its_size() {
        let frame = zstd::encode_all(&vec![0u8; 64 << 20][..], 1).unwrap();
        let (feed, compressed) = sync_channel::<Vec<u8>>(IN_FLIGHT);
        let (sender, plain) = sync_channel::<Vec<u8>>(IN_FLIGHT);
        let error = std::thread::scope(|scope| {
            scope.spawn(move || while feed.send(frame.clone()).is_ok() {});
            let inflating = scope.spawn(move || {
                inflate(Chunks::new(compressed), &sender, Hasher::new(Algorithm::Sha256), u64::MAX)
            });
            let total: u64 = plain.iter().map(|chunk| chunk.len() as u64).sum();
            assert!(total < 3 * FREE_BYTES, "{total} bytes");
            inflating.join().unwrap().unwrap_err()
        });
        assert!(error.to_string().contains("which no honest layer does"), "{error}");
    }
}

//! A blob's bytes from where it is.

use std::io::Read;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use oci_spec::image::Descriptor;

use super::Source;
use crate::registry::BlobBody;
use crate::rootfs::stream::CHUNK;

/// How often a broken download is taken up again without a single new byte.
const TRIES_WITHOUT_PROGRESS: u32 = 3;

/// The bytes that came are not those that were promised.
#[derive(Debug)]
pub(super) struct WrongContent(pub(super) String);

impl std::fmt::Display for WrongContent {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for WrongContent {}

/// The bytes that came are good, as far as one can tell, but not all came.
#[derive(Debug)]
pub(super) struct Interrupted(pub(super) String);

impl std::fmt::Display for Interrupted {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for Interrupted {}

/// Bytes of a blob coming over the network, taken up again where they broke off.
pub(super) struct Download<'a> {
    source: &'a Source,
    descriptor: &'a Descriptor,
    position: u64,
    end: u64,
    body: Option<BlobBody>,
    /// Breaks since the last byte.
    breaks: u32,
}

impl<'a> Download<'a> {
    /// From `position` to `end`, which is the blob's own or one before it.
    pub(super) fn new(source: &'a Source, descriptor: &'a Descriptor, position: u64, end: u64) -> Self {
        Self { source, descriptor, position, end, body: None, breaks: 0 }
    }

    /// Where the next bytes belong.
    pub(super) fn position(&self) -> u64 {
        self.position
    }

    /// Whether the source sends just these bytes, and not the whole blob whatever it is asked for.
    pub(super) fn is_partial(&mut self) -> bool {
        // What goes wrong here goes wrong again, and is told then.
        self.open().is_ok_and(|body| body.is_part)
    }

    /// The same to the blob's end.
    pub(super) fn whole(mut self) -> Self {
        if self.end != self.descriptor.size() {
            self.end = self.descriptor.size();
            self.body = self.body.filter(|body| !body.is_part);
        }
        self
    }

    /// The next bytes; none at the end.
    pub(super) fn next(&mut self, stop: &AtomicBool) -> Result<Option<Vec<u8>>> {
        let size = self.descriptor.size();
        loop {
            if stop.load(Ordering::Relaxed) {
                return Err(Interrupted("another layer failed".to_owned()).into());
            }
            let is_at_end = self.position == self.end;
            if is_at_end && (self.body.is_none() || self.end < size) {
                if let Some(mut body) = self.body.take() {
                    // Its connection is used again when its end was seen.
                    let _ = body.read(&mut [0]);
                }
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
                Ok(_) if is_at_end => return Ok(None),
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

    fn open(&mut self) -> Result<&mut BlobBody> {
        if self.body.is_none() {
            let mut body = self.source.blob(self.descriptor, self.position, self.end)?;
            let skip = self.position - body.start;
            let skipped = std::io::copy(&mut body.by_ref().take(skip), &mut std::io::sink())?;
            if skipped < skip {
                bail!("the connection ended");
            }
            self.body = Some(body);
        }
        self.body.as_mut().context("it was opened")
    }

    fn read(&mut self) -> Result<Vec<u8>> {
        // Of the blob's end one byte more than promised, to see an endless body.
        let most = self.end - self.position + u64::from(self.end == self.descriptor.size());
        Ok(read_chunk(self.open()?, most)?)
    }
}

/// What can be read at once, up to [`CHUNK`]; nothing at the end.
pub(super) fn read_chunk(reader: &mut impl Read, most: u64) -> std::io::Result<Vec<u8>> {
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

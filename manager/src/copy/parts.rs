//! A blob into its file; a large one in parts, several at once, since one connection is rarely as fast as the line.
//!
//! Parts are written where they belong, so a download that was broken off has holes where bytes are missing: the
//! file system knows, and nothing else has to be kept
//! ([lseek(2)](https://man7.org/linux/man-pages/man2/lseek.2.html), SEEK_HOLE). Whoever takes the bytes gets them
//! in order, from the file.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::atomic::AtomicBool;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::unistd::{Whence, lseek};
use oci_spec::image::Descriptor;

use super::Source;
use super::download::Download;
use super::permits::Permits;
use crate::rootfs::stream::CHUNK;

/// A blob of which so much is missing comes in parts, if its source can.
const PARTS_FROM: u64 = 64 * 1024 * 1024;

/// The size of a part.
const PART: u64 = 16 * 1024 * 1024;

/// Parts of one blob under way at once.
const PARTS_AT_ONCE: usize = 4;

/// The end of what was written may be in the middle of a block, the rest of which looks written too.
const LARGEST_BLOCK: u64 = 64 * 1024;

/// What of a partial download is there.
pub(super) fn present(file: &File) -> nix::Result<Vec<Range<u64>>> {
    let length = u64::try_from(lseek(file, 0, Whence::SeekEnd)?).unwrap_or(0);
    let mut ranges = Vec::new();
    let mut position = 0;
    while position < length {
        let from = libc::off_t::try_from(position).map_err(|_| Errno::EOVERFLOW)?;
        let start = match lseek(file, from, Whence::SeekData) {
            // A hole to the end.
            Err(Errno::ENXIO) => break,
            found => found?,
        };
        let end = u64::try_from(lseek(file, start, Whence::SeekHole)?).unwrap_or(length);
        let start = u64::try_from(start).unwrap_or(0);
        let sure = if end == length { end } else { end.saturating_sub(LARGEST_BLOCK) };
        if sure > start {
            ranges.push(start..sure);
        }
        position = end;
    }
    Ok(ranges)
}

/// Parts end at the same places whenever a download is gone on with.
fn end_of_part(position: u64, size: u64) -> u64 {
    (position / PART).saturating_add(1).saturating_mul(PART).min(size)
}

/// A blob and the file that it comes into.
#[derive(Clone, Copy)]
pub(super) struct Incoming<'a> {
    pub(super) source: &'a Source,
    pub(super) descriptor: &'a Descriptor,
    pub(super) file: &'a File,
    /// Another blob of the same image failed.
    pub(super) stop: &'a AtomicBool,
}

impl Incoming<'_> {
    /// Fetches what is missing from `position` on, and hands the bytes on in order.
    pub(super) fn fetch(self, position: u64, extra: &Permits, mut take: impl FnMut(&[u8])) -> Result<()> {
        let size = self.descriptor.size();
        let end = if size.saturating_sub(position) < PARTS_FROM { size } else { end_of_part(position, size) };
        let mut first = Download::new(self.source, self.descriptor, position, end);
        if end < size && first.is_partial() {
            return self.fetch_parts(first, extra, take);
        }
        self.write(&mut first.whole(), |chunk, _| take(chunk))
    }

    fn write(self, download: &mut Download, mut done: impl FnMut(&[u8], u64)) -> Result<()> {
        let mut position = download.position();
        while let Some(chunk) = download.next(self.stop)? {
            self.file.write_all_at(&chunk, position).context("write the download")?;
            position += chunk.len() as u64;
            done(&chunk, position);
        }
        Ok(())
    }

    fn fetch_parts(self, first: Download, extra: &Permits, mut take: impl FnMut(&[u8])) -> Result<()> {
        let parts = Parts::new(first.position(), self.descriptor.size(), &present(self.file)?);
        // The first part's connection is open.
        let mut first = parts.claim().map(|(index, _)| (index, first));
        std::thread::scope(|scope| {
            for worker in 0..PARTS_AT_ONCE {
                let (first, parts) = (first.take(), &parts);
                scope.spawn(move || self.work(parts, first, (worker > 0).then_some(extra)));
            }
            let followed = self.follow(&parts, &mut take);
            if followed.is_err() {
                parts.give_up();
            }
            followed
        })
    }

    /// One connection: one part after the other.
    fn work<'a>(&'a self, parts: &Parts, mut first: Option<(usize, Download<'a>)>, extra: Option<&Permits>) {
        loop {
            let permit = extra.map(Permits::try_take);
            if let Some(None) = permit {
                // Another blob has them. It may be done before this one is.
                if parts.is_over() {
                    return;
                }
                std::thread::sleep(Duration::from_millis(50));
                continue;
            }
            let claim = || {
                let (index, part) = parts.claim()?;
                Some((index, Download::new(self.source, self.descriptor, part.start, part.end)))
            };
            let Some((index, mut part)) = first.take().or_else(claim) else { return };
            if let Err(error) = self.write(&mut part, |_, position| parts.came(index, position)) {
                return parts.fail(error);
            }
        }
    }

    /// Hands on what has come, as far as all before it has come too.
    fn follow(self, parts: &Parts, take: &mut impl FnMut(&[u8])) -> Result<()> {
        let mut buffer = vec![0; CHUNK];
        let mut position = parts.start;
        while position < self.descriptor.size() {
            let ready = parts.wait_beyond(position)?;
            while position < ready {
                let count = usize::try_from(ready - position).unwrap_or(CHUNK).min(CHUNK);
                self.file.read_exact_at(&mut buffer[..count], position).context("read the download")?;
                take(&buffer[..count]);
                position += count as u64;
            }
        }
        Ok(())
    }
}

/// What is to come, and what has come of it.
struct Parts {
    start: u64,
    state: Mutex<State>,
    news: Condvar,
}

struct State {
    /// From where each part is missing, and its end. They follow each other.
    parts: Vec<Range<u64>>,
    /// The first part that nobody has claimed.
    next: usize,
    failed: Option<anyhow::Error>,
    over: bool,
}

impl Parts {
    fn new(start: u64, size: u64, present: &[Range<u64>]) -> Self {
        let mut parts = Vec::new();
        let mut from = start;
        while from < size {
            let end = end_of_part(from, size);
            let there = present.iter().find(|range| range.contains(&from));
            parts.push(there.map_or(from, |range| range.end.min(end))..end);
            from = end;
        }
        let state = State { parts, next: 0, failed: None, over: false };
        Self { start, state: Mutex::new(state), news: Condvar::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next part of which something is missing.
    fn claim(&self) -> Option<(usize, Range<u64>)> {
        let mut state = self.state();
        while !state.over && state.next < state.parts.len() {
            let index = state.next;
            state.next += 1;
            let part = state.parts[index].clone();
            if !part.is_empty() {
                return Some((index, part));
            }
        }
        None
    }

    fn came(&self, index: usize, position: u64) {
        self.state().parts[index].start = position;
        self.news.notify_all();
    }

    fn fail(&self, error: anyhow::Error) {
        let mut state = self.state();
        state.failed.get_or_insert(error);
        state.over = true;
        self.news.notify_all();
    }

    fn give_up(&self) {
        self.state().over = true;
    }

    /// Nobody has anything left to claim.
    fn is_over(&self) -> bool {
        let state = self.state();
        state.over || state.next >= state.parts.len()
    }

    /// Waits until more than the bytes before `position` have come; up to where all have.
    fn wait_beyond(&self, position: u64) -> Result<u64> {
        let mut state = self.state();
        loop {
            let missing = state.parts.iter().find(|part| !part.is_empty());
            let ready = missing.map_or(u64::MAX, |part| part.start);
            if ready > position {
                let end = state.parts.last().map_or(position, |part| part.end);
                return Ok(ready.min(end));
            }
            if let Some(error) = state.failed.take() {
                return Err(error);
            }
            state = self.news.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_is_told_by_the_holes() {
        let file = tempfile::tempfile().unwrap();
        assert_eq!(present(&file).unwrap(), []);
        let write = |range: Range<u64>| {
            let length = usize::try_from(range.end - range.start).unwrap();
            file.write_all_at(&vec![1; length], range.start).unwrap();
        };
        write(0..100_000);
        assert_eq!(present(&file).unwrap().last(), Some(&(0..100_000)));
        write(PART..PART + 70_000);
        let end = PART + 70_000;
        let found = present(&file).unwrap();
        assert_eq!(found.len(), 2, "{found:?}: the file system knows no holes");
        assert!(
            found[0].start == 0 && (100_000 - LARGEST_BLOCK..=100_000).contains(&found[0].end),
            "{found:?}"
        );
        assert_eq!(found[1], PART..end);
    }

    #[test]
    fn parts_are_claimed_once_and_told_in_order() {
        let parts = Parts::new(100, 4 * PART, &[0..150, PART..2 * PART, 2 * PART..2 * PART + 7]);
        assert_eq!(parts.wait_beyond(100).unwrap(), 150);
        assert_eq!(parts.claim(), Some((0, 150..PART)));
        assert_eq!(parts.claim(), Some((2, 2 * PART + 7..3 * PART)));
        assert!(!parts.is_over());
        assert_eq!(parts.claim(), Some((3, 3 * PART..4 * PART)));
        assert!(parts.is_over() && parts.claim().is_none());
        parts.came(3, 4 * PART);
        parts.came(0, PART);
        assert_eq!(parts.wait_beyond(150).unwrap(), 2 * PART + 7);
        parts.fail(anyhow::anyhow!("broken"));
        assert_eq!(parts.wait_beyond(2 * PART + 7).unwrap_err().to_string(), "broken");
        parts.came(2, 3 * PART);
        assert_eq!(parts.wait_beyond(2 * PART + 7).unwrap(), 4 * PART);
    }
}

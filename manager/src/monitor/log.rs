//! The container's log: docker's json-file format, 10 MiB and two older files of that size.
//! One line is one JSON object: `{"log":"text\n","stream":"stdout","time":"2026-..Z"}`.

use std::fs::{self, File, OpenOptions};
use std::io::{Result, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The size at which a new file is begun.
const FILE_LIMIT: u64 = 10 * 1024 * 1024;
/// Files kept, the newest included.
pub(crate) const FILES: u32 = 3;
/// A line longer than this is written in parts, without a newline at their ends.
const LINE_LIMIT: usize = 16 * 1024;

/// One line of the file, as it is read.
#[derive(Debug, Deserialize)]
pub(crate) struct Entry {
    /// The text, with its newline if it had one.
    pub(crate) log: String,
    /// `stdout` or `stderr`.
    pub(crate) stream: String,
    /// RFC 3339.
    pub(crate) time: String,
}

/// One line of the file, to be written.
#[derive(Serialize)]
struct Line<'a> {
    log: &'a str,
    stream: &'a str,
    time: &'a str,
}

/// The file being written.
#[derive(Debug)]
pub(crate) struct Log {
    path: PathBuf,
    file: File,
    size: u64,
    limit: u64,
    /// Lines that are not in the file yet: thousands go with one write(2).
    buffer: Vec<u8>,
}

/// What one stream has written since its last newline.
#[derive(Debug)]
pub(crate) struct Lines {
    stream: &'static str,
    partial: Vec<u8>,
}

impl Log {
    /// Opens the log, to go on where an earlier start left off.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let file = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            // A planted symlink is an error, not a way to write elsewhere (CVE-2026-53489).
            .custom_flags(libc::O_NOFOLLOW)
            .open(path)?;
        let size = file.metadata()?.len();
        Ok(Self { path: path.to_owned(), size, file, limit: FILE_LIMIT, buffer: Vec::new() })
    }

    fn write(&mut self, text: &[u8], stream: &str, time: &str) -> Result<()> {
        // Docker's readers expect text: what is not UTF-8 becomes U+FFFD, as in docker.
        let log = String::from_utf8_lossy(text);
        let before = self.buffer.len();
        serde_json::to_writer(&mut self.buffer, &Line { log: &log, stream, time })?;
        self.buffer.push(b'\n');
        if self.size > 0 && self.size + self.buffer.len() as u64 > self.limit {
            let line = self.buffer.split_off(before);
            self.flush()?;
            self.rotate()?;
            self.buffer = line;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        let written = self.file.write_all(&self.buffer);
        self.size += self.buffer.len() as u64;
        // Written or not: a disk that is full for a minute must not fill the memory.
        self.buffer.clear();
        written
    }

    fn rotate(&mut self) -> Result<()> {
        for number in (1..FILES).rev() {
            let from = if number == 1 { self.path.clone() } else { numbered(&self.path, number - 1) };
            match fs::rename(from, numbered(&self.path, number)) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        let limit = self.limit;
        *self = Self { limit, ..Self::open(&self.path)? };
        Ok(())
    }
}

/// The name of an older file: `ID-json.log.1` is the newest of them.
pub(crate) fn numbered(path: &Path, number: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    name.into()
}

impl Lines {
    /// For `stdout` or `stderr`.
    pub(crate) fn new(stream: &'static str) -> Self {
        Self { stream, partial: Vec::new() }
    }

    /// Writes the lines that `data` completes.
    pub(crate) fn feed(&mut self, data: &[u8], log: &mut Log) -> Result<()> {
        // One time for all: they came in one read(2).
        let time = Timestamp::now().to_string();
        for part in data.split_inclusive(|&byte| byte == b'\n') {
            if self.partial.is_empty() && part.ends_with(b"\n") && part.len() < LINE_LIMIT {
                log.write(part, self.stream, &time)?;
                continue;
            }
            self.partial.extend_from_slice(part);
            while self.partial.len() >= LINE_LIMIT {
                let rest = self.partial.split_off(character_end(&self.partial, LINE_LIMIT));
                let full = std::mem::replace(&mut self.partial, rest);
                log.write(&full, self.stream, &time)?;
            }
            if part.ends_with(b"\n") && !self.partial.is_empty() {
                log.write(&std::mem::take(&mut self.partial), self.stream, &time)?;
            }
        }
        log.flush()
    }

    /// Writes what has no newline at its end.
    pub(crate) fn finish(&mut self, log: &mut Log) -> Result<()> {
        let rest = std::mem::take(&mut self.partial);
        if rest.is_empty() {
            return Ok(());
        }
        log.write(&rest, self.stream, &Timestamp::now().to_string())?;
        log.flush()
    }
}

/// The largest cut at or before `limit` that does not fall into a UTF-8 character.
fn character_end(text: &[u8], limit: usize) -> usize {
    let continues = |at: &usize| text.get(*at).is_some_and(|byte| byte & 0xc0 == 0x80);
    (limit - 3..=limit).rev().find(|at| !continues(at)).unwrap_or(limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(path: &Path) -> Vec<Entry> {
        let text = fs::read_to_string(path).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[test]
    fn lines_are_whole_and_long_ones_are_cut_between_characters() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let mut log = Log::open(&path).unwrap();
        let mut lines = Lines::new("stdout");
        lines.feed(b"one\ntw", &mut log).unwrap();
        lines.feed(b"o\n", &mut log).unwrap();
        lines.feed("a".as_bytes(), &mut log).unwrap();
        lines.feed("é".repeat(LINE_LIMIT).as_bytes(), &mut log).unwrap();
        lines.finish(&mut log).unwrap();
        let entries = entries(&path);
        assert_eq!((entries[0].log.as_str(), entries[1].log.as_str()), ("one\n", "two\n"));
        assert_eq!(entries[2].log.len(), LINE_LIMIT - 1);
        assert!(entries.iter().all(|entry| !entry.log.contains('\u{fffd}')));
    }

    #[test]
    fn three_files_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let mut log = Log { limit: 200, ..Log::open(&path).unwrap() };
        let mut lines = Lines::new("stderr");
        for number in 0..20 {
            lines.feed(format!("{number}\n").as_bytes(), &mut log).unwrap();
        }
        assert_eq!(entries(&path).last().unwrap().log, "19\n");
        assert!(numbered(&path, 2).exists() && !numbered(&path, 3).exists());
    }
}

//! Where each file of an archive lies, without reading the files: image archives are long, and their parts
//! are read in another order than they stand in.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;

use anyhow::{Context, Result, bail, ensure};
use tar_core::parse::{Limits, ParseEvent, Parser};
use tar_core::{EntryType, HEADER_SIZE};

use super::LARGEST_DOCUMENT;

/// More files than any archive of images has.
const MOST_ENTRIES: usize = 100_000;

/// All headers of one entry together.
const LARGEST_HEADERS: usize = 4 * 1024 * 1024;

/// The content of one file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Part {
    pub(crate) offset: u64,
    pub(crate) size: u64,
}

impl Part {
    /// The whole content, which must be a document's and not a layer's.
    pub(crate) fn read_all(&self, file: &File) -> Result<Vec<u8>> {
        ensure!(self.size <= LARGEST_DOCUMENT, "it has {} bytes, more than {LARGEST_DOCUMENT}", self.size);
        let mut bytes = vec![0; usize::try_from(self.size)?];
        file.read_exact_at(&mut bytes, self.offset).context("read it")?;
        Ok(bytes)
    }

    /// Its first bytes.
    pub(crate) fn start<const N: usize>(&self, file: &File) -> Result<[u8; N]> {
        let mut bytes = [0; N];
        let length = N.min(usize::try_from(self.size).unwrap_or(N));
        file.read_exact_at(&mut bytes[..length], self.offset).context("read it")?;
        Ok(bytes)
    }
}

/// The files of a plain tar by their names, without a leading `./`. A link to a file of the archive, which
/// old versions of docker write for a layer that stands twice, is that file.
pub(crate) fn read(file: &File) -> Result<HashMap<Vec<u8>, Part>> {
    let length = file.metadata().context("look at it")?.len();
    let mut files = HashMap::new();
    let mut links: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
    let mut parser = Parser::new(Limits::default());
    let mut position = 0;
    let mut window = vec![0; HEADER_SIZE];
    let mut filled = 0;
    loop {
        let wanted = window.len();
        filled += read_up_to(file, &mut window[filled..wanted], position + filled as u64)?;
        if filled < HEADER_SIZE {
            ensure!(window[..filled].iter().all(|byte| *byte == 0), "the tar ends in the middle of an entry");
            break;
        }
        let (consumed, content) = match parser.parse(&window[..filled]).context("the tar is malformed")? {
            ParseEvent::NeedData { min_bytes } => {
                ensure!(filled == wanted && wanted < LARGEST_HEADERS, "the tar is malformed");
                window.resize(min_bytes.max(wanted * 2).min(LARGEST_HEADERS), 0);
                continue;
            }
            ParseEvent::End { .. } => break,
            ParseEvent::GlobalExtensions { consumed, .. } => (consumed, 0),
            ParseEvent::SparseEntry { .. } => bail!("a file with holes in an archive of images"),
            ParseEvent::Entry { consumed, entry } => {
                let name = without_dot(&entry.path).to_vec();
                let offset = position + consumed as u64;
                match entry.entry_type {
                    EntryType::Regular | EntryType::Continuous => {
                        let end = offset.checked_add(entry.size).filter(|end| *end <= length);
                        ensure!(
                            end.is_some(),
                            "{}: the tar ends in the middle of it",
                            String::from_utf8_lossy(&name)
                        );
                        files.insert(name, Part { offset, size: entry.size });
                        (consumed, entry.size)
                    }
                    EntryType::Symlink | EntryType::Link => {
                        let target = entry.link_target.as_ref().context("a link without a target")?;
                        let hard = entry.entry_type == EntryType::Link;
                        let from: &[u8] = if hard { b"" } else { parent(&name) };
                        links.push((name.clone(), resolve(from, target)));
                        (consumed, 0)
                    }
                    _ => (consumed, 0),
                }
            }
        };
        ensure!(files.len() + links.len() <= MOST_ENTRIES, "it has more than {MOST_ENTRIES} files");
        let padded = content.checked_next_multiple_of(HEADER_SIZE as u64).context("a size without an end")?;
        position += consumed as u64 + padded;
        window.truncate(HEADER_SIZE);
        filled = 0;
    }
    for (name, target) in links {
        if let Some(part) = files.get(&target).copied() {
            files.insert(name, part);
        }
    }
    Ok(files)
}

fn read_up_to(file: &File, buffer: &mut [u8], position: u64) -> Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(&mut buffer[filled..], position + filled as u64).context("read it")? {
            0 => break,
            count => filled += count,
        }
    }
    Ok(filled)
}

fn without_dot(name: &[u8]) -> &[u8] {
    name.strip_prefix(b"./").unwrap_or(name)
}

fn parent(name: &[u8]) -> &[u8] {
    name.iter().rposition(|byte| *byte == b'/').map_or(b"", |end| &name[..end])
}

/// By its letters: nothing of this ever is a path on this machine.
fn resolve(folder: &[u8], target: &[u8]) -> Vec<u8> {
    let mut parts: Vec<&[u8]> = folder.split(|byte| *byte == b'/').filter(|part| !part.is_empty()).collect();
    for part in target.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => drop(parts.pop()),
            name => parts.push(name),
        }
    }
    parts.join(&b'/')
}

//! A layer's tar, written into a folder for overlayfs; and a folder as a tar.
//!
//! <https://github.com/opencontainers/image-spec/blob/v1.1.1/layer.md>
//!
//! - `confine`: the walls around what unpacks
//! - `entry`: one entry, never outside the folder
//! - `metadata`: its owner, mode, attributes, times
//! - `whiteout`: what says that something below is gone
//! - `overlay`: the layers of an image as one root filesystem
//! - `pack`: the way back, a folder as a tar
//! - `parents`: folders that layers leave out, corrected over the whole image
//! - `reroute`: layers that go through symbolic links of lower ones
//! - `same`: whether two folders hold the same
//! - `stream`: compressed bytes in, folder out, on two threads
//! - `unpacker`: a process of its own for that, from outside

pub(crate) mod confine;
pub(crate) mod entry;
pub(crate) mod metadata;
pub(crate) mod overlay;
pub(crate) mod pack;
pub(crate) mod parents;
pub(crate) mod reroute;
pub(crate) mod same;
pub(crate) mod stream;
pub(crate) mod unpacker;
pub(crate) mod whiteout;
mod xattr;

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;

use anyhow::{Context, Result, bail};
use nix::fcntl::{FallocateFlags, fallocate};
use tar_core::parse::{Limits, ParseEvent, ParsedEntry, Parser};
use tar_core::{EntryType, HEADER_SIZE, PaxExtensions, SparseEntry};

use crate::store::layers::LayerMeta;
use entry::{Kind, Tree, show};
use metadata::{Metadata, stored_xattr_name};
use reroute::Routes;

/// More entries than any honest layer has, with the folders they imply; each costs an inode.
const MOST_ENTRIES: u64 = 5_000_000;

/// A layer may leave out the entries of this many folders whatever it has ...
const FREE_IMPLICIT: u64 = 4096;
/// ... and of this many for each entry that it has. Otherwise an entry of some bytes would cost as
/// many inodes as its path has parts.
const IMPLICIT_PER_ENTRY: u64 = 8;

/// All headers of one entry together. The parser limits each kind; a map of holes without an end it
/// would wait for for ever.
const LARGEST_HEADERS: usize = 4 * 1024 * 1024;

/// Files from this size on are allocated at once: less fragmentation, and a full disk is noticed
/// before the bytes are there.
const ALLOCATE_FROM: u64 = 1024 * 1024;

/// Unpacks a layer's plain tar into the empty folder `root`, to its end, its entries where the routes lead.
fn unpack(tar: impl Read, root: OwnedFd, routes: &Routes) -> Result<LayerMeta> {
    let mut unpacking =
        Unpacking { input: Input::new(tar), tree: Tree::new(root), meta: LayerMeta::default() };
    let mut parser =
        Parser::new(Limits { max_path_len: Some(libc::PATH_MAX.unsigned_abs()), ..Limits::default() });
    // It knows no times before 1970. `Pax` reads them, and refuses what else it would let pass.
    parser.set_ignore_pax_errors(true);
    while let Some(mut item) = unpacking.next(&mut parser)? {
        let path = item.path.clone();
        item.follow(routes).with_context(|| format!("entry {}", show(&path)))?;
        unpacking.write(item).with_context(|| format!("entry {}", show(&path)))?;
    }
    unpacking.input.drain()?;
    let Unpacking { tree, mut meta, .. } = unpacking;
    let finished = tree.finish()?;
    // A name that is not UTF-8 is not corrected by `parents`: its folder stays root's with 0755.
    let names = |paths: BTreeSet<Vec<u8>>| -> Vec<String> {
        paths.into_iter().filter_map(|path| String::from_utf8(path).ok()).collect()
    };
    meta.implicit = names(finished.implicit);
    meta.with_whiteouts = names(finished.with_whiteouts);
    meta.hollow = names(finished.hollow);
    meta.opaque_root = finished.opaque_root;
    Ok(meta)
}

struct Unpacking<R> {
    input: Input<R>,
    tree: Tree,
    meta: LayerMeta,
}

/// An entry of the tar, owned, with its content still in the input.
struct Item {
    path: Vec<u8>,
    kind: Kind,
    metadata: Metadata,
    /// Bytes of content in the tar, before padding.
    size: u64,
    /// Where they belong, and the file's whole size, if it has holes.
    sparse: Option<(Vec<SparseEntry>, u64)>,
}

impl Item {
    fn follow(&mut self, routes: &Routes) -> Result<()> {
        if let Some(real) = routes.real(&self.path)? {
            self.path = real;
        }
        if let Kind::HardLink(target) = &mut self.kind
            && let Some(real) = routes.real(target)?
        {
            *target = real;
        }
        Ok(())
    }
}

impl<R: Read> Unpacking<R> {
    /// The next entry; none at the end.
    fn next(&mut self, parser: &mut Parser) -> Result<Option<Item>> {
        loop {
            if !self.input.fill(HEADER_SIZE)? {
                let rest = self.input.available();
                // An end marker is customary; a tar that just stops between entries is whole too.
                if rest.iter().all(|byte| *byte == 0) {
                    return Ok(None);
                }
                bail!("the tar ends in the middle of an entry");
            }
            let lone_zeros = self.input.available()[..HEADER_SIZE].iter().all(|byte| *byte == 0);
            let event = parser.parse(self.input.available()).context("the tar is malformed")?;
            if lone_zeros && matches!(event, ParseEvent::Entry { .. } | ParseEvent::SparseEntry { .. }) {
                // Some readers stop at one block of zeros, some go on: one tar, two contents.
                bail!("the tar is malformed: a block of zeros stands between its entries");
            }
            let (consumed, item) = match event {
                ParseEvent::NeedData { min_bytes } => {
                    let have = self.input.available().len();
                    if have.max(min_bytes) >= LARGEST_HEADERS {
                        bail!(
                            "the tar is malformed: an entry has {LARGEST_HEADERS} bytes of headers or more"
                        );
                    }
                    // The parser starts anew each time; twice as much each time keeps that cheap.
                    self.input.fill(min_bytes.max(have * 2).min(LARGEST_HEADERS))?;
                    if self.input.available().len() == have {
                        // One block of zeros, where two are customary.
                        if lone_zeros && have == HEADER_SIZE {
                            return Ok(None);
                        }
                        bail!("the tar ends in the middle of an entry");
                    }
                    continue;
                }
                ParseEvent::End { .. } => return Ok(None),
                // Defaults for all entries, used by nobody for layers; `git archive` leaves a
                // comment there.
                ParseEvent::GlobalExtensions { consumed, .. } => (consumed, None),
                ParseEvent::Entry { consumed, entry } => (consumed, Some(item(&entry, None)?)),
                ParseEvent::SparseEntry { consumed, entry, sparse_map, real_size } => {
                    (consumed, Some(item(&entry, Some((sparse_map, real_size)))?))
                }
            };
            self.input.consume(consumed);
            if item.is_some() {
                return Ok(item);
            }
        }
    }

    fn write(&mut self, item: Item) -> Result<()> {
        self.meta.entries += 1;
        let made = self.tree.make(&item.path, &item.kind, &item.metadata)?;
        let implicit = self.tree.made_implicitly();
        if self.meta.entries + implicit > MOST_ENTRIES {
            bail!("the layer has more than {MOST_ENTRIES} entries and folders");
        }
        if implicit > FREE_IMPLICIT + self.meta.entries * IMPLICIT_PER_ENTRY {
            bail!(
                "{implicit} folders have no entry of their own, which is too many for {} entries",
                self.meta.entries
            );
        }
        let Some(file) = made else { return self.input.skip(padded(item.size)?) };
        let file = File::from(file);
        match &item.sparse {
            None => self.fill_file(&file, item.size)?,
            Some((map, real_size)) => self.fill_sparse(&file, map, *real_size, item.size)?,
        }
        self.input.skip_padding(padded(item.size)? - item.size)?;
        self.tree.finish_file(&OwnedFd::from(file), &item.metadata)
    }

    fn fill_file(&mut self, mut file: &File, size: u64) -> Result<()> {
        if size >= ALLOCATE_FROM {
            allocate(file, size)?;
        }
        self.meta.size += size;
        self.input.copy(size, |bytes| file.write_all(bytes)).context("write it")
    }

    fn fill_sparse(&mut self, file: &File, map: &[SparseEntry], real_size: u64, size: u64) -> Result<()> {
        let mut position = 0;
        let mut stored: u64 = 0;
        for part in map {
            let end = part.offset.checked_add(part.length).filter(|end| *end <= real_size);
            let (Some(end), true) = (end, part.offset >= position) else {
                bail!("its map of holes is not in order");
            };
            position = end;
            stored += part.length;
        }
        if stored != size {
            bail!("its map of holes tells of {stored} bytes, its header of {size}");
        }
        file.set_len(real_size).context("set its size")?;
        for part in map {
            let mut offset = part.offset;
            self.input
                .copy(part.length, |bytes| {
                    file.write_all_at(bytes, offset)?;
                    offset += bytes.len() as u64;
                    Ok(())
                })
                .context("write it")?;
        }
        self.meta.size += real_size;
        Ok(())
    }
}

fn allocate(file: &File, size: u64) -> Result<()> {
    let Ok(length) = libc::off_t::try_from(size) else { bail!("it claims {size} bytes") };
    match fallocate(file, FallocateFlags::empty(), 0, length) {
        // Not every file system can; writing finds out then.
        Err(nix::errno::Errno::EOPNOTSUPP) => Ok(()),
        other => other.with_context(|| format!("allocate {size} bytes")),
    }
}

fn padded(size: u64) -> Result<u64> {
    size.checked_next_multiple_of(HEADER_SIZE as u64).with_context(|| format!("it claims {size} bytes"))
}

fn item(entry: &ParsedEntry<'_>, sparse: Option<(Vec<SparseEntry>, u64)>) -> Result<Item> {
    read_item(entry, sparse).with_context(|| format!("entry {}", show(&entry.path)))
}

fn read_item(entry: &ParsedEntry<'_>, sparse: Option<(Vec<SparseEntry>, u64)>) -> Result<Item> {
    let target = || -> Result<Vec<u8>> {
        let target = entry.link_target.as_ref().context("the link has no target")?;
        Ok(target.to_vec())
    };
    let device = || (entry.dev_major.unwrap_or(0), entry.dev_minor.unwrap_or(0));
    let kind = match entry.entry_type {
        // Archives older than POSIX mark a folder by a slash only.
        EntryType::Regular | EntryType::Continuous if entry.path.ends_with(b"/") => Kind::Directory,
        EntryType::Regular | EntryType::Continuous | EntryType::GnuSparse => Kind::File,
        EntryType::Link => Kind::HardLink(target()?),
        EntryType::Symlink => Kind::Symlink(target()?),
        EntryType::Directory => Kind::Directory,
        EntryType::Fifo => Kind::Fifo,
        EntryType::Char => Kind::CharacterDevice(device().0, device().1),
        EntryType::Block => Kind::BlockDevice(device().0, device().1),
        other => bail!("its type {:?} is not supported", char::from(other.as_byte())),
    };
    let mut xattrs = Vec::with_capacity(entry.xattrs.len());
    for (name, value) in &entry.xattrs {
        xattrs.push((stored_xattr_name(name)?, value.to_vec()));
    }
    let pax = Pax::read(entry)?;
    if sparse.is_some() && pax.has_size {
        // Two sizes, and readers differ in which one counts.
        bail!("a file with holes and a PAX size is not supported");
    }
    // Other entries have no content whatever size their header states: the rule of Go's reader.
    let has_content =
        matches!(entry.entry_type, EntryType::Regular | EntryType::Continuous | EntryType::GnuSparse);
    let size = if has_content { entry.size } else { 0 };
    let metadata = Metadata {
        uid: identity(entry.uid)?,
        gid: identity(entry.gid)?,
        mode: entry.mode & 0o7777,
        mtime: pax.mtime.unwrap_or((i64::try_from(entry.mtime).unwrap_or(i64::MAX), 0)),
        xattrs,
    };
    Ok(Item { path: entry.path.to_vec(), kind, metadata, size, sparse })
}

/// User and group ids end before the number that means "none".
fn identity(id: u64) -> Result<u32> {
    match u32::try_from(id) {
        Ok(id) if id != u32::MAX => Ok(id),
        _ => bail!("the owner {id} is not a valid id"),
    }
}

/// What the parser leaves in the extended header.
#[derive(Default)]
struct Pax {
    mtime: Option<(i64, i64)>,
    has_size: bool,
}

impl Pax {
    fn read(entry: &ParsedEntry<'_>) -> Result<Self> {
        let records = entry.pax.unwrap_or_default();
        if !whole_records(records) {
            bail!("its PAX header is malformed");
        }
        let mut found = Self::default();
        for extension in PaxExtensions::new(records) {
            let extension = extension.context("its PAX header is malformed")?;
            match extension.key_bytes() {
                b"mtime" => found.mtime = Some(pax_time(extension.value_bytes())?),
                b"size" => found.has_size = true,
                _ => {}
            }
            check_number(extension.key_bytes(), extension.value_bytes())?;
        }
        Ok(found)
    }
}

/// Refuses what the parser would pass over, to use a number from elsewhere instead.
fn check_number(key: &[u8], value: &[u8]) -> Result<()> {
    const NUMBERS: [&str; 9] = [
        "size",
        "uid",
        "gid",
        "GNU.sparse.size",
        "GNU.sparse.realsize",
        "GNU.sparse.offset",
        "GNU.sparse.numbytes",
        "GNU.sparse.major",
        "GNU.sparse.minor",
    ];
    let text = std::str::from_utf8(value).ok();
    let valid = match std::str::from_utf8(key) {
        Ok("GNU.sparse.map") => text.is_some(),
        Ok(key) if NUMBERS.contains(&key) => text.is_some_and(|text| text.parse::<u64>().is_ok()),
        // A name that is no text is nobody's name for a number.
        Ok(_) | Err(_) => true,
    };
    if !valid {
        bail!(
            "its PAX header is malformed: {:?} is {:?}",
            String::from_utf8_lossy(key),
            String::from_utf8_lossy(value)
        );
    }
    Ok(())
}

/// Whether `data` is records of `<length> <key>=<value>\n` and nothing else. The parser's iterator
/// takes a length that is no number for the end; another reader would not, and see other values
/// (RUSTSEC-2026-0112).
fn whole_records(mut data: &[u8]) -> bool {
    while !data.is_empty() {
        let digits = data.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let length = std::str::from_utf8(&data[..digits]).ok().and_then(|text| text.parse::<usize>().ok());
        let record = length.and_then(|length| data.get(..length));
        match record {
            Some(record) if record.get(digits) == Some(&b' ') && record.ends_with(b"\n") => {
                data = &data[record.len()..];
            }
            _ => return false,
        }
    }
    true
}

/// Decimal seconds with a fraction: the parser keeps whole seconds only.
fn pax_time(text: &[u8]) -> Result<(i64, i64)> {
    let text = std::str::from_utf8(text).context("its time is not a number")?;
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = seconds.parse().with_context(|| format!("its time {text:?} is not a number"))?;
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        bail!("its time {text:?} is not a number");
    }
    let digits: String = fraction.chars().chain("000000000".chars()).take(9).collect();
    let nanoseconds = digits.parse().unwrap_or(0);
    // The fraction of a time before 1970 leads further back, nanoseconds always count forward.
    if text.starts_with('-') && nanoseconds > 0 {
        let seconds = seconds.checked_sub(1).with_context(|| format!("its time {text:?} is too long ago"))?;
        return Ok((seconds, 1_000_000_000 - nanoseconds));
    }
    Ok((seconds, nanoseconds))
}

/// A reader with a window that the parser can look at.
struct Input<R> {
    reader: R,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

impl<R: Read> Input<R> {
    fn new(reader: R) -> Self {
        Self { reader, buffer: vec![0; 128 * 1024], start: 0, end: 0 }
    }

    fn available(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    fn consume(&mut self, count: usize) {
        self.start += count;
    }

    /// Has at least `count` bytes in the window; false at the end of input.
    fn fill(&mut self, count: usize) -> Result<bool> {
        while self.end - self.start < count {
            if self.start > 0 && (self.buffer.len() - self.start < count || self.start == self.end) {
                self.buffer.copy_within(self.start..self.end, 0);
                self.end -= self.start;
                self.start = 0;
            }
            if self.buffer.len() < count {
                // Bounded: the parser refuses longer headers (`Limits`).
                self.buffer.resize(count.next_power_of_two(), 0);
            }
            if self.read_more()? == 0 {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn read_more(&mut self) -> Result<usize> {
        let count = self.reader.read(&mut self.buffer[self.end..])?;
        self.end += count;
        Ok(count)
    }

    /// Hands `count` bytes of content on, piece by piece.
    fn copy(&mut self, mut count: u64, mut take: impl FnMut(&[u8]) -> io::Result<()>) -> Result<()> {
        while count > 0 {
            if self.start == self.end {
                (self.start, self.end) = (0, 0);
                if self.read_more()? == 0 {
                    bail!("the tar ends in the middle of an entry");
                }
            }
            let piece = usize::try_from(count).unwrap_or(usize::MAX).min(self.end - self.start);
            take(&self.buffer[self.start..self.start + piece])?;
            self.start += piece;
            count -= piece as u64;
        }
        Ok(())
    }

    fn skip(&mut self, count: u64) -> Result<()> {
        self.copy(count, |_| Ok(()))
    }

    /// What is missing of it at the end of the tar, nobody misses: umoci 0.4 writes none there, and Go's
    /// reader, which is most engines', takes that.
    fn skip_padding(&mut self, count: u64) -> Result<()> {
        let count = usize::try_from(count)?;
        self.fill(count)?;
        self.consume(count.min(self.available().len()));
        Ok(())
    }

    /// Reads on to the end, so that the digest covers all.
    fn drain(&mut self) -> Result<()> {
        loop {
            (self.start, self.end) = (0, 0);
            if self.read_more()? == 0 {
                return Ok(());
            }
        }
    }
}

//! Tars, honest and otherwise.

use tar_core::EntryType;
use tar_core::builder::EntryBuilder;

/// A layer's tar being made.
#[derive(Default, Clone)]
pub(crate) struct Tar {
    bytes: Vec<u8>,
}

/// What an entry says beside its name and content.
#[derive(Clone, Copy)]
pub(crate) struct Meta<'a> {
    pub(crate) mode: u32,
    pub(crate) uid: u64,
    pub(crate) gid: u64,
    pub(crate) xattrs: &'a [(&'a str, &'a [u8])],
    pub(crate) mtime: &'a str,
}

pub(crate) const FILE: Meta<'static> = Meta { mode: 0o644, uid: 0, gid: 0, xattrs: &[], mtime: "" };
pub(crate) const DIR: Meta<'static> = Meta { mode: 0o755, ..FILE };

impl Tar {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn dir(self, path: &str) -> Self {
        self.dir_with(path, DIR)
    }

    pub(crate) fn dir_with(self, path: &str, meta: Meta<'_>) -> Self {
        self.entry(EntryType::Directory, path, None, b"", meta, None)
    }

    pub(crate) fn file(self, path: &str, content: impl AsRef<[u8]>) -> Self {
        self.file_with(path, content, FILE)
    }

    pub(crate) fn file_with(self, path: &str, content: impl AsRef<[u8]>, meta: Meta<'_>) -> Self {
        self.entry(EntryType::Regular, path, None, content.as_ref(), meta, None)
    }

    pub(crate) fn symlink(self, path: &str, target: &str) -> Self {
        self.entry(EntryType::Symlink, path, Some(target), b"", FILE, None)
    }

    pub(crate) fn hard_link(self, path: &str, target: &str) -> Self {
        self.entry(EntryType::Link, path, Some(target), b"", FILE, None)
    }

    pub(crate) fn fifo(self, path: &str) -> Self {
        self.entry(EntryType::Fifo, path, None, b"", FILE, None)
    }

    pub(crate) fn device(self, path: &str, major: u32, minor: u32) -> Self {
        self.entry(EntryType::Char, path, None, b"", FILE, Some((major, minor)))
    }

    pub(crate) fn entry(
        mut self,
        kind: EntryType,
        path: &str,
        target: Option<&str>,
        content: &[u8],
        meta: Meta<'_>,
        device: Option<(u32, u32)>,
    ) -> Self {
        let mut entry = EntryBuilder::new_ustar();
        entry.entry_type(kind).path(path);
        entry.mode(meta.mode).expect("mode").uid(meta.uid).expect("uid").gid(meta.gid).expect("gid");
        entry.mtime(1_600_000_000).expect("mtime").size(content.len() as u64).expect("size");
        if let Some(target) = target {
            entry.link_name(target);
        }
        if let Some((major, minor)) = device {
            entry.device(major, minor).expect("device");
        }
        for (name, value) in meta.xattrs {
            entry.add_pax(&format!("SCHILY.xattr.{name}"), value);
        }
        if !meta.mtime.is_empty() {
            entry.add_pax("mtime", meta.mtime);
        }
        self.bytes.extend(entry.finish_bytes());
        self.bytes.extend(content);
        self.bytes.resize(self.bytes.len().next_multiple_of(512), 0);
        self
    }

    /// Bytes as they are.
    pub(crate) fn raw(mut self, bytes: &[u8]) -> Self {
        self.bytes.extend(bytes);
        self
    }

    /// The tar with its end marker.
    pub(crate) fn finish(self) -> Vec<u8> {
        let mut bytes = self.bytes;
        bytes.extend([0; 1024]);
        bytes
    }
}

//! A folder as a tar, which [`unpack`](super::unpack) and every other tar reads: PAX headers where the plain
//! ones are too small, extended attributes as `SCHILY.xattr`, large holes as GNU's format 1.0.
//!
//! Somebody may be changing the folder meanwhile, and may want us to read something else: every entry is
//! opened by its own name in its open parent, not following links, and what was opened is what is looked at
//! and read.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use anyhow::{Context, Result, bail};
use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat, openat2, readlinkat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, major, minor};
use rustix::fs::SeekFrom as Extent;
use tar_core::builder::EntryBuilder;
use tar_core::{EntryType, HEADER_SIZE, SparseEntry};

use super::entry::show;
use super::xattr;

/// Smaller holes are written as zeros: not every reader of tars knows holes.
const HOLES_FROM: u64 = 1024 * 1024;

/// GNU tar's unit.
const RECORD: u64 = 10240;

/// Writes all that is in `root` as a tar, folders before their content, in the order of names. Mounts inside
/// are left out: only the places where they are stand in it. What a tar cannot hold is told of through `warn`.
pub(crate) fn pack(root: OwnedFd, out: impl Write, warn: &mut dyn FnMut(&str)) -> Result<()> {
    let mut packing = Packing { out, written: 0, links: HashMap::new(), warn };
    packing.folder(root, b"")?;
    packing.finish()
}

struct Packing<'a, W> {
    out: W,
    written: u64,
    /// Where the first name of a file with several stands, by device and inode.
    links: HashMap<(u64, u64), Vec<u8>>,
    warn: &'a mut dyn FnMut(&str),
}

/// What one name stands for.
pub(super) struct Found {
    /// O_PATH: it says what it is, and is opened through /proc.
    pub(super) file: OwnedFd,
    pub(super) stat: FileStat,
    /// Something is mounted there.
    mounted: bool,
}

impl Found {
    /// Opens a name of a folder; none when it is gone again.
    pub(super) fn open(folder: BorrowedFd<'_>, name: &OsStr) -> Result<Option<Self>> {
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let resolve = ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_XDEV;
        let (file, mounted) = match openat2(folder, name, OpenHow::new().flags(flags).resolve(resolve)) {
            Err(Errno::ENOENT) => return Ok(None),
            Err(Errno::EXDEV) => (openat(folder, name, flags, Mode::empty()).context("open it")?, true),
            other => (other.context("open it")?, false),
        };
        let stat = fstat(&file).context("look at it")?;
        Ok(Some(Self { file, stat, mounted }))
    }

    pub(super) fn kind(&self) -> SFlag {
        SFlag::from_bits_truncate(self.stat.st_mode & SFlag::S_IFMT.bits())
    }

    /// The same file or folder, to be read.
    pub(super) fn reopen(&self, flags: OFlag) -> Result<OwnedFd> {
        let path = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        nix::fcntl::open(path.as_str(), flags | OFlag::O_CLOEXEC, Mode::empty()).context("open it")
    }
}

impl<W: Write> Packing<'_, W> {
    fn folder(&mut self, folder: OwnedFd, path: &[u8]) -> Result<()> {
        let mut names = names(&folder).with_context(|| format!("list {}", show(path)))?;
        names.sort_unstable();
        for name in names {
            let path = if path.is_empty() {
                name.as_bytes().to_vec()
            } else {
                [path, b"/", name.as_bytes()].concat()
            };
            self.entry(folder.as_fd(), &name, &path).with_context(|| format!("pack {}", show(&path)))?;
        }
        Ok(())
    }

    fn entry(&mut self, folder: BorrowedFd<'_>, name: &OsStr, path: &[u8]) -> Result<()> {
        let Some(found) = Found::open(folder, name)? else { return Ok(()) };
        if path.len() >= libc::PATH_MAX.unsigned_abs() as usize {
            bail!("its path has {} bytes, more than can be unpacked again", path.len());
        }
        let mut header = EntryBuilder::new_ustar();
        header.set_extension_mode(tar_core::builder::ExtensionMode::Pax);
        describe(&mut header, &found)?;
        match found.kind() {
            SFlag::S_IFDIR => {
                header.path([path, b"/"].concat()).entry_type(EntryType::Directory);
                self.write(&header.finish_bytes())?;
                if found.mounted {
                    return Ok(());
                }
                return self.folder(found.reopen(OFlag::O_RDONLY | OFlag::O_DIRECTORY)?, path);
            }
            SFlag::S_IFSOCK => {
                (self.warn)(&format!("{}: a tar cannot hold sockets: left out", show(path)));
                return Ok(());
            }
            _ => {}
        }
        header.path(path);
        if found.stat.st_nlink > 1 && !found.mounted {
            let inode = (found.stat.st_dev, found.stat.st_ino);
            if let Some(first) = self.links.get(&inode) {
                header.link_name(first).entry_type(EntryType::Link);
                return self.write(&header.finish_bytes());
            }
            self.links.insert(inode, path.to_vec());
        }
        match found.kind() {
            SFlag::S_IFREG => return self.file(header, &found, path),
            SFlag::S_IFLNK => {
                let target = readlinkat(&found.file, "").context("read the link")?;
                header.link_name(target.as_bytes()).entry_type(EntryType::Symlink);
            }
            SFlag::S_IFIFO => {
                header.entry_type(EntryType::Fifo);
            }
            kind @ (SFlag::S_IFCHR | SFlag::S_IFBLK) => {
                let number = |part: u64| u32::try_from(part).context("its device number is too large");
                let device = found.stat.st_rdev;
                header.device(number(major(device))?, number(minor(device))?).context("its device number")?;
                let is_block = kind == SFlag::S_IFBLK;
                header.entry_type(if is_block { EntryType::Block } else { EntryType::Char });
            }
            other => bail!("it is of an unknown kind, {other:?}"),
        }
        self.write(&header.finish_bytes())
    }

    fn file(&mut self, mut header: EntryBuilder, found: &Found, path: &[u8]) -> Result<()> {
        header.entry_type(EntryType::Regular);
        if found.mounted {
            return self.write(&header.finish_bytes());
        }
        let mut file = File::from(found.reopen(OFlag::O_RDONLY | OFlag::O_NOATIME)?);
        let size = file.metadata().context("look at it")?.len();
        let parts = extents(&file, size)?;
        let stored = parts.iter().map(|part| part.length).sum();
        header.size(stored).context("its size")?;
        if stored < size {
            header.sparse(&parts, size);
        }
        self.write(&header.finish_bytes())?;
        let mut missing = 0;
        for part in &parts {
            file.seek(SeekFrom::Start(part.offset)).context("read it")?;
            let copied = std::io::copy(&mut (&file).take(part.length), &mut self.out)
                .context("copy its content into the tar")?;
            missing += part.length - copied;
            self.zeros(part.length - copied)?;
        }
        self.written += stored - missing;
        self.zeros(stored.next_multiple_of(HEADER_SIZE as u64) - stored)?;
        if missing > 0 {
            (self.warn)(&format!("{}: it became shorter meanwhile: filled up with zeros", show(path)));
        }
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.out.write_all(bytes).context("write the tar")?;
        self.written += bytes.len() as u64;
        Ok(())
    }

    fn zeros(&mut self, count: u64) -> Result<()> {
        std::io::copy(&mut std::io::repeat(0).take(count), &mut self.out).context("write the tar")?;
        self.written += count;
        Ok(())
    }

    /// Two blocks of zeros, and more up to a whole record.
    fn finish(mut self) -> Result<()> {
        let end = self.written + 2 * HEADER_SIZE as u64;
        self.zeros(end.next_multiple_of(RECORD) - self.written)?;
        self.out.flush().context("write the tar")
    }
}

/// The names in a folder.
pub(super) fn names(folder: &OwnedFd) -> Result<Vec<OsString>> {
    let mut dir = Dir::from_fd(folder.try_clone()?)?;
    let mut names = Vec::new();
    for entry in dir.iter() {
        let name = entry?.file_name().to_bytes().to_vec();
        if name != b"." && name != b".." {
            names.push(OsString::from_vec(name));
        }
    }
    Ok(names)
}

/// Owner, mode, time and attributes. The time is in whole seconds, as others write it.
fn describe(header: &mut EntryBuilder, found: &Found) -> Result<()> {
    let stat = &found.stat;
    header.mode(stat.st_mode & 0o7777).context("its mode")?;
    header.uid(stat.st_uid.into()).context("its owner")?;
    header.gid(stat.st_gid.into()).context("its group")?;
    match u64::try_from(stat.st_mtime) {
        Ok(time) => drop(header.mtime(time).context("its time")?),
        Err(_) => drop(header.add_pax("mtime", stat.st_mtime.to_string())),
    }
    for (name, value) in xattr::all(&found.file).context("read its extended attributes")? {
        let Some(name) = name.to_str().ok().filter(|name| !name.starts_with("trusted.overlay.")) else {
            continue;
        };
        header.add_pax(&format!("SCHILY.xattr.{name}"), value);
    }
    Ok(())
}

/// Where the file has content: all of it, if it has no holes worth it.
fn extents(file: &File, size: u64) -> Result<Vec<SparseEntry>> {
    let whole = vec![SparseEntry { offset: 0, length: size }];
    let blocks = std::os::unix::fs::MetadataExt::blocks(&file.metadata().context("look at it")?);
    if blocks * 512 + HOLES_FROM > size {
        return Ok(whole);
    }
    let mut parts = Vec::new();
    let mut position = 0;
    while position < size {
        let offset = match rustix::fs::seek(file, Extent::Data(position)) {
            Ok(offset) => offset.min(size),
            Err(rustix::io::Errno::NXIO) => break,
            Err(rustix::io::Errno::INVAL) => return Ok(whole),
            Err(errno) => return Err(errno).context("look for its holes"),
        };
        position = rustix::fs::seek(file, Extent::Hole(offset)).context("look for its holes")?.min(size);
        if position > offset {
            parts.push(SparseEntry { offset, length: position - offset });
        }
    }
    // Readers learn the size from the last part.
    if parts.last().is_none_or(|last| last.offset + last.length < size) {
        parts.push(SparseEntry { offset: size, length: 0 });
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, chown, symlink};
    use std::path::Path;
    use std::process::Command;

    use super::*;

    fn packed(folder: &Path) -> (Vec<u8>, Vec<String>) {
        let (mut tar, mut told) = (Vec::new(), Vec::new());
        let mut warn = |text: &str| told.push(text.to_owned());
        pack(File::open(folder).unwrap().into(), &mut tar, &mut warn).unwrap();
        (tar, told)
    }

    fn fill(folder: &Path) {
        let path = |name: &str| folder.join(name);
        fs::create_dir_all(path("deep/er")).unwrap();
        fs::write(path("deep/file"), "content").unwrap();
        fs::hard_link(path("deep/file"), path("deep/second")).unwrap();
        symlink("/nowhere", path("link")).unwrap();
        symlink("x".repeat(300), path("long-link")).unwrap();
        fs::hard_link(path("link"), path("link-again")).unwrap();
        fs::write(path(&"n".repeat(200)), "long name").unwrap();
        nix::unistd::mkfifo(&path("fifo"), Mode::from_bits_truncate(0o600)).unwrap();
        fs::write(path("mode"), "").unwrap();
        chown(path("mode"), Some(3_000_000), Some(7)).unwrap();
        fs::set_permissions(path("mode"), fs::Permissions::from_mode(0o4751)).unwrap();
        let holes = File::create(path("holes")).unwrap();
        holes.set_len(64 << 20).unwrap();
        holes.write_all_at(b"middle", 32 << 20).unwrap();
        let empty = File::create(path("only-a-hole")).unwrap();
        empty.set_len(8 << 20).unwrap();
        let device = nix::sys::stat::makedev(1, 3);
        nix::sys::stat::mknod(&path("null"), SFlag::S_IFCHR, Mode::from_bits_truncate(0o666), device)
            .unwrap();
        xattr::set(File::open(path("deep")).unwrap(), c"trusted.note", b"\0binary\n=").unwrap();
        let before = nix::sys::time::TimeSpec::new(-5, 0);
        nix::sys::stat::futimens(File::open(path("mode")).unwrap(), &before, &before).unwrap();
    }

    /// All that the tar is to bring back.
    fn seen(folder: &Path) -> Vec<String> {
        let mut lines = Vec::new();
        for entry in walk(folder) {
            let data = entry.symlink_metadata().unwrap();
            let content = if data.is_file() { fs::read(&entry).unwrap() } else { Vec::new() };
            let file = rustix::fs::open(
                &entry,
                rustix::fs::OFlags::PATH | rustix::fs::OFlags::NOFOLLOW,
                rustix::fs::Mode::empty(),
            );
            lines.push(format!(
                "{:?} {:o} {}:{} {} {:?} {} {:?} {:?} {}",
                entry.strip_prefix(folder).unwrap(),
                data.mode(),
                data.uid(),
                data.gid(),
                data.nlink(),
                data.is_file().then_some(data.mtime()),
                data.rdev(),
                fs::read_link(&entry).ok(),
                xattr::all(file.unwrap()).unwrap(),
                crate::digest::Digest::sha256(&content),
            ));
        }
        lines.sort();
        lines
    }

    fn walk(folder: &Path) -> Vec<std::path::PathBuf> {
        let mut all = Vec::new();
        for entry in fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap().path();
            if entry.symlink_metadata().unwrap().is_dir() {
                all.extend(walk(&entry));
            }
            all.push(entry);
        }
        all
    }

    #[test]
    fn what_is_packed_comes_back_the_same() {
        if !nix::unistd::geteuid().is_root() {
            println!("SKIP: not root");
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let [from, ours, gnu] = ["from", "ours", "gnu"].map(|name| folder.path().join(name));
        for path in [&from, &ours, &gnu] {
            fs::create_dir(path).unwrap();
        }
        fill(&from);
        let (tar, told) = packed(&from);
        assert_eq!(told, [""; 0]);
        assert!(tar.len() < 1 << 20, "{} bytes: the holes are in it", tar.len());
        assert_eq!(tar.len() % 10240, 0);
        crate::rootfs::confine::own_mask_and_place().unwrap();
        crate::rootfs::unpack(
            &tar[..],
            File::open(&ours).unwrap().into(),
            &crate::rootfs::reroute::Routes::default(),
        )
        .unwrap();
        assert_eq!(seen(&ours), seen(&from));
        assert!(fs::metadata(ours.join("holes")).unwrap().blocks() < 1000);
        let file = folder.path().join("tar");
        fs::write(&file, &tar).unwrap();
        let mut command = Command::new("tar");
        command.args(["--xattrs", "--xattrs-include=*", "-C"]).arg(&gnu).arg("-xpf").arg(&file);
        let output = command.output().unwrap();
        // It finds 1969 implausible and says so.
        assert!(output.status.success(), "{output:?}");
        assert_eq!(seen(&gnu), seen(&from));
        // The same again.
        assert_eq!(packed(&from).0, tar);
    }

    #[test]
    fn sockets_are_told_of() {
        let folder = tempfile::tempdir().unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(folder.path().join("here")).unwrap();
        let (tar, told) = packed(folder.path());
        assert_eq!(told, ["\"here\": a tar cannot hold sockets: left out"]);
        assert_eq!(tar, [0; 10240]);
    }
}

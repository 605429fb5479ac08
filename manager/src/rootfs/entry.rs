//! One tar entry, written into a layer's folder and never outside it.
//!
//! Everything is done by descriptor: a parent is opened with openat2(2) below the layer's root,
//! refusing links on the way, and an entry is made by its own last name in that parent. A path in
//! the tar can therefore not leave the layer, whatever it contains: `..` is refused before, a link
//! on the way is an error that names it.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{CString, OsStr};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use anyhow::{Context, Result, bail};
use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, openat, openat2};
use nix::sys::stat::{FileStat, Mode, SFlag, fchmod, fstatat, makedev, mkdirat, mknodat};
use nix::unistd::{UnlinkatFlags, linkat, symlinkat, unlinkat};

use super::metadata::{IMPLICIT_MODE, Metadata, Time, set_time};
use super::whiteout::{self, Name};
use super::xattr;

/// No honest path has more parts. Every part is a folder that may have to be made, so a small tar
/// could otherwise ask for very many.
const MOST_PARTS: usize = 256;

/// Paths are kept while a layer is unpacked, of some also later. All together they are no longer.
const MOST_KEPT: usize = 64 * 1024 * 1024;

/// What an entry is.
#[derive(Debug)]
pub(crate) enum Kind {
    /// Its content follows.
    File,
    Directory,
    Symlink(Vec<u8>),
    /// To a path in the same layer.
    HardLink(Vec<u8>),
    Fifo,
    CharacterDevice(u32, u32),
    BlockDevice(u32, u32),
}

/// A layer's folder while its entries are written.
pub(crate) struct Tree {
    root: OwnedFd,
    /// The last parent and its descriptor: a tar lists a folder's entries one after the other.
    parent: Option<(Vec<u8>, OwnedFd)>,
    /// Folders that hide all below them.
    opaque: BTreeMap<Vec<u8>, ()>,
    /// Folders made without an entry of their own.
    implicit: BTreeMap<Vec<u8>, ()>,
    /// Whiteouts made; later entries may have replaced some.
    whiteouts: BTreeSet<Vec<u8>>,
    /// Times of folders, to be set when nothing is made in them any more.
    times: BTreeMap<Vec<u8>, Time>,
    /// The bytes of all these paths, also of those that were forgotten again.
    kept: usize,
    /// How many folders were made without an entry.
    made_implicitly: u64,
}

/// What is to be known of a layer when all its entries are written.
pub(crate) struct Finished {
    /// Folders without an entry of their own.
    pub(crate) implicit: BTreeSet<Vec<u8>>,
    /// Folders that hold whiteouts.
    pub(crate) with_whiteouts: BTreeSet<Vec<u8>>,
    /// Folders that are there for nothing but the whiteouts in them.
    pub(crate) hollow: BTreeSet<Vec<u8>>,
    /// Everything below is hidden.
    pub(crate) opaque_root: bool,
}

/// Why a parent is wanted.
#[derive(Clone, Copy, PartialEq, Eq)]
enum For {
    /// To make something in it.
    Entry,
    /// To hide something in it; where it is hidden itself there is nothing to do.
    Whiteout,
}

impl Tree {
    /// Takes an empty folder.
    pub(crate) fn new(root: OwnedFd) -> Self {
        // The root is implicit until the tar has an entry for it.
        let implicit = BTreeMap::from([(Vec::new(), ())]);
        Self {
            root,
            parent: None,
            opaque: BTreeMap::new(),
            implicit,
            whiteouts: BTreeSet::new(),
            times: BTreeMap::new(),
            kept: 0,
            made_implicitly: 0,
        }
    }

    /// Makes an entry; for a file, returns it open and empty, to be filled and given to
    /// [`Self::finish_file`].
    pub(crate) fn make(&mut self, path: &[u8], kind: &Kind, metadata: &Metadata) -> Result<Option<OwnedFd>> {
        let path = normal_path(path)?;
        let components: Vec<&[u8]> = components(&path).collect();
        if components.len() > MOST_PARTS {
            bail!("its path has {} parts, {MOST_PARTS} are allowed", components.len());
        }
        match whiteout::read(&components)? {
            Name::Plain => {}
            Name::Skip => return Ok(None),
            Name::Gone(name) => return self.hide(parent_of(&path), name).map(|()| None),
            Name::Opaque => return self.hide_all(parent_of(&path)).map(|()| None),
        }
        match kind {
            Kind::Directory => self.directory(&path, metadata).map(|()| None),
            _ if path.is_empty() => bail!("the root of the layer is not a folder"),
            Kind::File => self.file(&path, metadata).map(Some),
            Kind::HardLink(target) => self.hard_link(&path, target).map(|()| None),
            _ => self.special(&path, kind, metadata).map(|()| None),
        }
    }

    /// How many folders were made that have no entry: an inode each, as entries are.
    pub(crate) fn made_implicitly(&self) -> u64 {
        self.made_implicitly
    }

    /// Counts a path that is kept.
    fn keep(&mut self, path: &[u8]) -> Result<()> {
        self.kept += path.len();
        if self.kept > MOST_KEPT {
            bail!(
                "the paths of folders and whiteouts in the layer are longer than {MOST_KEPT} bytes together"
            );
        }
        Ok(())
    }

    /// Applies what comes after the content.
    pub(crate) fn finish_file(&self, file: &OwnedFd, metadata: &Metadata) -> Result<()> {
        metadata.apply_to_open(file)?;
        set_time(file, metadata.mtime)
    }

    /// Sets the times of folders, and tells what is to be known.
    pub(crate) fn finish(mut self) -> Result<Finished> {
        for (path, time) in std::mem::take(&mut self.times) {
            match self.open_directory(&path) {
                Ok(folder) => set_time(&folder, time)?,
                // Replaced by a later entry.
                Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => {}
                Err(errno) => return Err(errno).with_context(|| format!("open {}", show(&path))),
            }
        }
        let still_there = |path: &Vec<u8>| {
            let found = self.open_path(parent_of(path)).and_then(|parent| {
                fstatat(&parent, OsStr::from_bytes(last_of(path)), AtFlags::AT_SYMLINK_NOFOLLOW)
            });
            found.is_ok_and(|found| is_whiteout(&found))
        };
        let whiteouts = self.whiteouts.iter().filter(|path| still_there(path));
        let with_whiteouts = whiteouts.map(|path| parent_of(path).to_vec()).collect();
        Ok(Finished {
            hollow: self.hollow(&with_whiteouts).context("look for folders of whiteouts alone")?,
            with_whiteouts,
            opaque_root: self.opaque.contains_key(&Vec::new()),
            implicit: self.implicit.into_keys().collect(),
        })
    }

    fn directory(&mut self, path: &[u8], metadata: &Metadata) -> Result<()> {
        if !path.is_empty() {
            let name = OsStr::from_bytes(last_of(path));
            let parent = self.parent(parent_of(path), For::Entry)?.context("a folder's parent was made")?;
            let made = match mkdirat(parent, name, metadata.permissions()) {
                Err(Errno::EEXIST) => None,
                other => Some(other.context("make the folder")?),
            };
            if made.is_none() && !is_directory(&stat_in(parent, name)?) {
                let was_whiteout = self.clear(path)?;
                let parent =
                    self.parent(parent_of(path), For::Entry)?.context("a folder's parent was made")?;
                mkdirat(parent, name, metadata.permissions()).context("make the folder")?;
                if was_whiteout {
                    self.make_opaque(path)?;
                }
            }
        }
        let folder = self.open_directory(path).context("open the folder")?;
        metadata.apply_to_open(&folder)?;
        self.implicit.remove(path);
        if self.times.insert(path.to_vec(), metadata.mtime).is_none() {
            self.keep(path)?;
        }
        Ok(())
    }

    fn file(&mut self, path: &[u8], metadata: &Metadata) -> Result<OwnedFd> {
        let name = OsStr::from_bytes(last_of(path));
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        self.create(path, |parent| openat(parent, name, flags, metadata.permissions()))
            .context("create the file")
    }

    fn hard_link(&mut self, path: &[u8], target: &[u8]) -> Result<()> {
        let target = normal_path(target).with_context(|| format!("link to {}", show(target)))?;
        let context = || format!("link to {}", show(&target));
        if target.is_empty() {
            bail!("{}: it is a folder", context());
        }
        let target_name = OsStr::from_bytes(last_of(&target));
        let target_parent = match self.open_path(parent_of(&target)) {
            Err(Errno::ENOENT) => bail!("{}: it is not in this layer", context()),
            Err(Errno::ELOOP | Errno::ENOTDIR) => {
                bail!("{}: what is on the way is no folder or a symbolic link", context())
            }
            other => other.with_context(context)?,
        };
        match fstatat(&target_parent, target_name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Err(Errno::ENOENT) => bail!("{}: it is not in this layer", context()),
            Err(errno) => return Err(errno).with_context(context),
            Ok(found) if is_directory(&found) => bail!("{}: it is a folder", context()),
            Ok(found) if is_whiteout(&found) => bail!("{}: this layer removes it", context()),
            Ok(_) if target == path => return Ok(()),
            Ok(_) => {}
        }
        let name = OsStr::from_bytes(last_of(path));
        // No AT_SYMLINK_FOLLOW: a link to a symbolic link is one more name of that link itself.
        self.create(path, |parent| linkat(&target_parent, target_name, parent, name, AtFlags::empty()))
            .with_context(context)
    }

    fn special(&mut self, path: &[u8], kind: &Kind, metadata: &Metadata) -> Result<()> {
        let name = OsStr::from_bytes(last_of(path));
        let private = Mode::S_IRUSR | Mode::S_IWUSR;
        match kind {
            Kind::Symlink(target) => {
                let target = OsStr::from_bytes(target);
                self.create(path, |parent| symlinkat(target, parent, name))
                    .context("make the symbolic link")?;
            }
            Kind::Fifo => {
                self.create(path, |parent| mknodat(parent, name, SFlag::S_IFIFO, private, 0))
                    .context("make the fifo")?;
            }
            Kind::CharacterDevice(0, 0) => bail!("a character device 0:0 would be taken for a whiteout"),
            Kind::CharacterDevice(major, minor) => {
                let device = makedev(u64::from(*major), u64::from(*minor));
                self.create(path, |parent| mknodat(parent, name, SFlag::S_IFCHR, private, device))
                    .context("make the device")?;
            }
            Kind::BlockDevice(major, minor) => {
                let device = makedev(u64::from(*major), u64::from(*minor));
                self.create(path, |parent| mknodat(parent, name, SFlag::S_IFBLK, private, device))
                    .context("make the device")?;
            }
            Kind::File | Kind::Directory | Kind::HardLink(_) => bail!("it has its own way"),
        }
        let is_link = matches!(kind, Kind::Symlink(_));
        let parent = self.parent(parent_of(path), For::Entry)?.context("its parent was made")?;
        metadata.apply_in(parent, name, is_link)
    }

    /// Makes something that must not exist; what an earlier entry made there gives way, as the last
    /// entry of a path counts.
    fn create<T>(&mut self, path: &[u8], make: impl Fn(BorrowedFd<'_>) -> nix::Result<T>) -> Result<T> {
        let parent = self.parent(parent_of(path), For::Entry)?.context("its parent was made")?;
        match make(parent) {
            Err(Errno::EEXIST) => {}
            other => return Ok(other?),
        }
        self.clear(path)?;
        let parent = self.parent(parent_of(path), For::Entry)?.context("its parent was made")?;
        Ok(make(parent)?)
    }

    /// `.wh.<name>` in `folder`.
    fn hide(&mut self, folder: &[u8], name: &[u8]) -> Result<()> {
        if self.below_opaque(folder) {
            return Ok(());
        }
        let Some(parent) = self.parent(folder, For::Whiteout)? else { return Ok(()) };
        let entry = OsStr::from_bytes(name);
        match fstatat(parent, entry, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Err(Errno::ENOENT) => self.make_whiteout(folder, name),
            Err(errno) => Err(errno).context("look at what it hides"),
            Ok(found) if is_directory(&found) => {
                let path = join(folder, name);
                if self.is_hollow(&path).context("look into what it hides")? {
                    self.clear(&path)?;
                    return self.make_whiteout(folder, name);
                }
                // The lower one is gone with its attributes: nothing to take over from it.
                self.implicit.remove(&path);
                self.make_opaque(&path)
            }
            Ok(_) => Ok(()),
        }
    }

    fn make_whiteout(&mut self, folder: &[u8], name: &[u8]) -> Result<()> {
        let Some(parent) = self.parent(folder, For::Whiteout)? else { return Ok(()) };
        mknodat(parent, OsStr::from_bytes(name), SFlag::S_IFCHR, Mode::empty(), makedev(0, 0))
            .context("make the whiteout")?;
        let path = join(folder, name);
        self.keep(&path)?;
        self.whiteouts.insert(path);
        Ok(())
    }

    /// Whether a folder is there for nothing but whiteouts.
    fn is_hollow(&self, path: &[u8]) -> io::Result<bool> {
        if !self.is_plainly_implicit(path) {
            return Ok(false);
        }
        for (name, found) in entries(&self.open_directory(path)?)? {
            let hollow = is_whiteout(&found)
                || is_directory(&found) && self.is_hollow(&join(path, name.as_bytes()))?;
            if !hollow {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether no entry tells anything of a folder.
    fn is_plainly_implicit(&self, path: &[u8]) -> bool {
        self.implicit.contains_key(path) && !self.opaque.contains_key(path)
    }

    /// All folders that are there for nothing but whiteouts, of which some hold these. Each is looked into once.
    fn hollow(&self, with_whiteouts: &BTreeSet<Vec<u8>>) -> io::Result<BTreeSet<Vec<u8>>> {
        let mut hollow = BTreeSet::new();
        for path in with_whiteouts {
            let mut path = &path[..];
            while !path.is_empty() && self.is_plainly_implicit(path) && hollow.insert(path.to_vec()) {
                path = parent_of(path);
            }
        }
        // What is in a folder comes before it.
        for path in hollow.clone().into_iter().rev() {
            let entries = entries(&self.open_directory(&path)?)?;
            let is_none = |(name, found): &(CString, FileStat)| {
                is_whiteout(found) || hollow.contains(&join(&path, name.as_bytes()))
            };
            if !entries.iter().all(is_none) {
                hollow.remove(&path);
            }
        }
        Ok(hollow)
    }

    /// `.wh..wh..opq` in `folder`.
    fn hide_all(&mut self, folder: &[u8]) -> Result<()> {
        if self.below_opaque(folder) {
            return Ok(());
        }
        // Hidden by a whiteout or a file of this layer: that says all already.
        if self.parent(folder, For::Whiteout)?.is_none() {
            return Ok(());
        }
        self.make_opaque(folder)
    }

    fn below_opaque(&self, folder: &[u8]) -> bool {
        if self.opaque.is_empty() {
            return false;
        }
        let mut path = folder;
        loop {
            if self.opaque.contains_key(path) {
                return true;
            }
            if path.is_empty() {
                return false;
            }
            path = parent_of(path);
        }
    }

    fn make_opaque(&mut self, path: &[u8]) -> Result<()> {
        // Nothing below needs to be looked through again: no whiteout is made where all is hidden.
        if self.opaque.contains_key(path) {
            return Ok(());
        }
        let folder = self.open_directory(path).context("open the folder to make it opaque")?;
        // overlayfs does not look at the attribute of a layer's root: the store leaves lower
        // layers out instead.
        if !path.is_empty() {
            xattr::set(&folder, whiteout::OPAQUE, b"y").context("make the folder opaque")?;
        }
        self.remove_whiteouts(path, &folder).context("remove whiteouts below an opaque folder")?;
        self.opaque.insert(path.to_vec(), ());
        self.keep(path)
    }

    /// Removes the whiteouts in a folder and below, with the folders that were there for nothing else; true if
    /// nothing is left in it.
    fn remove_whiteouts(&mut self, path: &[u8], folder: &OwnedFd) -> Result<bool> {
        let mut is_empty = true;
        for (name, found) in entries(folder)? {
            if is_whiteout(&found) {
                unlinkat(folder, &*name, UnlinkatFlags::NoRemoveDir)?;
                continue;
            }
            let below = join(path, name.as_bytes());
            let is_for_nothing = is_directory(&found)
                && self.remove_whiteouts(&below, &openat(folder, &*name, FOLDER, Mode::empty())?)?
                && self.is_plainly_implicit(&below);
            if is_for_nothing {
                self.clear(&below)?;
            } else {
                is_empty = false;
            }
        }
        Ok(is_empty)
    }

    /// Removes what an earlier entry of this layer made at `path`; true when that was a whiteout.
    fn clear(&mut self, path: &[u8]) -> Result<bool> {
        let name = OsStr::from_bytes(last_of(path));
        let parent = self.open_path(parent_of(path)).context("open the parent")?;
        let found = stat_in(&parent, name)?;
        if is_directory(&found) {
            let folder = openat(&parent, name, FOLDER, Mode::empty()).context("open a folder to replace")?;
            remove_below(&folder).context("replace a folder")?;
            unlinkat(&parent, name, UnlinkatFlags::RemoveDir).context("replace a folder")?;
            forget(&mut self.implicit, path);
            forget(&mut self.opaque, path);
            forget(&mut self.times, path);
            self.parent = None;
        } else {
            unlinkat(&parent, name, UnlinkatFlags::NoRemoveDir).context("replace an earlier entry")?;
        }
        Ok(is_whiteout(&found))
    }

    /// Opens the folder `path`, making what is missing. None only for a whiteout in what is hidden.
    fn parent(&mut self, path: &[u8], purpose: For) -> Result<Option<BorrowedFd<'_>>> {
        let cached = self.parent.as_ref().is_some_and(|(last, _)| last == path);
        if !cached {
            let folder = match self.open_path(path) {
                Ok(folder) => folder,
                Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => {
                    if !self.make_parents(path, purpose)? {
                        return Ok(None);
                    }
                    self.open_path(path).with_context(|| format!("open {}", show(path)))?
                }
                Err(errno) => return Err(errno).with_context(|| format!("open {}", show(path))),
            };
            self.parent = Some((path.to_vec(), folder));
        }
        Ok(self.parent.as_ref().map(|(_, folder)| folder.as_fd()))
    }

    /// Walks down to `path`, making implicit folders.
    fn make_parents(&mut self, path: &[u8], purpose: For) -> Result<bool> {
        let mut current: Vec<u8> = Vec::new();
        let mut folder = self.open_path(b"").context("open the layer's root")?;
        for component in components(path) {
            let name = OsStr::from_bytes(component);
            current = join(&current, component);
            let found = match fstatat(&folder, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
                Ok(found) => Some(found),
                Err(Errno::ENOENT) => None,
                Err(errno) => return Err(errno).with_context(|| format!("look at {}", show(&current))),
            };
            if !found.as_ref().is_some_and(is_directory) {
                let hidden = found.as_ref().is_some_and(is_whiteout);
                if let Some(found) = found {
                    if purpose == For::Whiteout && !is_link(&found) {
                        return Ok(false);
                    }
                    if !hidden {
                        let kind = if is_link(&found) { "a symbolic link" } else { "no folder" };
                        bail!("it goes through {}, which is {kind} in this layer", show(&current));
                    }
                    unlinkat(&folder, name, UnlinkatFlags::NoRemoveDir).context("replace a whiteout")?;
                }
                self.make_implicit(&folder, &current, hidden)?;
            }
            // A folder's own name in its own folder: as safe as the way from the root, and shorter.
            folder = open_beneath(&folder, component, OFlag::O_PATH | OFlag::O_DIRECTORY)
                .with_context(|| format!("open {}", show(&current)))?;
        }
        Ok(true)
    }

    /// Makes the folder `path`, whose parent is open, without an entry; `hiding` the one of lower
    /// layers or adding to it.
    fn make_implicit(&mut self, parent: &OwnedFd, path: &[u8], hiding: bool) -> Result<()> {
        let name = last_of(path);
        mkdirat(parent, OsStr::from_bytes(name), Mode::S_IRWXU)
            .with_context(|| format!("make the parent {}", show(path)))?;
        // Apart from mkdirat, whose mode the umask cuts.
        let made = open_beneath(parent, name, OFlag::O_RDONLY | OFlag::O_DIRECTORY)
            .with_context(|| format!("open {}", show(path)))?;
        fchmod(&made, Mode::from_bits_truncate(IMPLICIT_MODE))
            .with_context(|| format!("chmod {}", show(path)))?;
        self.made_implicitly += 1;
        if hiding {
            return self.make_opaque(path);
        }
        self.keep(path)?;
        self.implicit.insert(path.to_vec(), ());
        Ok(())
    }

    /// A descriptor for names in `path`, which must be a folder of this layer.
    fn open_path(&self, path: &[u8]) -> nix::Result<OwnedFd> {
        open_beneath(&self.root, path, OFlag::O_PATH | OFlag::O_DIRECTORY)
    }

    /// A descriptor to change the folder itself.
    fn open_directory(&self, path: &[u8]) -> nix::Result<OwnedFd> {
        open_beneath(&self.root, path, OFlag::O_RDONLY | OFlag::O_DIRECTORY)
    }
}

/// openat2(2): below `root`, through no link, on the same file system.
pub(crate) fn open_beneath(root: impl AsFd, path: &[u8], flags: OFlag) -> nix::Result<OwnedFd> {
    let path = if path.is_empty() { b"." } else { path };
    let how = OpenHow::new().flags(flags | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC).resolve(
        ResolveFlag::RESOLVE_BENEATH
            | ResolveFlag::RESOLVE_NO_SYMLINKS
            | ResolveFlag::RESOLVE_NO_MAGICLINKS
            | ResolveFlag::RESOLVE_NO_XDEV,
    );
    openat2(root, OsStr::from_bytes(path), how)
}

/// The path of an entry without leading, trailing and double slashes and without `.`. A leading
/// slash means the layer's root, as in every other tool; `..` means nothing good.
pub(crate) fn normal_path(path: &[u8]) -> Result<Vec<u8>> {
    let mut normal: Vec<u8> = Vec::with_capacity(path.len());
    for component in path.split(|byte| *byte == b'/') {
        match component {
            b"" | b"." => {}
            b".." => bail!("it leaves the layer"),
            _ if component.contains(&0) => bail!("its name has a zero byte"),
            _ => {
                if !normal.is_empty() {
                    normal.push(b'/');
                }
                normal.extend_from_slice(component);
            }
        }
    }
    Ok(normal)
}

/// A path for people.
pub(crate) fn show(path: &[u8]) -> String {
    format!("{:?}", String::from_utf8_lossy(path))
}

pub(crate) fn is_directory(found: &FileStat) -> bool {
    found.st_mode & libc::S_IFMT == libc::S_IFDIR
}

pub(crate) fn is_whiteout(found: &FileStat) -> bool {
    found.st_mode & libc::S_IFMT == libc::S_IFCHR && found.st_rdev == 0
}

pub(crate) fn is_link(found: &FileStat) -> bool {
    found.st_mode & libc::S_IFMT == libc::S_IFLNK
}

fn stat_in(parent: impl AsFd, name: &OsStr) -> Result<FileStat> {
    fstatat(parent, name, AtFlags::AT_SYMLINK_NOFOLLOW).context("look at what is there")
}

/// The names on the way.
pub(super) fn components(path: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    path.split(|byte| *byte == b'/').filter(|component| !component.is_empty())
}

pub(crate) fn parent_of(path: &[u8]) -> &[u8] {
    path.iter().rposition(|byte| *byte == b'/').map_or(b"", |slash| &path[..slash])
}

fn last_of(path: &[u8]) -> &[u8] {
    path.iter().rposition(|byte| *byte == b'/').map_or(path, |slash| &path[slash + 1..])
}

pub(super) fn join(folder: &[u8], name: &[u8]) -> Vec<u8> {
    if folder.is_empty() { name.to_vec() } else { [folder, b"/", name].concat() }
}

/// Takes `path` and all below it out of a sorted map.
fn forget<T>(map: &mut BTreeMap<Vec<u8>, T>, path: &[u8]) {
    map.remove(path);
    // A replaced folder is rarely full: found by order, as looking at all would let a layer that
    // replaces one folder again and again take for ever.
    let start = [path, b"/"].concat();
    while let Some((below, _)) = map.range(start.clone()..).next().filter(|(key, _)| key.starts_with(&start))
    {
        let below = below.clone();
        map.remove(&below);
    }
}

const FOLDER: OFlag =
    OFlag::O_RDONLY.union(OFlag::O_DIRECTORY).union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);

/// Removes all that is in a folder.
fn remove_below(folder: &OwnedFd) -> io::Result<()> {
    for (name, found) in entries(folder)? {
        if is_directory(&found) {
            remove_below(&openat(folder, &*name, FOLDER, Mode::empty())?)?;
            unlinkat(folder, &*name, UnlinkatFlags::RemoveDir)?;
        } else {
            unlinkat(folder, &*name, UnlinkatFlags::NoRemoveDir)?;
        }
    }
    Ok(())
}

/// What is in a folder, at this moment.
fn entries(folder: &OwnedFd) -> io::Result<Vec<(CString, FileStat)>> {
    let mut found = Vec::new();
    for entry in Dir::openat(folder, ".", FOLDER, Mode::empty())?.iter() {
        let name = entry?.file_name().to_owned();
        if !matches!(name.to_bytes(), b"." | b"..") {
            let stat = fstatat(folder, &*name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
            found.push((name, stat));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_made_normal_or_refused() {
        let table =
            [("./", ""), ("/", ""), ("./a//b/./c/", "a/b/c"), ("/etc/passwd", "etc/passwd"), ("a", "a")];
        for (path, expected) in table {
            assert_eq!(normal_path(path.as_bytes()).unwrap(), expected.as_bytes(), "{path}");
        }
        for bad in ["..", "../x", "a/../b", "/..", "a/..", "a\0b"] {
            assert!(normal_path(bad.as_bytes()).is_err(), "{bad:?} was taken");
        }
    }
}

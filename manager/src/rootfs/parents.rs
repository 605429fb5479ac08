//! Folders that a layer has without an entry of their own.
//!
//! A layer may hold `var/tmp/x` without `var/tmp/`. Unpacked alone, its `var/tmp` gets root and
//! 0755, and overlayfs shows the attributes of the topmost layer that has the folder: `/var/tmp`
//! would lose 1777. Layers are unpacked independently, so this is corrected when all are there: a
//! small folder tree goes on top, holding just the affected folders with the attributes of the next
//! lower layer that has an entry for them.
//!
//! The same tree cures a second thing. overlayfs filters whiteouts out of the listing of a folder
//! only where it merges several; in a folder that just one layer has, readdir shows the device 0:0
//! (and stat says there is nothing). A folder that holds a whiteout and would stand alone is put on
//! top once more, and thereby merged.
//!
//! And a third: a folder that a layer has for the whiteouts in it alone is nothing where no lower layer has it.
//! Such a folder is hidden.
//!
//! What it cannot cure is a layer that goes through a link of a lower one: see `reroute`.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};
use std::ffi::{CString, OsStr};
use std::fs::{self, DirBuilder, File};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, mknod};

use super::entry::{is_directory, is_link, is_whiteout, open_beneath, parent_of, show};
use super::metadata::{IMPLICIT_MODE, Metadata, set_time};
use super::whiteout::OPAQUE;
use super::xattr;
use crate::store::layers::LayerMeta;

/// One layer of an image.
pub(crate) struct Layer {
    root: OwnedFd,
    implicit: BTreeSet<Vec<u8>>,
    with_whiteouts: Vec<Vec<u8>>,
    hollow: BTreeSet<Vec<u8>>,
    opaque_root: bool,
    /// Folders of which it was found out whether they or something on the way hide lower layers.
    /// Paths come in order, so few are enough, and not to walk up from each one anew matters.
    hiding: RefCell<HashMap<Vec<u8>, bool>>,
}

/// How many of these a layer keeps: more than a path has parts.
const MOST_HIDING: usize = 1024;

impl Layer {
    /// Opens an unpacked layer.
    pub(crate) fn open(fs: &PathBuf, meta: &LayerMeta) -> Result<Self> {
        let root = File::open(fs).with_context(|| format!("open {}", fs.display()))?.into();
        let bytes = |path: &String| path.clone().into_bytes();
        Ok(Self {
            root,
            implicit: meta.implicit.iter().map(bytes).collect(),
            with_whiteouts: meta.with_whiteouts.iter().map(bytes).collect(),
            hollow: meta.hollow.iter().map(bytes).collect(),
            opaque_root: meta.opaque_root,
            hiding: RefCell::default(),
        })
    }

    /// Its folder.
    pub(super) fn root(&self) -> &OwnedFd {
        &self.root
    }

    /// The folders that it has without an entry, parents first.
    pub(super) fn implicit(&self) -> &BTreeSet<Vec<u8>> {
        &self.implicit
    }

    /// Whether it has a folder of its own at `path`, with an entry for it.
    fn has_folder(&self, path: &[u8]) -> bool {
        !self.implicit.contains(path) && stat_beneath(self, path).is_ok_and(|found| is_directory(&found))
    }
}

/// Writes the corrections for layers (lowest first) into the folder `target`, which does not exist
/// yet; false when there are none and the folder was not made.
pub(crate) fn correct(layers: &[Layer], target: &Path) -> Result<bool> {
    let gone = hollow_alone(layers)?;
    let mentioned: BTreeSet<&Vec<u8>> = layers.iter().flat_map(|layer| &layer.implicit).collect();
    let mut affected: BTreeSet<Vec<u8>> = BTreeSet::new();
    // A folder's parents will be topmost too, so their attributes have to be right as well.
    let mut affect = |path: &[u8]| {
        let mut path = path;
        while affected.insert(path.to_vec()) && !path.is_empty() {
            path = parent_of(path);
        }
    };
    for path in mentioned {
        if let Some((true, Some(attributes))) = attributes(layers, path)?
            && attributes != plain()
        {
            affect(path);
        }
    }
    for path in layers.iter().flat_map(|layer| &layer.with_whiteouts) {
        if stands_alone(layers, path)? {
            affect(path);
        }
    }
    for path in &gone {
        affect(parent_of(path));
    }
    affected.retain(|path| !at_or_below(&gone, path));
    if affected.is_empty() {
        return Ok(false);
    }
    // Parents first to make them, children first to set times.
    for path in &affected {
        let folder = target.join(OsStr::from_bytes(path));
        DirBuilder::new()
            .mode(0o700)
            .create(&folder)
            .with_context(|| format!("create {}", folder.display()))?;
    }
    for path in &gone {
        let whiteout = target.join(OsStr::from_bytes(path));
        mknod(&whiteout, SFlag::S_IFCHR, Mode::empty(), 0)
            .with_context(|| format!("create the whiteout {}", whiteout.display()))?;
    }
    for path in affected.iter().rev() {
        let metadata = attributes(layers, path)?.and_then(|(_, found)| found).unwrap_or_else(plain);
        let folder = target.join(OsStr::from_bytes(path));
        let open = fs::File::open(&folder).with_context(|| format!("open {}", folder.display()))?;
        let apply = metadata.apply_to_open(&open).and_then(|()| set_time(&open, metadata.mtime));
        apply.with_context(|| format!("correct {}", folder.display()))?;
    }
    Ok(true)
}

/// The folders that are there for whiteouts alone in every layer that shows them, without what is in them.
fn hollow_alone(layers: &[Layer]) -> Result<BTreeSet<Vec<u8>>> {
    let mut alone: BTreeSet<Vec<u8>> = BTreeSet::new();
    // Parents come first.
    for path in layers.iter().flat_map(|layer| &layer.hollow).collect::<BTreeSet<&Vec<u8>>>() {
        if !at_or_below(&alone, path) && shows_nothing_else(layers, path)? {
            alone.insert(path.clone());
        }
    }
    Ok(alone)
}

/// Whether one of `folders` is `path`, or a folder on the way to it.
fn at_or_below(folders: &BTreeSet<Vec<u8>>, mut path: &[u8]) -> bool {
    while !path.is_empty() {
        if folders.contains(path) {
            return true;
        }
        path = parent_of(path);
    }
    false
}

/// Whether the stack of layers shows the folder `path` for nothing but whiteouts.
fn shows_nothing_else(layers: &[Layer], path: &[u8]) -> Result<bool> {
    let mut shown = false;
    for layer in layers.iter().rev() {
        match look(layer, path)? {
            Seen::Absent => {}
            // What is no folder below one, that one replaces.
            Seen::Hidden => {
                return Ok(shown && !stat_beneath(layer, path).is_ok_and(|found| !is_whiteout(&found)));
            }
            Seen::Folder { .. } if !layer.hollow.contains(path) => return Ok(false),
            Seen::Folder { opaque, sealed, .. } => {
                shown = true;
                if opaque || sealed {
                    break;
                }
            }
        }
        if layer.opaque_root {
            break;
        }
    }
    Ok(shown)
}

/// The layer whose symbolic link the folder `path` of the layer `index` would replace.
pub(super) fn link_below(layers: &[Layer], index: usize, path: &[u8]) -> Result<Option<usize>> {
    let context = || format!("look at {} of a layer", show(path));
    let own = &layers[index];
    if own.opaque_root || own.has_folder(path) || hides(own, path).with_context(context)? {
        return Ok(None);
    }
    for (lower, layer) in layers[..index].iter().enumerate().rev() {
        match stat_beneath(layer, path) {
            Ok(found) if is_link(&found) => return Ok(Some(lower)),
            // A folder merges. Anything else gives way to the folder: one tool's choice as good as
            // another's.
            Ok(_) | Err(Errno::ENOTDIR | Errno::ELOOP) => return Ok(None),
            Err(Errno::ENOENT) => {}
            Err(errno) => return Err(errno).with_context(context),
        }
        if layer.opaque_root || hides(layer, path).with_context(context)? {
            return Ok(None);
        }
    }
    Ok(None)
}

/// What the layer has at `path`, not following a link, neither there nor on the way.
fn stat_beneath(layer: &Layer, path: &[u8]) -> nix::Result<FileStat> {
    fstat(open_beneath(&layer.root, path, OFlag::O_PATH)?)
}

impl PartialEq for Metadata {
    /// But for the time, which alone is no reason for a correction.
    fn eq(&self, other: &Self) -> bool {
        (self.uid, self.gid, self.mode, &self.xattrs) == (other.uid, other.gid, other.mode, &other.xattrs)
    }
}

fn plain() -> Metadata {
    Metadata { uid: 0, gid: 0, mode: IMPLICIT_MODE, mtime: (0, 0), xattrs: Vec::new() }
}

/// How the stack of layers shows the folder `path`: whether the topmost layer that has it has it
/// implicitly, and the attributes of the topmost one with an entry, if there is one that is not
/// hidden. None when it is no folder.
fn attributes(layers: &[Layer], path: &[u8]) -> Result<Option<(bool, Option<Metadata>)>> {
    let mut top_is_implicit = None;
    for layer in layers.iter().rev() {
        match look(layer, path)? {
            Seen::Absent => {}
            Seen::Hidden => break,
            Seen::Folder { sealed, metadata, .. } => {
                let implicit = layer.implicit.contains(path);
                let top = *top_is_implicit.get_or_insert(implicit);
                if !implicit {
                    return Ok(Some((top, Some(metadata))));
                }
                // An opaque marker of its own hides what is in the lower folder, not the folder.
                if sealed {
                    break;
                }
            }
        }
        if layer.opaque_root {
            break;
        }
    }
    Ok(top_is_implicit.map(|top| (top, None)))
}

/// Whether just one layer has the folder `path` as the stack shows it.
fn stands_alone(layers: &[Layer], path: &[u8]) -> Result<bool> {
    let mut count = 0;
    for layer in layers.iter().rev() {
        match look(layer, path)? {
            Seen::Absent => {}
            Seen::Hidden => break,
            Seen::Folder { opaque, sealed, .. } => {
                count += 1;
                if opaque || sealed {
                    break;
                }
            }
        }
        if layer.opaque_root {
            break;
        }
    }
    Ok(count == 1)
}

enum Seen {
    /// Lower layers decide.
    Absent,
    /// Not a folder here, or hidden by something on the way.
    Hidden,
    /// `sealed`: below an opaque folder.
    Folder { opaque: bool, sealed: bool, metadata: Metadata },
}

fn look(layer: &Layer, path: &[u8]) -> Result<Seen> {
    let context = || format!("look at {:?} of a layer", OsStr::from_bytes(path));
    match open_beneath(&layer.root, path, OFlag::O_RDONLY | OFlag::O_DIRECTORY) {
        Ok(folder) => {
            let opaque = xattr::has(&folder, OPAQUE).with_context(context)?;
            let sealed = hides(layer, path).with_context(context)?;
            Ok(Seen::Folder { opaque, sealed, metadata: read(&folder).with_context(context)? })
        }
        Err(Errno::ENOTDIR | Errno::ELOOP) => Ok(Seen::Hidden),
        Err(Errno::ENOENT) if hides(layer, path).with_context(context)? => Ok(Seen::Hidden),
        Err(Errno::ENOENT) => Ok(Seen::Absent),
        Err(errno) => Err(errno).with_context(context),
    }
}

/// Whether something on the way to `path` hides what lower layers have there: an opaque folder, or
/// what is no folder.
fn hides(layer: &Layer, path: &[u8]) -> Result<bool> {
    let mut unknown = Vec::new();
    let mut hiding = layer.hiding.borrow_mut();
    let mut parent = parent_of(path);
    let mut hidden = loop {
        if parent.is_empty() {
            break false;
        }
        if let Some(known) = hiding.get(parent) {
            break *known;
        }
        unknown.push(parent);
        parent = parent_of(parent);
    };
    if hiding.len() + unknown.len() > MOST_HIDING {
        hiding.clear();
    }
    for parent in unknown.into_iter().rev() {
        hidden = hidden || hides_below(layer, parent)?;
        hiding.insert(parent.to_vec(), hidden);
    }
    Ok(hidden)
}

/// Whether the layer has something at `path` that hides all that lower layers have below it.
fn hides_below(layer: &Layer, path: &[u8]) -> Result<bool> {
    match open_beneath(&layer.root, path, OFlag::O_RDONLY | OFlag::O_DIRECTORY) {
        Ok(folder) => Ok(xattr::has(&folder, OPAQUE)?),
        Err(Errno::ENOTDIR | Errno::ELOOP) => Ok(true),
        Err(Errno::ENOENT) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

fn read(folder: &OwnedFd) -> Result<Metadata> {
    let found = fstat(folder)?;
    let mut xattrs: Vec<(CString, Vec<u8>)> = Vec::new();
    for name in xattr::names(folder)? {
        if name.as_c_str() == OPAQUE {
            continue;
        }
        if let Some(value) = xattr::get(folder, &name)? {
            xattrs.push((name, value));
        }
    }
    xattrs.sort();
    Ok(Metadata {
        uid: found.st_uid,
        gid: found.st_gid,
        mode: found.st_mode & 0o7777,
        mtime: (found.st_mtime, found.st_mtime_nsec),
        xattrs,
    })
}

//! The image store: a valid OCI image layout plus unpacked layers. Small files, rename and flock;
//! no database.
//!
//! ```text
//! <root>/                         0700: setuid files of images are out of reach (CVE-2021-41091)
//!   version                       {"layout":1}
//!   oci/                          an OCI image layout: skopeo and umoci read oci:<root>/oci:<name>
//!     oci-layout  index.json      index.json is rebuilt from refs/
//!     blobs/<algorithm>/<hex>     as they came from the registry
//!   refs/<escaped name>           one file a name: what it names, when and whence it came
//!   layers/<diffid>/fs            one folder an uncompressed layer, whatever its parents
//!   layers/<diffid>/meta.json     size, implicit folders: see `layers`
//!   fixups/<chainid>/fs           attributes of folders that layers left out: see `rootfs::parents`
//!   ingest/<algorithm>-<hex>.part partial downloads; they survive ^C and reboot
//!   unsettled/                    what was brought and may not be on the disk yet: see `unsettled`
//!   containers/<id>/image         written by `run`: the image id that a container uses
//!   empty/                        the lower folder of an image without layers
//!   tmp/ trash/ locks/            unfinished, unwanted, flock
//! ```
//!
//! What a crash may leave: things in `tmp/`, `trash/` and `ingest/`, and blobs and layers that no
//! name reaches. A name is written last, and whatever it needs that is not on the disk yet is noted
//! before, so it is never broken. All of it is swept by the next `pull` or `rmi` that finds the store idle.

pub(crate) mod blobs;
pub(crate) mod check;
pub(crate) mod gc;
pub(crate) mod layers;
pub(crate) mod lock;
pub(crate) mod names;
pub(crate) mod unsettled;
pub(crate) mod usage;

use std::fs::{self, DirBuilder};
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::SystemTime;

use anyhow::{Context, Result, bail};
use oci_spec::image::{Descriptor, ImageConfiguration, MediaType};

use crate::digest::Digest;
use crate::image;
use crate::image::manifest::Document;
use crate::reference::Reference;
use crate::registry::registries::Registries;
use names::Record;

const VERSION: &str = "{\"layout\":1}\n";

/// The store below `--root`.
#[derive(Debug)]
pub(crate) struct Store {
    root: PathBuf,
}

/// An image that is here, whole and unpacked.
#[derive(Debug)]
pub(crate) struct LocalImage {
    /// The normalised reference it was found by, as `docker.io/library/busybox:latest`; none when
    /// it was found by its id.
    pub(crate) name: Option<String>,
    /// Its manifest: digest, size, media type.
    pub(crate) manifest: Descriptor,
    /// Its configuration; the digest of these bytes is the image's id.
    pub(crate) config: ImageConfiguration,
    /// `sha256:...` of the configuration: docker's image id.
    pub(crate) id: String,
    /// The folders to give to overlayfs, lowest first; at least one.
    pub(crate) layers: Vec<PathBuf>,
}

impl Store {
    /// Opens the store below `root`, making its folders when they are missing.
    pub(crate) fn open(root: &Path) -> Result<Self> {
        let root = std::path::absolute(root).with_context(|| format!("store {}", root.display()))?;
        let store = Self { root };
        store.make_folders().with_context(|| format!("open the store {}", store.root.display()))?;
        Ok(store)
    }

    fn make_folders(&self) -> Result<()> {
        let version = self.root.join("version");
        match fs::read_to_string(&version) {
            Ok(text) if text == VERSION => return Ok(()),
            Ok(_) => bail!("{} is of another layout than this program knows", version.display()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(|| format!("read {}", version.display())),
        }
        for folder in
            ["", "oci/blobs/sha256", "refs", "layers", "fixups", "ingest", "empty", "tmp", "trash", "locks"]
        {
            let path = self.root.join(folder);
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&path)
                .with_context(|| format!("create {}", path.display()))?;
        }
        let (marker, text) = image::layout::MARKER;
        self.write_file(&self.root.join("oci").join(marker), text.as_bytes())?;
        self.rebuild_index()?;
        // Last: a store with a version file has everything else.
        self.write_file(&version, VERSION.as_bytes())
    }

    /// `--root`, absolute.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// A path in the store.
    pub(crate) fn path(&self, relative: &str) -> PathBuf {
        self.root.join(relative)
    }

    /// Finds an image by reference (`name[:tag][@digest]`) or by (a prefix of) its id.
    pub(crate) fn find(&self, reference: &str) -> Result<Option<LocalImage>> {
        match self.find_record(reference)? {
            Some((record, by_name)) => self.load(&record, by_name).map(Some),
            None => Ok(None),
        }
    }

    /// The record behind a reference or id, and whether it was found by its name.
    pub(crate) fn find_record(&self, reference: &str) -> Result<Option<(Record, bool)>> {
        let digits = reference.strip_prefix("sha256:").unwrap_or(reference);
        let id_like = !digits.is_empty()
            && digits.len() <= 64
            && digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        let names = match Reference::parse(reference) {
            // A short name may have been pulled as another one's than docker's.
            Ok(dockers) => [Registries::load()?.candidates(reference)?, vec![dockers]].concat(),
            Err(_) if id_like => Vec::new(),
            Err(error) => return Err(error),
        };
        for name in names {
            if let Some(record) = self.find_name(&name)? {
                return Ok(Some((record, true)));
            }
        }
        if !id_like {
            return Ok(None);
        }
        let mut found: Option<Record> = None;
        for record in self.records()? {
            if !record.config.hex().starts_with(digits) {
                continue;
            }
            if found.as_ref().is_some_and(|found| found.config != record.config) {
                bail!("image id {digits} is ambiguous: give more digits");
            }
            found.get_or_insert(record);
        }
        Ok(found.map(|record| (record, false)))
    }

    fn find_name(&self, wanted: &Reference) -> Result<Option<Record>> {
        let Some(digest) = wanted.digest() else {
            return self.record(&wanted.to_string());
        };
        // The digest decides; it may be of the index that a tag named or of the platform's manifest.
        let matches = |record: &Record| {
            let same_repository =
                Reference::parse(&record.name).is_ok_and(|name| name.repository() == wanted.repository());
            let same_digest =
                record.target == *digest || record.manifest.digest().as_ref() == digest.to_string();
            same_repository && same_digest
        };
        Ok(self.records()?.into_iter().find(matches))
    }

    /// Reads what a record names: its manifest, its configuration, where its layers are.
    pub(crate) fn load(&self, record: &Record, by_name: bool) -> Result<LocalImage> {
        self.load_parts(record, by_name).with_context(|| format!("image {}", record.familiar()))
    }

    fn load_parts(&self, record: &Record, by_name: bool) -> Result<LocalImage> {
        let config = image::config::read(&self.read_blob(&record.config)?)?;
        let diff_ids = image::config::diff_ids(&config)?;
        Ok(LocalImage {
            name: by_name.then(|| record.name.clone()),
            manifest: record.manifest.clone(),
            id: record.config.to_string(),
            layers: self.lower_folders(&diff_ids)?,
            config,
        })
    }

    /// The manifest of a record, read anew.
    pub(crate) fn manifest(&self, record: &Record) -> Result<oci_spec::image::ImageManifest> {
        let digest = Digest::of_descriptor(&record.manifest)?;
        match image::manifest::read(&self.read_blob(&digest)?, Some(record.manifest.media_type().as_ref()))? {
            Document::Manifest(manifest) => Ok(*manifest),
            Document::Index(_) => bail!("{digest} is an index, not a manifest"),
        }
    }

    /// The descriptor of a manifest or index that is here.
    pub(crate) fn descriptor(&self, digest: &Digest) -> Result<Option<Descriptor>> {
        if !self.blob_path(digest).exists() {
            return Ok(None);
        }
        let bytes = self.read_blob(digest)?;
        let media_type = match image::manifest::read_any(&bytes, None)? {
            Document::Index(index) => index.media_type().clone().unwrap_or(MediaType::ImageIndex),
            Document::Manifest(manifest) => manifest.media_type().clone().unwrap_or(MediaType::ImageManifest),
        };
        digest.describe(media_type, bytes.len() as u64).map(Some)
    }

    /// The ids of images that containers use, each with a container's id; none for a container
    /// whose file cannot be read: it may use any image.
    pub(crate) fn images_in_use(&self) -> Result<Vec<(Option<Digest>, String)>> {
        let folder = self.path("containers");
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error).with_context(|| format!("read {}", folder.display())),
        };
        let mut used = Vec::new();
        for entry in entries {
            let entry = entry.with_context(|| format!("read {}", folder.display()))?;
            let file = entry.path().join("image");
            let container = || entry.file_name().to_string_lossy().into_owned();
            match fs::read_to_string(&file) {
                Ok(text) => {
                    used.push((Digest::parse(text.trim()).ok(), container()));
                }
                // A container that is just being made or removed.
                Err(error)
                    if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {}
                Err(_) => used.push((None, container())),
            }
        }
        Ok(used)
    }

    /// Writes a small file so that readers see the old or the new one, never a part.
    pub(crate) fn write_file(&self, path: &Path, content: &[u8]) -> Result<()> {
        let temporary = self.temporary_path();
        let write = || -> io::Result<()> {
            let mut file = fs::File::options().write(true).create_new(true).open(&temporary)?;
            file.write_all(content)?;
            file.sync_data()?;
            fs::rename(&temporary, path)
        };
        write().map_err(|error| {
            let _ = fs::remove_file(&temporary);
            anyhow::Error::new(error).context(format!("write {}", path.display()))
        })
    }

    /// A path in `tmp/` that nobody else uses, not even a killed process that had our id.
    pub(crate) fn temporary_path(&self) -> PathBuf {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos();
        self.root.join("tmp").join(format!("{}-{count}-{now}", std::process::id()))
    }

    /// A folder in `tmp/` that goes away with the value.
    pub(crate) fn scratch(&self) -> Result<Scratch> {
        let path = self.temporary_path();
        DirBuilder::new().mode(0o700).create(&path).with_context(|| format!("create {}", path.display()))?;
        Ok(Scratch { path })
    }
}

/// A folder for unfinished things.
#[derive(Debug)]
pub(crate) struct Scratch {
    path: PathBuf,
}

impl Scratch {
    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What stays is swept by a later command.
        let _ = remove_tree(&self.path);
    }
}

/// Removes a file or folder with everything in it. The standard library descends by descriptor and
/// never follows a link (CVE-2022-21658).
pub(crate) fn remove_tree(path: &Path) -> Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

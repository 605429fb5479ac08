//! The OCI image layout: a folder, or the same in a tar.
//!
//! <https://github.com/opencontainers/image-spec/blob/v1.1.1/image-layout.md>
//!
//! ```text
//! oci-layout            {"imageLayoutVersion":"1.0.0"}
//! index.json            one descriptor a name, the name in org.opencontainers.image.ref.name
//! blobs/sha256/<hex>    manifests, configurations, layers
//! ```

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use oci_spec::image::{Descriptor, ImageIndex};
use serde_json::{Value, json};

use super::manifest::{self, Document};
use super::tar_index::{self, Part};
use super::{LARGEST_DOCUMENT, docker_archive};
use crate::digest::{Digest, Verified};
use crate::reference::Reference;

/// The file that marks a folder as a layout.
pub(crate) const MARKER: (&str, &str) = ("oci-layout", r#"{"imageLayoutVersion":"1.0.0"}"#);

/// The annotation of an index entry that is its name.
pub(crate) const NAME: &str = "org.opencontainers.image.ref.name";

/// The same as containerd and docker write it: the whole reference.
const CONTAINERD_NAME: &str = "io.containerd.image.name";

/// An opened layout, to be read.
#[derive(Debug)]
pub(crate) struct Layout {
    path: PathBuf,
    files: Files,
    /// What it has, as named there.
    images: Vec<Named>,
}

/// An image of a layout.
#[derive(Clone, Debug)]
pub(crate) struct Named {
    pub(crate) name: Option<String>,
    pub(crate) descriptor: Descriptor,
}

#[derive(Debug)]
enum Files {
    Folder,
    /// An archive: documents that are only here, and where each blob lies in the file.
    Archive {
        file: Arc<File>,
        documents: HashMap<Digest, Vec<u8>>,
        parts: HashMap<Digest, Part>,
    },
}

impl Layout {
    /// Opens a folder.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let open = || -> Result<Self> {
            let index = File::open(path.join("index.json")).context("open its index.json")?;
            let mut bytes = Vec::new();
            index.take(LARGEST_DOCUMENT).read_to_end(&mut bytes).context("read its index.json")?;
            Ok(Self { path: path.to_owned(), files: Files::Folder, images: names(&bytes)? })
        };
        open().with_context(|| format!("image layout {}", path.display()))
    }

    /// The blobs of a folder, whatever its index.json says.
    pub(crate) fn unnamed(path: &Path) -> Self {
        Self { path: path.to_owned(), files: Files::Folder, images: Vec::new() }
    }

    /// Opens an archive: a layout in a tar, or what `docker save` has written since ever. `file` is plain,
    /// whatever it was in before.
    pub(crate) fn open_archive(path: &Path, file: File) -> Result<Self> {
        Self::read_archive(path, file).with_context(|| format!("archive {}", path.display()))
    }

    fn read_archive(path: &Path, file: File) -> Result<Self> {
        let file = Arc::new(file);
        let entries = tar_index::read(&file)?;
        let text = |name: &str| -> Result<Option<Vec<u8>>> {
            entries.get(name.as_bytes()).map(|part| part.read_all(&file).context(name.to_owned())).transpose()
        };
        if let Some(index) = text("index.json")? {
            let mut parts = HashMap::new();
            for (name, part) in &entries {
                let digest = std::str::from_utf8(name).ok().and_then(|name| {
                    let (algorithm, hex) = name.strip_prefix("blobs/")?.split_once('/')?;
                    Digest::parse(&format!("{algorithm}:{hex}")).ok()
                });
                parts.extend(digest.map(|digest| (digest, *part)));
            }
            let images = names(&index)?;
            let files = Files::Archive { file, documents: HashMap::new(), parts };
            return Ok(Self { path: path.to_owned(), files, images });
        }
        let Some(manifest) = text("manifest.json")? else {
            bail!("it is neither an OCI image layout (index.json) nor a docker archive (manifest.json)");
        };
        let docker_archive::Translated { documents, parts, images } =
            docker_archive::translate(&manifest, &entries, &file)?;
        Ok(Self { path: path.to_owned(), files: Files::Archive { file, documents, parts }, images })
    }

    /// Everything that it has a name for, and what has none.
    pub(crate) fn images(&self) -> &[Named] {
        &self.images
    }

    /// The image of this name; without a name the only one.
    pub(crate) fn find(&self, name: Option<&str>) -> Result<Descriptor> {
        let where_ = || format!("image layout {}", self.path.display());
        match name {
            Some(name) => {
                let found = self.images.iter().find(|image| image.name.as_deref() == Some(name));
                found
                    .map(|image| image.descriptor.clone())
                    .with_context(|| format!("{}: no image {name:?}", where_()))
            }
            None => match &self.images[..] {
                [only] => Ok(only.descriptor.clone()),
                [] => bail!("{}: it has no image", where_()),
                several => bail!("{}: it has {} images, name one of them", where_(), several.len()),
            },
        }
    }

    /// The same, where names may be written in short on either side: `busybox` for
    /// `docker.io/library/busybox:latest`.
    pub(crate) fn find_loosely(&self, name: Option<&str>) -> Result<Descriptor> {
        let whole =
            |name: &str| Reference::parse(name).map_or_else(|_| name.to_owned(), |name| name.to_string());
        let Some(wanted) = name else { return self.find(None) };
        let same = |image: &&Named| image.name.as_deref().is_some_and(|found| whole(found) == whole(wanted));
        match self.images.iter().find(same) {
            Some(image) => Ok(image.descriptor.clone()),
            None => self.find(name),
        }
    }

    /// A manifest, index or configuration, checked.
    pub(crate) fn document(&self, descriptor: &Descriptor) -> Result<Vec<u8>> {
        let digest = Digest::of_descriptor(descriptor)?;
        if descriptor.size() > LARGEST_DOCUMENT {
            bail!("it has {} bytes, more than {LARGEST_DOCUMENT}", descriptor.size());
        }
        if let Files::Archive { documents, .. } = &self.files
            && let Some(bytes) = documents.get(&digest)
        {
            return Ok(bytes.clone());
        }
        let mut bytes = Vec::new();
        Verified::new(self.open_blob(&digest)?, &digest, descriptor.size()).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// A blob from `start` on; who reads it checks it.
    pub(crate) fn blob(&self, descriptor: &Descriptor, start: u64) -> Result<impl Read + Send + use<>> {
        let mut blob = self.open_blob(&Digest::of_descriptor(descriptor)?)?;
        blob.position += start;
        Ok(blob)
    }

    fn open_blob(&self, digest: &Digest) -> Result<Blob> {
        let missing = || format!("{}: blob {digest} is not in it", self.path.display());
        match &self.files {
            Files::Folder => {
                let path = self.path.join("blobs").join(digest.algorithm().name()).join(digest.hex());
                let file = File::open(&path).with_context(missing)?;
                let end = file.metadata().with_context(missing)?.len();
                Ok(Blob { file: Arc::new(file), position: 0, end })
            }
            Files::Archive { file, parts, .. } => {
                let part = parts.get(digest).with_context(missing)?;
                Ok(Blob { file: file.clone(), position: part.offset, end: part.offset + part.size })
            }
        }
    }

    /// True if the document is here with everything that it names.
    pub(crate) fn has(&self, descriptor: &Descriptor) -> bool {
        let is_here =
            |blob: &Descriptor| Digest::of_descriptor(blob).is_ok_and(|it| self.open_blob(&it).is_ok());
        let Ok(bytes) = self.document(descriptor) else { return false };
        match manifest::read_any(&bytes, Some(descriptor.media_type().as_ref())) {
            Ok(Document::Index(index)) => index.manifests().iter().all(|entry| self.has(entry)),
            Ok(Document::Manifest(manifest)) => {
                is_here(manifest.config()) && manifest.layers().iter().all(is_here)
            }
            Err(_) => false,
        }
    }

    /// For messages and records.
    pub(crate) fn address(&self) -> String {
        self.path.display().to_string()
    }
}

/// A part of a file, read without moving anybody's place in it.
#[derive(Debug)]
pub(crate) struct Blob {
    file: Arc<File>,
    position: u64,
    end: u64,
}

impl Blob {
    /// The bytes of a file from `position` to `end`.
    pub(crate) fn of(file: &File, position: u64, end: u64) -> io::Result<Self> {
        Ok(Self { file: Arc::new(file.try_clone()?), position, end })
    }
}

impl Read for Blob {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end.saturating_sub(self.position)).unwrap_or(usize::MAX);
        let wanted = buffer.len().min(left);
        let count = self.file.read_at(&mut buffer[..wanted], self.position)?;
        self.position += count as u64;
        Ok(count)
    }
}

fn names(index: &[u8]) -> Result<Vec<Named>> {
    let index: ImageIndex = serde_json::from_slice(index).context("its index.json is not a valid index")?;
    let named = |descriptor: &Descriptor| {
        let annotation = |key| descriptor.annotations().as_ref().and_then(|all| all.get(key)).cloned();
        Named {
            name: annotation(CONTAINERD_NAME).or_else(|| annotation(NAME)),
            descriptor: descriptor.clone(),
        }
    };
    Ok(index.manifests().iter().map(named).collect())
}

/// The text of `index.json` for these names and manifests.
pub(crate) fn index(images: &[(String, Descriptor)]) -> Result<String> {
    let mut manifests = Vec::with_capacity(images.len());
    for (name, manifest) in images {
        let mut entry = serde_json::to_value(manifest)?;
        // The annotations of an index entry belong to the index we are writing.
        entry["annotations"] = json!({NAME: name});
        manifests.push(entry);
    }
    let index: Value = json!({
        "schemaVersion": 2,
        "mediaType": super::media_type::OCI_INDEX,
        "manifests": manifests,
    });
    Ok(index.to_string())
}

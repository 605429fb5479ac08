//! Into an image layout: a folder, or an archive that `docker load` and `podman load` read as well. Blobs go
//! there as they are.

use std::collections::HashSet;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use oci_spec::image::{Descriptor, Platform};
use serde_json::{Value, json};
use tar_core::builder::EntryBuilder;
use tar_core::{EntryType, HEADER_SIZE};

use super::Source;
use super::tree::{Take, Tree, image_of, main_image};
use crate::digest::{Digest, Verified};
use crate::image::docker_archive::Entry;
use crate::image::layout::{self, MARKER};
use crate::reference::Reference;
use crate::registry::Fetched;

/// What is to be written: its names there, and what they stand for at the source.
pub(crate) struct Export {
    pub(crate) names: Vec<String>,
    pub(crate) top: Fetched,
}

/// Where to.
pub(crate) enum Target<W: Write> {
    /// A layout that may have other images already: they stay.
    Folder(PathBuf),
    /// An archive. With `docker`, one that tools of before image layouts can read too.
    Archive { file: W, docker: bool },
}

/// Writes all images. `platform` is what tools that know no indexes are shown of one.
pub(crate) fn write_layout<W: Write>(
    source: &Source,
    images: Vec<Export>,
    target: Target<W>,
    take: Take,
    platform: &Platform,
) -> Result<()> {
    let mut trees = Vec::new();
    for Export { names, top } in images {
        let again = Fetched {
            bytes: top.bytes.clone(),
            digest: top.digest.clone(),
            media_type: top.media_type.clone(),
        };
        trees.push((names, Tree::read(source, top, take)?, again));
    }
    let mut index = Vec::new();
    for (names, tree, _) in &trees {
        index.extend(entries(names, tree.top()?)?);
    }
    match target {
        Target::Folder(path) => {
            let context = || format!("image layout {}", path.display());
            let mut folder = Folder::open(&path).with_context(context)?;
            write_blobs(source, trees.iter().map(|(_, tree, _)| tree), |digest, size, reader| {
                folder.blob(digest, size, reader)
            })
            .and_then(|()| folder.finish(index))
            .with_context(context)
        }
        Target::Archive { file, docker } => {
            let mut tar = Tar(io::BufWriter::with_capacity(1 << 20, file));
            tar.text(MARKER.0, MARKER.1.as_bytes())?;
            tar.text("index.json", index_text(index).as_bytes())?;
            if docker {
                let list: Vec<Entry> = trees
                    .iter()
                    .map(|(names, tree, top)| for_docker(source, names, tree, top, platform))
                    .collect::<Result<_>>()?;
                tar.text("manifest.json", &serde_json::to_vec(&list)?)?;
            }
            write_blobs(source, trees.iter().map(|(_, tree, _)| tree), |digest, size, reader| {
                tar.file(&blob_name(digest), size, reader)
            })?;
            tar.finish()
        }
    }
}

/// Each document and blob of all images once.
fn write_blobs<'a>(
    source: &Source,
    trees: impl Iterator<Item = &'a Tree>,
    mut write: impl FnMut(&Digest, u64, &mut dyn Read) -> Result<()>,
) -> Result<()> {
    let mut seen = HashSet::new();
    for tree in trees {
        for (descriptor, bytes) in &tree.documents {
            let digest = Digest::of_descriptor(descriptor)?;
            if seen.insert(digest.clone()) {
                write(&digest, bytes.len() as u64, &mut &bytes[..])?;
            }
        }
        for descriptor in &tree.blobs {
            let digest = Digest::of_descriptor(descriptor)?;
            if seen.insert(digest.clone()) {
                let size = descriptor.size();
                let context = || format!("blob {digest}");
                let reader = source.blob(descriptor, 0, descriptor.size()).with_context(context)?;
                write(&digest, size, &mut Verified::new(reader, &digest, size)).with_context(context)?;
            }
        }
    }
    Ok(())
}

/// The lines of index.json for one image, one a name.
fn entries(names: &[String], top: &Descriptor) -> Result<Vec<Value>> {
    let plain = serde_json::to_value(top)?;
    if names.is_empty() {
        return Ok(vec![plain]);
    }
    let named = |name: &String| {
        let mut entry = plain.clone();
        // Docker and containerd look for the whole reference; the short one is a tag to them.
        entry["annotations"] = json!({layout::NAME: name, "io.containerd.image.name": name});
        entry
    };
    Ok(names.iter().map(named).collect())
}

fn index_text(entries: Vec<Value>) -> String {
    let media_type = crate::image::media_type::OCI_INDEX;
    json!({"schemaVersion": 2, "mediaType": media_type, "manifests": entries}).to_string()
}

fn for_docker(
    source: &Source,
    names: &[String],
    tree: &Tree,
    top: &Fetched,
    platform: &Platform,
) -> Result<Entry> {
    let (_, manifest) = image_of(tree, &main_image(tree, source, top, platform)?)?;
    let blob = |descriptor: &Descriptor| Ok(blob_name(&Digest::of_descriptor(descriptor)?));
    let familiar =
        |name: &String| Reference::parse(name).map_or_else(|_| name.clone(), |name| name.familiar());
    Ok(Entry {
        config: blob(manifest.config())?,
        repo_tags: Some(names.iter().filter(|name| !name.contains('@')).map(familiar).collect()),
        layers: manifest.layers().iter().map(blob).collect::<Result<_>>()?,
    })
}

fn blob_name(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm().name(), digest.hex())
}

/// A layout in a folder.
struct Folder {
    path: PathBuf,
}

impl Folder {
    fn open(path: &Path) -> Result<Self> {
        DirBuilder::new().recursive(true).mode(0o755).create(path.join("blobs")).context("make it")?;
        Ok(Self { path: path.to_owned() })
    }

    fn blob(&mut self, digest: &Digest, size: u64, reader: &mut dyn Read) -> Result<()> {
        let path = self.path.join(blob_name(digest));
        if fs::metadata(&path).is_ok_and(|found| found.len() == size) {
            return Ok(());
        }
        fs::create_dir_all(path.parent().context("a blob has a folder")?)
            .context("make the folder of blobs")?;
        self.write(&path, |file| io::copy(reader, file).map(drop))
    }

    /// Under a name of its own first, so that whoever reads finds it whole or not at all.
    fn write(&self, path: &Path, write: impl FnOnce(&mut File) -> io::Result<()>) -> Result<()> {
        let draft = path.with_extension(format!("{}.tmp", std::process::id()));
        let done =
            File::options().write(true).create(true).truncate(true).open(&draft).and_then(|mut file| {
                write(&mut file)?;
                fs::rename(&draft, path)
            });
        done.map_err(|error| {
            let _ = fs::remove_file(&draft);
            anyhow::Error::new(error).context(format!("write {}", path.display()))
        })
    }

    /// The index last: it makes images of the blobs.
    fn finish(&mut self, entries: Vec<Value>) -> Result<()> {
        let (marker, text) = MARKER;
        self.write(&self.path.join(marker), |file| file.write_all(text.as_bytes()))?;
        let path = self.path.join("index.json");
        let mut kept = match fs::read(&path) {
            Ok(bytes) => {
                let index: Value = serde_json::from_slice(&bytes).context("its index.json is not JSON")?;
                index["manifests"].as_array().cloned().unwrap_or_default()
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error).context("read its index.json"),
        };
        let name = |entry: &Value| entry["annotations"][layout::NAME].clone();
        kept.retain(|old| {
            !entries
                .iter()
                .any(|new| name(new) == name(old) && (!name(old).is_null() || new["digest"] == old["digest"]))
        });
        kept.extend(entries);
        self.write(&path, |file| file.write_all(index_text(kept).as_bytes()))
    }
}

/// A tar, written from its beginning to its end.
struct Tar<W>(W);

impl<W: Write> Tar<W> {
    fn text(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        self.file(name, bytes.len() as u64, &mut &bytes[..])
    }

    fn file(&mut self, name: &str, size: u64, reader: &mut dyn Read) -> Result<()> {
        let mut header = EntryBuilder::new_gnu();
        header.path(name).mode(0o644)?.uid(0)?.gid(0)?.mtime(0)?.size(size)?.entry_type(EntryType::Regular);
        self.0.write_all(&header.finish_bytes()).context("write the archive")?;
        let mut buffer = vec![0; 1 << 20];
        let mut left = size;
        loop {
            let count = match reader.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error.into()),
            };
            left = left.checked_sub(count as u64).context("it is longer than it says")?;
            self.0.write_all(&buffer[..count]).context("write the archive")?;
        }
        if left > 0 {
            bail!("it is shorter than it says");
        }
        let padding = size.next_multiple_of(HEADER_SIZE as u64) - size;
        self.0.write_all(&[0; HEADER_SIZE][..usize::try_from(padding)?]).context("write the archive")
    }

    fn finish(&mut self) -> Result<()> {
        self.0.write_all(&[0; 2 * HEADER_SIZE]).and_then(|()| self.0.flush()).context("write the archive")
    }
}

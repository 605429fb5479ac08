//! Names: one small file each below `refs/`, written with rename(2). Moving a tag is one rename and
//! never touches another name. `oci/index.json` is derived from them.

use std::fs;
use std::io;
use std::path::PathBuf;

use anyhow::{Context, Result};
use oci_spec::image::Descriptor;
use serde::{Deserialize, Serialize};

use super::Store;
use crate::digest::Digest;
use crate::image::layout;
use crate::reference::Reference;

/// What a name stands for.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Record {
    /// The whole reference: `docker.io/library/busybox:latest`, or `...@sha256:...` for an image
    /// that has lost its tag or never had one.
    pub(crate) name: String,
    /// The manifest of the platform that was pulled.
    pub(crate) manifest: Descriptor,
    /// What the registry's tag named: the index, or the same manifest.
    pub(crate) target: Digest,
    /// The configuration: docker's image id.
    pub(crate) config: Digest,
    /// When it was pulled or tagged, RFC 3339.
    pub(crate) tagged_at: String,
    /// Where it came from: an address of a registry, or a path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) source: Option<String>,
    /// Everything that its index names came too, other platforms' images.
    #[serde(default)]
    pub(crate) whole: bool,
}

impl Record {
    /// Its name as people write it.
    pub(crate) fn familiar(&self) -> String {
        self.reference().map_or_else(|_| self.name.clone(), |reference| reference.familiar())
    }

    /// It was loaded or made here, and not pulled.
    pub(crate) fn is_from_here(&self) -> bool {
        let is_address =
            |source: &String| ["http://", "https://"].iter().any(|start| source.starts_with(start));
        self.source.as_ref().is_some_and(|source| !is_address(source))
    }

    /// Its name, parsed.
    pub(crate) fn reference(&self) -> Result<Reference> {
        Reference::parse(&self.name)
    }
}

impl Store {
    /// All records, by name.
    pub(crate) fn records(&self) -> Result<Vec<Record>> {
        let folder = self.path("refs");
        let mut records = Vec::new();
        for entry in fs::read_dir(&folder).with_context(|| format!("read {}", folder.display()))? {
            let path = entry.with_context(|| format!("read {}", folder.display()))?.path();
            // It may have gone since the folder was read.
            records.extend(read_record(&path)?);
        }
        records.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(records)
    }

    /// The record of exactly this name.
    pub(crate) fn record(&self, name: &str) -> Result<Option<Record>> {
        read_record(&self.record_path(name))
    }

    /// Gives a name to an image, taking it from the one that had it. That one, if no other name is
    /// left to it, keeps its repository and digest, as docker does: `<none>` in the list.
    pub(crate) fn write_record(&self, record: &Record) -> Result<()> {
        let _lock = self.lock_exclusive("index")?;
        if let Some(old) = self.record(&record.name)?
            && old.config != record.config
            && !self.records()?.iter().any(|other| other.name != old.name && other.config == old.config)
        {
            let name = old.reference()?.with_digest(&old.target).to_string();
            self.put(&Record { name, ..old })?;
        }
        self.put_name(record)
    }

    /// Gives a name to an image, whatever becomes of the one that had it.
    pub(crate) fn put_back(&self, record: &Record) -> Result<()> {
        let _lock = self.lock_exclusive("index")?;
        self.put_name(record)
    }

    fn put_name(&self, record: &Record) -> Result<()> {
        self.put(record)?;
        // An image that has a tag again needs no placeholder.
        let tagged = record.reference()?;
        if tagged.tag().is_some() {
            let placeholder = tagged.with_digest(&record.target).to_string();
            if let Some(found) = self.record(&placeholder)?
                && found.config == record.config
            {
                self.take(&placeholder)?;
            }
        }
        self.rebuild_index()
    }

    /// Takes a name away.
    pub(crate) fn remove_record(&self, name: &str) -> Result<()> {
        let _lock = self.lock_exclusive("index")?;
        self.take(name)?;
        self.rebuild_index()
    }

    /// Writes index.json anew from the records.
    pub(crate) fn rebuild_index(&self) -> Result<()> {
        let images: Vec<_> =
            self.records()?.into_iter().map(|record| (record.name, record.manifest)).collect();
        self.write_file(&self.path("oci/index.json"), layout::index(&images)?.as_bytes())
    }

    fn put(&self, record: &Record) -> Result<()> {
        self.write_file(&self.record_path(&record.name), &serde_json::to_vec(record)?)
    }

    fn take(&self, name: &str) -> Result<()> {
        match fs::remove_file(self.record_path(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("remove the name {name}"))
            }
            _ => Ok(()),
        }
    }

    fn record_path(&self, name: &str) -> PathBuf {
        self.path("refs").join(escape(name))
    }
}

fn read_record(path: &std::path::Path) -> Result<Option<Record>> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("read {}", path.display())),
    };
    let record = serde_json::from_slice(&bytes).with_context(|| format!("{} is damaged", path.display()))?;
    Ok(Some(record))
}

/// A file name for a reference: slashes as `%2F` (`%` is in no reference), and a digest of the
/// name where it would be longer than a file name may be. The record holds the whole name.
fn escape(name: &str) -> String {
    let escaped = name.replace('/', "%2F");
    if escaped.len() <= 200 { escaped } else { format!("{}%", Digest::sha256(name.as_bytes()).hex()) }
}

//! Asking mirrors first, in the order of the files, and the registry itself last.
//!
//! A mirror is asked for what a digest names, which is checked; and for what a tag stands for only when
//! a file trusts it with that (see `registries`). It sees the credentials that the auth files have for
//! its own name, never those of the registry it mirrors. One that lacks something is asked for the next
//! thing; one that fails or lies is not.

use std::io::{self, Read};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use anyhow::{Result, anyhow};
use oci_spec::image::Descriptor;

use super::pull::{BlobBody, Fetched};
use super::registries::Location;
use super::{Absent, Access, RegistryArgs, Repository};
use crate::reference::Reference;

/// A place that has what a repository has, or a part of it.
pub(super) struct Mirror {
    location: Location,
    /// What people call it.
    name: Reference,
    args: RegistryArgs,
    repository: OnceLock<Repository>,
    failed: Arc<AtomicBool>,
}

impl Mirror {
    pub(super) fn new(location: Location, name: &Reference, args: &RegistryArgs) -> Self {
        // The folder is one for the registry itself.
        let args = RegistryArgs { cert_dir: None, ..args.clone() };
        Self { location, name: name.clone(), args, repository: OnceLock::new(), failed: Arc::default() }
    }

    fn repository(&self) -> Result<&Repository> {
        if let Some(repository) = self.repository.get() {
            return Ok(repository);
        }
        let Location { reference, insecure, .. } = &self.location;
        let repository = Repository::at(reference, &self.name, Access::Pull, &self.args, *insecure)?;
        Ok(self.repository.get_or_init(|| repository))
    }

    fn works(&self) -> bool {
        !self.failed.load(Ordering::Relaxed)
    }

    fn ask<T>(&self, get: impl FnOnce(&Repository) -> Result<T>) -> Result<T, String> {
        self.repository().and_then(get).map_err(|error| {
            if !error.is::<Absent>() {
                self.failed.store(true, Ordering::Relaxed);
            }
            format!("mirror {}: {error:#}", self.location.reference.domain())
        })
    }
}

impl Repository {
    /// Gets what a reference names. By a digest, the content must have it; by a tag, it must have
    /// the digest that the registry states, if it states one.
    pub(crate) fn manifest(&self, reference: &Reference) -> Result<Fetched> {
        let by_digest = reference.digest().is_some();
        let may = |location: &Location| if by_digest { location.digests } else { location.tags };
        let found = self.first(may, |source| {
            let found = source.own_manifest(reference)?;
            let _ = self.found_at.set(source.address());
            Ok(found)
        });
        let asked_for_tags = |mirror: &Mirror| by_digest || mirror.location.tags;
        match found {
            Err(error) if !error.is::<Absent>() && !self.mirrors.iter().all(asked_for_tags) => {
                let hint = "mirrors are asked for tags only with pull-from-mirror = \"all\"";
                Err(with_mirrors(error, &[hint.to_owned()]))
            }
            found => found,
        }
    }

    /// Gets a manifest or configuration by its descriptor.
    pub(crate) fn document(&self, kind: &str, descriptor: &Descriptor) -> Result<Vec<u8>> {
        self.first(|location| location.digests, |source| source.own_document(kind, descriptor))
    }

    /// Opens a blob, from `start` on if the registry can do that, else from its beginning.
    pub(crate) fn blob(&self, descriptor: &Descriptor, start: u64, end: u64) -> Result<BlobBody> {
        let mut said = Vec::new();
        for mirror in self.mirrors.iter().filter(|mirror| mirror.location.digests && mirror.works()) {
            match mirror.ask(|source| source.own_blob(descriptor, start, end)) {
                Ok(body) => {
                    let left = descriptor.size().saturating_sub(body.start);
                    let reader = Watched { reader: body.reader, left, failed: mirror.failed.clone() };
                    let BlobBody { start, is_part, .. } = body;
                    return Ok(BlobBody { reader: Box::new(reader), start, is_part });
                }
                Err(error) => said.push(error),
            }
        }
        self.own_blob(descriptor, start, end).map_err(|error| with_mirrors(error, &said))
    }

    /// Gives up all mirrors, since what came is not what was asked for; false when there are none to
    /// give up.
    pub(crate) fn give_up_mirrors(&self) -> bool {
        let working = self.mirrors.iter().filter(|mirror| mirror.location.digests);
        working.map(|mirror| !mirror.failed.swap(true, Ordering::Relaxed)).fold(false, |any, one| any | one)
    }

    fn first<T>(&self, may: impl Fn(&Location) -> bool, get: impl Fn(&Repository) -> Result<T>) -> Result<T> {
        let mut said = Vec::new();
        for mirror in self.mirrors.iter().filter(|mirror| may(&mirror.location) && mirror.works()) {
            match mirror.ask(&get) {
                Ok(found) => return Ok(found),
                Err(error) => said.push(error),
            }
        }
        get(self).map_err(|error| with_mirrors(error, &said))
    }
}

/// The registry's own error, and what went wrong before.
fn with_mirrors(error: anyhow::Error, said: &[String]) -> anyhow::Error {
    if said.is_empty() {
        return error;
    }
    let text = format!("{error:#} ({})", said.join("; "));
    if error.is::<Absent>() { Absent(text).into() } else { anyhow!(text) }
}

/// A mirror's blob. Where it breaks off, the next place goes on.
struct Watched {
    reader: Box<dyn Read + Send>,
    left: u64,
    failed: Arc<AtomicBool>,
}

impl Read for Watched {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.reader.read(buffer);
        match &read {
            Ok(0) if self.left > 0 && !buffer.is_empty() => self.failed.store(true, Ordering::Relaxed),
            Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                self.failed.store(true, Ordering::Relaxed);
            }
            _ => {}
        }
        self.left = self.left.saturating_sub(*read.as_ref().unwrap_or(&0) as u64);
        read
    }
}

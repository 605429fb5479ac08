//! Manifests and blobs: endpoints end-2 and end-3.
//!
//! <https://github.com/opencontainers/distribution-spec/blob/v1.1.1/spec.md#pull>

use std::io::{self, Read};

use anyhow::{Context, Result, bail};
use oci_spec::image::Descriptor;
use ureq::http::Method;

use super::server::{Answer, Failed, header};
use super::{Absent, Repository, Request};
use crate::digest::{Digest, Hasher, Verified};
use crate::image::LARGEST_DOCUMENT;
use crate::image::media_type::{self, without_parameters};
use crate::reference::Reference;

/// A manifest or index as it came, checked against every digest that was promised.
pub(crate) struct Fetched {
    pub(crate) bytes: Vec<u8>,
    pub(crate) digest: Digest,
    /// The `Content-Type` without parameters.
    pub(crate) media_type: Option<String>,
}

/// A blob's bytes from `start` on.
pub(crate) struct BlobBody {
    pub(crate) reader: Box<dyn Read + Send>,
    pub(crate) start: u64,
    /// Just those that were asked for.
    pub(crate) is_part: bool,
}

impl Repository {
    /// What `manifest` gets, from this repository itself.
    pub(super) fn own_manifest(&self, reference: &Reference) -> Result<Fetched> {
        let selector = match &self.opened {
            (name, Some(tag)) if name == reference && name.digest().is_none() => tag.clone(),
            _ => reference.selector(),
        };
        let answer = self.get(&format!("manifests/{selector}"), &[("Accept", media_type::ACCEPT)])?;
        let status = answer.status().as_u16();
        if status == 404 {
            let said = self.server.refusal(answer);
            return Err(Absent(format!("manifest for {} not found: {said}", reference.familiar())).into());
        }
        if status != 200 {
            return Err(self.refused(answer));
        }
        let media_type = header(&answer, "content-type").map(|value| without_parameters(value).to_owned());
        let stated = header(&answer, "docker-content-digest").map(str::to_owned);
        let mut bytes = Vec::new();
        answer
            .into_body()
            .into_reader()
            .take(LARGEST_DOCUMENT + 1)
            .read_to_end(&mut bytes)
            .with_context(|| format!("registry {}: read the manifest", self.server.domain))?;
        if bytes.len() as u64 > LARGEST_DOCUMENT {
            bail!("the manifest has more than {LARGEST_DOCUMENT} bytes");
        }
        let digest = match reference.digest() {
            Some(wanted) => check(&bytes, wanted, "the manifest's content")?,
            None => Digest::sha256(&bytes),
        };
        if let Some(stated) = stated {
            let stated = Digest::parse(&stated).context("the digest that the registry states")?;
            check(&bytes, &stated, "the registry states another digest than the manifest's content has: it")?;
        }
        Ok(Fetched { bytes, digest, media_type })
    }

    /// What `document` gets, from this repository itself.
    pub(super) fn own_document(&self, kind: &str, descriptor: &Descriptor) -> Result<Vec<u8>> {
        let digest = Digest::of_descriptor(descriptor)?;
        let size = descriptor.size();
        if size > LARGEST_DOCUMENT {
            bail!("it has {size} bytes, more than {LARGEST_DOCUMENT}");
        }
        let answer = self.get(&format!("{kind}/{digest}"), &[("Accept", media_type::ACCEPT)])?;
        if answer.status().as_u16() != 200 {
            return Err(self.refused(answer));
        }
        let mut bytes = Vec::new();
        Verified::new(answer.into_body().into_reader(), &digest, size).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// What `blob` opens, at this repository itself.
    pub(super) fn own_blob(&self, descriptor: &Descriptor, start: u64, end: u64) -> Result<BlobBody> {
        let digest = Digest::of_descriptor(descriptor)?;
        let to_the_end = end >= descriptor.size();
        let last = if to_the_end { String::new() } else { end.saturating_sub(1).to_string() };
        let range = format!("bytes={start}-{last}");
        let is_part = start > 0 || !to_the_end;
        let headers: &[(&str, &str)] = if is_part { &[("Range", &range)] } else { &[] };
        let mut answer = self.get(&format!("blobs/{digest}"), headers)?;
        let urls = descriptor.urls().as_deref().unwrap_or(&[]);
        if answer.status().as_u16() == 404 && !urls.is_empty() {
            answer = self.foreign(urls, headers)?;
        }
        match answer.status().as_u16() {
            200 => Ok(BlobBody { reader: reader(answer), start: 0, is_part: false }),
            206 if is_part && range_start(&answer) == Some(start) => {
                Ok(BlobBody { reader: reader(answer), start, is_part })
            }
            206 => {
                bail!("registry {}: it sent another range of the blob than was asked for", self.server.domain)
            }
            // The part we have reaches its end or further.
            416 if is_part => self.own_blob(descriptor, 0, descriptor.size()),
            _ => Err(self.refused(answer)),
        }
    }

    /// The error of an answer that refuses.
    pub(super) fn refused(&self, answer: Answer) -> anyhow::Error {
        super::refused(&self.server, answer)
    }

    /// A layer that the registry only points at. These addresses never see credentials.
    fn foreign(&self, urls: &[String], headers: &[(&str, &str)]) -> Result<Answer> {
        let request = Request::new(Method::GET, "").headers(headers);
        let mut last = None;
        for url in urls {
            self.server.check_scheme(url)?;
            match self.server.follow(url, &request, None) {
                Ok(answer) if answer.status().is_success() => return Ok(answer),
                Ok(answer) => last = Some(format!("{url}: {}", answer.status())),
                Err(Failed::Temporary(message) | Failed::Final(message)) => {
                    last = Some(format!("{url}: {message}"))
                }
            }
        }
        bail!(last.unwrap_or_else(|| "the layer has no address".to_owned()))
    }
}

fn reader(answer: Answer) -> Box<dyn Read + Send> {
    Box::new(answer.into_body().into_reader())
}

/// The first number of `Content-Range: bytes 5-9/10`.
fn range_start(answer: &Answer) -> Option<u64> {
    let text = header(answer, "content-range")?.trim();
    text.strip_prefix("bytes")?.trim_start().split('-').next()?.parse().ok()
}

fn check(bytes: &[u8], wanted: &Digest, what: &str) -> Result<Digest> {
    let mut hasher = Hasher::new(wanted.algorithm());
    hasher.update(bytes);
    let found = hasher.finish();
    if found != *wanted {
        bail!("{what} hashes to {found}, not to {wanted}");
    }
    Ok(found)
}

impl Read for BlobBody {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.reader.read(buffer)
    }
}

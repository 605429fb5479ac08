//! Pushing: endpoints end-4a, end-5, end-6, end-7, end-11 and end-13.
//!
//! <https://github.com/opencontainers/distribution-spec/blob/v1.1.1/spec.md#push>
//!
//! ```text
//! HEAD blobs/<digest> ── 200: it is there
//! POST blobs/uploads/?mount=<digest>&from=<repository> ── 201: it was in that repository
//!   └ 202, Location ─► PUT <location>?digest= with all of it
//!                      what breaks off, or is too long for the registry, goes again in chunks:
//!                      PATCH <location> ... ─► PUT <location>?digest=
//! PUT manifests/<tag or digest>
//! ```

use std::cell::Cell;
use std::io::{self, Read};

use anyhow::{Context, Result, bail};
use oci_spec::image::Descriptor;
use ureq::http::Method;

use super::server::{Answer, header};
use super::{Body, Repository};
use crate::digest::Digest;

/// Chunks are this long, or longer if the registry asks for that.
const CHUNK: u64 = 16 << 20;

/// How often a chunk is sent that does not arrive.
const TRIES: u32 = 5;

/// How a blob came to be in the registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Arrived {
    Existed,
    MountedFrom(String),
    Pushed,
}

/// Gives a blob's bytes from this one on.
pub(crate) type Open<'a> = dyn Fn(u64) -> io::Result<Box<dyn Read + Send>> + Sync + 'a;

/// An upload that was begun.
struct Upload {
    location: String,
    shortest_chunk: u64,
}

impl Repository {
    /// Whether the registry has a blob in this repository.
    pub(crate) fn has_blob(&self, digest: &Digest) -> Result<bool> {
        let answer = self.send(&self.request(Method::HEAD, &format!("blobs/{digest}")))?;
        match answer.status().as_u16() {
            200 => Ok(true),
            404 => Ok(false),
            _ => bail!("registry {}: {}", self.server.domain, self.server.refusal(answer)),
        }
    }

    /// Brings a blob to the registry. `from` is a repository there that may have it.
    pub(crate) fn push_blob(&self, blob: &Descriptor, from: Option<&str>, open: &Open) -> Result<Arrived> {
        let digest = Digest::of_descriptor(blob)?;
        if self.has_blob(&digest)? {
            return Ok(Arrived::Existed);
        }
        let Some(upload) = self.begin(&digest, from)? else {
            return Ok(Arrived::MountedFrom(from.unwrap_or_default().to_owned()));
        };
        if self.push_whole(&upload, &digest, blob.size(), open).is_err() {
            // What has arrived of it belongs to that upload; another one begins from nothing.
            let upload = self.begin(&digest, None)?.context("the registry mounts what nobody asked it to")?;
            self.push_chunks(upload, &digest, blob.size(), open)?;
        }
        Ok(Arrived::Pushed)
    }

    /// Begins an upload; none if the blob was mounted instead.
    fn begin(&self, digest: &Digest, from: Option<&str>) -> Result<Option<Upload>> {
        let address = match from {
            Some(from) => format!("blobs/uploads/?mount={digest}&from={from}"),
            None => "blobs/uploads/".to_owned(),
        };
        let mut request = self.request(Method::POST, &address);
        if let Some(from) = from {
            request = request.also(&format!("repository:{from}:pull"));
        }
        let answer = self.send(&request)?;
        match answer.status().as_u16() {
            201 if from.is_some() => Ok(None),
            202 => Ok(Some(Upload {
                location: self.server.location(&answer)?,
                shortest_chunk: number(&answer, "oci-chunk-min-length").unwrap_or(0),
            })),
            _ => bail!("registry {}: begin an upload: {}", self.server.domain, self.server.refusal(answer)),
        }
    }

    /// All of it in one request, which is made once: the registry keeps what came of one that broke off.
    fn push_whole(&self, upload: &Upload, digest: &Digest, size: u64, open: &Open) -> Result<()> {
        let opened = Cell::new(false);
        let once = || match opened.replace(true) {
            false => open(0).map(|reader| reader as Box<dyn Read>),
            true => Err(io::Error::other("it was sent once already")),
        };
        let address = with_digest(&upload.location, digest);
        let request = self.request(Method::PUT, &address).header("Content-Type", "application/octet-stream");
        let answer = self.send(&request.body(Body::Stream { len: size, open: &once }))?;
        self.expect(answer, &[201], "upload a blob").map(drop)
    }

    fn push_chunks(&self, mut upload: Upload, digest: &Digest, size: u64, open: &Open) -> Result<()> {
        let length = CHUNK.max(upload.shortest_chunk);
        let mut position = 0;
        let mut failures = 0;
        while position < size {
            let end = size.min(position + length);
            let range = format!("{position}-{}", end - 1);
            let reader =
                || open(position).map(|reader| Box::new(reader.take(end - position)) as Box<dyn Read>);
            let request = self
                .request(Method::PATCH, &upload.location)
                .header("Content-Type", "application/octet-stream")
                .header("Content-Range", &range)
                .body(Body::Stream { len: end - position, open: &reader });
            let sent =
                self.send(&request).and_then(|answer| self.expect(answer, &[202, 416], "upload a chunk"));
            match sent {
                Ok(answer) if answer.status().as_u16() == 202 => {
                    upload.location = self.server.location(&answer)?;
                    position = end;
                    failures = 0;
                }
                failed => {
                    failures += 1;
                    if failures >= TRIES {
                        failed?;
                        bail!(
                            "registry {}: it does not take the bytes {range} of the blob",
                            self.server.domain
                        );
                    }
                    position = self.arrived(&mut upload, position)?;
                }
            }
        }
        let request =
            self.request(Method::PUT, &with_digest(&upload.location, digest)).body(Body::Bytes(b""));
        self.expect(self.send(&request)?, &[201], "finish an upload").map(drop)
    }

    /// How much of an upload is there: what the registry says, or what was confirmed last.
    fn arrived(&self, upload: &mut Upload, confirmed: u64) -> Result<u64> {
        let answer = self.send(&self.request(Method::GET, &upload.location))?;
        let answer = self.expect(answer, &[204], "look after an upload")?;
        if header(&answer, "location").is_some() {
            upload.location = self.server.location(&answer)?;
        }
        let last =
            header(&answer, "range").and_then(|range| range.rsplit('-').next()?.trim().parse::<u64>().ok());
        Ok(last.map_or(confirmed, |last| if last == 0 { confirmed } else { last + 1 }))
    }

    /// Puts a manifest or index under a tag or its digest.
    pub(crate) fn put_manifest(&self, selector: &str, media_type: &str, bytes: &[u8]) -> Result<()> {
        let request = self.request(Method::PUT, &format!("manifests/{selector}"));
        let request = request.header("Content-Type", media_type).body(Body::Bytes(bytes));
        self.expect(self.send(&request)?, &[201, 202], "put the manifest").map(drop)
    }

    fn expect(&self, answer: Answer, good: &[u16], what: &str) -> Result<Answer> {
        if good.contains(&answer.status().as_u16()) {
            return Ok(answer);
        }
        bail!("registry {}: {what}: {}", self.server.domain, self.server.refusal(answer))
    }
}

/// A location may have a query of its own.
fn with_digest(location: &str, digest: &Digest) -> String {
    let sign = if location.contains('?') { '&' } else { '?' };
    format!("{location}{sign}digest={digest}")
}

fn number(answer: &Answer, name: &str) -> Option<u64> {
    header(answer, name)?.trim().parse().ok()
}

//! The process that unpacks a layer, from outside: this same program, executed again as `manager unpack`.
//!
//! ```text
//! download ─► file ─┐                      manager unpack, behind the walls of `confine`
//!    │              └──── read ────────────► stream: inflate ► sha256 (diffID) ► files
//!    └─ Unpacker::arrived ── so many bytes ─►    │
//!       Unpacker::finish  ◄── report ────────────┘
//! ```
//!
//! It is told what to do on its standard input, and then, again and again, how much of the blob is in its file.
//! What it answers is no more to be trusted than the layer: it is checked for what is done with it. That the
//! digest it tells is the content's, nobody checks; a layer that gets so far can lie about itself.

use std::io::{Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde::{Deserialize, Serialize};

use super::entry::normal_path;
use super::reroute::Routes;
use super::{confine, stream};
use crate::digest::Digest;
use crate::store::layers::LayerMeta;
use crate::sys::{command, descriptors};

/// The longest report: the paths that a layer may have to be remembered (`entry`), escaped.
const LONGEST_REPORT: u64 = 512 * 1024 * 1024;

/// What is to be unpacked.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Order {
    /// The empty folder to unpack into.
    pub(crate) folder: PathBuf,
    /// The file that holds the blob, or will.
    pub(crate) blob: PathBuf,
    /// The blob's bytes.
    pub(crate) size: u64,
    /// What its plain tar should hash to.
    pub(crate) expected: Digest,
    /// Where its entries go instead.
    pub(crate) routes: Routes,
}

/// What came of it.
#[derive(Debug, Serialize, Deserialize)]
enum Report {
    Done { diff_id: Digest, meta: LayerMeta },
    Failed { error: String, disk_full: bool },
}

/// Unpacking failed; the process told why.
#[derive(Debug)]
pub(crate) struct Failed {
    error: String,
    /// For want of room.
    pub(crate) disk_full: bool,
}

impl std::fmt::Display for Failed {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.error)
    }
}

impl std::error::Error for Failed {}

/// The process of one layer.
pub(crate) struct Unpacker {
    child: Child,
    feed: ChildStdin,
    expected: Digest,
}

impl Unpacker {
    /// Starts to unpack.
    pub(crate) fn start(order: &Order) -> Result<Self> {
        let mut command = Command::new("/proc/self/exe");
        command.arg0("manager").arg("unpack").stdin(Stdio::piped()).stdout(Stdio::piped());
        command::die_with_us(&mut command);
        let mut child = command.spawn().context("start the process that unpacks the layer")?;
        let mut feed = child.stdin.take().context("its input")?;
        let text = serde_json::to_vec(order)?;
        let length = u64::try_from(text.len())?.to_le_bytes();
        // If it has died already, its end tells more than this.
        let _ = feed.write_all(&length).and_then(|()| feed.write_all(&text));
        Ok(Self { child, feed, expected: order.expected.clone() })
    }

    /// Tells how many bytes of the blob are in its file; false when nobody wants more, since something failed.
    pub(crate) fn arrived(&mut self, bytes: u64) -> bool {
        self.feed.write_all(&bytes.to_le_bytes()).is_ok()
    }

    /// Waits for the end, and compares the digest of the plain tar: what was unpacked.
    pub(crate) fn finish(self) -> Result<LayerMeta> {
        let Self { mut child, feed, expected } = self;
        drop(feed);
        let output = child.stdout.take().context("its output")?;
        let mut text = Vec::new();
        let read = output.take(LONGEST_REPORT).read_to_end(&mut text);
        let status = child.wait().context("wait for the process that unpacks the layer")?;
        read.context("read what came of unpacking")?;
        match serde_json::from_slice(&text) {
            Ok(Report::Done { diff_id, meta }) => {
                ensure!(
                    diff_id == expected,
                    "its tar hashes to {diff_id}, not to {expected} as its image says"
                );
                check(&meta)?;
                Ok(meta)
            }
            Ok(Report::Failed { error, disk_full }) => Err(Failed { error, disk_full }.into()),
            Err(_) => match status.signal() {
                Some(signal) => bail!("the process that unpacks it was killed by signal {signal}"),
                None => bail!("the process that unpacks it ended with {}", status.code().unwrap_or(-1)),
            },
        }
    }

    /// Ends it before its end. What it has found wrong by then is the error.
    pub(crate) fn give_up(mut self) -> anyhow::Error {
        let _ = self.child.kill();
        self.finish().err().unwrap_or_else(|| anyhow!("unpacking was given up"))
    }
}

/// Paths that are going to be joined to others.
fn check(meta: &LayerMeta) -> Result<()> {
    for path in meta.implicit.iter().chain(&meta.with_whiteouts).chain(&meta.hollow) {
        let normal = normal_path(path.as_bytes());
        ensure!(
            normal.is_ok_and(|normal| normal == path.as_bytes()),
            "it tells of an impossible path {path:?}"
        );
    }
    Ok(())
}

/// The process itself.
pub(crate) fn unpack() -> Result<()> {
    descriptors::close_inherited().context("close inherited descriptors")?;
    let report = match unpack_as_told() {
        Ok((diff_id, meta)) => Report::Done { diff_id, meta },
        Err(error) => Report::Failed { disk_full: is_disk_full(&error), error: format!("{error:#}") },
    };
    let mut output = std::io::stdout().lock();
    output.write_all(&serde_json::to_vec(&report)?)?;
    Ok(output.flush()?)
}

fn unpack_as_told() -> Result<(Digest, LayerMeta)> {
    let mut input = std::io::stdin();
    let mut length = [0; 8];
    input.read_exact(&mut length).context("read what to do")?;
    let mut text = Vec::new();
    input.by_ref().take(u64::from_le_bytes(length)).read_to_end(&mut text).context("read what to do")?;
    let order: Order = serde_json::from_slice(&text).context("read what to do")?;
    let open = |path: &Path| std::fs::File::open(path).with_context(|| format!("open {}", path.display()));
    let (folder, blob) = (open(&order.folder)?, open(&order.blob)?);
    let folder = confine::to(folder.into())?;
    let blob = stream::Arriving::new(blob, order.size, input);
    stream::unpack(blob, folder, &order.expected, &order.routes)
}

/// Whether the cause of an error is that there is no room.
pub(crate) fn is_disk_full(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        let errno = cause
            .downcast_ref::<std::io::Error>()
            .and_then(std::io::Error::raw_os_error)
            .or_else(|| cause.downcast_ref::<nix::errno::Errno>().map(|errno| *errno as i32))
            .or_else(|| cause.downcast_ref::<rustix::io::Errno>().map(|errno| errno.raw_os_error()));
        matches!(errno, Some(libc::ENOSPC | libc::EDQUOT))
            || cause.downcast_ref::<Failed>().is_some_and(|failed| failed.disk_full)
    })
}

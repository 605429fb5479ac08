//! The process that inflates an archive, from outside and from inside: this same program, executed again as
//! `manager inflate`. An archive comes from strangers, and some of what reads it is in C: so the process that does
//! has nothing but the archive, open to be read, and the file to write to.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::fd::AsFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use bzip2::bufread::MultiBzDecoder;
use lzma_rust2::XzReader;
use nix::sys::resource::{Resource, setrlimit};

use super::media_type::{Compression, sniff};
use crate::rootfs::confine;
use crate::rootfs::stream::{FREE_BYTES, LARGEST_RATIO, LARGEST_ZSTD_WINDOW_LOG, gunzip};
use crate::sys::{command, descriptors};

/// What xz may take to decompress, in KiB: twice what `xz -9` needs.
const XZ_MEMORY: u32 = 128 * 1024;

/// More than any sentence that the process has to say.
const LONGEST_ERROR: u64 = 4096;

/// What an archive may be packed in. Layers are only ever packed in the first two.
#[derive(Clone, Copy, Debug)]
enum Packed {
    Gzip,
    Zstd,
    Xz,
    Bzip2,
}

impl Packed {
    /// By its first bytes; none if it is plain, or nothing that is known.
    fn of(start: &[u8]) -> Option<Self> {
        match (start, sniff(start)) {
            ([0xfd, b'7', b'z', b'X', b'Z', 0, ..], _) => Some(Self::Xz),
            ([b'B', b'Z', b'h', ..], _) => Some(Self::Bzip2),
            (_, Compression::Gzip) => Some(Self::Gzip),
            (_, Compression::Zstd) => Some(Self::Zstd),
            (_, Compression::None) => None,
        }
    }
}

/// Whether an archive that begins with these bytes (six are enough) is packed in anything.
pub(super) fn is_packed(start: &[u8]) -> bool {
    Packed::of(start).is_some()
}

/// Inflates what is in `archive`, from its beginning, into the empty file `plain`.
pub(super) fn inflate(archive: &File, plain: &File) -> Result<()> {
    let mut command = Command::new("/proc/self/exe");
    command.arg0("manager").arg("inflate").stdin(archive.try_clone()?).stdout(plain.try_clone()?);
    command.stderr(Stdio::piped());
    command::die_with_us(&mut command);
    let mut child = command.spawn().context("start the process that inflates it")?;
    let mut told = Vec::new();
    if let Some(errors) = child.stderr.take() {
        let read = errors.take(LONGEST_ERROR).read_to_end(&mut told);
        read.context("read what came of inflating it")?;
    }
    if told.len() as u64 == LONGEST_ERROR {
        let _ = child.kill();
    }
    let status = child.wait().context("wait for the process that inflates it")?;
    match status.signal() {
        Some(signal) => bail!("the process that inflates it was killed by signal {signal}"),
        None if status.success() => Ok(()),
        // It is no more to be trusted than the archive.
        None => bail!("{}", String::from_utf8_lossy(&told).trim_end().replace(char::is_control, " ")),
    }
}

/// The process itself: from standard input to standard output, the reason of a failure to standard error.
pub(crate) fn inflate_here() -> Result<()> {
    descriptors::close_inherited().context("close inherited descriptors")?;
    let open = |stream: io::Result<std::os::fd::OwnedFd>| stream.map(File::from);
    let archive = open(io::stdin().as_fd().try_clone_to_owned())?;
    let mut plain = open(io::stdout().as_fd().try_clone_to_owned())?;
    let size = archive.metadata().context("look at it")?.len();
    let most = FREE_BYTES.saturating_add(size.saturating_mul(LARGEST_RATIO));
    // The wall behind the check below.
    setrlimit(Resource::RLIMIT_FSIZE, most, most).context("limit what is written")?;
    confine::to_what_is_open()?;

    let mut input = BufReader::with_capacity(1 << 20, archive);
    let start = io::BufRead::fill_buf(&mut input).context("read it")?;
    let reader: Box<dyn Read> = match Packed::of(start) {
        Some(Packed::Xz) => Box::new(XzReader::new_mem_limit(input, true, XZ_MEMORY)),
        Some(Packed::Bzip2) => Box::new(MultiBzDecoder::new(input)),
        Some(Packed::Gzip) => gunzip(input)?,
        Some(Packed::Zstd) => {
            let mut decoder = zstd::Decoder::with_buffer(input).context("decompress it")?;
            decoder.window_log_max(LARGEST_ZSTD_WINDOW_LOG).context("decompress it")?;
            Box::new(decoder)
        }
        None => Box::new(input),
    };
    let count = io::copy(&mut reader.take(most), &mut plain).context("decompress it")?;
    if count == most {
        bail!("it unpacks to more than {most} bytes, which no honest archive of its size does");
    }
    Ok(())
}

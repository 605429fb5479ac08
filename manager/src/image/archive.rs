//! Opening an archive of images, whatever it is packed in: to read its parts out of order it has to be a
//! plain file.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use anyhow::{Context, Result, bail};
use bzip2::bufread::MultiBzDecoder;
use lzma_rust2::XzReader;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;

use super::media_type::{Compression, sniff};
use crate::rootfs::stream::{FREE_BYTES, LARGEST_RATIO, LARGEST_ZSTD_WINDOW_LOG, gunzip};

/// What xz may take to decompress, in KiB: twice what `xz -9` needs.
const XZ_MEMORY: u32 = 128 * 1024;

/// The archive as a plain file that can be read at any place: `file` itself, or what is in it as a nameless
/// file in the folder `spool`.
pub(crate) fn plain(mut file: File, spool: &Path) -> Result<File> {
    let start_position = file.stream_position();
    if start_position.is_err() {
        // A pipe.
        let mut copy = nameless(spool)?;
        io::copy(&mut file, &mut copy).context("read it")?;
        file = copy;
    }
    file.seek(SeekFrom::Start(0)).context("read it")?;
    let mut start = [0; 6];
    let count = (&file).take(start.len() as u64).read(&mut start).context("read it")?;
    file.seek(SeekFrom::Start(0)).context("read it")?;
    let input = BufReader::with_capacity(1 << 20, &file);
    let unpacked: Box<dyn Read> = match (&start[..count], sniff(&start[..count])) {
        // Layers are never packed like that, archives sometimes.
        ([0xfd, b'7', b'z', b'X', b'Z', 0], _) => Box::new(XzReader::new_mem_limit(input, true, XZ_MEMORY)),
        ([b'B', b'Z', b'h', ..], _) => Box::new(MultiBzDecoder::new(input)),
        (_, Compression::None) => return Ok(file),
        (_, Compression::Gzip) => gunzip(input)?,
        (_, Compression::Zstd) => {
            let mut decoder = zstd::Decoder::with_buffer(input).context("decompress it")?;
            decoder.window_log_max(LARGEST_ZSTD_WINDOW_LOG).context("decompress it")?;
            Box::new(decoder)
        }
    };
    let size = file.metadata().context("look at it")?.len();
    let most = FREE_BYTES.saturating_add(size.saturating_mul(LARGEST_RATIO));
    let mut copy = nameless(spool)?;
    let count = io::copy(&mut unpacked.take(most), &mut copy).context("decompress it")?;
    if count == most {
        bail!("it unpacks to more than {most} bytes, which no honest archive of its size does");
    }
    copy.seek(SeekFrom::Start(0)).context("decompress it")?;
    Ok(copy)
}

/// A file that is gone when nobody has it open.
fn nameless(folder: &Path) -> Result<File> {
    let flags = OFlag::O_TMPFILE | OFlag::O_RDWR | OFlag::O_CLOEXEC;
    let file = open(folder, flags, Mode::from_bits_truncate(0o600));
    Ok(File::from(file.with_context(|| format!("make a temporary file in {}", folder.display()))?))
}

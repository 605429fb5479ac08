//! Opening an archive of images, whatever it is packed in: to read its parts out of order it has to be a
//! plain file.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use anyhow::{Context, Result};
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;

use super::inflate::{inflate, is_packed};

/// The archive as a plain file that can be read at any place: `file` itself, or what is in it as a nameless
/// file in the folder `spool`.
pub(crate) fn plain(mut file: File, spool: &Path) -> Result<File> {
    if file.stream_position().is_err() {
        // A pipe.
        let mut copy = nameless(spool)?;
        io::copy(&mut file, &mut copy).context("read it")?;
        file = copy;
    }
    let mut start = [0; 6];
    file.seek(SeekFrom::Start(0)).context("read it")?;
    let count = (&file).take(start.len() as u64).read(&mut start).context("read it")?;
    file.seek(SeekFrom::Start(0)).context("read it")?;
    if !is_packed(&start[..count]) {
        return Ok(file);
    }
    let mut copy = nameless(spool)?;
    inflate(&file, &copy)?;
    copy.seek(SeekFrom::Start(0)).context("read it")?;
    Ok(copy)
}

/// A file that is gone when nobody has it open.
pub(crate) fn nameless(folder: &Path) -> Result<File> {
    let flags = OFlag::O_TMPFILE | OFlag::O_RDWR | OFlag::O_CLOEXEC;
    let file = open(folder, flags, Mode::from_bits_truncate(0o600));
    Ok(File::from(file.with_context(|| format!("make a temporary file in {}", folder.display()))?))
}

//! Where answers go: standard output, or a file that somebody names.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use anyhow::{Context, Result};

/// Prints. A reader that has seen enough (`| head`) is no failure.
pub(crate) fn print(text: &str) -> Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other.context("write to standard output"),
    }
}

/// Writes a file whole or not at all: until `write` has succeeded, what was there before stays.
pub(crate) fn write_file(path: &Path, write: impl FnOnce(File) -> Result<()>) -> Result<()> {
    // A pipe or a device is written to as it is.
    if path.metadata().is_ok_and(|data| !data.is_file()) {
        let file = File::options().write(true).open(path);
        return write(file.with_context(|| format!("open {}", path.display()))?);
    }
    let draft = path.with_extension(format!("{}.tmp", std::process::id()));
    let file = File::create(&draft).with_context(|| format!("make {}", draft.display()))?;
    let placed = write(file)
        .and_then(|()| std::fs::rename(&draft, path).with_context(|| format!("write {}", path.display())));
    placed.inspect_err(|_| drop(std::fs::remove_file(&draft)))
}

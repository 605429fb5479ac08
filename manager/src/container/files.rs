//! Small files of a container's folder: replaced in one step, never followed through a symlink.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use anyhow::{Context as _, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Writes a file whole or not at all: a new file beside it, then rename(2). After a power cut it may
/// be empty all the same.
pub(crate) fn write_atomically(path: &Path, content: &[u8], mode: u32) -> Result<()> {
    replace(path, content, mode, |_| Ok(()))
}

/// Writes a file of which even a power cut leaves the old or the new content.
pub(crate) fn write_durably(path: &Path, content: &[u8]) -> Result<()> {
    replace(path, content, 0o600, File::sync_data)
}

fn replace(
    path: &Path,
    content: &[u8],
    mode: u32,
    before_rename: impl FnOnce(&File) -> std::io::Result<()>,
) -> Result<()> {
    let new = path.with_extension(format!("new-{}", std::process::id()));
    let written = create_new(&new, mode).and_then(|mut file| {
        // The caller's umask is about files made by hand: /etc/hosts must be readable inside.
        file.set_permissions(Permissions::from_mode(mode))?;
        file.write_all(content)?;
        before_rename(&file)?;
        fs::rename(&new, path)
    });
    if written.is_err() {
        let _ = fs::remove_file(&new);
    }
    written.with_context(|| format!("write {}", path.display()))
}

/// Writes a value as JSON.
pub(crate) fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    write_atomically(path, &json(value)?, 0o600)
}

/// Writes a value as JSON that a power cut does not take.
pub(crate) fn write_json_durably(path: &Path, value: &impl Serialize) -> Result<()> {
    write_durably(path, &json(value)?)
}

fn json(value: &impl Serialize) -> Result<Vec<u8>> {
    let mut text = serde_json::to_vec_pretty(value).context("write JSON")?;
    text.push(b'\n');
    Ok(text)
}

/// Reads a file of ours, none when it is not there. A symlink that somebody planted is an error
/// (CVE-2026-53489).
pub(crate) fn read(path: &Path) -> Result<Option<Vec<u8>>> {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC).open(path);
    let mut file = match file {
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        other => other.with_context(|| format!("open {}", path.display()))?,
    };
    let mut content = Vec::new();
    file.read_to_end(&mut content).with_context(|| format!("read {}", path.display()))?;
    Ok(Some(content))
}

/// Reads a value written by [`write_json`], none when the file is not there.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    let Some(content) = read(path)? else { return Ok(None) };
    let value = serde_json::from_slice(&content).with_context(|| format!("read {}", path.display()))?;
    Ok(Some(value))
}

/// Removes a file that may be gone already.
pub(crate) fn remove_file(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// Removes a folder with all it holds, which may be gone already. Symlinks inside are removed, not
/// followed.
pub(crate) fn remove_folder(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// A new file; an old one of that name (left by a killed process with our number) goes first.
fn create_new(path: &Path, mode: u32) -> std::io::Result<File> {
    let open = || OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
    match open() {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            fs::remove_file(path)?;
            open()
        }
        other => other,
    }
}

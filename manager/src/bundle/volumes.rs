//! The folders behind volumes, filled from what the image has at their place.

use std::fs::{self, File};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};

use crate::container::record::Source;
use crate::container::{Container, files, lock, make_folder, volume};

/// Makes the folders of all volumes; the host's path for each mount of the record, in its order.
pub(crate) fn prepare(container: &Container, root: &OwnedFd) -> Result<Vec<PathBuf>> {
    let mut sources = Vec::new();
    for (number, mount) in container.record.mounts.iter().enumerate() {
        let place = &mount.destination;
        let source = match &mount.source {
            Source::Bind(path) => path.clone(),
            Source::Tmpfs => "tmpfs".into(),
            Source::Volume { name, copy } => {
                fill(&volume::folder(&container.root, name), copy.then_some(root), place)
                    .with_context(|| format!("prepare volume {name:?}"))?
            }
            Source::Anonymous => {
                fill(&container.folder.join("volumes").join(number.to_string()), Some(root), place)
                    .with_context(|| format!("prepare the volume for {place}"))?
            }
        };
        sources.push(source);
    }
    Ok(sources)
}

/// `folder/_data`; made, when it is not there, as a copy of what the image has at `place`.
fn fill(folder: &Path, root: Option<&OwnedFd>, place: &str) -> Result<PathBuf> {
    make_folder(folder)?;
    // Two containers may be the first users of one named volume.
    let _lock = lock(folder)?;
    let data = folder.join("_data");
    if data.exists() {
        return Ok(data);
    }
    // A copy that was cut short is not taken for a whole one: it gets its name at the end.
    let new = folder.join("_new");
    files::remove_folder(&new)?;
    fs::create_dir(&new).with_context(|| format!("make folder {}", new.display()))?;
    fs::set_permissions(&new, fs::Permissions::from_mode(0o755))?;
    if let Some(from) = root.map(|root| open_folder(root, place)).transpose()?.flatten() {
        copy(&from, &new).with_context(|| format!("copy the image's {place}"))?;
    }
    fs::rename(&new, &data).with_context(|| format!("make {}", data.display()))?;
    Ok(data)
}

/// A folder of the image, none when there is none. Its path is resolved as the container would
/// resolve it, so a VOLUME that is a symlink never leads to the host's files (CVE-2022-23648).
fn open_folder(root: &OwnedFd, place: &str) -> Result<Option<File>> {
    let how = OpenHow::new()
        .flags(OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    match openat2(root, place, how) {
        Ok(folder) => Ok(Some(folder.into())),
        Err(Errno::ENOENT | Errno::ENOTDIR) => Ok(None),
        Err(error) => Err(error).with_context(|| format!("open the image's {place}")),
    }
}

/// Copies a folder with owners, modes, times, links, devices and extended attributes: cp(1) knows
/// them all. Nothing runs in the container yet that could change a path under its feet.
fn copy(from: &File, to: &Path) -> Result<()> {
    let data = from.metadata()?;
    chown(to, Some(data.uid()), Some(data.gid()))?;
    fs::set_permissions(to, fs::Permissions::from_mode(data.mode() & 0o7777))?;
    let from = format!("/proc/{}/fd/{}/.", std::process::id(), from.as_raw_fd());
    let mut command = Command::new("cp");
    command.args(["--archive", "--reflink=auto", "--"]).arg(from).arg(to);
    let output = command.stdin(Stdio::null()).output().context("run cp")?;
    ensure!(output.status.success(), "cp: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}

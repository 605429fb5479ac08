//! Containers are folders; nothing about them is kept anywhere else.
//!
//! ```text
//! <root>/container-names/NAME -> ID        a symlink: making one is how a name is reserved
//! <root>/containers/ID/                    the OCI bundle, 0700
//!     image                                digest of the image's configuration: what rmi looks at
//!     container.json                       what was asked for; without it the folder is debris
//!     state.json                           the process of the latest start, and its monitor
//!     exit.json                            how it ended
//!     config.json  rootfs/                 the bundle; rootfs is empty for all but the monitor
//!     upper/ work/ volumes/                what the container writes
//!     hosts hostname resolv.conf           bound over the files in /etc
//!     ID-json.log[.1 .2]                   standard output and error, in docker's format
//! <run-root>/ID/                           gone after a reboot
//!     lock                                 held by the monitor, from start to exit
//!     attach                               the monitor's socket
//!     runtime/ runtime.log pid             the OCI runtime's own state, messages, pid file
//! ```
//!
//! Whether a container runs is not written anywhere: it is asked of the process in `state.json`.

pub(crate) mod attach;
pub(crate) mod cgroup;
pub(crate) mod files;
pub(crate) mod name;
pub(crate) mod oci_runtime;
pub(crate) mod process;
pub(crate) mod record;
pub(crate) mod remove;
pub(crate) mod signal;
pub(crate) mod size;
pub(crate) mod state;
pub(crate) mod terminal;
pub(crate) mod volume;

use std::fs::{self, DirBuilder, File};
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use nix::fcntl::{Flock, FlockArg};

use crate::cli::Context;
use oci_runtime::OciRuntime;
use record::{Record, Root};
use state::State;

/// One container: its two folders and what was asked for.
#[derive(Debug)]
pub(crate) struct Container {
    /// What was asked for.
    pub(crate) record: Record,
    /// `<root>/containers/ID`.
    pub(crate) folder: PathBuf,
    /// `<run-root>/ID`.
    pub(crate) run_folder: PathBuf,
    /// `<root>`, for named volumes.
    pub(crate) root: PathBuf,
}

impl Container {
    /// The container with this full id, none when there is none (or not yet, or no longer).
    pub(crate) fn load(context: &Context, id: &str) -> Result<Option<Self>> {
        let folder = containers(context).join(id);
        let Some(record) = files::read_json(&folder.join("container.json"))? else { return Ok(None) };
        Ok(Some(Self { record, folder, run_folder: context.run_root.join(id), root: context.root.clone() }))
    }

    /// The container that a user means: by id, by name, by the beginning of an id.
    pub(crate) fn find(context: &Context, wanted: &str) -> Result<Self> {
        let exact = is_id(wanted).then_some(wanted.to_owned());
        if let Some(id) = exact.or_else(|| name::lookup(context, wanted))
            && let Some(container) = Self::load(context, &id)?
        {
            return Ok(container);
        }
        let hex = !wanted.is_empty() && wanted.bytes().all(|byte| byte.is_ascii_hexdigit());
        let mut ids = if hex { ids(context)? } else { Vec::new() };
        ids.retain(|id| id.starts_with(wanted));
        let mut found = Vec::new();
        for id in ids {
            found.extend(Self::load(context, &id)?);
        }
        ensure!(found.len() < 2, "{wanted:?} is the beginning of {} containers' ids", found.len());
        found.pop().with_context(|| format!("no such container: {wanted}"))
    }

    /// The id of a container that a user means whose `container.json` cannot be read.
    pub(crate) fn find_damaged(context: &Context, wanted: &str) -> Result<Option<String>> {
        let mut ids = ids(context)?;
        let named = name::lookup(context, wanted);
        ids.retain(|id| named.as_ref().map_or(id.starts_with(wanted), |named| named == id));
        ensure!(ids.len() < 2, "{wanted:?} is the beginning of {} containers' ids", ids.len());
        ids.retain(|id| Self::load(context, id).is_err());
        Ok(ids.pop())
    }

    /// All containers, newest first. One that cannot be read is reported and left out: the others
    /// are still worth listing.
    pub(crate) fn all(context: &Context) -> Result<Vec<Self>> {
        let mut all = Vec::new();
        for id in ids(context)? {
            match Self::load(context, &id) {
                Ok(container) => all.extend(container),
                Err(error) => eprintln!("manager: {error:#}"),
            }
        }
        all.sort_by(|a, b| b.record.created.cmp(&a.record.created));
        Ok(all)
    }

    /// Makes the folder of a new container and reserves its name; `record` is written last, so the
    /// container is there whole or not at all.
    pub(crate) fn create(context: &Context, record: Record) -> Result<Self> {
        sweep(context)?;
        let folder = containers(context).join(&record.id);
        let made = Self::make(context, record, &folder);
        if made.is_err() {
            let _ = fs::remove_dir_all(&folder);
        }
        made
    }

    fn make(context: &Context, record: Record, folder: &Path) -> Result<Self> {
        make_folder(&containers(context))?;
        // Held until the end: a folder without container.json and without this lock is debris, and
        // may be swept away in the moment between the two.
        let _lock = loop {
            match DirBuilder::new().mode(0o700).create(folder) {
                Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                    return Err(error).with_context(|| format!("make folder {}", folder.display()));
                }
                _ => {} // ours, or from the round before
            }
            if let Locked::Yes(lock) = try_lock(folder)? {
                break lock;
            }
        };
        if let Root::Image { id, .. } = &record.root {
            files::write_durably(&folder.join("image"), id.as_bytes())?;
        }
        for inner in ["rootfs", "upper", "work", "volumes"] {
            make_folder(&folder.join(inner))?;
        }
        // 0755: the root of an overlay has the mode of its upper layer when no lower one says more.
        name::reserve(context, &record.name, &record.id)?;
        if let Err(error) = files::write_json_durably(&folder.join("container.json"), &record) {
            name::release(context, &record.name, &record.id);
            return Err(error);
        }
        Ok(Self {
            run_folder: context.run_root.join(&record.id),
            root: context.root.clone(),
            folder: folder.to_owned(),
            record,
        })
    }

    /// What the container is doing, asked of its process.
    pub(crate) fn state(&self) -> Result<State> {
        State::of(&self.folder)
    }

    /// The runtime, with its state in our run folder.
    pub(crate) fn runtime(&self) -> OciRuntime {
        OciRuntime::new(&self.record.runtime, &self.run_folder)
    }

    /// The newest log file.
    pub(crate) fn log_path(&self) -> PathBuf {
        self.folder.join(format!("{}-json.log", self.record.id))
    }
}

/// A new random id.
pub(crate) fn new_id() -> Result<String> {
    use std::fmt::Write;
    let mut bytes = [0u8; 32];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()).context("getrandom")?;
    Ok(bytes.iter().fold(String::with_capacity(64), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    }))
}

/// The first 12 digits of an id, as people see it.
pub(crate) fn short_id(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}

/// Makes a folder that only its owner may enter: a world-readable store hands the setuid programs
/// of every image to every user of the host (CVE-2024-25621).
pub(crate) fn make_folder(path: &Path) -> Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .with_context(|| format!("make folder {}", path.display()))
}

/// Takes the lock of a folder: flock(2) on the folder itself.
pub(crate) fn lock(folder: &Path) -> Result<Flock<File>> {
    let file = File::open(folder).with_context(|| format!("open {}", folder.display()))?;
    match Flock::lock(file, FlockArg::LockExclusive) {
        Ok(lock) => {
            ensure!(folder.exists(), "{} was removed meanwhile", folder.display());
            Ok(lock)
        }
        Err((_, error)) => Err(error).with_context(|| format!("lock {}", folder.display())),
    }
}

/// What came of [`try_lock`].
#[derive(Debug)]
pub(crate) enum Locked {
    /// It is ours until dropped.
    Yes(Flock<File>),
    /// Another process has it.
    No,
    /// There is no such folder, or it was removed while we looked.
    Gone,
}

/// Takes the lock of a folder if nobody has it.
pub(crate) fn try_lock(folder: &Path) -> Result<Locked> {
    let file = match File::open(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Locked::Gone),
        other => other.with_context(|| format!("open {}", folder.display()))?,
    };
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) if folder.exists() => Ok(Locked::Yes(lock)),
        Ok(_) => Ok(Locked::Gone),
        Err((_, nix::errno::Errno::EWOULDBLOCK)) => Ok(Locked::No),
        Err((_, error)) => Err(error).with_context(|| format!("lock {}", folder.display())),
    }
}

fn containers(context: &Context) -> PathBuf {
    context.root.join("containers")
}

fn is_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// The names of all container folders, those of debris included.
fn ids(context: &Context) -> Result<Vec<String>> {
    let folder = containers(context);
    let entries = match fs::read_dir(&folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.with_context(|| format!("read {}", folder.display()))?,
    };
    let mut ids = Vec::new();
    for entry in entries {
        let name = entry.with_context(|| format!("read {}", folder.display()))?.file_name();
        ids.extend(name.into_string().ok().filter(|name| is_id(name)));
    }
    Ok(ids)
}

/// Removes what killed commands left: folders without `container.json` that nobody is making.
fn sweep(context: &Context) -> Result<()> {
    for id in ids(context)? {
        let folder = containers(context).join(&id);
        if folder.join("container.json").exists() {
            continue;
        }
        let Locked::Yes(_lock) = try_lock(&folder)? else { continue };
        // Looked at again under the lock: its maker may just have finished.
        if folder.join("container.json").exists() {
            continue;
        }
        name::release_all(context, &id)?;
        files::remove_folder(&context.run_root.join(&id))?;
        files::remove_folder(&folder)?;
    }
    Ok(())
}

/// Refuses what cannot be part of a path or a word of a runtime's command line.
pub(crate) fn check_name(name: &str, what: &str) -> Result<()> {
    let first = name.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    let rest = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte));
    if first && rest && name.len() > 1 {
        return Ok(());
    }
    bail!("invalid {what} name {name:?}: only [a-zA-Z0-9][a-zA-Z0-9_.-]+ are allowed")
}

//! What was brought in and may not be on the disk yet.
//!
//! A pull writes a gigabyte in two seconds, and a disk takes longer to have it. Nobody has to wait for that: the
//! pull leaves a note of what it has brought, and a process behind it (`system settle`) syncs the file system and
//! takes the note away.
//!
//! ```text
//! note, synced ─► files ─► their places ─► the name │ pull is over │ syncfs ─► the note goes
//! ```
//!
//! A note that is there after a boot tells what the machine may have lost when it went down; all the rest of the
//! store was on the disk. What is left of it is looked at by the next command (`copy::recover`), before it does
//! anything else. So no name ever stands for an image that is not whole.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use super::Store;
use super::gc::list;
use super::names::Record;
use crate::digest::Digest;

/// The folder of notes. Stores of earlier versions have none.
const FOLDER: &str = "unsettled";

/// What one command has brought.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Unsettled {
    /// The boot that it did so in.
    boot: String,
    pub(crate) blobs: Vec<Digest>,
    /// Paths of folders in the store: layers, and what was made for a stack of them.
    pub(crate) folders: Vec<String>,
    /// The name that it gave.
    pub(crate) name: Option<String>,
    /// What that stood for before.
    pub(crate) before: Option<Record>,
}

impl Unsettled {
    /// Nothing yet.
    pub(crate) fn new(name: Option<&str>, before: Option<Record>) -> Self {
        Self { boot: boot(), blobs: Vec::new(), folders: Vec::new(), name: name.map(str::to_owned), before }
    }
}

/// A note that is locked: nobody else takes it away.
#[derive(Debug)]
pub(crate) struct Note {
    path: PathBuf,
    #[expect(dead_code, reason = "held for its Drop")]
    lock: Flock<File>,
    stays: bool,
}

impl Note {
    /// From now on things get to their places: whatever happens, they have to be synced.
    pub(crate) fn stay(&mut self) {
        self.stays = true;
    }

    /// It tells of nothing any more.
    pub(crate) fn remove(mut self) {
        self.stays = false;
    }
}

impl Drop for Note {
    fn drop(&mut self) {
        if !self.stays {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// A note of an earlier boot.
pub(crate) struct Lost {
    pub(crate) what: Unsettled,
    /// To be removed when all is looked at.
    pub(crate) note: Note,
}

impl Store {
    /// Takes a note, which is on the disk before this returns: to be done before anything gets to its place.
    pub(crate) fn note(&self, what: &Unsettled) -> Result<Note> {
        let folder = self.path(FOLDER);
        let temporary = self.temporary_path();
        let path = folder.join(temporary.file_name().unwrap_or_default());
        let write = || -> Result<Note> {
            if !folder.exists() {
                fs::create_dir_all(&folder)?;
                File::open(self.root())?.sync_all()?;
            }
            let mut file = File::options().write(true).create_new(true).open(&temporary)?;
            file.write_all(&serde_json::to_vec(what)?)?;
            file.sync_all()?;
            let lock = Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, errno)| errno)?;
            fs::rename(&temporary, &path)?;
            let note = Note { path, lock, stays: false };
            File::open(&folder)?.sync_all()?;
            Ok(note)
        };
        write()
            .inspect_err(|_| drop(fs::remove_file(&temporary)))
            .with_context(|| format!("write to {}", folder.display()))
    }

    /// Syncs what was brought by commands that are over, and with `wait` by those that run too.
    pub(crate) fn settle(&self, wait: bool) -> Result<()> {
        self.settle_locked(FlockArg::LockExclusiveNonblock)?;
        if wait { self.settle_locked(FlockArg::LockExclusive) } else { Ok(()) }
    }

    fn settle_locked(&self, how: FlockArg) -> Result<()> {
        let now = boot();
        let notes = self.notes(how, |what| what.boot == now)?;
        if notes.is_empty() {
            return Ok(());
        }
        let synced = self.sync();
        for Lost { what, note } in notes {
            if synced.is_ok() {
                note.remove();
            } else {
                // The kernel tells of an error once, and then takes what it could not write for written. So this is
                // looked at as after a power cut.
                let suspect = Unsettled { boot: String::new(), ..what };
                let _ = self.write_file(&note.path, &serde_json::to_vec(&suspect)?);
            }
        }
        synced
    }

    /// Everything in it to the disk: once for all files, since fsync for each would double the cost of each.
    pub(crate) fn sync(&self) -> Result<()> {
        let root = File::open(self.root()).with_context(|| format!("open {}", self.root().display()))?;
        nix::unistd::syncfs(&root).with_context(|| format!("sync the store {}", self.root().display()))
    }

    /// Has that done by a process that outlives this one.
    pub(crate) fn settle_behind(&self) -> Result<()> {
        let mut command = Command::new("/proc/self/exe");
        command.arg0("manager").arg("--root").arg(self.root()).args(["system", "settle", "--behind"]);
        command.current_dir("/").process_group(0);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        match command.spawn() {
            Ok(mut child) => {
                // This command may run for long, and is the parent until it ends.
                std::thread::spawn(move || child.wait());
                Ok(())
            }
            Err(_) => self.settle(false),
        }
    }

    /// What commands of earlier boots have brought that nobody has synced.
    pub(crate) fn lost(&self) -> Result<Vec<Lost>> {
        let now = boot();
        self.notes(FlockArg::LockExclusive, |what| !now.is_empty() && what.boot != now)
    }

    /// True if there is any note.
    pub(crate) fn has_notes(&self) -> bool {
        fs::read_dir(self.path(FOLDER)).is_ok_and(|mut notes| notes.next().is_some())
    }

    /// Notes that are wanted, locked.
    fn notes(&self, how: FlockArg, wanted: impl Fn(&Unsettled) -> bool) -> Result<Vec<Lost>> {
        let mut notes = Vec::new();
        if !self.has_notes() {
            return Ok(notes);
        }
        for path in list(&self.path(FOLDER))? {
            let bytes = match fs::read(&path) {
                // Somebody else has synced it.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                other => other.with_context(|| format!("read {}", path.display()))?,
            };
            let what: Unsettled =
                serde_json::from_slice(&bytes).with_context(|| format!("{} is damaged", path.display()))?;
            if !wanted(&what) {
                continue;
            }
            let Ok(file) = File::open(&path) else { continue };
            let Ok(lock) = Flock::lock(file, how) else { continue };
            if path.exists() {
                notes.push(Lost { what, note: Note { path, lock, stays: true } });
            }
        }
        Ok(notes)
    }
}

/// What tells this boot from others; nothing where the kernel does not say, and then no boot from another.
fn boot() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default()
}

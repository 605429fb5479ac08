//! `<root>/<id>/`: what is known of a container between two commands.
//!
//! ```text
//! <root>/                 0700
//! └── web/                0711, held with flock(2) by commands that change it
//!     ├── config.json     the bundle's, to the byte, as it was at create
//!     ├── state.json      written before anything is made: where the cgroups are, the bundle ...
//!     ├── init            "PID START-TIME", written once the first process is there
//!     ├── mounted         the rootfs's mount, if it is in the runtime's own mount namespace; written before
//!     └── start.sock      the gate: there until the container has been started
//! ```
//! Every file is written once under a new name. A runtime killed at any point leaves at most a folder
//! from which `delete --force` can find and remove everything; the first process dies with it. Commands that
//! only look, `exec` and `kill` among them, take no lock: nobody waits for another's hooks.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::sched::CloneFlags;
use nix::unistd::Pid;
use oci_spec::runtime::Spec;
use serde::{Deserialize, Serialize};

use crate::bundle;
use crate::cgroup::Place;
use crate::container::annotations::{self, Annotations};
use crate::container::hooks::Output;
use crate::container::intel_rdt::Groups;
use crate::fault::{self, Point};
use crate::sys::file;
use crate::sys::process::{close_in_child, pidfd_open, pidfd_send_signal};
use crate::time;

/// A container's folder, locked.
#[derive(Debug)]
pub(crate) struct StateDir {
    pub(crate) path: PathBuf,
    lock: Flock<File>,
}

/// What `state.json` holds. Nothing in it changes once the container is made.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct State {
    pub(crate) oci_version: String,
    pub(crate) id: String,
    pub(crate) bundle: PathBuf,
    pub(crate) rootfs: PathBuf,
    pub(crate) created: String,
    pub(crate) annotations: BTreeMap<String, String>,
    pub(crate) cgroups: Place,
    pub(crate) intel_rdt: Option<Groups>,
    /// `CLONE_NEW*` of the namespaces that are not the runtime's own.
    pub(crate) namespaces: i32,
    /// True without a pid namespace made for it: the death of its init then ends nobody else.
    pub(crate) shares_pids: bool,
    /// True with startContainer hooks: then the runtime's own process waits at the gate.
    pub(crate) waits_itself: bool,
    pub(crate) new_keyring: bool,
}

/// `status` of runtime.md#state, and runc's `paused`.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Status {
    Creating,
    Created,
    Running,
    Paused,
    Stopped,
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Status::Creating => "creating",
            Status::Created => "created",
            Status::Running => "running",
            Status::Paused => "paused",
            Status::Stopped => "stopped",
        })
    }
}

impl State {
    /// What its annotations ask for.
    pub(crate) fn asked(&self) -> Result<Annotations> {
        annotations::plan(self.annotations.iter().map(|(key, value)| (&**key, &**value)))
    }

    /// Its user namespace, if that is not the runtime's own.
    pub(crate) fn user_namespace(&self, init: &Init) -> Result<Option<File>> {
        if self.namespaces & CloneFlags::CLONE_NEWUSER.bits() == 0 {
            return Ok(None);
        }
        let path = format!("/proc/{}/ns/user", init.pid);
        let file = File::open(&path).with_context(|| format!("open {path}"))?;
        // Else the number may have been another process's by then.
        pidfd_send_signal(&init.pidfd, 0).context("the container has ended")?;
        Ok(Some(file))
    }

    /// Where what its hooks print goes.
    pub(crate) fn hook_output(&self) -> Result<Output> {
        self.asked()?.hook_output()
    }
}

/// The container's first process, if it is still the one that was recorded.
#[derive(Debug)]
pub(crate) struct Init {
    pub(crate) pid: Pid,
    pub(crate) pidfd: OwnedFd,
}

impl Init {
    /// True if it has ended, or is to as soon as it may run.
    pub(crate) fn is_killed(&self) -> bool {
        let Ok(status) = file::read(format!("/proc/{}/status", self.pid)) else { return true };
        let status = String::from_utf8_lossy(&status);
        let mut pending =
            status.lines().filter_map(|line| line.strip_prefix("SigPnd:").or(line.strip_prefix("ShdPnd:")));
        let kill = |mask: &str| {
            u64::from_str_radix(mask.trim(), 16).is_ok_and(|mask| mask >> (libc::SIGKILL - 1) & 1 == 1)
        };
        pending.any(kill) || status.contains("State:\tZ")
    }
}

/// runc's rule: letters, digits, `_ + . -`; and short enough for a file name.
pub(crate) fn check_id(id: &str) -> Result<()> {
    if id.is_empty() {
        bail!("container id cannot be empty");
    }
    let good = |c: char| c.is_ascii_alphanumeric() || "_+.-".contains(c);
    if !id.chars().all(good) || id == "." || id == ".." || id.len() > 200 {
        bail!("invalid container ID format: {id:?} (letters, digits and _ + . - are allowed, 200 at most)");
    }
    Ok(())
}

/// The folder that holds all containers' folders, made if it is missing.
pub(crate) fn make_root(root: &Path) -> Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(root)
        .with_context(|| format!("make the state folder {root:?}"))
}

impl StateDir {
    /// Makes the folder of a new container and locks it.
    pub(crate) fn create(root: &Path, id: &str) -> Result<Self> {
        check_id(id)?;
        let path = root.join(id);
        loop {
            let mut made = DirBuilder::new().mode(0o711).create(&path);
            if matches!(&made, Err(error) if error.kind() == ErrorKind::NotFound) {
                make_root(root)?;
                made = DirBuilder::new().mode(0o711).create(&path);
            }
            match made {
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                    bail!("container with given ID already exists: {id}")
                }
                other => other.with_context(|| format!("make {path:?}"))?,
            }
            // Before the lock a delete --force may have come, which finds nothing in it, and then another
            // create: an empty folder is whose lock is first.
            match Self::lock_if_there(&path)? {
                Some(dir) if dir.path.join("config.json").exists() => {
                    bail!("container with given ID already exists: {id}")
                }
                Some(dir) => return Ok(dir),
                None => {}
            }
        }
    }

    /// Locks the folder of an existing container; waits for another command that holds it.
    pub(crate) fn open(root: &Path, id: &str) -> Result<Self> {
        Self::find(root, id)?.with_context(|| format!("container does not exist: {id}"))
    }

    /// The same where it need not exist.
    pub(crate) fn find(root: &Path, id: &str) -> Result<Option<Self>> {
        check_id(id)?;
        let path = root.join(id);
        loop {
            match Self::lock_if_there(&path)? {
                // The one who held it may have removed it, and another have made it anew.
                None if path.exists() => {}
                other => return Ok(other),
            }
        }
    }

    /// `None` if there is no such folder, or no longer when its lock is free.
    fn lock_if_there(path: &Path) -> Result<Option<Self>> {
        let dir = match File::open(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            other => other.with_context(|| format!("open {path:?}"))?,
        };
        let lock = Flock::lock(dir, FlockArg::LockExclusive)
            .map_err(|(_, errno)| errno)
            .with_context(|| format!("lock {path:?}"))?;
        Ok(Some(Self { path: path.to_owned(), lock }).filter(Self::is_in_place))
    }

    /// False if the folder has been removed.
    fn is_in_place(&self) -> bool {
        let identity = |meta: fs::Metadata| (meta.dev(), meta.ino());
        match (self.lock.metadata(), fs::metadata(&self.path)) {
            (Ok(held), Ok(there)) => identity(held) == identity(there),
            _ => false,
        }
    }

    /// Lets others in while `work` is done. `None` if one of them has removed the container.
    pub(crate) fn unlocked_while<T>(self, work: impl FnOnce() -> T) -> Result<(Option<Self>, T)> {
        let Self { path, lock } = self;
        let context = || format!("lock {path:?}");
        let dir = lock.unlock().map_err(|(_, errno)| errno).with_context(context)?;
        let done = work();
        let lock =
            Flock::lock(dir, FlockArg::LockExclusive).map_err(|(_, errno)| errno).with_context(context)?;
        let dir = Self { path, lock };
        Ok((Some(dir).filter(Self::is_in_place), done))
    }

    /// Writes what is known before anything is made.
    pub(crate) fn write(&self, config: &[u8], state: &State) -> Result<()> {
        self.write_new("config.json", config)?;
        fault::point(Point::CreateConfig);
        self.write_new("state.json", &serde_json::to_vec(state)?)
    }

    /// For cgroups that could not be made: those that the state names are the container's.
    pub(crate) fn replace_state(&self, state: &State) -> Result<()> {
        const DRAFT: &str = "state.json.new";
        self.write_new(DRAFT, &serde_json::to_vec(state)?)?;
        let path = self.path.join("state.json");
        fs::rename(self.path.join(DRAFT), &path).with_context(|| format!("replace {path:?}"))
    }

    /// Records the first process.
    pub(crate) fn write_init(&self, pid: Pid) -> Result<()> {
        let start = start_time(pid).map_or(0, |(start, _)| start);
        self.write_new("init", format!("{pid} {start}").as_bytes())
    }

    fn write_new(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let path = self.path.join(name);
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .inspect(|_| match name {
                "state.json" => fault::point(Point::CreateStateEmpty),
                "init" => fault::point(Point::CreateInitEmpty),
                _ => {}
            })
            .and_then(|mut file| file.write_all(bytes))
            .with_context(|| format!("write {path:?}"))
    }

    /// Records the mount that will have to be unmounted, by its number.
    pub(crate) fn write_mount(&self, number: u64) -> Result<()> {
        self.write_new("mounted", number.to_string().as_bytes())
    }

    /// The mount that was recorded.
    pub(crate) fn mount(&self) -> Option<u64> {
        fs::read_to_string(self.path.join("mounted")).ok()?.parse().ok()
    }

    /// Where `start` knocks.
    pub(crate) fn gate(&self) -> PathBuf {
        self.path.join("start.sock")
    }

    /// In a forked child that stays: the lock is the command's, and ends with it even if it is killed.
    pub(crate) fn close_in_child(&self) {
        close_in_child(&*self.lock);
    }

    /// Removes the folder. It holds only files that this module has written.
    /// Without the state it is no container any more, whatever else is still there.
    pub(crate) fn remove(self) -> Result<()> {
        let _ = fs::remove_file(self.path.join("state.json")); // a folder without one goes too
        fault::point(Point::DeleteState);
        fs::remove_dir_all(&self.path).with_context(|| format!("remove {:?}", self.path))
    }
}

/// Reads a container's state without locking: everything in it was written once.
pub(crate) fn load(root: &Path, id: &str) -> Result<State> {
    check_id(id)?;
    let path = root.join(id).join("state.json");
    let text = match fs::read(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => bail!("container does not exist: {id}"),
        other => other.with_context(|| format!("read {path:?}"))?,
    };
    serde_json::from_slice(&text)
        .with_context(|| format!("{path:?} (remove the container with delete --force)"))
}

/// The configuration as it was at create.
pub(crate) fn load_spec(root: &Path, id: &str) -> Result<Spec> {
    let path = root.join(id).join("config.json");
    let text = fs::read(&path).with_context(|| format!("read {path:?}"))?;
    bundle::parse(&text).with_context(|| format!("{path:?}"))
}

/// All ids below `root`, sorted; and each folder's owner.
pub(crate) fn list(root: &Path) -> Result<Vec<(String, u32)>> {
    let entries = match fs::read_dir(root) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.with_context(|| format!("read {root:?}"))?,
    };
    let mut ids = Vec::new();
    for entry in entries {
        let entry = entry.with_context(|| format!("read {root:?}"))?;
        if let (Ok(id), Ok(meta)) = (entry.file_name().into_string(), entry.metadata())
            && meta.is_dir()
            && check_id(&id).is_ok()
        {
            ids.push((id, meta.uid()));
        }
    }
    ids.sort();
    Ok(ids)
}

/// The first process, if it lives: by a descriptor that pid reuse cannot turn into another process.
pub(crate) fn init(root: &Path, id: &str) -> Result<Option<Init>> {
    let path = root.join(id).join("init");
    let text = match fs::read_to_string(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        other => other.with_context(|| format!("read {path:?}"))?,
    };
    let mut numbers = text.split(' ');
    let (Some(Ok(pid)), Some(Ok(start))) =
        (numbers.next().map(str::parse::<i32>), numbers.next().map(str::parse::<u64>))
    else {
        return Ok(None); // killed while it was being written: the process died too
    };
    let pid = Pid::from_raw(pid);
    let pidfd = match pidfd_open(pid) {
        // EINVAL: while it is being reaped, before Linux 6.9; or a thread has the number now.
        Err(Errno::ESRCH | Errno::EINVAL) => return Ok(None),
        other => other.with_context(|| format!("pidfd_open {pid}"))?,
    };
    // Checked after the descriptor is held, so that it is this process for sure.
    match start_time(pid) {
        Some((found, state)) if found == start && !matches!(state, b'Z' | b'X') => {
            Ok(Some(Init { pid, pidfd }))
        }
        _ => Ok(None),
    }
}

/// Fields 22 and 3 of `/proc/PID/stat`: start time in clock ticks since boot, and the state's letter.
fn start_time(pid: Pid) -> Option<(u64, u8)> {
    let stat = file::read(format!("/proc/{pid}/stat")).ok()?;
    // The second field, the name in parentheses, may hold spaces and parentheses itself.
    let end = stat.iter().rposition(|byte| *byte == b')')?;
    let mut fields = stat.get(end + 2..)?.split(|byte| *byte == b' ');
    let state = *fields.next()?.first()?;
    let start = std::str::from_utf8(fields.nth(18)?).ok()?.parse().ok()?;
    Some((start, state))
}

/// Where a container is in its life, asked of the living process.
pub(crate) fn status(root: &Path, state: &State, init: Option<&Init>) -> Status {
    let Some(init) = init else { return Status::Stopped };
    if state.cgroups.is_frozen() {
        return Status::Paused;
    }
    let gate = root.join(&state.id).join("start.sock");
    if gate.exists() && (state.waits_itself || !has_left_the_gate(init.pid)) {
        return Status::Created;
    }
    Status::Running
}

/// True if the process is no longer the program of `init/`: a `start` that was killed at the wrong moment
/// leaves the gate behind.
fn has_left_the_gate(pid: Pid) -> bool {
    fs::read_link(format!("/proc/{pid}/exe"))
        .is_ok_and(|exe| !exe.as_os_str().as_encoded_bytes().starts_with(b"/memfd:runtime-init"))
}

/// True if the first process was recorded: whether it lives or not, there is nobody unknown.
pub(crate) fn has_init_record(root: &Path, id: &str) -> bool {
    fs::metadata(root.join(id).join("init")).is_ok_and(|file| file.len() > 0)
}

/// Now, for `created`.
pub(crate) fn now() -> String {
    time::rfc3339(SystemTime::now(), 9)
}

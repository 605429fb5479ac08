//! What a container is doing: files say what was started and how it ended, the process itself says
//! whether it still runs. No lock is taken, so `ps` never waits for a slow `rm`.

use std::path::Path;

use anyhow::Result;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::files;
use super::process::Process;

/// `state.json`, written by the monitor when the container's process exists.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Started {
    /// The container's first process.
    pub(crate) process: Process,
    /// Its monitor.
    pub(crate) monitor: Process,
    /// RFC 3339.
    pub(crate) at: String,
}

/// `exit.json`, written by the monitor when the container has ended.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Exit {
    /// Its exit code, 128+n after a signal, 125-127 when it could not be started.
    pub(crate) code: u8,
    /// True when the kernel killed a process of it for lack of memory.
    pub(crate) oom_killed: bool,
    /// Why it could not be started, or why the code is not the process's.
    pub(crate) error: Option<String>,
    /// When its process was started; none when it never was.
    pub(crate) started_at: Option<String>,
    /// RFC 3339.
    pub(crate) finished_at: String,
}

/// What a container is doing.
#[derive(Debug, Clone)]
pub(crate) enum State {
    /// Never started, or it could not be.
    Created(Option<Exit>),
    /// Its process lives.
    Running {
        /// Which, since when.
        started: Started,
        /// False when its monitor was killed: no logs, no exit code.
        monitored: bool,
    },
    /// Its process has ended.
    Exited(Exit),
}

impl State {
    /// The state of the container in this folder.
    pub(crate) fn of(folder: &Path) -> Result<Self> {
        // Twice, since the monitor may write the exit between our look at one file and the other.
        match Self::look(folder)? {
            Self::Exited(exit) if exit.error.is_some() => Self::look(folder),
            state => Ok(state),
        }
    }

    fn look(folder: &Path) -> Result<Self> {
        let exit = folder.join("exit.json");
        if let Some(text) = files::read(&exit)? {
            let Ok(exit) = serde_json::from_slice::<Exit>(&text) else { return Ok(Self::damaged(&exit)) };
            return Ok(if exit.started_at.is_some() {
                Self::Exited(exit)
            } else {
                Self::Created(Some(exit))
            });
        }
        let state = folder.join("state.json");
        let Some(text) = files::read(&state)? else { return Ok(Self::Created(None)) };
        let Ok(started) = serde_json::from_slice::<Started>(&text) else { return Ok(Self::damaged(&state)) };
        let monitored = started.monitor.is_alive();
        // Dead, but its monitor is at work: the exit code is about to be written.
        if started.process.is_alive() || monitored {
            return Ok(Self::Running { started, monitored });
        }
        Ok(Self::Exited(Exit {
            code: 255,
            oom_killed: false,
            error: Some("the monitor was killed or the host rebooted: the exit code is unknown".into()),
            finished_at: started.at.clone(),
            started_at: Some(started.at),
        }))
    }

    /// What a power cut may leave: a file with nothing in it. Nothing of that boot runs any more.
    fn damaged(path: &Path) -> Self {
        let written = path.metadata().and_then(|data| data.modified()).ok();
        let at = written.and_then(|time| Timestamp::try_from(time).ok()).unwrap_or_default().to_string();
        Self::Exited(Exit {
            code: 255,
            oom_killed: false,
            error: Some(format!("{} is damaged: the exit code is unknown", path.display())),
            started_at: Some(at.clone()),
            finished_at: at,
        })
    }

    /// Docker's word for it.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Created(_) => "created",
            Self::Running { .. } => "running",
            Self::Exited(_) => "exited",
        }
    }

    /// The running process, none when there is none.
    pub(crate) fn running(&self) -> Option<&Started> {
        match self {
            Self::Running { started, .. } => Some(started),
            _ => None,
        }
    }
}

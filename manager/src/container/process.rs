//! Which process is meant, for sure: a number is reused, a number with its start time is not.
//! [proc_pid_stat(5)](https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html)

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde::{Deserialize, Serialize};

use crate::sys::pidfd;

/// A process of this boot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Process {
    /// Its number, seen from the host.
    pub(crate) pid: i32,
    /// When it started, in clock ticks since boot.
    pub(crate) start_time: u64,
    /// The boot it belongs to: after a reboot numbers and times start again.
    pub(crate) boot_id: String,
}

impl Process {
    /// The process with this number, as it is now.
    pub(crate) fn now(pid: i32) -> Result<Self> {
        let (_, start_time) = stat(pid).with_context(|| format!("process {pid}"))?;
        Ok(Self { pid, start_time, boot_id: boot_id()? })
    }

    /// True while the process lives; a zombie does not.
    pub(crate) fn is_alive(&self) -> bool {
        let alive = stat(self.pid).is_ok_and(|(state, start)| start == self.start_time && state != 'Z');
        alive && boot_id().is_ok_and(|boot| boot == self.boot_id)
    }

    /// A descriptor of the process, none when it is gone.
    pub(crate) fn open(&self) -> Result<Option<OwnedFd>> {
        let pid = Pid::from_raw(self.pid).context("process number 0")?;
        match pidfd_open(pid, PidfdFlags::empty()) {
            // Checked after opening: from now on the descriptor cannot mean another process.
            Ok(fd) => Ok(self.is_alive().then_some(fd)),
            Err(rustix::io::Errno::SRCH) => Ok(None),
            Err(error) => Err(error).with_context(|| format!("process {}", self.pid)),
        }
    }

    /// Sends a signal; false when the process is gone.
    pub(crate) fn signal(&self, signal: i32) -> Result<bool> {
        let Some(fd) = self.open()? else { return Ok(false) };
        match pidfd::send_signal(fd.as_fd(), signal) {
            Ok(()) => Ok(true),
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(false),
            Err(error) => Err(error).with_context(|| format!("send signal {signal} to process {}", self.pid)),
        }
    }

    /// Waits until the process is gone; false when it still lives after `limit`.
    pub(crate) fn wait(&self, limit: Option<Duration>) -> Result<bool> {
        let Some(fd) = self.open()? else { return Ok(true) };
        let end = limit.map(|limit| Instant::now() + limit);
        loop {
            let timeout = match end {
                None => PollTimeout::NONE,
                Some(end) => {
                    let left = end.saturating_duration_since(Instant::now());
                    // Rounded up: a rest of 0.4 ms must not become a busy loop.
                    PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX)
                }
            };
            match poll(&mut [PollFd::new(fd.as_fd(), PollFlags::POLLIN)], timeout) {
                Ok(0) if end.is_some_and(|end| Instant::now() >= end) => return Ok(false),
                Ok(0) | Err(nix::errno::Errno::EINTR) => {}
                Ok(_) => return Ok(true),
                Err(error) => return Err(error).context("wait for a process"),
            }
        }
    }
}

/// The state letter and the start time of a process.
fn stat(pid: i32) -> io::Result<(char, u64)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name stands in parentheses and may hold spaces and parentheses itself.
    let fields = text.rsplit_once(") ").map_or("", |(_, rest)| rest);
    let mut fields = fields.split(' ');
    let state = fields.next().and_then(|field| field.chars().next());
    // Field 22 of the line; the state was field 3.
    let start = fields.nth(18).and_then(|field| field.parse().ok());
    state.zip(start).ok_or_else(|| io::Error::other("unreadable /proc/PID/stat"))
}

/// The kernel's name for this boot.
fn boot_id() -> Result<String> {
    let path = "/proc/sys/kernel/random/boot_id";
    Ok(fs::read_to_string(path).context(path)?.trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_itself_and_not_its_number() {
        let me = Process::now(std::process::id().cast_signed()).unwrap();
        assert!(me.is_alive());
        assert!(!Process { start_time: me.start_time + 1, ..me.clone() }.is_alive());
        assert!(!Process { boot_id: "another".into(), ..me }.is_alive());
    }
}

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
        let start_time = start_time(pid).with_context(|| format!("process {pid}"))?;
        Ok(Self { pid, start_time, boot_id: boot_id()? })
    }

    /// True while any thread of the process lives; a zombie does not.
    pub(crate) fn is_alive(&self) -> bool {
        // Without a descriptor to ask, its entry in /proc is the best there is.
        self.is_there() && self.open().map_or(true, |fd| fd.is_some())
    }

    /// True while the process lives or is a zombie.
    fn is_there(&self) -> bool {
        start_time(self.pid).is_ok_and(|start| start == self.start_time)
            && boot_id().is_ok_and(|boot| boot == self.boot_id)
    }

    /// A descriptor of the process, none when it is gone.
    pub(crate) fn open(&self) -> Result<Option<OwnedFd>> {
        let pid = Pid::from_raw(self.pid).context("process number 0")?;
        match pidfd_open(pid, PidfdFlags::empty()) {
            // Checked after opening: from now on the descriptor cannot mean another process.
            Ok(fd) => Ok((self.is_there() && !has_ended(&fd)).then_some(fd)),
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

/// Whether all threads of a process have ended. The state letter in /proc would not do: it is `Z`
/// as soon as the first thread has.
fn has_ended(pidfd: &OwnedFd) -> bool {
    poll(&mut [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)], PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
}

/// The start time of a process.
fn start_time(pid: i32) -> io::Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name stands in parentheses and may hold spaces and parentheses itself.
    let fields = text.rsplit_once(") ").map_or("", |(_, rest)| rest);
    // Field 22 of the line; the first after the name is field 3.
    let start = fields.split(' ').nth(19).and_then(|field| field.parse().ok());
    start.ok_or_else(|| io::Error::other("unreadable /proc/PID/stat"))
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

    #[test]
    fn a_process_lives_as_long_as_any_thread_of_it() {
        let script = format!(
            "import ctypes, threading, time\n\
             threading.Thread(target=time.sleep, args=(100,)).start()\n\
             ctypes.CDLL(None).syscall({}, 0)",
            libc::SYS_exit
        );
        let Ok(mut child) = std::process::Command::new("python3").args(["-c", &script]).spawn() else {
            println!("SKIP: python3 is not installed");
            return;
        };
        let pid = child.id().cast_signed();
        let state = || fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let end = Instant::now() + Duration::from_secs(10);
        while !state().contains(") Z ") && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(10));
        }
        let process = Process::now(pid).unwrap();
        let alive = process.is_alive();
        let signalled = process.signal(libc::SIGKILL).unwrap();
        let gone = process.wait(Some(Duration::from_secs(10))).unwrap();
        let zombie = process.is_alive();
        let _ = child.kill();
        let _ = child.wait();
        assert!(alive && signalled && gone && !zombie);
    }
}

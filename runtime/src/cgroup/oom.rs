//! Notices that the kernel has killed a process for the memory that its container used: the `oom` events.
//!
//! - Version 1: an eventfd at `memory.oom_control`,
//!   [memory.html#oom-control](https://docs.kernel.org/admin-guide/cgroup-v1/memory.html#oom-control)
//! - Version 2: `memory.events` changes, of which inotify(7) tells, and `oom_kill` there grows.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::PathBuf;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

use super::Place;

/// Where notices arrive.
#[derive(Debug)]
pub(crate) enum Notices {
    /// The version 1 folder too, since the eventfd speaks up for its removal as well.
    V1(EventFd, PathBuf),
    V2 {
        inotify: Inotify,
        events: PathBuf,
        seen: u64,
    },
}

impl Notices {
    /// None without the memory controller.
    pub(crate) fn of(place: &Place) -> Result<Option<Self>> {
        if let Some(group) = place.v1.iter().find(|group| group.has("memory")) {
            let control = group.dir.join("memory.oom_control");
            let file = std::fs::File::open(&control).with_context(|| format!("open {control:?}"))?;
            let eventfd = EventFd::from_value_and_flags(0, EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)
                .context("eventfd")?;
            let path = group.dir.join("cgroup.event_control");
            let line = format!("{} {}", eventfd.as_fd().as_raw_fd(), file.as_raw_fd());
            std::fs::write(&path, line).with_context(|| format!("write {path:?}"))?;
            return Ok(Some(Self::V1(eventfd, group.dir.clone())));
        }
        let Some(events) = place.v2.as_ref().map(|group| group.dir.join("memory.events")) else {
            return Ok(None);
        };
        if !place.v1.is_empty() || !events.exists() {
            return Ok(None);
        }
        let inotify =
            Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK).context("inotify_init")?;
        inotify.add_watch(&events, AddWatchFlags::IN_MODIFY).with_context(|| format!("watch {events:?}"))?;
        let seen = kills(&events);
        Ok(Some(Self::V2 { inotify, events, seen }))
    }

    /// True once for each notice that has arrived; never waits.
    pub(crate) fn arrived(&mut self) -> Result<bool> {
        match self {
            Self::V1(eventfd, dir) => match eventfd.read() {
                Ok(_) => Ok(dir.exists()),
                Err(Errno::EAGAIN) => Ok(false),
                Err(errno) => Err(errno).context("read an eventfd"),
            },
            Self::V2 { inotify, events, seen } => {
                match inotify.read_events() {
                    Ok(_) | Err(Errno::EAGAIN) => {}
                    Err(errno) => return Err(errno).context("read inotify events"),
                }
                let now = kills(events);
                let more = now > *seen;
                *seen = now.max(*seen);
                Ok(more)
            }
        }
    }

    /// What to wait for.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::V1(eventfd, _) => eventfd.as_fd(),
            Self::V2 { inotify, .. } => inotify.as_fd(),
        }
    }
}

/// `oom_kill` of `memory.events`.
fn kills(events: &PathBuf) -> u64 {
    let text = std::fs::read_to_string(events).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
    line.and_then(|number| number.parse().ok()).unwrap_or(0)
}

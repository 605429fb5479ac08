//! `events`: what a container uses, again and again, and when it ran out of memory; a JSON object a line.

use std::io::{ErrorKind, Write};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use clap::{ArgMatches, Command};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::CloneFlags;
use serde::Serialize;

use crate::cgroup::oom::Notices;
use crate::cgroup::stats::{self, Stats};
use crate::cli::{self, Context};
use crate::state_dir::{self, Init, State};

pub(super) fn flags(command: Command) -> Command {
    command
        .about("Report what a container uses, and when it ran out of memory")
        .arg(cli::value("interval", "TIME", "How often, as in 1m30s or 100ms").default_value("5s"))
        .arg(cli::flag("stats", "Report once"))
        .arg(cli::id())
}

/// runc's envelope, whose order of members some readers take for granted.
#[derive(Serialize)]
struct Event<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Stats>,
}

pub(super) fn run(context: &Context, matches: &ArgMatches) -> Result<u8> {
    let id = cli::text(matches, "id");
    let interval = cli::text(matches, "interval");
    let interval = duration(interval).with_context(|| format!("--interval: {interval:?} is not a time"))?;
    if interval.is_zero() {
        bail!("duration interval must be greater than 0");
    }
    let state = state_dir::load(&context.root, id)?;
    let Some(init) = state_dir::init(&context.root, id)? else {
        bail!("container with id {id} is not running");
    };
    if matches.get_flag("stats") {
        say(&used(&state, &init)).map(|_| 0)
    } else {
        follow(&state, &init, interval).map(|()| 0)
    }
}

/// Until the container ends.
fn follow(state: &State, init: &Init, interval: Duration) -> Result<()> {
    let mut notices = Notices::of(&state.cgroups)?;
    let mut next = Instant::now() + interval;
    loop {
        let ended = wait(init, notices.as_ref(), next)?;
        if let Some(notices) = &mut notices
            && notices.arrived()?
            && !say(&Event { kind: "oom", id: &state.id, data: None })?
        {
            return Ok(());
        }
        if ended {
            return Ok(());
        }
        if Instant::now() >= next {
            if !say(&used(state, init))? {
                return Ok(());
            }
            next = (next + interval).max(Instant::now());
        }
    }
}

/// Sleeps until a notice, the time or the end; true at the end.
fn wait(init: &Init, notices: Option<&Notices>, until: Instant) -> Result<bool> {
    let mut fds = vec![PollFd::new(init.pidfd.as_fd(), PollFlags::POLLIN)];
    fds.extend(notices.map(|notices| PollFd::new(notices.fd(), PollFlags::POLLIN)));
    // Rounded up: else the last part of a millisecond would be spent awake.
    let left = until.saturating_duration_since(Instant::now()).as_micros().div_ceil(1000);
    let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
    match poll(&mut fds, timeout) {
        Ok(_) => Ok(fds[0].any().unwrap_or(false)),
        Err(Errno::EINTR) => Ok(false),
        Err(errno) => Err(errno).context("wait for the container's events"),
    }
}

fn used<'a>(state: &'a State, init: &Init) -> Event<'a> {
    let own = CloneFlags::from_bits_retain(state.namespaces).contains(CloneFlags::CLONE_NEWNET);
    let data = stats::read(&state.cgroups, own.then_some(init.pid));
    Event { kind: "stats", id: &state.id, data: Some(data) }
}

/// False if nobody reads any more.
fn say(event: &Event) -> Result<bool> {
    let line = format!("{}\n", serde_json::to_string(event)?);
    match std::io::stdout().write_all(line.as_bytes()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(error).context("write an event"),
    }
}

/// Go's way of writing times: `1h30m`, `1.5s`, `100ms`.
fn duration(text: &str) -> Option<Duration> {
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    let mut all = Duration::ZERO;
    if rest == "0" {
        return Some(all);
    }
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..end].parse().ok()?;
        rest = &rest[end..];
        let end = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let seconds = match &rest[..end] {
            "ns" => 1e-9,
            "us" | "µs" | "μs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        all = all.checked_add(Duration::try_from_secs_f64(number * seconds).ok()?)?;
        rest = &rest[end..];
    }
    (!text.is_empty()).then_some(all)
}

#[cfg(test)]
mod tests {
    use super::duration;

    #[test]
    fn times_have_units() {
        let good =
            [("5s", 5000), ("100ms", 100), ("1m30s", 90_000), ("1.5h", 5_400_000), ("0", 0), ("0s", 0)];
        for (text, milliseconds) in good {
            assert_eq!(duration(text).map(|time| time.as_millis()), Some(milliseconds), "{text}");
        }
        for bad in ["", "5", "s", "-1s", "1x", "1.2.3s", "99999999999999999999h"] {
            assert_eq!(duration(bad), None, "{bad}");
        }
    }
}

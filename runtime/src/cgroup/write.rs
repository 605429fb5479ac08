//! Writing limits into a cgroup's files: in an order that the kernel takes, and back if one fails.

use std::os::fd::OwnedFd;
use std::path::Path;

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;

use super::resources::{Action, Column, Files, Setting, Value};
use super::systemd;
use crate::fault::{self, Point};
use crate::sys::file::read_text;

/// One row of the table and the folder that it is for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Target<'a> {
    pub(super) dir: &'a Path,
    pub(super) setting: &'a Setting,
    pub(super) column: &'a Column,
    /// Where systemd rounds CPU time, and forgets its period: the period before.
    pub(super) period: Option<u64>,
}

/// Lines that bring a file back to what it said before.
#[derive(Debug)]
struct Undo<'a> {
    dir: &'a Path,
    file: String,
    lines: Vec<String>,
}

/// Writes limits into new cgroups.
pub(super) fn write_all(targets: &[Target]) -> Result<()> {
    in_some_order(targets, |target| target.write(None))
}

/// Writes limits over others; whatever fails, those before are in force again.
pub(super) fn replace_all(targets: &[Target]) -> Result<()> {
    let mut undo = Vec::new();
    in_some_order(targets, |target| target.write(Some(&mut undo))).map_err(|error| {
        undo.reverse();
        // All that can be put back is, whatever becomes of one.
        let mut failed = Ok(());
        let tried = in_some_order(&undo, |one| match one.write() {
            Err(other) if !is_invalid(&other) => {
                failed = std::mem::replace(&mut failed, Ok(())).and(Err(other));
                Ok(())
            }
            done => done,
        });
        match failed.and(tried) {
            Ok(()) => error,
            Err(other) => error.context(format!("and not all was taken back: {other:#}")),
        }
    })
}

fn is_invalid(error: &anyhow::Error) -> bool {
    error.root_cause().downcast_ref() == Some(&Errno::EINVAL)
}

/// Some limits must fit each other at any time: memory and swap, quota, period and burst, weight and idle.
/// Which of them has to come first depends on what stands there. The kernel refuses the wrong order with
/// EINVAL; what is refused so is tried again after the others, as long as that helps.
fn in_some_order<T>(all: &[T], mut write: impl FnMut(&T) -> Result<()>) -> Result<()> {
    let mut left: Vec<&T> = all.iter().collect();
    while !left.is_empty() {
        let (mut refused, mut first) = (Vec::new(), None);
        for one in &left {
            match write(one) {
                Err(error) if is_invalid(&error) => {
                    refused.push(*one);
                    first.get_or_insert(error);
                }
                other => other?,
            }
        }
        match first {
            Some(error) if refused.len() == left.len() => return Err(error),
            _ => left = refused,
        }
    }
    Ok(())
}

impl<'a> Target<'a> {
    /// All controllers but these count whole processes.
    pub(super) fn needs_a_domain(&self) -> bool {
        !["cpu", "cpuset", "pids", "perf_event", "cgroup"].contains(&&*self.column.controller)
    }

    fn write(&self, undo: Option<&mut Vec<Undo<'a>>>) -> Result<()> {
        let (Action::Write(files) | Action::IfThere(files)) = &self.column.action else { return Ok(()) };
        self.write_first(files, undo).with_context(|| format!("linux.resources.{}", self.setting.property))
    }

    fn write_first(&self, files: &Files, undo: Option<&mut Vec<Undo<'a>>>) -> Result<()> {
        for (file, value) in files {
            let opened = match open_to_write(self.dir, file) {
                Err(Errno::ENOENT) => continue,
                other => other.with_context(|| format!("open {file}"))?,
            };
            let text = self.text(file, value)?;
            let before = if undo.is_some() { remember(self.dir, file, &text) } else { Vec::new() };
            let written = write_lines(&opened, &text);
            // One line is taken or not; of more, some may have been.
            if let Some(undo) = undo.filter(|_| written.is_ok() || text.lines().count() > 1) {
                undo.extend(before);
            }
            fault::point(Point::UpdateOne);
            return written
                .map_err(|errno| self.explain(file, &text, errno))
                .with_context(|| format!("write {text:?} to {file}"));
        }
        if matches!(self.column.action, Action::IfThere(_)) {
            return Ok(());
        }
        let names: Vec<&str> = files.iter().map(|(file, _)| &**file).collect();
        bail!(
            "there is no {} here: the controller {} is not available to this cgroup, or this kernel has no such limit",
            names.join(" and no "),
            self.column.controller
        )
    }

    fn text(&self, file: &str, value: &Value) -> Result<String> {
        let text = value.text(self.dir)?;
        Ok(self.period.and_then(|period| quota_in_steps(self.dir, file, &text, period)).unwrap_or(text))
    }

    fn explain(&self, file: &str, text: &str, errno: Errno) -> anyhow::Error {
        if file == "memory.limit_in_bytes" && errno == Errno::EBUSY {
            let usage = |file| read(self.dir, file).unwrap_or_default();
            let (now, peak) = (usage("memory.usage_in_bytes"), usage("memory.max_usage_in_bytes"));
            return anyhow::Error::new(errno).context(format!(
                "unable to set memory limit to {text} (current usage: {}, peak usage: {})",
                now.trim(),
                peak.trim()
            ));
        }
        errno.into()
    }
}

impl Undo<'_> {
    fn write(&self) -> Result<()> {
        open_to_write(self.dir, &self.file)
            .and_then(|file| write_lines(&file, &self.lines.join("\n")))
            .with_context(|| format!("write {:?} to {}", self.lines.join("\n"), self.file))
    }
}

impl Value {
    /// What is to be written, now.
    pub(super) fn text(&self, dir: &Path) -> Result<String> {
        match self {
            Self::Text(text) => Ok(text.clone()),
            Self::Period(period) => {
                let now = read(dir, "cpu.max").context("read cpu.max")?;
                Ok(format!("{} {period}", now.split_whitespace().next().unwrap_or("max")))
            }
            Self::SwapAndMemory(both) => {
                let now = read(dir, "memory.max").context("read memory.max")?;
                let Ok(limit) = now.trim().parse::<u64>() else {
                    bail!("unable to set swap limit without memory limit");
                };
                let swap = both.checked_sub(limit);
                Ok(swap.context("memory+swap limit should be >= memory limit")?.to_string())
            }
        }
    }
}

/// systemd keeps CPU time in steps, and writes what it keeps over what is here whenever it is reloaded. So a
/// quota is what it will be then. None if this is no quota.
fn quota_in_steps(dir: &Path, file: &str, text: &str, before: u64) -> Option<String> {
    let mut words = text.split_whitespace();
    let quota = words.next()?;
    let period: u64 = match file {
        "cpu.max" => words.next().map_or(Some(before), |period| period.parse().ok())?,
        "cpu.cfs_quota_us" => read(dir, "cpu.cfs_period_us").ok()?.trim().parse().ok()?,
        _ => return None,
    };
    let quota = quota.parse().map_or(quota.to_owned(), |quota: u64| {
        let stepped = u128::from(systemd::per_second(quota, period)) * u128::from(period) / 1_000_000;
        u64::try_from(stepped).unwrap_or(quota).max(quota).to_string()
    });
    Some(if file == "cpu.max" { format!("{quota} {period}") } else { quota })
}

/// The period of CPU time of a cgroup, which may not be there yet.
pub(super) fn period(dir: &Path) -> Option<u64> {
    read(dir, "cpu.max").ok()?.split_whitespace().nth(1)?.parse().ok()
}

/// A file takes one line with each write(2); an empty one says "none".
fn write_lines(file: &OwnedFd, text: &str) -> nix::Result<()> {
    if text.is_empty() {
        return nix::unistd::write(file, b"\n").map(drop);
    }
    text.lines().try_for_each(|line| nix::unistd::write(file, line.as_bytes()).map(drop))
}

fn open_to_write(dir: &Path, file: &str) -> nix::Result<OwnedFd> {
    open(&dir.join(file), OFlag::O_WRONLY | OFlag::O_CLOEXEC, Mode::empty())
}

/// What is in a file of the cgroup.
fn read(dir: &Path, file: &str) -> std::io::Result<String> {
    read_text(dir.join(file))
}

/// The number in a file of the cgroup.
pub(super) fn read_number(dir: &Path, file: &str) -> Option<u64> {
    read(dir, file).ok()?.trim().parse().ok()
}

/// What cannot be read cannot be put back.
fn remember<'a>(dir: &'a Path, file: &str, text: &str) -> Vec<Undo<'a>> {
    let Ok(old) = read(dir, file) else { return Vec::new() };
    let mut undo = Vec::new();
    if file == "cpu.idle" && old.trim() == "0" {
        // Idle and back again, the kernel gives the default weight.
        for file in ["cpu.shares", "cpu.weight"] {
            if let Ok(weight) = read(dir, file) {
                undo.push(Undo { dir, file: file.to_owned(), lines: vec![weight.trim().to_owned()] });
            }
        }
    }
    undo.push(Undo { dir, file: file.to_owned(), lines: lines_before(file, &old, text) });
    undo
}

/// The lines that make `file` say `old` again where `written` has changed it.
fn lines_before(file: &str, old: &str, written: &str) -> Vec<String> {
    if file == "memory.oom_control" {
        let disabled = old.lines().find_map(|line| line.strip_prefix("oom_kill_disable "));
        return vec![disabled.unwrap_or("0").to_owned()];
    }
    let Some(none) = without_a_limit(file) else { return vec![old.trim().to_owned()] };
    let line_of = |written: &str| {
        // A lone number is for all devices without one of their own.
        let key = written.split_once(' ').map_or("default", |(key, _)| key);
        let has_key = |line: &&str| line.split_once(' ').is_some_and(|(found, _)| found == key);
        match old.lines().find(has_key) {
            Some(line) => line.to_owned(),
            None if key == "default" => old.trim().to_owned(),
            None => format!("{key} {none}"),
        }
    };
    written.lines().map(line_of).collect()
}

/// For files with a line for each device: what such a line says where there is none.
fn without_a_limit(file: &str) -> Option<&'static str> {
    Some(match file {
        "io.max" => "rbps=max wbps=max riops=max wiops=max",
        "io.latency" => "target=max",
        "io.weight" | "io.bfq.weight" | "blkio.weight_device" | "blkio.bfq.weight_device" => "default",
        "rdma.max" => "hca_handle=max hca_object=max",
        "misc.max" | "dmem.max" => "max",
        "dmem.min" | "dmem.low" | "net_prio.ifpriomap" => "0",
        _ if file.starts_with("blkio.throttle.") => "0",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_put_back_line_by_line() {
        let cases: [(&str, &str, &str, &[&str]); 8] = [
            ("pids.max", "max\n", "10", &["max"]),
            ("cpuset.cpus", "\n", "0", &[""]),
            ("cpu.max", "max 100000\n", "1000 2000", &["max 100000"]),
            ("memory.oom_control", "oom_kill_disable 0\nunder_oom 0\n", "1", &["0"]),
            (
                "io.max",
                "8:0 rbps=1 wbps=max riops=max wiops=max\n",
                "8:0 rbps=5\n8:16 wbps=6",
                &["8:0 rbps=1 wbps=max riops=max wiops=max", "8:16 rbps=max wbps=max riops=max wiops=max"],
            ),
            ("io.weight", "default 100\n8:0 200\n", "300", &["default 100"]),
            ("io.bfq.weight", "100\n", "300", &["100"]),
            ("blkio.throttle.read_bps_device", "", "8:0 7", &["8:0 0"]),
        ];
        for (file, old, written, expected) in cases {
            assert_eq!(lines_before(file, old, written), expected, "{file}");
        }
    }

    #[test]
    fn what_does_not_fit_yet_comes_later() {
        // b wants a first, a wants c first
        let done = std::cell::RefCell::new(Vec::new());
        let write = |name: &&'static str| {
            let needs = match *name {
                "a" => Some("c"),
                "b" => Some("a"),
                "never" => Some("nothing"),
                _ => None,
            };
            if needs.is_some_and(|needs| !done.borrow().contains(&needs)) {
                return Err(Errno::EINVAL.into());
            }
            done.borrow_mut().push(*name);
            Ok(())
        };
        in_some_order(&["b", "a", "c"], write).expect("there is an order");
        assert_eq!(*done.borrow(), ["c", "a", "b"]);
        assert!(in_some_order(&["never", "c"], write).is_err());
    }
}

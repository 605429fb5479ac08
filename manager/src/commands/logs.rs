//! `logs`: what a container has printed, and what it prints from now on.

use std::fs::File;
use std::io::{BufRead, BufReader, ErrorKind, Write, stderr, stdout};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::{Context as _, Result};
use jiff::Timestamp;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

use crate::cli::Context;
use crate::container::Container;
use crate::monitor::log::{Entry, FILES, numbered};

/// Print what a container has printed
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Go on until the container has ended
    #[arg(short, long)]
    follow: bool,
    /// Begin with the last NUMBER lines; `all` is everything
    #[arg(short = 'n', long, value_name = "NUMBER", default_value = "all")]
    tail: String,
    /// Print when each line was written
    #[arg(short, long)]
    timestamps: bool,
    /// Leave out what is older: a time (2026-01-02T15:04:05Z), seconds since 1970, or a duration (10m)
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Leave out what is newer
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// A name or an id
    container: String,
}

/// Which entries are printed, and how.
struct Printer {
    timestamps: bool,
    since: Option<Timestamp>,
    until: Option<Timestamp>,
}

/// Prints the log.
pub(crate) fn run(args: Args, context: &Context) -> Result<u8> {
    let container = Container::find(context, &args.container)?;
    let tail = match args.tail.as_str() {
        "all" | "-1" => None,
        number => Some(number.parse::<usize>().ok().with_context(|| format!("invalid --tail: {number:?}"))?),
    };
    let printer = Printer {
        timestamps: args.timestamps,
        since: args.since.as_deref().map(moment).transpose().context("--since")?,
        until: args.until.as_deref().map(moment).transpose().context("--until")?,
    };
    let shown = show(&container, &printer, tail, args.follow);
    match shown {
        // `manager logs ... | head` has seen enough.
        Err(error) if is_broken_pipe(&error) => Ok(0),
        other => other.map(|()| 0),
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == ErrorKind::BrokenPipe)
}

fn show(container: &Container, printer: &Printer, tail: Option<usize>, follow: bool) -> Result<()> {
    let path = container.log_path();
    // Watched before it is read, so that nothing falls between the two.
    let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK).context("inotify")?;
    if follow {
        let flags = AddWatchFlags::IN_MODIFY
            | AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_MOVED_TO
            | AddWatchFlags::IN_DELETE;
        inotify.add_watch(&container.folder, flags).context("watch the container's folder")?;
    }
    let mut lines = Lines::default();
    let mut entries = lines.catch_up(&path)?;
    entries.retain(|entry| printer.wants(entry));
    let skipped = tail.map_or(0, |tail| first_of_last(&entries, tail));
    printer.print(&entries[skipped..])?;
    if follow { go_on(container, printer, lines, &inotify) } else { Ok(()) }
}

/// Prints what is added, until the container has ended.
fn go_on(container: &Container, printer: &Printer, mut lines: Lines, inotify: &Inotify) -> Result<()> {
    loop {
        let over = container.state()?.running().is_none();
        let mut entries = lines.catch_up(&container.log_path())?;
        entries.retain(|entry| printer.wants(entry));
        printer.print(&entries)?;
        if over || printer.until.is_some_and(|until| until < Timestamp::now()) {
            return Ok(());
        }
        wait(inotify, container)?;
    }
}

/// Waits for a change in the container's folder, or the end of its process.
fn wait(inotify: &Inotify, container: &Container) -> Result<()> {
    let state = container.state()?;
    let process = state.running().map(|started| started.process.open()).transpose()?.flatten();
    let mut descriptors = vec![PollFd::new(inotify.as_fd(), PollFlags::POLLIN)];
    let gone = process.is_none();
    descriptors.extend(process.as_ref().map(|fd| PollFd::new(fd.as_fd(), PollFlags::POLLIN)));
    // With its process gone only the monitor's last words are missing, if it lives to write them.
    let timeout = if gone { PollTimeout::from(20u16) } else { PollTimeout::NONE };
    let _ = poll(&mut descriptors, timeout);
    while inotify.read_events().is_ok_and(|events| !events.is_empty()) {}
    Ok(())
}

/// Where the last `tail` lines begin. Parts of a long line count as one.
fn first_of_last(entries: &[Entry], tail: usize) -> usize {
    let mut lines = 0;
    for (index, entry) in entries.iter().enumerate().rev() {
        let ends = entry.log.ends_with('\n') || index + 1 == entries.len();
        if ends && lines == tail {
            return index + 1;
        }
        lines += usize::from(ends);
    }
    0
}

impl Printer {
    fn wants(&self, entry: &Entry) -> bool {
        let time = entry.time.parse::<Timestamp>().unwrap_or_default();
        self.since.is_none_or(|since| time >= since) && self.until.is_none_or(|until| time <= until)
    }

    /// Prints entries in their order; a run of one stream goes with one write(2).
    fn print(&self, entries: &[Entry]) -> Result<()> {
        for run in entries.chunk_by(|one, next| one.stream == next.stream) {
            let mut text = String::new();
            for entry in run {
                if self.timestamps {
                    text = text + &entry.time + " ";
                }
                text += &entry.log;
            }
            let error = run.first().is_some_and(|entry| entry.stream == "stderr");
            let mut to: Box<dyn Write> = if error { Box::new(stderr()) } else { Box::new(stdout()) };
            to.write_all(text.as_bytes())?;
            to.flush()?;
        }
        Ok(())
    }
}

/// A log file, read as far as it has been written; before the first look none.
#[derive(Default)]
struct Lines {
    file: Option<BufReader<File>>,
    inode: Option<u64>,
    partial: String,
}

impl Lines {
    fn of(file: File) -> Result<Self> {
        let inode = Some(file.metadata()?.ino());
        Ok(Self { file: Some(BufReader::new(file)), inode, partial: String::new() })
    }

    /// What has been added since the last time, to this file and to those begun after it. The last
    /// one is read from now on: it is the one that grows.
    fn catch_up(&mut self, path: &Path) -> Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for newer in newer(path, self.inode)? {
            // Nothing more is written to a file that has a newer one, so this is all of it.
            entries.extend(self.read()?);
            *self = Self::of(newer)?;
        }
        entries.extend(self.read()?);
        Ok(entries)
    }

    /// What has been added to this file.
    fn read(&mut self) -> Result<Vec<Entry>> {
        let mut entries = Vec::new();
        let Some(file) = &mut self.file else { return Ok(entries) };
        // A line without its end is still being written: the rest comes with the next look.
        while file.read_line(&mut self.partial).context("read the log")? > 0 && self.partial.ends_with('\n') {
            // One that a crash cut short is skipped; the others are still good.
            entries.extend(serde_json::from_str::<Entry>(&self.partial));
            self.partial.clear();
        }
        Ok(entries)
    }
}

/// The files begun after the one with this inode, oldest first; all of them when it is none or no
/// longer there.
fn newer(path: &Path, inode: Option<u64>) -> Result<Vec<File>> {
    if inode.is_some() && inode_of(path)? == inode {
        return Ok(Vec::new());
    }
    let mut names = vec![path.to_owned()];
    names.extend((1..FILES).map(|number| numbered(path, number)));
    let (mut files, inodes) = loop {
        let files: Vec<Option<File>> = names.iter().map(|name| open(name)).collect::<Result<_>>()?;
        let opened: Vec<Option<u64>> =
            files.iter().map(|file| Some(file.as_ref()?.metadata().ok()?.ino())).collect();
        // The monitor may have renamed some between our open(2) of one and of the next.
        let now: Vec<Option<u64>> = names.iter().map(|name| inode_of(name)).collect::<Result<_>>()?;
        if now == opened {
            break (files, opened);
        }
    };
    if let Some(held) = inodes.iter().position(|found| inode.is_some() && *found == inode) {
        files.truncate(held);
    }
    Ok(files.into_iter().flatten().rev().collect())
}

/// The inode of a file, none when there is none.
fn inode_of(path: &Path) -> Result<Option<u64>> {
    match std::fs::metadata(path) {
        Ok(data) => Ok(Some(data.ino())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| path.display().to_string()),
    }
}

fn open(path: &Path) -> Result<Option<File>> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("open {}", path.display())),
    }
}

/// A time, seconds since 1970, or how long ago: `1h30m`.
fn moment(text: &str) -> Result<Timestamp> {
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(time);
    }
    if let Ok(seconds) = text.parse::<f64>() {
        #[expect(clippy::cast_possible_truncation, reason = "microseconds of any year fit")]
        let micros = (seconds * 1e6) as i64;
        return Ok(Timestamp::from_microsecond(micros)?);
    }
    let seconds = duration(text).with_context(|| format!("invalid time {text:?}"))?;
    Ok(Timestamp::from_second(Timestamp::now().as_second() - seconds)?)
}

fn duration(text: &str) -> Option<i64> {
    let (mut seconds, mut number) = (0i64, String::new());
    for c in text.chars() {
        if c.is_ascii_digit() {
            number.push(c);
            continue;
        }
        let unit = match c {
            's' => 1,
            'm' => 60,
            'h' => 3600,
            'd' => 86400,
            _ => return None,
        };
        seconds = seconds.checked_add(std::mem::take(&mut number).parse::<i64>().ok()?.checked_mul(unit)?)?;
    }
    (number.is_empty() && !text.is_empty()).then_some(seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_absolute_or_ago() {
        assert_eq!(moment("2026-01-02T15:04:05Z").unwrap().as_second(), 1_767_366_245);
        assert_eq!(moment("12").unwrap().as_second(), 12);
        assert_eq!(
            (duration("1h30m"), duration("90"), duration("x"), duration("")),
            (Some(5400), None, None, None)
        );
    }

    #[test]
    fn the_last_lines_are_counted_as_lines() {
        let entry = |log: &str| Entry { log: log.into(), stream: "stdout".into(), time: String::new() };
        let entries = [entry("a\n"), entry("long "), entry("line\n"), entry("c\n")];
        assert_eq!([0, 1, 2, 3, 9].map(|tail| first_of_last(&entries, tail)), [4, 3, 1, 0, 0]);
    }

    #[test]
    fn no_line_is_lost_when_files_are_rotated() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let line = |name: &Path, text: &str| {
            let mut file = std::fs::OpenOptions::new().append(true).create(true).open(name).unwrap();
            writeln!(file, "{{\"log\":\"{text}\",\"stream\":\"stdout\",\"time\":\"\"}}").unwrap();
        };
        let rotate = || {
            let _ = std::fs::rename(numbered(&path, 1), numbered(&path, 2));
            std::fs::rename(&path, numbered(&path, 1)).unwrap();
        };
        let texts = |lines: &mut Lines| -> String {
            lines.catch_up(&path).unwrap().into_iter().map(|entry| entry.log).collect()
        };
        let mut lines = Lines::default();
        assert_eq!(texts(&mut lines), "");
        line(&path, "a");
        rotate();
        line(&path, "b");
        assert_eq!(texts(&mut lines), "ab");
        // Written after our look, before the rotation; and two of them at once.
        line(&path, "c");
        rotate();
        line(&path, "d");
        rotate();
        assert_eq!(texts(&mut lines), "cd", "in the moment when there is no newest file");
        line(&path, "e");
        assert_eq!(texts(&mut lines), "e");
        // So many that ours is gone: the rest of it and all that is there.
        line(&path, "f");
        for text in ["g", "h", "i"] {
            rotate();
            line(&path, text);
        }
        assert_eq!(texts(&mut lines), "fghi");
        assert_eq!(texts(&mut lines), "");
    }
}

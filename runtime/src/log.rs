//! `--log`, `--log-format`: the lines that engines parse. containerd takes the last line with
//! `"level":"error"`, Podman wants the whole file to be one JSON object; so exactly one line is written
//! when a command fails, and none otherwise unless `--debug` is given. Without `--log`, whose absence means
//! that a person is looking, warnings go to standard error.
//!
//! As with crun, `--log journald:NAME` and `--log syslog:NAME` go to the host's log.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::sync::OnceLock;

use anyhow::{Context, Result};

use crate::cli;
use crate::time;

static LOG: OnceLock<Log> = OnceLock::new();

#[derive(Debug)]
struct Log {
    target: Option<Target>,
    json: bool,
    debug: bool,
}

#[derive(Debug)]
enum Target {
    File(File),
    /// The native protocol of systemd-journald, and the name that we go by.
    Journal(UnixDatagram, String),
    /// RFC 3164, and the name that we go by.
    Syslog(UnixDatagram, String),
}

#[derive(Clone, Copy, Debug)]
enum Level {
    Error,
    Warning,
    Debug,
}

/// Opens the log. To be called once, before anything is logged.
pub(crate) fn open(path: Option<&Path>, json: bool, debug: bool) -> Result<()> {
    let target = path.map(open_target).transpose()?;
    let _ = LOG.set(Log { target, json, debug });
    Ok(())
}

/// `[file:]PATH`, which is appended to, `journald:NAME` or `syslog:NAME`.
fn open_target(path: &Path) -> Result<Target> {
    let text = path.to_string_lossy();
    if let Some(name) = text.strip_prefix("journald:") {
        return Ok(Target::Journal(connect("/run/systemd/journal/socket")?, name.to_owned()));
    }
    if let Some(name) = text.strip_prefix("syslog:") {
        return Ok(Target::Syslog(connect("/dev/log")?, name.to_owned()));
    }
    let path = text.strip_prefix("file:").map_or(path, Path::new);
    let file = OpenOptions::new().create(true).append(true).open(path);
    file.map(Target::File).with_context(|| format!("open the log file {path:?}"))
}

fn connect(path: &str) -> Result<UnixDatagram> {
    let connect = || {
        let socket = UnixDatagram::unbound()?;
        socket.connect(path).map(|()| socket)
    };
    connect().with_context(|| format!("--log: connect to {path}"))
}

/// The one line of a failed command, to the log. The caller prints it on standard error too.
pub(crate) fn error(message: &str) {
    write(Level::Error, message);
}

/// Something that the operator should know though the command goes on. To the log only with `--debug`,
/// since engines read it as the answer.
pub(crate) fn warn(message: &str) {
    match LOG.get() {
        Some(Log { target: None, .. }) => eprintln!("{}: warning: {message}", cli::name()),
        Some(Log { debug: true, .. }) => write(Level::Warning, message),
        _ => {}
    }
}

/// What a person who looks for a fault wants to know; only with `--debug`.
pub(crate) fn debug(message: &str) {
    match LOG.get() {
        Some(Log { debug: true, target: None, .. }) => eprint!("{}", line(false, Level::Debug, message)),
        Some(Log { debug: true, .. }) => write(Level::Debug, message),
        _ => {}
    }
}

/// Whether [`debug`] says anything, for messages that cost something to make.
pub(crate) fn debugs() -> bool {
    LOG.get().is_some_and(|log| log.debug)
}

/// A full disk or a deaf journal must not hide the error itself.
fn write(level: Level, message: &str) {
    let Some(Log { target: Some(target), json, .. }) = LOG.get() else { return };
    match target {
        Target::File(file) => {
            let mut file = file;
            let _ = file.write_all(line(*json, level, message).as_bytes());
        }
        Target::Journal(socket, name) => {
            let message = message.replace('\n', " ");
            let priority = level.priority();
            let text = format!("PRIORITY={priority}\nSYSLOG_IDENTIFIER={name}\nMESSAGE={message}\n");
            let _ = socket.send(text.as_bytes());
        }
        Target::Syslog(socket, name) => {
            const USER: u8 = 1 << 3; // the facility
            let text = format!("<{}>{name}[{}]: {message}", USER | level.priority(), std::process::id());
            let _ = socket.send(text.as_bytes());
        }
    }
}

fn line(json: bool, level: Level, message: &str) -> String {
    let now = time::rfc3339(std::time::SystemTime::now(), 0);
    let level = level.name();
    if json {
        format!("{}\n", serde_json::json!({"level": level, "msg": message, "time": now}))
    } else {
        format!("time=\"{now}\" level={level} msg={message:?}\n")
    }
}

impl Level {
    fn name(self) -> &'static str {
        match self {
            Level::Error => "error",
            Level::Warning => "warning",
            Level::Debug => "debug",
        }
    }

    /// As syslog(3) counts.
    fn priority(self) -> u8 {
        match self {
            Level::Error => 3,
            Level::Warning => 4,
            Level::Debug => 7,
        }
    }
}

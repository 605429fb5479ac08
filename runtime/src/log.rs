//! `--log`, `--log-format`: the lines that engines parse. containerd takes the last line with
//! `"level":"error"`, Podman wants the whole file to be one JSON object; so exactly one line is written
//! when a command fails, and none otherwise unless `--debug` is given. Without `--log`, whose absence means
//! that a person is looking, warnings go to standard error.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::sync::OnceLock;

use anyhow::{Context, Result};

use crate::time;

static LOG: OnceLock<Log> = OnceLock::new();

#[derive(Debug)]
struct Log {
    file: Option<File>,
    json: bool,
    debug: bool,
}

/// Opens the log file for appending. To be called once, before anything is logged.
pub(crate) fn open(path: Option<&Path>, json: bool, debug: bool) -> Result<()> {
    let file = path
        .map(|path| {
            OpenOptions::new()
                .create(true)
                .append(true)
                .open(path)
                .with_context(|| format!("open the log file {path:?}"))
        })
        .transpose()?;
    let _ = LOG.set(Log { file, json, debug });
    Ok(())
}

/// The one line of a failed command, to the log file. The caller prints it on standard error too.
pub(crate) fn error(message: &str) {
    write("error", message);
}

/// Something that the operator should know though the command goes on. To the log only with `--debug`,
/// since engines read it as the answer.
pub(crate) fn warn(message: &str) {
    match LOG.get() {
        Some(Log { file: None, .. }) => eprintln!("runtime: warning: {message}"),
        Some(Log { debug: true, .. }) => write("warning", message),
        _ => {}
    }
}

/// What a person who looks for a fault wants to know; only with `--debug`.
pub(crate) fn debug(message: &str) {
    match LOG.get() {
        Some(Log { debug: true, file: None, .. }) => eprint!("{}", line(false, "debug", message)),
        Some(Log { debug: true, .. }) => write("debug", message),
        _ => {}
    }
}

fn write(level: &str, message: &str) {
    let Some(Log { file: Some(file), json, .. }) = LOG.get() else { return };
    let mut file = file;
    let _ = file.write_all(line(*json, level, message).as_bytes()); // a full disk must not hide the error itself
}

fn line(json: bool, level: &str, message: &str) -> String {
    let now = time::rfc3339(std::time::SystemTime::now(), 0);
    if json {
        format!("{}\n", serde_json::json!({"level": level, "msg": message, "time": now}))
    } else {
        format!("time=\"{now}\" level={level} msg={message:?}\n")
    }
}

//! Any runtime by its command line: `create`, `start`, `state`, `kill`, `delete` in the form that
//! engines use. Every call has its own time limit, and state of its own below `--root`.

use std::fs::File;
use std::io::{Read, Seek};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

/// How often a waiting suite looks again.
pub(crate) const TICK: Duration = Duration::from_millis(2);

/// A runtime under test.
#[derive(Debug)]
pub struct Runtime {
    program: PathBuf,
    root: PathBuf,
    timeout: Duration,
    interrupted: Arc<AtomicBool>,
}

/// What a call of the runtime left behind.
#[derive(Debug)]
pub struct Output {
    /// How it ended.
    pub status: ExitStatus,
    /// Its standard output; empty for `create`, whose output is the container's.
    pub stdout: String,
    /// Its standard error; for `create` the container's as well.
    pub stderr: String,
}

impl Output {
    /// Whether the runtime says that it worked.
    pub fn ok(&self) -> bool {
        self.status.success()
    }

    /// For messages: what was printed last on standard error.
    pub fn complaint(&self) -> &str {
        self.stderr.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("nothing on standard error")
    }
}

/// What a call reads and writes; `None` is `/dev/null` for input, a temporary file for output.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    pub(crate) stdin: Option<File>,
    pub(crate) stdout: Option<File>,
    pub(crate) stderr: Option<File>,
}

impl Runtime {
    /// A runtime by path, or by name on `PATH`. Its state is kept below `root`.
    pub fn new(name: &Path, root: PathBuf, timeout: Duration, interrupted: Arc<AtomicBool>) -> Result<Self> {
        let program = if name.components().count() > 1 {
            name.canonicalize().with_context(|| format!("runtime {}", name.display()))?
        } else {
            let path = std::env::var_os("PATH").unwrap_or_default();
            let found =
                std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file());
            found.with_context(|| format!("runtime {}: not on PATH", name.display()))?
        };
        Ok(Self { program, root, timeout, interrupted })
    }

    /// Where it is.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// The longest that anything may take.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Runs one command, as `["state", "id"]`.
    pub fn call<S: AsRef<std::ffi::OsStr>>(&self, args: &[S]) -> Result<Output> {
        self.call_with(args, Streams::default())
    }

    pub(crate) fn call_with<S: AsRef<std::ffi::OsStr>>(
        &self,
        args: &[S],
        streams: Streams,
    ) -> Result<Output> {
        // Files and not pipes: a container keeps its end open for as long as it lives.
        let output =
            |file: Option<File>| file.map_or_else(|| tempfile::tempfile().context("output file"), Ok);
        let mut stdout = output(streams.stdout)?;
        let mut stderr = output(streams.stderr)?;
        let line = args.iter().map(|arg| arg.as_ref().to_string_lossy()).collect::<Vec<_>>().join(" ");
        let mut child = Command::new(&self.program)
            .arg("--root")
            .arg(&self.root)
            .args(args)
            .stdin(streams.stdin.map_or_else(Stdio::null, Stdio::from))
            .stdout(stdout.try_clone().context("output file")?)
            .stderr(stderr.try_clone().context("output file")?)
            .process_group(0)
            .spawn()
            .with_context(|| format!("run {}", self.program.display()))?;
        let ended = self.until(|| child.try_wait().context("wait for the runtime"));
        let status = match ended {
            Ok(Some(status)) => status,
            other => {
                // The group has the runtime's own children in it, when it is a script for example.
                let _ = killpg(Pid::from_raw(child.id().cast_signed()), Signal::SIGKILL);
                let _ = child.wait();
                match other {
                    Err(error) => return Err(error),
                    _ => bail!("`{line}` did not end within {} s", self.timeout.as_secs()),
                }
            }
        };
        Ok(Output { status, stdout: text(&mut stdout)?, stderr: text(&mut stderr)? })
    }

    /// Asks again and again until there is an answer, or the time is over (`None`).
    pub(crate) fn until<T>(&self, mut ask: impl FnMut() -> Result<Option<T>>) -> Result<Option<T>> {
        let start = Instant::now();
        loop {
            if let Some(answer) = ask()? {
                return Ok(Some(answer));
            }
            if self.interrupted.load(Ordering::Relaxed) {
                bail!("interrupted");
            }
            if start.elapsed() > self.timeout {
                return Ok(None);
            }
            std::thread::sleep(TICK);
        }
    }

    /// Whether the user wants no further cases.
    pub fn interrupted(&self) -> bool {
        self.interrupted.load(Ordering::Relaxed)
    }
}

fn text(file: &mut File) -> Result<String> {
    let mut bytes = Vec::new();
    file.rewind().and_then(|()| file.read_to_end(&mut bytes)).context("read the output")?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

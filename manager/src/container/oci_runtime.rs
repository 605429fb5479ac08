//! The OCI runtime, through the command line that runc, crun and others share:
//! `create`, `start`, `exec`, `delete`, `features`.

use std::env;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, anyhow, bail};
use serde_json::Value;

use super::files;
use crate::sys::command::die_with_us;

/// A runtime and the folder for its state.
#[derive(Debug)]
pub(crate) struct OciRuntime {
    program: PathBuf,
    root: PathBuf,
    log: PathBuf,
}

/// What a container's first process gets as standard input, output and error.
#[derive(Debug)]
pub(crate) struct Streams {
    /// Standard input.
    pub(crate) stdin: Stdio,
    /// Standard output.
    pub(crate) stdout: Stdio,
    /// Standard error.
    pub(crate) stderr: Stdio,
}

impl Streams {
    /// Nothing to read, nobody reads.
    pub(crate) fn null() -> Self {
        Self { stdin: Stdio::null(), stdout: Stdio::null(), stderr: Stdio::null() }
    }
}

impl OciRuntime {
    /// The runtime at `program`, with its state and log below `folder`.
    pub(crate) fn new(program: &Path, folder: &Path) -> Self {
        Self { program: program.to_owned(), root: folder.join("runtime"), log: folder.join("runtime.log") }
    }

    /// The same runtime with a log of its own, for commands that run side by side.
    pub(crate) fn with_log(mut self, log: PathBuf) -> Self {
        self.log = log;
        self
    }

    /// `create`: makes the container and its process, up to the moment before the user's program.
    pub(crate) fn create(
        &self,
        id: &str,
        bundle: &Path,
        pid_file: &Path,
        console: Option<&Path>,
        streams: Streams,
    ) -> Result<i32> {
        let mut command = self.command("create");
        command.arg("--bundle").arg(bundle).arg("--pid-file").arg(pid_file);
        if let Some(socket) = console {
            command.arg("--console-socket").arg(socket);
        }
        self.run(command.arg(id), streams)?;
        read_pid(pid_file)
    }

    /// `start`: lets the user's program begin.
    pub(crate) fn start(&self, id: &str) -> Result<()> {
        self.run(self.command("start").arg(id), Streams::null())
    }

    /// `exec --detach`: another process in the container, described by a file.
    pub(crate) fn exec(
        &self,
        id: &str,
        process: &Path,
        pid_file: &Path,
        console: Option<&Path>,
        streams: Streams,
    ) -> Result<i32> {
        let mut command = self.command("exec");
        command.arg("--detach").arg("--process").arg(process).arg("--pid-file").arg(pid_file);
        if let Some(socket) = console {
            command.arg("--console-socket").arg(socket);
        }
        self.run(command.arg(id), streams)?;
        read_pid(pid_file)
    }

    /// `delete --force`: kills what is left and removes cgroups and state; fine when there is none.
    pub(crate) fn delete(&self, id: &str) -> Result<()> {
        self.run(self.command("delete").arg("--force").arg(id), Streams::null())
    }

    /// True when the runtime says that it knows a mount option. Old runtimes have no `features`.
    pub(crate) fn knows_mount_option(&self, option: &str) -> bool {
        let output = Command::new(&self.program).arg("features").stdin(Stdio::null()).output();
        let features: Option<Value> =
            output.ok().and_then(|output| serde_json::from_slice(&output.stdout).ok());
        features.is_some_and(|features| {
            features["mountOptions"].as_array().is_some_and(|known| known.iter().any(|name| name == option))
        })
    }

    fn command(&self, verb: &str) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("--root").arg(&self.root).arg("--log").arg(&self.log);
        command.args(["--log-format", "json", verb]);
        // A notification meant for the manager's own service must not come from a container.
        command.env_remove("NOTIFY_SOCKET");
        command
    }

    /// Runs one command; its error is the last one it logged.
    fn run(&self, command: &mut Command, streams: Streams) -> Result<()> {
        // Earlier messages are of earlier commands.
        files::remove_file(&self.log)?;
        die_with_us(command);
        command.stdin(streams.stdin).stdout(streams.stdout).stderr(streams.stderr);
        let program = self.program.display();
        let status = command.status().with_context(|| format!("run the OCI runtime {program}"))?;
        if status.success() {
            return Ok(());
        }
        let verb = command.get_args().nth(6).unwrap_or_default().to_string_lossy().into_owned();
        let message = last_error(&self.log).unwrap_or_else(|| format!("{status}"));
        let name = self.program.file_name().unwrap_or_default().to_string_lossy();
        Err(anyhow!("{name} {verb}: {message}"))
    }
}

/// The last message of level error in a runtime's log.
fn last_error(log: &Path) -> Option<String> {
    let text = fs::read_to_string(log).ok()?;
    let mut lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let last = lines.rfind(|line| line["level"] == "error")?;
    Some(last["msg"].as_str()?.trim_end().to_owned())
}

fn read_pid(pid_file: &Path) -> Result<i32> {
    let text = fs::read_to_string(pid_file).with_context(|| format!("read {}", pid_file.display()))?;
    text.trim().parse().with_context(|| format!("no process number in {}: {text:?}", pid_file.display()))
}

/// The code that `run` ends with when the runtime could not start the program: docker tells a
/// program that is not there (127) from one that cannot be executed (126) by the message, since
/// runtimes have no codes for it. A message that does not speak of the program is about something
/// else.
pub(crate) fn start_error_code(error: &anyhow::Error, program: &str) -> u8 {
    let text = format!("{error:#}");
    if !text.contains(program) && !text.contains("executable") {
        return 125;
    }
    let text = text.to_ascii_lowercase();
    let has = |part| text.contains(part);
    if has("permission denied")
        || has("operation not permitted")
        || has("is a directory")
        || has("exec format error")
    {
        126
    } else if has("executable file") || has("no such file or directory") || has("not a directory") {
        127
    } else {
        125
    }
}

/// The runtime to use: the one asked for by `--runtime` or `MANAGER_RUNTIME`, a path or a name to
/// be found on PATH; else `runtime` beside this program, else `runtime` on PATH.
pub(crate) fn find(asked: Option<&str>) -> Result<PathBuf> {
    let variable = env::var("MANAGER_RUNTIME").ok().filter(|value| !value.is_empty());
    if let Some(asked) = asked.map(str::to_owned).or(variable) {
        return by_name(&asked).with_context(|| format!("OCI runtime {asked:?}"));
    }
    let beside = env::current_exe().ok().and_then(|me| Some(me.parent()?.join("runtime")));
    if let Some(path) = beside.filter(|path| is_program(path)) {
        return Ok(path);
    }
    by_name("runtime").context(
        "no OCI runtime: `runtime` is neither beside this program nor on PATH; name one with --runtime, as runc or crun",
    )
}

fn by_name(name: &str) -> Result<PathBuf> {
    if name.contains('/') {
        let path = Path::new(name).canonicalize()?;
        if is_program(&path) {
            return Ok(path);
        }
        bail!("{} is not an executable file", path.display());
    }
    let folders = env::var_os("PATH").unwrap_or_default();
    let found = env::split_paths(&folders).map(|folder| folder.join(name)).find(|path| is_program(path));
    Ok(found.context("not found on PATH")?.canonicalize()?)
}

fn is_program(path: &Path) -> bool {
    path.metadata().is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0)
}

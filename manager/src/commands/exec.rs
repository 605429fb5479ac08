//! `exec`: another program in a running container, through the runtime's `exec`.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write, stderr, stdin, stdout};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl::set_child_subreaper;
use nix::sys::signalfd::SignalFd;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use serde_json::Value;

use super::create::{set_variable, variables};
use crate::bundle::{config, user};
use crate::cli::{Coded, Context};
use crate::container::attach::{How, block_signals};
use crate::container::oci_runtime::{Streams, start_error_code};
use crate::container::process::Process;
use crate::container::terminal::{RawMode, size};
use crate::container::{Container, files, make_folder};
use crate::monitor::protocol::CHUNK;
use crate::monitor::streams::{self, ConsoleSocket, Ends, Found};

/// Run another program in a running container
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Run in the background, without input and output
    #[arg(short, long)]
    detach: bool,
    /// Pass standard input on
    #[arg(short, long)]
    interactive: bool,
    /// Give the program a terminal
    #[arg(short, long)]
    tty: bool,
    /// Set an environment variable
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// The working directory inside the container
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<String>,
    /// The user, by name or number
    #[arg(short, long, value_name = "USER[:GROUP]")]
    user: Option<String>,
    /// A name or an id
    container: String,
    /// The program and its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

/// Runs a program in a container; returns its exit code.
pub(crate) fn run(args: Args, context: &Context) -> Result<u8> {
    let container = Container::find(context, &args.container)?;
    let how = How { input: args.interactive && !args.detach, terminal: args.tty, signals: true };
    super::run::check_input(how, args.detach)?;
    let state = container.state()?;
    let started =
        state.running().with_context(|| format!("container {} is not running", container.record.id))?;
    let description = describe(&container, &args, started.process.pid)?;
    let folder = Scratch::make(&container)?;
    // The program becomes our child when the runtime has exited, so its exit code is ours to read.
    set_child_subreaper(!args.detach).context("become the subreaper")?;
    let begun = begin(&container, &folder.0, &description, how, args.detach);
    let (ends, pid) =
        begun.map_err(|error| Coded { code: start_error_code(&error, &args.command[0]), error })?;
    let Some(ends) = ends else { return Ok(0) };
    follow(ends, pid, how)
}

/// The program as the runtime is told: the container's own process, changed by the flags.
fn describe(container: &Container, args: &Args, pid: i32) -> Result<Value> {
    let mut record = container.record.clone();
    let asked = &mut record.process;
    asked.args.clone_from(&args.command);
    if let Some(user) = &args.user {
        asked.user.clone_from(user);
    }
    if let Some(cwd) = &args.workdir {
        asked.cwd.clone_from(cwd);
    }
    asked.env.retain(|variable| args.tty || !variable.starts_with("TERM="));
    let own = args.tty.then(|| "TERM=xterm".to_owned());
    for variable in own.into_iter().chain(variables(&args.env)?) {
        set_variable(&mut asked.env, &variable);
    }
    // The container's own view of its files: what it changed counts, what the host has does not.
    let root = format!("/proc/{pid}/root");
    let root = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_PATH | libc::O_DIRECTORY)
        .open(&root)
        .context(root)?;
    ensure!(container.state()?.running().is_some(), "container {} is not running", record.id);
    let user = user::look_up(&OwnedFd::from(root), &record.process.user)?;
    let mut process = config::process(&record, &user)?;
    process["terminal"] = args.tty.into();
    if let Some((rows, columns)) = size().filter(|_| args.tty) {
        process["consoleSize"] = serde_json::json!({ "height": rows, "width": columns });
    }
    Ok(process)
}

/// The folder of one `exec`, removed when it is over.
struct Scratch(PathBuf);

impl Scratch {
    fn make(container: &Container) -> Result<Self> {
        let folder = container.run_folder.join(format!("exec-{}", std::process::id()));
        files::remove_folder(&folder)?;
        make_folder(&folder)?;
        Ok(Self(folder))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = files::remove_folder(&self.0);
    }
}

/// Has the runtime start it; our ends of its streams (none when detached), and its number.
fn begin(
    container: &Container,
    folder: &Path,
    process: &Value,
    how: How,
    detach: bool,
) -> Result<(Option<Ends>, i32)> {
    let (description, pid_file) = (folder.join("process.json"), folder.join("pid"));
    files::write_json(&description, process)?;
    let runtime = container.runtime().with_log(folder.join("log"));
    let id = &container.record.id;
    if how.terminal {
        let console = ConsoleSocket::listen(folder)?;
        let pid = runtime.exec(id, &description, &pid_file, Some(&console.path()), Streams::null())?;
        let ends = console.receive()?;
        return Ok((Some(ends).filter(|_| !detach), pid));
    }
    if detach {
        return Ok((None, runtime.exec(id, &description, &pid_file, None, Streams::null())?));
    }
    let (ends, streams) = streams::pipes(how.input)?;
    let pid = runtime.exec(id, &description, &pid_file, None, streams)?;
    Ok((Some(ends), pid))
}

/// Passes bytes and signals on until the program has ended; its exit code.
fn follow(ends: Ends, pid: i32, how: How) -> Result<u8> {
    let signals = block_signals()?;
    let _raw = if how.terminal && how.input { RawMode::set()? } else { None };
    // One that has ended already is a zombie: it has no descriptor, and needs none.
    if let Ok(process) = Process::now(pid)
        && let Some(pidfd) = process.open()?
    {
        Session { ends, process, pidfd, signals, input: Vec::new(), input_open: how.input }.run()?;
    } else {
        drain(ends)?;
    }
    exit_code(pid)
}

/// A program that runs, and our standard streams.
struct Session {
    ends: Ends,
    process: Process,
    pidfd: OwnedFd,
    signals: SignalFd,
    /// What the program has not taken yet.
    input: Vec<u8>,
    input_open: bool,
}

impl Session {
    fn run(mut self) -> Result<()> {
        loop {
            let [exited, signal, output, error, input, typed] = self.wait();
            if signal {
                self.pass_signals_on()?;
            }
            if typed {
                self.read_input()?;
            }
            if input || typed {
                self.write_input();
            }
            if output {
                copy_once(&mut self.ends.output, &mut stdout().lock())?;
            }
            if error {
                copy_once(&mut self.ends.error, &mut stderr().lock())?;
            }
            if exited {
                return drain(self.ends);
            }
        }
    }

    /// Which are ready: process, signals, output, error, room for input, our standard input.
    fn wait(&self) -> [bool; 6] {
        let stdin = stdin();
        let Ends { input, output, error, .. } = &self.ends;
        let wanted: [Option<BorrowedFd<'_>>; 6] = [
            Some(self.pidfd.as_fd()),
            Some(self.signals.as_fd()),
            output.as_ref().map(AsFd::as_fd),
            error.as_ref().map(AsFd::as_fd),
            input.as_ref().map(AsFd::as_fd).filter(|_| !self.input.is_empty()),
            Some(stdin.as_fd()).filter(|_| self.input_open && self.input.is_empty()),
        ];
        let flags = |index| if index == 4 { PollFlags::POLLOUT } else { PollFlags::POLLIN };
        let (places, mut descriptors): (Vec<usize>, Vec<PollFd<'_>>) = wanted
            .into_iter()
            .enumerate()
            .filter_map(|(index, fd)| Some((index, PollFd::new(fd?, flags(index)))))
            .unzip();
        let _ = poll(&mut descriptors, PollTimeout::NONE);
        let mut ready = [false; 6];
        for (place, descriptor) in places.into_iter().zip(&descriptors) {
            ready[place] = descriptor.any().unwrap_or(false);
        }
        ready
    }

    fn pass_signals_on(&self) -> Result<()> {
        while let Ok(Some(info)) = self.signals.read_signal() {
            let signal = info.ssi_signo.cast_signed();
            if signal != libc::SIGWINCH {
                self.process.signal(signal)?;
            } else if let Some((rows, columns)) = size() {
                self.ends.resize(rows, columns);
            }
        }
        Ok(())
    }

    fn read_input(&mut self) -> Result<()> {
        let mut data = vec![0; CHUNK];
        // Not through std's buffer: what it holds poll(2) cannot see.
        match rustix::io::read(stdin(), &mut data[..]) {
            Ok(0) | Err(rustix::io::Errno::IO) => self.input_open = false,
            Ok(size) => self.input.extend_from_slice(&data[..size]),
            Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => {}
            Err(error) => return Err(error).context("read standard input"),
        }
        Ok(())
    }

    fn write_input(&mut self) {
        while let Some(end) = self.ends.input.as_ref().filter(|_| !self.input.is_empty()) {
            match streams::write(end, &self.input) {
                Some(0) => break,
                Some(size) => drop(self.input.drain(..size)),
                None => {
                    self.input.clear();
                    self.input_open = false;
                }
            }
        }
        if !self.input_open && self.input.is_empty() {
            self.ends.shut_input();
        }
    }
}

/// Copies what is there; true when there was something.
fn copy_once(from: &mut Option<File>, to: &mut impl Write) -> Result<bool> {
    let Some(end) = &from else { return Ok(false) };
    match streams::read(end) {
        Found::Nothing => Ok(false),
        Found::End => {
            *from = None;
            Ok(false)
        }
        Found::Data(data) => match to.write_all(&data).and_then(|()| to.flush()) {
            // `manager exec ... | head`: the program learns by SIGPIPE.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => {
                *from = None;
                Ok(false)
            }
            other => other.map(|()| true).context("print the program's output"),
        },
    }
}

/// Copies what the program left behind. Its children may hold the pipes open, and are not waited for.
fn drain(mut ends: Ends) -> Result<()> {
    while copy_once(&mut ends.output, &mut stdout().lock())? {}
    while copy_once(&mut ends.error, &mut stderr().lock())? {}
    Ok(())
}

fn exit_code(pid: i32) -> Result<u8> {
    loop {
        match waitpid(Pid::from_raw(pid), None) {
            Ok(WaitStatus::Exited(_, code)) => return Ok(u8::try_from(code & 0xff).unwrap_or(255)),
            Ok(WaitStatus::Signaled(_, signal, _)) => return Ok(128 + signal as u8),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error).context("read the program's exit code"),
        }
    }
}

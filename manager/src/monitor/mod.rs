//! One small process per container, and the only one that knows it for its whole life: parent of
//! the container's first process, holder of its pipes or terminal and of the mount namespace with
//! its root filesystem, writer of its log and of its end.
//!
//! ```text
//! run, start ──socketpair──> monitor ──────> runtime create, start, delete
//! attach ─────attach socket──>  │  ^
//!                               │  └── stdin, stdout, stderr or terminal of the container
//!                               └────> ID-json.log, state.json, exit.json
//! ```
//!
//! It is this same program, executed again as `manager monitor ID`, so it has one thread, no
//! memory of what came before, and a name of its own in `ps`.

pub(crate) mod clients;
pub(crate) mod log;
pub(crate) mod protocol;
pub(crate) mod relay;
pub(crate) mod streams;

use std::fs::{self, File};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use jiff::Timestamp;
use nix::fcntl::Flock;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl::{set_child_subreaper, set_name};
use nix::sys::stat::{Mode, umask};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{Pid, dup2_stdin, setsid};

use crate::bundle;
use crate::cli::Context;
use crate::container::oci_runtime::start_error_code;
use crate::container::process::Process;
use crate::container::record::Root;
use crate::container::state::{Exit, Started};
use crate::container::{Container, Locked, cgroup, files, make_folder, remove, try_lock};
use crate::rootfs::overlay;
use crate::sys::{descriptors, signals};
use clients::{Client, Said};
use protocol::{Event, Request, listen_at};
use relay::Relay;
use streams::{ConsoleSocket, Ends};

/// The container, its lock, and what has been made for it so far.
#[derive(Debug)]
struct Monitor {
    container: Container,
    /// Held as long as anything of this start exists: no second monitor, no `rm` in between.
    _lock: Flock<File>,
    /// The container's first process, when there is one.
    process: Option<Process>,
    /// When it was let go, if it was.
    started_at: Option<String>,
}

/// Starts a monitor; the descriptor is our end of its first connection.
pub(crate) fn spawn(context: &Context, id: &str) -> Result<OwnedFd> {
    let (ours, theirs) = protocol::pair().context("make a socket pair")?;
    let mut command = Command::new("/proc/self/exe");
    command.arg0("manager").arg("--root").arg(&context.root).arg("--run-root").arg(&context.run_root);
    command.args(["monitor", id]).stdin(Stdio::from(theirs)).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().context("start the container's monitor")?;
    Ok(ours)
}

/// The monitor itself, from the beginning to the end of a container. Standard input is the
/// connection to the one that started it.
pub(crate) fn run(context: &Context, id: &str) -> Result<()> {
    detach()?;
    let mut first = Client::first(take_stdin()?);
    let clients = match Monitor::new(context, id) {
        Ok(mut monitor) => monitor.watch(context, first),
        Err(error) => {
            first.send(&Event::Failed(125, format!("{error:#}")));
            vec![first]
        }
    };
    linger(clients);
    Ok(())
}

/// Leaves everything that belongs to the caller: descriptors, signals, session, folder.
fn detach() -> Result<()> {
    descriptors::close_inherited().context("close what the caller left open")?;
    signals::reset().context("reset signals")?;
    setsid().context("setsid")?;
    // It was executed as /proc/self/exe, which `ps` and `pgrep` would call `exe`.
    set_name(c"manager").context("set the process name")?;
    std::env::set_current_dir("/").context("chdir to /")?;
    // The runtime makes missing mount points inside the container with it.
    umask(Mode::from_bits_truncate(0o022));
    // The container's processes become our children when the runtime has exited.
    set_child_subreaper(true).context("become the subreaper")?;
    // A killed monitor loses the container's log and exit code, so it is the last to go when
    // memory is short. Without the privilege it stays as it is.
    let _ = fs::write("/proc/self/oom_score_adj", "-999");
    Ok(())
}

/// The connection that was given as standard input, which becomes /dev/null.
fn take_stdin() -> Result<OwnedFd> {
    // Close-on-exec, which dup(2) would not be: with it the runtime, and who knows what it starts,
    // would hold our end of the connection.
    let socket = std::io::stdin().as_fd().try_clone_to_owned().context("duplicate standard input")?;
    dup2_stdin(File::open("/dev/null").context("/dev/null")?).context("replace standard input")?;
    Ok(socket)
}

impl Monitor {
    /// Takes the container for this start.
    fn new(context: &Context, id: &str) -> Result<Self> {
        let load = || Container::load(context, id)?.with_context(|| format!("no such container: {id}"));
        let folder = load()?.folder;
        let Locked::Yes(lock) = try_lock(&folder)? else {
            anyhow::bail!("container {id} is being started, stopped or removed by another command");
        };
        // Read again under the lock: `rm` may just have been here.
        let container = load()?;
        ensure!(container.state()?.running().is_none(), "container {id} is already running");
        Ok(Self { container, _lock: lock, process: None, started_at: None })
    }

    /// The whole life of the container; returns the clients that have yet to take what was said.
    fn watch(&mut self, context: &Context, mut first: Client) -> Vec<Client> {
        let relay = self.create().and_then(|relay| self.start(relay, &mut first));
        let (mut clients, last) = match relay {
            Ok(Some(mut relay)) => {
                first.send(&Event::Running);
                relay.clients.push(first);
                relay.run();
                let code = self.exit_code();
                let last = self.finish(context, code, None);
                (relay.into_clients(), last)
            }
            // Whoever started us died before it could say `start`.
            Ok(None) => (Vec::new(), self.finish(context, 125, Some("it was never told to start".into()))),
            Err(error) => {
                let message = format!("{error:#}");
                (vec![first], self.finish(context, start_error_code(&error, self.program()), Some(message)))
            }
        };
        clients.retain_mut(|client| client.send(&last));
        clients
    }

    fn program(&self) -> &str {
        self.container.record.process.args.first().map_or("", String::as_str)
    }

    /// Makes everything up to the moment before the user's program runs.
    fn create(&mut self) -> Result<Relay> {
        let container = &self.container;
        // What a monitor left that was killed.
        if container.run_folder.exists() {
            remove::clean_run(container)?;
        }
        for old in ["exit.json", "state.json"] {
            files::remove_file(&container.folder.join(old))?;
        }
        make_folder(&container.run_folder)?;
        let rootfs = mount_rootfs(container)?;
        bundle::write(container, &rootfs)?;
        let listener = listen_at(&container.run_folder, "attach").context("make the attach socket")?;
        let (ends, pid) = self.runtime_create()?;
        let process = Process::now(pid)?;
        let pidfd = process.open()?.context("the container's process died at once")?;
        self.process = Some(process.clone());
        let me = Process::now(std::process::id().cast_signed())?;
        let started = Started { process, monitor: me, at: Timestamp::now().to_string() };
        files::write_json_durably(&self.container.folder.join("state.json"), &started)?;
        Relay::new(pidfd, listener, ends, &self.container)
    }

    /// `runtime create`, with pipes or a terminal; our ends of them and the process's number.
    fn runtime_create(&self) -> Result<(Ends, i32)> {
        let Container { record, folder, run_folder, .. } = &self.container;
        let _keep = cgroup::keep_parent();
        let runtime = self.container.runtime();
        let pid_file = run_folder.join("pid");
        if record.process.terminal {
            let console = ConsoleSocket::listen(run_folder)?;
            let streams = crate::container::oci_runtime::Streams::null();
            let pid = runtime.create(&record.id, folder, &pid_file, Some(&console.path()), streams)?;
            return Ok((console.receive()?, pid));
        }
        let (ends, streams) = streams::pipes(record.process.open_stdin)?;
        let pid = runtime.create(&record.id, folder, &pid_file, None, streams)?;
        Ok((ends, pid))
    }

    /// Waits for the word and lets the user's program go; none when the one to say it has gone.
    fn start(&mut self, relay: Relay, first: &mut Client) -> Result<Option<Relay>> {
        loop {
            let mut ready = [PollFd::new(first.socket().as_fd(), PollFlags::POLLIN)];
            let _ = poll(&mut ready, PollTimeout::NONE);
            match first.listen() {
                Said::Request(Request::Start) => break,
                Said::Request(Request::Window(rows, columns)) => relay.ends.resize(rows, columns),
                Said::Request(_) | Said::Nothing => {}
                Said::Gone => return Ok(None),
            }
        }
        self.started_at = Some(Timestamp::now().to_string());
        if let Err(error) = self.container.runtime().start(&self.container.record.id) {
            self.started_at = None;
            return Err(error);
        }
        Ok(Some(relay))
    }

    /// The code of the container's process, which has ended.
    fn exit_code(&self) -> u8 {
        let pid = self.process.as_ref().map_or(0, |process| process.pid);
        loop {
            match waitpid(Pid::from_raw(pid), None) {
                Ok(WaitStatus::Exited(_, code)) => return u8::try_from(code & 0xff).unwrap_or(255),
                Ok(WaitStatus::Signaled(_, signal, _)) => return 128 + signal as u8,
                Ok(_) | Err(nix::errno::Errno::EINTR) => {}
                // A runtime that kept the process for its own child.
                Err(_) => return 255,
            }
        }
    }

    /// Removes all that this start has made, and says how it ended. From here on nothing may stop
    /// the rest: what cannot be removed is told in `exit.json`.
    fn finish(&mut self, context: &Context, code: u8, error: Option<String>) -> Event {
        let container = &self.container;
        let oom_killed = cgroup::oom_killed(&container.record.id);
        let cleaned = remove::clean_runtime(container);
        let clean = cleaned.is_ok();
        let _ = umount2(&container.folder.join("rootfs"), MntFlags::MNT_DETACH);
        let failed = error.clone();
        let exit = Exit {
            code,
            oom_killed,
            error: error.or_else(|| cleaned.err().map(|error| format!("{error:#}"))),
            started_at: self.started_at.clone(),
            finished_at: Timestamp::now().to_string(),
        };
        let _ = files::write_json(&container.folder.join("exit.json"), &exit);
        // After the file: whoever asks how it ends finds the one or the other.
        if clean {
            let _ = files::remove_folder(&container.run_folder);
        }
        if container.record.auto_remove {
            let _ = remove::remove_locked(context, container);
        }
        failed.map_or(Event::Exited(code), |message| Event::Failed(code, message))
    }
}

/// Mounts the root filesystem where only this process and those it starts can see it; a folder of
/// the user's own is used as it is.
fn mount_rootfs(container: &Container) -> Result<PathBuf> {
    unshare(CloneFlags::CLONE_NEWNS).context("make a mount namespace")?;
    // A slave, not private: what the host unmounts must not stay mounted here for months.
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_SLAVE, none).context("make / a slave mount")?;
    match &container.record.root {
        Root::Folder(folder) => Ok(folder.clone()),
        Root::Image { layers, .. } => {
            let rootfs = container.folder.join("rootfs");
            let (upper, work) = (container.folder.join("upper"), container.folder.join("work"));
            overlay::mount(layers, &upper, &work, &rootfs)?;
            Ok(rootfs)
        }
    }
}

/// Stays until every client has taken what was said, or has gone.
fn linger(mut clients: Vec<Client>) {
    clients.retain_mut(Client::flush);
    while clients.iter().any(Client::is_behind) {
        clients.retain(Client::is_behind);
        let mut ready: Vec<PollFd<'_>> =
            clients.iter().map(|client| PollFd::new(client.socket().as_fd(), PollFlags::POLLOUT)).collect();
        let _ = poll(&mut ready, PollTimeout::NONE);
        clients.retain_mut(Client::flush);
    }
}

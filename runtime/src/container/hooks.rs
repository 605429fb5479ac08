//! `hooks`: config.md#posix-platform-hooks. Programs of the operator's that run at six points of a
//! container's life and are given its state on standard input.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::Pid;
use oci_spec::runtime::{Hook, Hooks};

use crate::sys::process::{describe_signal, pidfd_open, pidfd_send_signal};

/// Refuses what the specification says MUST NOT be: relative paths and timeouts that are not above 0.
pub(crate) fn check(hooks: &Hooks) -> Result<()> {
    let kinds = [
        ("prestart", deprecated_prestart(hooks)),
        ("createRuntime", hooks.create_runtime()),
        ("createContainer", hooks.create_container()),
        ("startContainer", hooks.start_container()),
        ("poststart", hooks.poststart()),
        ("poststop", hooks.poststop()),
    ];
    for (kind, hooks) in kinds {
        for (n, hook) in hooks.iter().flatten().enumerate() {
            if !hook.path().is_absolute() {
                bail!("hooks.{kind}[{n}].path: {:?} is not absolute", hook.path());
            }
            if hook.timeout().is_some_and(|timeout| timeout <= 0) {
                bail!("hooks.{kind}[{n}].timeout: must be above 0");
            }
        }
    }
    Ok(())
}

/// `prestart` is deprecated, still sent, and has to be run.
pub(crate) fn deprecated_prestart(hooks: &Hooks) -> &Option<Vec<Hook>> {
    hooks.prestart()
}

/// Where what hooks print is to go, instead of into the error of one that fails.
#[derive(Debug, Default)]
pub(crate) struct Output {
    pub(crate) stdout: Option<File>,
    pub(crate) stderr: Option<File>,
}

/// What every hook of a container gets alike.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Surroundings<'a> {
    /// The container's state as JSON.
    pub(crate) state: &'a str,
    /// The folder that they start in.
    pub(crate) cwd: &'a Path,
    pub(crate) output: &'a Output,
}

/// Runs the hooks of one kind in order and stops at the first failure.
pub(crate) fn run(kind: &str, hooks: &Option<Vec<Hook>>, around: Surroundings) -> Result<()> {
    for (n, hook) in hooks.iter().flatten().enumerate() {
        run_one(hook, around)
            .with_context(|| format!("error running {kind} hook #{n}: {:?}", hook.path()))?;
    }
    Ok(())
}

/// Runs all hooks, whatever becomes of them, and returns the failures: "the remaining hooks and
/// lifecycle continue as if the hook had succeeded" (poststop).
pub(crate) fn run_all(kind: &str, hooks: &Option<Vec<Hook>>, around: Surroundings) -> Vec<anyhow::Error> {
    let mut failures = Vec::new();
    for (n, hook) in hooks.iter().flatten().enumerate() {
        if let Err(error) = run_one(hook, around) {
            failures.push(error.context(format!("error running {kind} hook #{n}: {:?}", hook.path())));
        }
    }
    failures
}

fn run_one(hook: &Hook, around: Surroundings) -> Result<()> {
    let mut command = Command::new(hook.path());
    match hook.args().as_deref() {
        Some([name, args @ ..]) => drop(command.arg0(name).args(args)),
        _ => drop(command.arg0(hook.path())),
    }
    // Without `env` a hook inherits the runtime's environment, as with runc and crun.
    if let Some(env) = hook.env().as_deref() {
        command.env_clear();
        command.envs(env.iter().filter_map(|entry| entry.split_once('=')));
    }
    command.current_dir(around.cwd);
    run_command(command, around.state, around.output, timeout(hook), || Ok(()))
}

/// A hook's time limit.
pub(crate) fn timeout(hook: &Hook) -> Option<Duration> {
    hook.timeout().and_then(|seconds| u64::try_from(seconds).ok()).map(Duration::from_secs)
}

/// Runs a prepared command as a hook: state on standard input, output kept for the error if it is to go
/// nowhere else, killed when its time is over. `started` is called once the process is there.
pub(crate) fn run_command(
    mut command: Command,
    state: &str,
    to: &Output,
    timeout: Option<Duration>,
    started: impl FnOnce() -> Result<()>,
) -> Result<()> {
    let (output, writer) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
    let or_kept = |file: &Option<File>| -> Result<Stdio> {
        Ok(match file {
            Some(file) => file.try_clone()?.into(),
            None => writer.try_clone()?.into(),
        })
    };
    command.stdin(Stdio::piped()).stdout(or_kept(&to.stdout)?).stderr(or_kept(&to.stderr)?);
    drop(writer);
    let mut child = command.spawn().context("start it")?;
    drop(command); // and with it our copies of the writing ends
    started()?;
    let said = wait(&mut child, state.as_bytes(), output, timeout)?;
    let status = child.wait().context("wait for it")?;
    if !status.success() {
        // As runc says it, which its callers look for: "signal: killed".
        let end = status.signal().map(|n| format!("signal: {}", describe_signal(n).to_lowercase()));
        let end = end.unwrap_or_else(|| status.to_string());
        bail!("{end}, output: {}", if said.is_empty() { "none" } else { said.trim_end() });
    }
    Ok(())
}

/// Gives the hook its state and waits for its end, keeping the first part of the output; kills it at its
/// timeout. A hook need not read what it is given.
fn wait(child: &mut Child, mut state: &[u8], output: OwnedFd, timeout: Option<Duration>) -> Result<String> {
    const MOST: usize = 8 << 10;
    let pidfd = pidfd_open(Pid::from_raw(child.id() as i32)).context("pidfd_open")?;
    let deadline = timeout.map(|timeout| Instant::now() + timeout);
    let mut output = File::from(output);
    let (mut said, mut open) = (Vec::new(), true);
    let mut stdin = child.stdin.take();
    if let Some(stdin) = &stdin {
        fcntl(stdin, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).context("fcntl")?;
    }
    let mut buffer = [0; 4096];
    loop {
        let left = match deadline.map(|deadline| deadline.saturating_duration_since(Instant::now())) {
            Some(Duration::ZERO) => {
                pidfd_send_signal(&pidfd, libc::SIGKILL)?;
                child.wait()?;
                bail!("hook ran past specified timeout of {:.1}s", timeout.unwrap_or_default().as_secs_f32());
            }
            Some(left) => PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX),
            None => PollTimeout::NONE,
        };
        while let Some(pipe) = &mut stdin {
            match pipe.write(state) {
                Ok(0) => stdin = None,
                Ok(length) => state = &state[length..],
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => break,
                Err(_) => stdin = None,
            }
            if state.is_empty() {
                stdin = None;
            }
        }
        let (ended, readable) = {
            let mut fds = vec![PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
            if open {
                fds.push(PollFd::new(output.as_fd(), PollFlags::POLLIN));
            }
            if let Some(stdin) = &stdin {
                fds.push(PollFd::new(stdin.as_fd(), PollFlags::POLLOUT));
            }
            match poll(&mut fds, left) {
                Err(nix::errno::Errno::EINTR) => continue,
                other => drop(other?),
            }
            let any = |fd: Option<&PollFd>| fd.and_then(PollFd::any).unwrap_or(false);
            (any(fds.first()), open && any(fds.get(1)))
        };
        if readable {
            match output.read(&mut buffer)? {
                0 => open = false,
                n if said.len() < MOST => said.extend_from_slice(&buffer[..n]),
                _ => {}
            }
        } else if ended {
            return Ok(String::from_utf8_lossy(&said).into_owned());
        }
    }
}

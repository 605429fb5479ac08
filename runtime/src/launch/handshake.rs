//! The messages between the runtime and a new process: one datagram each over one socket pair, so none
//! is ever half there.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

use super::last_steps::{self, plan::word};
use crate::container::process;
use crate::sys::process::{close_in_child, keep_across_exec};
use crate::sys::socket;

/// Longer error texts are cut.
const MOST: usize = 16 << 10;

const HOOKS: u8 = b'H';
const TERMINAL: u8 = b'T';
const CHILD: u8 = b'C';
const ERROR: u8 = b'E';
const GO: u8 = b'G';
const MAP_IDS: u8 = b'M';

/// What the new process says.
#[derive(Debug)]
pub(crate) enum Message {
    /// Time for prestart and createRuntime hooks; waits for "go".
    Hooks,
    /// The runtime's end of the new terminal.
    Terminal(OwnedFd),
    /// A copy of a mount that the mapping of `mounts[n]` is for; waits for "go".
    MapIds(usize, OwnedFd),
    /// From a step between: the pid of the process that it has made.
    Child(i32),
    /// The filter is loaded: the number of the listener's descriptor there; waits for "go".
    Listener(i32),
    /// All is done but the last step.
    Ready,
    /// Only the filter and execve are left.
    Leaving,
}

/// One end of the pair.
#[derive(Debug)]
pub(crate) struct Sync(OwnedFd);

/// Both ends: the runtime's and the new process's.
pub(crate) fn pair() -> Result<(Sync, Sync)> {
    let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
        .context("make a socket pair")?;
    Ok((Sync(ours), Sync(theirs)))
}

impl Sync {
    /// The descriptor's number, for the plan of the last steps.
    pub(crate) fn number(&self) -> i32 {
        self.0.as_raw_fd()
    }

    /// A connection to the gate speaks the same words.
    pub(crate) fn of_gate(connection: OwnedFd) -> Self {
        Self(connection)
    }

    /// Lets the descriptor live through the exec of the program in `init/`.
    pub(crate) fn keep_across_exec(&self) -> Result<()> {
        keep_across_exec(&self.0).context("keep the socket to the runtime")
    }

    /// In a forked child: lets go of the other end, so that its last owner's death ends the stream.
    pub(crate) fn close_in_child(&self) {
        close_in_child(&self.0);
    }

    /// An error if nobody holds the other end any more.
    pub(crate) fn check_other_side(&self) -> Result<()> {
        let mut fds = [PollFd::new(self.0.as_fd(), PollFlags::empty())];
        match poll(&mut fds, PollTimeout::ZERO) {
            Ok(0) | Err(Errno::EINTR) => Ok(()),
            _ => bail!("the runtime has gone away"),
        }
    }

    pub(crate) fn send_go(&self) -> Result<()> {
        self.send(&[GO], None)
    }

    /// What the program in `init/` says by itself.
    pub(crate) fn say_ready(&self) -> Result<()> {
        self.send(&[word::READY], None)
    }

    /// As the program in `init/` says it: with write(2), which no profile can ask an agent about.
    pub(crate) fn say_listener(&self, number: i32) -> Result<()> {
        let mut message = vec![word::LISTENER];
        message.extend_from_slice(&number.to_ne_bytes());
        nix::unistd::write(&self.0, &message).map(drop).context("tell the seccomp listener's number")
    }

    /// Continues under our number with another connection: who opened the gate hears the rest.
    pub(crate) fn become_one_with(&self, other: Self) -> Result<()> {
        crate::sys::process::replace(&self.0, other.0).context("talk to start")
    }

    pub(crate) fn ask_for_hooks(&self) -> Result<()> {
        self.send(&[HOOKS], None)
    }

    pub(crate) fn send_terminal(&self, terminal: &OwnedFd) -> Result<()> {
        self.send(&[TERMINAL], Some(terminal))
    }

    pub(crate) fn ask_for_id_map(&self, index: usize, tree: &OwnedFd) -> Result<()> {
        let mut message = vec![MAP_IDS];
        message.extend_from_slice(&u32::try_from(index)?.to_ne_bytes());
        self.send(&message, Some(tree))
    }

    pub(crate) fn send_child(&self, pid: i32) -> Result<()> {
        let mut message = vec![CHILD];
        message.extend_from_slice(&pid.to_ne_bytes());
        self.send(&message, None)
    }

    /// The last message of a process that cannot go on.
    pub(crate) fn send_error(&self, error: &anyhow::Error) {
        let text = format!("{error:#}");
        let mut message = vec![ERROR];
        message.extend_from_slice(&text.as_bytes()[..text.len().min(MOST)]);
        let _ = self.send(&message, None); // if the runtime is gone, nobody is left to tell
    }

    fn send(&self, bytes: &[u8], fd: Option<&OwnedFd>) -> Result<()> {
        socket::send(&self.0, bytes, fd).context("tell the other side")
    }

    /// Waits for "go". An end of the stream means that the runtime was killed.
    pub(crate) fn wait_for_go(&self) -> Result<()> {
        let mut byte = [0];
        match self.receive(&mut byte)? {
            (1, _) if byte[0] == GO => Ok(()),
            _ => bail!("the runtime has gone away"),
        }
    }

    /// The next message; `None` at the end of the stream, which after `Ready` means that the payload
    /// runs. An error told by the other side is returned as ours. `process` is what was to be run.
    pub(crate) fn next(&self, process: &process::Plan) -> Result<Option<Message>> {
        let mut buffer = vec![0; MOST + 1];
        let (length, fd) = self.receive(&mut buffer)?;
        let Some((kind, rest)) = buffer[..length].split_first() else { return Ok(None) };
        match (*kind, rest, fd) {
            (HOOKS, [], _) => Ok(Some(Message::Hooks)),
            (TERMINAL, [], Some(fd)) => Ok(Some(Message::Terminal(fd))),
            (MAP_IDS, [a, b, c, d], Some(tree)) => {
                Ok(Some(Message::MapIds(u32::from_ne_bytes([*a, *b, *c, *d]) as usize, tree)))
            }
            (CHILD, [a, b, c, d], _) => Ok(Some(Message::Child(i32::from_ne_bytes([*a, *b, *c, *d])))),
            (word::LISTENER, [a, b, c, d], _) => {
                Ok(Some(Message::Listener(i32::from_ne_bytes([*a, *b, *c, *d]))))
            }
            (word::READY, [], _) => Ok(Some(Message::Ready)),
            (word::LEAVING, [], _) => Ok(Some(Message::Leaving)),
            (word::FAILED, [a, b, c, d, e, f, g, h], _) => {
                let step = u32::from_ne_bytes([*a, *b, *c, *d]);
                Err(last_steps::error(step, i32::from_ne_bytes([*e, *f, *g, *h]), process))
            }
            (ERROR, text, _) => bail!("{}", String::from_utf8_lossy(text)),
            _ => bail!("a message of {length} bytes from the new process makes no sense"),
        }
    }

    fn receive(&self, buffer: &mut [u8]) -> Result<(usize, Option<OwnedFd>)> {
        loop {
            match socket::receive(&self.0, buffer) {
                Err(Errno::EINTR) => {}
                Err(Errno::ECONNRESET) => return Ok((0, None)),
                other => return other.context("listen to the other side"),
            }
        }
    }
}

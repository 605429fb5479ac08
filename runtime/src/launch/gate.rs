//! What holds a created container until `start`: init listens on a socket in the container's state
//! folder, which nobody but the runtime can reach. `start` connects; init answers `Leaving`, then either
//! tells why the payload could not be executed or is it, which ends the stream.

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, accept4, bind, connect, listen};

use super::handshake::{Message, Sync};
use super::last_steps::plan::ENDING_SIGNALS;
use crate::container::process;
use crate::fault::{self, Point};
use crate::sys::process::{exit_on_signal, keep_across_exec};
use crate::sys::socket;

/// The listening end, which init inherits.
#[derive(Debug)]
pub(crate) struct Gate(OwnedFd);

impl Gate {
    /// Puts the socket at `path`, below the state folder.
    pub(crate) fn close(path: &Path) -> Result<Self> {
        let socket = new_socket()?;
        socket::with_short_path(path, |address| bind(socket.as_raw_fd(), address))
            .with_context(|| format!("make the gate {path:?}"))?;
        listen(&socket, Backlog::new(1)?).with_context(|| format!("listen at {path:?}"))?;
        Ok(Self(socket))
    }

    /// The descriptor's number, for the plan of the last steps.
    pub(crate) fn number(&self) -> i32 {
        self.0.as_raw_fd()
    }

    /// Lets the descriptor live through the exec of the program in `init/`.
    pub(crate) fn keep_across_exec(&self) -> Result<()> {
        keep_across_exec(&self.0).context("keep the gate's socket")
    }

    /// Waits for `start` in this process instead of in the program of `init/`.
    pub(crate) fn wait(&self) -> Result<Sync> {
        ENDING_SIGNALS.into_iter().try_for_each(exit_on_signal).context("let signals end the container")?;
        loop {
            match accept4(self.0.as_raw_fd(), SockFlag::SOCK_CLOEXEC) {
                Err(Errno::EINTR) => {}
                #[expect(unsafe_code, reason = "nix returns accept4's descriptor as a number")]
                // SAFETY: accept4 has just made this descriptor, and nobody else owns it.
                Ok(fd) => return Ok(Sync::of_gate(unsafe { std::os::fd::FromRawFd::from_raw_fd(fd) })),
                Err(errno) => return Err(errno).context("wait for start"),
            }
        }
    }
}

/// Opens the gate at `path` and waits until the payload runs, or returns why it does not.
pub(crate) fn open(path: &Path, process: &process::Plan) -> Result<()> {
    let socket = new_socket()?;
    match socket::with_short_path(path, |address| connect(socket.as_raw_fd(), address)) {
        Ok(()) => {}
        Err(Errno::ENOENT) => bail!("cannot start an already running container"),
        Err(Errno::ECONNREFUSED) => bail!("cannot start a container that has stopped"),
        Err(errno) => return Err(errno).with_context(|| format!("knock at the gate {path:?}")),
    }
    fault::point(Point::StartKnocked);
    let init = Sync::of_gate(socket);
    let mut leaving = false;
    while let Some(message) = init.next(process)? {
        leaving |= matches!(message, Message::Leaving);
    }
    if !leaving {
        bail!("the container's init was killed before it could execute {:?}", process.args[0]);
    }
    Ok(())
}

fn new_socket() -> Result<OwnedFd> {
    nix::sys::socket::socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None)
        .context("make a socket")
}

//! `NOTIFY_SOCKET`: [sd_notify(3)](https://www.freedesktop.org/software/systemd/man/latest/sd_notify.html).
//! Who starts the runtime as a service hears from its container when that is ready. The container cannot
//! reach the caller's socket, so it gets one of its own:
//!
//! ```text
//!   <root>/<id>/notify/notify.sock     bound by `start` or `run`, who passes "READY=1" on
//!   /run/notify/notify.sock            the same in the container, where NOTIFY_SOCKET names it
//! ```
//! Nothing else is passed on: what a container says of pids and watchdogs is not the service manager's.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, UnixAddr, bind, recv, socket};
use nix::unistd::{Pid, pipe2};
use oci_spec::runtime::{MountBuilder, Spec};

use crate::log;
use crate::sys::socket::{send, with_short_path};

const FOLDER: &str = "notify";
const SOCKET: &str = "notify.sock";
const INSIDE: &str = "/run/notify";
/// systemd's own for a barrier is as long.
const BARRIER_MS: u16 = 30_000;

/// The caller's socket.
pub(crate) fn caller() -> Option<PathBuf> {
    std::env::var_os("NOTIFY_SOCKET").filter(|path| !path.is_empty()).map(PathBuf::from)
}

/// Adds the socket to what the container is to have; `state` is its folder below `--root`.
pub(crate) fn add_to(spec: &mut Spec, state: &Path) -> Result<()> {
    let options = ["bind", "nosuid", "noexec", "nodev", "ro"].map(str::to_owned);
    let mount = MountBuilder::default()
        .destination(INSIDE)
        .source(state.join(FOLDER))
        .typ("bind")
        .options(options)
        .build()?;
    spec.mounts_mut().get_or_insert_default().push(mount);
    if let Some(process) = spec.process_mut() {
        process.env_mut().get_or_insert_default().push(format!("NOTIFY_SOCKET={INSIDE}/{SOCKET}"));
    }
    Ok(())
}

/// Makes the folder that the mount shows.
pub(crate) fn make_folder(state: &Path) -> Result<()> {
    let folder = state.join(FOLDER);
    std::fs::create_dir(&folder).with_context(|| format!("make {folder:?}"))
}

/// The container's socket, at which we listen.
#[derive(Debug)]
pub(crate) struct Listener {
    socket: OwnedFd,
    caller: PathBuf,
}

impl Listener {
    /// Binds it, if there is a caller to tell and the container was made with the folder for it.
    pub(crate) fn bind(state: &Path) -> Result<Option<Self>> {
        let path = state.join(FOLDER).join(SOCKET);
        let Some(caller) = caller().filter(|_| state.join(FOLDER).is_dir()) else { return Ok(None) };
        let socket = datagram()?;
        let context = || format!("NOTIFY_SOCKET: make {path:?} for the container");
        with_short_path(&path, |address| bind(socket.as_raw_fd(), address)).with_context(context)?;
        // Whatever user the container runs as.
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o777)).with_context(context)?;
        Ok(Some(Self { socket, caller }))
    }

    /// Waits until the container is ready or at its end, and tells the caller. The container's `pid` goes
    /// with it: the service's main process, since the runtime leaves.
    pub(crate) fn wait(&self, pid: Pid, pidfd: &OwnedFd) -> Result<()> {
        loop {
            let mut fds = [&self.socket, pidfd].map(|fd| PollFd::new(fd.as_fd(), PollFlags::POLLIN));
            match poll(&mut fds, PollTimeout::NONE) {
                Err(Errno::EINTR) => continue,
                other => drop(other.context("wait for the container to be ready")?),
            }
            if fds[0].any() == Some(true) {
                if self.hear(Some(pid)) {
                    return Ok(());
                }
            } else {
                return Ok(()); // it has ended
            }
        }
    }

    /// Reads one message; true if nothing more is to be expected: the container is ready, and that has been
    /// passed on. A caller who cannot be told is nothing that a running container could be blamed for.
    pub(crate) fn hear(&self, pid: Option<Pid>) -> bool {
        self.pass_on(pid).unwrap_or_else(|error| {
            log::warn(&format!("{error:#}"));
            true
        })
    }

    fn pass_on(&self, pid: Option<Pid>) -> Result<bool> {
        let mut message = [0; 4096];
        let length = match recv(self.socket.as_raw_fd(), &mut message, MsgFlags::MSG_DONTWAIT) {
            Err(Errno::EAGAIN | Errno::EINTR) => return Ok(false),
            other => other.context("NOTIFY_SOCKET: hear what the container says")?,
        };
        let mut lines = message[..length].split(|byte| *byte == b'\n');
        let Some(ready) = lines.find(|line| line.starts_with(b"READY=")) else { return Ok(false) };
        self.tell(ready, pid).with_context(|| format!("NOTIFY_SOCKET: tell {:?}", self.caller))?;
        Ok(true)
    }

    fn tell(&self, ready: &[u8], pid: Option<Pid>) -> Result<()> {
        let socket = datagram()?;
        let connect = |address: &UnixAddr| nix::sys::socket::connect(socket.as_raw_fd(), address);
        match self.caller.as_os_str().as_bytes().strip_prefix(b"@") {
            Some(name) => connect(&UnixAddr::new_abstract(name)?)?,
            None => with_short_path(&self.caller, connect)?,
        }
        send(&socket, &[ready, b"\n"].concat(), None)?;
        let Some(pid) = pid else { return Ok(()) };
        send(&socket, format!("MAINPID={pid}\n").as_bytes(), None)?;
        // Not before that is read may we end: systemd would not know any more whose words they were.
        let (read, written) = pipe2(OFlag::O_CLOEXEC)?;
        send(&socket, b"BARRIER=1", Some(&written))?;
        drop(written);
        poll(&mut [PollFd::new(read.as_fd(), PollFlags::empty())], BARRIER_MS)?; // late is no error
        Ok(())
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn datagram() -> Result<OwnedFd> {
    socket(AddressFamily::Unix, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None).context("make a socket")
}

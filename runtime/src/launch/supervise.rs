//! Foreground `run` and `exec`: pass signals on, relay the terminal, reap, and take over the exit code.
//! One poll(2) loop; nothing is copied when there is no terminal.

use std::collections::VecDeque;
use std::io::IsTerminal;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::termios::{self, OutputFlags, SetArg, Termios};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, read, write};

use super::Process;
use super::notify::Listener;
use crate::sys::process::pidfd_send_signal;
use crate::sys::terminal::{set_size, size};

/// Signals held back from the moment before the fork, so that none is lost.
#[derive(Debug)]
pub(crate) struct Signals(SignalFd);

impl Signals {
    /// Blocks everything that can be passed on; the new process unblocks it for itself.
    pub(crate) fn hold() -> Result<Self> {
        let mut all = SigSet::all();
        for fault in [
            Signal::SIGSEGV,
            Signal::SIGBUS,
            Signal::SIGILL,
            Signal::SIGFPE,
            Signal::SIGTRAP,
            Signal::SIGABRT,
        ] {
            all.remove(fault); // ours, if they come
        }
        sigprocmask(SigmaskHow::SIG_SETMASK, Some(&all), None).context("block signals")?;
        let fd =
            SignalFd::with_flags(&all, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK).context("signalfd")?;
        Ok(Self(fd))
    }
}

/// The container's terminal passes line ends on as they are, as with runc: ours makes of them what it has
/// to, and output that goes to a file gets none but its own. To be done before the process writes.
pub(crate) fn keep_line_ends(process: &Process) -> Result<()> {
    let Some(master) = &process.terminal else { return Ok(()) };
    let mut mode = termios::tcgetattr(master).context("read the mode of the container's terminal")?;
    mode.output_flags.remove(OutputFlags::ONLCR);
    termios::tcsetattr(master, SetArg::TCSANOW, &mode).context("set the mode of the container's terminal")
}

/// Waits for the process's end and returns its exit code, 128 + n after signal n. What it says to the
/// `listener` meanwhile is passed on.
pub(crate) fn wait(process: &Process, signals: &Signals, mut listener: Option<Listener>) -> Result<u8> {
    let mut relay = process.terminal.as_ref().map(Relay::new).transpose()?;
    if let Some(relay) = &relay {
        relay.resize();
    }
    loop {
        let mut fds = vec![PollFd::new(signals.0.as_fd(), PollFlags::POLLIN)];
        let places = relay.as_ref().map(|relay| relay.add_to(&mut fds));
        if let Some(listener) = &listener {
            fds.push(PollFd::new(listener.as_fd(), PollFlags::POLLIN));
        }
        match poll(&mut fds, PollTimeout::NONE) {
            Err(Errno::EINTR) => continue,
            other => drop(other.context("poll")?),
        }
        let ready: Vec<PollFlags> = fds.iter().map(|fd| fd.revents().unwrap_or(PollFlags::empty())).collect();
        drop(fds);
        if let (Some(relay), Some([master, stdin])) = (&mut relay, places) {
            let at = |place: Option<usize>| place.map_or(PollFlags::empty(), |place| ready[place]);
            relay.pump(at(master), at(stdin));
        }
        if let Some(heard) = listener.as_ref().filter(|_| ready.last().is_some_and(|last| !last.is_empty()))
            && heard.hear(None)
        {
            listener = None; // it is ready once
        }
        while let Some(signal) = signals.0.read_signal().context("read a signal")? {
            match signal.ssi_signo as i32 {
                libc::SIGCHLD => {
                    if let Some(code) = reap(process.pid)? {
                        if let Some(relay) = &mut relay {
                            relay.drain();
                        }
                        return Ok(code);
                    }
                }
                libc::SIGWINCH => relay.iter().for_each(Relay::resize),
                number => drop(pidfd_send_signal(&process.pidfd, number)), // its end will be seen soon
            }
        }
    }
}

/// Reaps whatever has ended; the code of our process once it is among them.
fn reap(pid: Pid) -> Result<Option<u8>> {
    let mut code = None;
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(ended, status)) if ended == pid => code = Some(status as u8),
            Ok(WaitStatus::Signaled(ended, signal, _)) if ended == pid => code = Some(128 + signal as u8),
            Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return Ok(code),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno).context("wait for the container"),
        }
    }
}

/// Between our terminal and the container's.
struct Relay<'a> {
    master: &'a OwnedFd,
    /// Typed but not yet taken by the container.
    typed: VecDeque<u8>,
    stdin_open: bool,
    master_open: bool,
    _raw: Option<RawMode>,
}

impl<'a> Relay<'a> {
    fn new(master: &'a OwnedFd) -> Result<Self> {
        nix::fcntl::fcntl(master, nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK))
            .context("set the terminal non-blocking")?;
        let raw = if std::io::stdin().is_terminal() { Some(RawMode::set()?) } else { None };
        Ok(Self { master, typed: VecDeque::new(), stdin_open: true, master_open: true, _raw: raw })
    }

    /// Adds what is to be listened to, and says where: the container's terminal, our input. What is closed
    /// is left out, since poll(2) would report that for ever.
    fn add_to<'b>(&'b self, fds: &mut Vec<PollFd<'b>>) -> [Option<usize>; 2] {
        let mut add = |fd: BorrowedFd<'b>, events| {
            fds.push(PollFd::new(fd, events));
            fds.len() - 1
        };
        let master = self.master_open.then(|| {
            let typed = if self.typed.is_empty() { PollFlags::empty() } else { PollFlags::POLLOUT };
            add(self.master.as_fd(), PollFlags::POLLIN | typed)
        });
        // Not faster than the container takes it.
        let listen = self.master_open && self.stdin_open && self.typed.len() < 64 << 10;
        [master, listen.then(|| add(stdin(), PollFlags::POLLIN))]
    }

    fn pump(&mut self, master: PollFlags, input: PollFlags) {
        let hung_up = PollFlags::POLLIN | PollFlags::POLLHUP | PollFlags::POLLERR;
        if input.intersects(hung_up) {
            let mut buffer = [0; 4096];
            match read(stdin(), &mut buffer) {
                Ok(0) => {
                    self.stdin_open = false;
                    self.typed.push_back(4); // ^D: the end of input, as a terminal says it
                }
                Ok(length) => self.typed.extend(&buffer[..length]),
                Err(Errno::EAGAIN | Errno::EINTR) => {}
                Err(_) => self.stdin_open = false,
            }
        }
        while !self.typed.is_empty() {
            match write(self.master, self.typed.as_slices().0) {
                Ok(length) => drop(self.typed.drain(..length)),
                Err(_) => break,
            }
        }
        if master.intersects(hung_up) {
            self.copy_out();
        }
    }

    /// One buffer from the container to our standard output. EIO is how a terminal says that its other
    /// end is closed.
    fn copy_out(&mut self) -> bool {
        let mut buffer = [0; 16 << 10];
        match read(self.master, &mut buffer) {
            Ok(0) | Err(Errno::EIO) => {
                self.master_open = false;
                false
            }
            Ok(length) => {
                write_all(&buffer[..length]);
                true
            }
            Err(_) => false,
        }
    }

    /// What the process said last.
    fn drain(&mut self) {
        while self.master_open && self.copy_out() {}
    }

    fn resize(&self) {
        if let Ok(size) = size(stdin()).or_else(|_| size(std::io::stdout())) {
            let _ = set_size(self.master, size); // the container may have gone
        }
    }
}

#[expect(unsafe_code, reason = "std has no borrowed descriptor of standard input without its lock")]
fn stdin() -> BorrowedFd<'static> {
    // SAFETY: descriptor 0 stays open as long as this process lives.
    unsafe { BorrowedFd::borrow_raw(0) }
}

fn write_all(mut bytes: &[u8]) {
    let stdout = std::io::stdout();
    while !bytes.is_empty() {
        match write(&stdout, bytes) {
            Ok(length) => bytes = &bytes[length..],
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => {
                let mut fds = [PollFd::new(stdout.as_fd(), PollFlags::POLLOUT)];
                let _ = poll(&mut fds, PollTimeout::NONE);
            }
            Err(_) => return, // nobody reads any more
        }
    }
}

/// The caller's terminal hands every key through, until this is dropped.
struct RawMode(Termios);

impl RawMode {
    fn set() -> Result<Self> {
        let before = termios::tcgetattr(stdin()).context("read the terminal's mode")?;
        let mut raw = before.clone();
        termios::cfmakeraw(&mut raw);
        // The container's terminal has left the line ends to ours.
        raw.output_flags |= before.output_flags & OutputFlags::OPOST;
        termios::tcsetattr(stdin(), SetArg::TCSANOW, &raw).context("set the terminal to raw mode")?;
        Ok(Self(before))
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        let _ = termios::tcsetattr(stdin(), SetArg::TCSANOW, &self.0); // nothing more can be done
    }
}

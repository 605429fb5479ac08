//! A terminal's or a pipe's side of a running container: what is typed goes to its monitor, what
//! it prints comes back, signals are passed on.

use std::collections::VecDeque;
use std::io::{ErrorKind, Write, stderr, stdin, stdout};
use std::os::fd::{AsFd, OwnedFd};

use anyhow::{Context as _, Result, bail};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::socket::MsgFlags;

use super::Container;
use super::terminal::{DetachKeys, RawMode, size};
use crate::monitor::protocol::{CHUNK, Event, Request, receive_packet, send_packet};

/// How to attach.
#[derive(Debug, Clone, Copy)]
pub(crate) struct How {
    /// Pass standard input on.
    pub(crate) input: bool,
    /// The container has a terminal: make ours raw, and watch for the detach keys.
    pub(crate) terminal: bool,
    /// Pass signals on.
    pub(crate) signals: bool,
}

/// How it ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The container has, with this code.
    Exited(u8),
    /// The user left it running.
    Detached,
    /// It could not be started: the code and the sentence.
    Failed(u8, String),
}

/// A connection to a monitor.
#[derive(Debug)]
struct Session<'a> {
    container: &'a Container,
    socket: &'a OwnedFd,
    how: How,
    keys: DetachKeys,
    /// Packets that the monitor has not taken yet.
    queue: VecDeque<Vec<u8>>,
    input_open: bool,
    running: bool,
    /// Signals that came before the container ran.
    early: Vec<i32>,
    interrupts: u32,
}

/// Passes everything on until the container ends or the user leaves.
pub(crate) fn attach(container: &Container, socket: &OwnedFd, how: How, running: bool) -> Result<Outcome> {
    let signals = block_signals()?;
    let _raw = if how.terminal && how.input { RawMode::set()? } else { None };
    let mut session = Session {
        container,
        socket,
        how,
        keys: DetachKeys::default(),
        queue: VecDeque::new(),
        input_open: how.input,
        running,
        early: Vec::new(),
        interrupts: 0,
    };
    if how.terminal {
        session.send_size();
    }
    session.run(&signals)
}

/// Waits for a container that was told to start in the background.
pub(crate) fn wait_for_start(socket: &OwnedFd) -> Result<Outcome> {
    loop {
        match next_event(socket, MsgFlags::empty())? {
            Some(Event::Running) => return Ok(Outcome::Detached),
            Some(Event::Exited(code)) => return Ok(Outcome::Exited(code)),
            Some(Event::Failed(code, sentence)) => return Ok(Outcome::Failed(code, sentence)),
            Some(Event::Output(_) | Event::Error(_)) | None => {}
        }
    }
}

/// Sends a request at once: the first few always fit.
pub(crate) fn request(socket: &OwnedFd, request: &Request) -> Result<()> {
    send_packet(socket.as_fd(), &request.encode(), MsgFlags::empty())
        .context("talk to the container's monitor")?;
    Ok(())
}

/// Signals come as data from now on, so none can leave the terminal in raw mode.
pub(crate) fn block_signals() -> Result<SignalFd> {
    let mut set = SigSet::empty();
    for signal in [
        Signal::SIGHUP,
        Signal::SIGINT,
        Signal::SIGQUIT,
        Signal::SIGTERM,
        Signal::SIGUSR1,
        Signal::SIGUSR2,
        Signal::SIGALRM,
        Signal::SIGCONT,
        Signal::SIGWINCH,
    ] {
        set.add(signal);
    }
    set.thread_block().context("block signals")?;
    SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK).context("signalfd")
}

/// What the monitor says next; none when it says nothing now, which only MSG_DONTWAIT lets happen.
fn next_event(socket: &OwnedFd, flags: MsgFlags) -> Result<Option<Event>> {
    match receive_packet(socket.as_fd(), flags) {
        Ok(packet) => {
            let event = Event::decode(&packet).context("the container's monitor speaks another language")?;
            Ok(Some(event))
        }
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => bail!("the container's monitor died"),
        Err(error) => Err(error).context("hear the container's monitor"),
    }
}

impl Session<'_> {
    fn run(mut self, signals: &SignalFd) -> Result<Outcome> {
        loop {
            let reading = self.input_open && self.queue.is_empty();
            let mut socket_flags = PollFlags::POLLIN;
            socket_flags.set(PollFlags::POLLOUT, !self.queue.is_empty());
            let input = stdin();
            let mut descriptors = vec![
                PollFd::new(self.socket.as_fd(), socket_flags),
                PollFd::new(signals.as_fd(), PollFlags::POLLIN),
            ];
            if reading {
                descriptors.push(PollFd::new(input.as_fd(), PollFlags::POLLIN));
            }
            match poll(&mut descriptors, PollTimeout::NONE) {
                Ok(_) | Err(nix::errno::Errno::EINTR) => {}
                Err(error) => return Err(error).context("wait for the container"),
            }
            let is = |index: usize| descriptors.get(index).is_some_and(|fd| fd.any().unwrap_or(false));
            let (socket, signal, input) = (is(0), is(1), is(2));
            if signal && let Some(outcome) = self.take_signals(signals)? {
                return Ok(outcome);
            }
            if input && self.read_input()? {
                self.queue.push_back(Request::Leave.encode());
                self.flush()?;
                return Ok(Outcome::Detached);
            }
            self.flush()?;
            if socket && let Some(outcome) = self.hear()? {
                return Ok(outcome);
            }
        }
    }

    /// One event of the monitor.
    fn hear(&mut self) -> Result<Option<Outcome>> {
        let Some(event) = next_event(self.socket, MsgFlags::MSG_DONTWAIT)? else { return Ok(None) };
        match event {
            Event::Running => {
                self.running = true;
                for signal in std::mem::take(&mut self.early) {
                    self.pass_on(signal)?;
                }
            }
            Event::Output(data) => self.print(&mut stdout().lock(), &data)?,
            Event::Error(data) => self.print(&mut stderr().lock(), &data)?,
            Event::Exited(code) => return Ok(Some(Outcome::Exited(code))),
            Event::Failed(code, sentence) => return Ok(Some(Outcome::Failed(code, sentence))),
        }
        Ok(None)
    }

    fn print(&mut self, to: &mut impl Write, data: &[u8]) -> Result<()> {
        match to.write_all(data).and_then(|()| to.flush()) {
            // `manager run ... | head`: let the program know as a pipe would have.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => {
                self.queue.push_back(Request::OutputShut.encode());
                Ok(())
            }
            other => other.context("print the container's output"),
        }
    }

    /// Reads what was typed; true when the user wants to leave.
    fn read_input(&mut self) -> Result<bool> {
        let mut data = vec![0; CHUNK - 1];
        // Not through std's buffer: what it holds poll(2) cannot see.
        let size = match rustix::io::read(stdin(), &mut data[..]) {
            Ok(size) => size,
            Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => return Ok(false),
            // A terminal that hung up.
            Err(rustix::io::Errno::IO) => 0,
            Err(error) => return Err(error).context("read standard input"),
        };
        let mut data = data[..size].to_vec();
        if size == 0 {
            self.input_open = false;
        } else if self.how.terminal {
            match self.keys.filter(&data) {
                None => return Ok(true),
                Some(passed) if passed.is_empty() => return Ok(false),
                Some(passed) => data = passed,
            }
        }
        self.queue.push_back(Request::Input(data).encode());
        Ok(false)
    }

    fn flush(&mut self) -> Result<()> {
        while let Some(packet) = self.queue.front() {
            match send_packet(self.socket.as_fd(), packet, MsgFlags::MSG_DONTWAIT) {
                Ok(true) => drop(self.queue.pop_front()),
                Ok(false) => break,
                // It is leaving; its last words are still to be read.
                Err(_) => self.queue.clear(),
            }
        }
        Ok(())
    }

    fn send_size(&mut self) {
        if let Some((rows, columns)) = size() {
            self.queue.push_back(Request::Window(rows, columns).encode());
        }
    }

    fn take_signals(&mut self, signals: &SignalFd) -> Result<Option<Outcome>> {
        while let Ok(Some(info)) = signals.read_signal() {
            let signal = info.ssi_signo.cast_signed();
            if signal == libc::SIGWINCH {
                if self.how.terminal {
                    self.send_size();
                }
            } else if !self.how.signals {
                return Ok(Some(Outcome::Detached));
            } else if self.running {
                self.interrupts += u32::from(signal == libc::SIGINT || signal == libc::SIGTERM);
                // Number 1 of a PID namespace ignores what it does not handle.
                if self.interrupts >= 3 {
                    bail!("got 3 SIGTERM or SIGINT: left the container running");
                }
                self.pass_on(signal)?;
            } else {
                self.early.push(signal);
            }
        }
        Ok(None)
    }

    fn pass_on(&self, signal: i32) -> Result<()> {
        if let Some(started) = self.container.state()?.running() {
            started.process.signal(signal)?;
        }
        Ok(())
    }
}

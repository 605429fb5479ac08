//! The loop of a monitor: bytes from the container to the log and to the clients, bytes from the
//! clients to the container, until its process has ended. poll(2) over a handful of descriptors.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};

use anyhow::{Context as _, Result};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::clients::{Client, Said};
use super::log::{Lines, Log};
use super::protocol::{Event, Request};
use super::streams::{self, Ends, Found};
use crate::container::Container;

/// Everything the loop looks at.
#[derive(Debug)]
pub(crate) struct Relay {
    /// The container's pipes or terminal.
    pub(crate) ends: Ends,
    /// Those who are attached.
    pub(crate) clients: Vec<Client>,
    pidfd: OwnedFd,
    listener: OwnedFd,
    log: Log,
    output_lines: Lines,
    error_lines: Lines,
    /// Input that the container has not taken yet.
    input: Vec<u8>,
    /// Standard input is to be shut when `input` is through.
    input_ends: bool,
    stdin_once: bool,
}

/// What poll(2) found ready.
#[derive(Debug, Default)]
struct Ready {
    exited: bool,
    newcomer: bool,
    output: bool,
    error: bool,
    input: bool,
    clients: Vec<bool>,
}

impl Relay {
    /// For a container whose process is there but does not run yet.
    pub(crate) fn new(pidfd: OwnedFd, listener: OwnedFd, ends: Ends, container: &Container) -> Result<Self> {
        let path = container.log_path();
        let log = Log::open(&path).with_context(|| format!("open the log {}", path.display()))?;
        Ok(Self {
            ends,
            clients: Vec::new(),
            pidfd,
            listener,
            log,
            output_lines: Lines::new("stdout"),
            error_lines: Lines::new("stderr"),
            input: Vec::new(),
            input_ends: false,
            stdin_once: container.record.process.stdin_once,
        })
    }

    /// Runs until the container's process has ended and all it wrote is logged and queued.
    pub(crate) fn run(&mut self) {
        loop {
            let ready = self.wait();
            if ready.newcomer {
                self.clients.extend(Client::accept(&self.listener));
            }
            if ready.output {
                self.read_output();
            }
            if ready.error {
                self.read_error();
            }
            if ready.input {
                self.write_input();
            }
            self.serve(&ready.clients);
            if ready.exited {
                break;
            }
        }
        // All processes of its PID namespace are gone, so what is in the pipes is all there is.
        while self.ends.output.is_some() && self.read_output() {}
        while self.ends.error.is_some() && self.read_error() {}
        let _ = self.output_lines.finish(&mut self.log);
        let _ = self.error_lines.finish(&mut self.log);
    }

    /// Those who are attached, and those who wanted to be while the container ended.
    pub(crate) fn into_clients(mut self) -> Vec<Client> {
        self.clients.extend(std::iter::from_fn(|| Client::accept(&self.listener)));
        self.clients
    }

    fn wait(&self) -> Ready {
        let behind = self.clients.iter().any(Client::is_behind);
        let reading = |end: &'_ Option<File>| end.is_some() && !behind;
        let mut descriptors = vec![
            PollFd::new(self.pidfd.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.listener.as_fd(), PollFlags::POLLIN),
        ];
        let Ends { input, output, error, .. } = &self.ends;
        let output = add(&mut descriptors, output, reading(output), PollFlags::POLLIN);
        let error = add(&mut descriptors, error, reading(error), PollFlags::POLLIN);
        let input = add(&mut descriptors, input, !self.input.is_empty(), PollFlags::POLLOUT);
        let first_client = descriptors.len();
        for client in &self.clients {
            let mut flags = PollFlags::empty();
            flags.set(PollFlags::POLLIN, self.input.is_empty());
            flags.set(PollFlags::POLLOUT, client.is_behind());
            descriptors.push(PollFd::new(client.socket().as_fd(), flags));
        }
        // Interrupted or not: what is ready is looked at, and the loop comes back here.
        let _ = poll(&mut descriptors, PollTimeout::NONE);
        let is = |index: usize| descriptors.get(index).is_some_and(|fd| fd.any().unwrap_or(false));
        Ready {
            exited: is(0),
            newcomer: is(1),
            output: output.is_some_and(is),
            error: error.is_some_and(is),
            input: input.is_some_and(is),
            clients: (first_client..descriptors.len()).map(is).collect(),
        }
    }

    /// Hears the clients that have something to say, and sends what others can take.
    fn serve(&mut self, ready: &[bool]) {
        let mut gone = Vec::new();
        for index in (0..self.clients.len()).filter(|&index| ready.get(index) == Some(&true)) {
            let client = &mut self.clients[index];
            let (said, alive, first) = (client.listen(), client.flush(), client.first);
            match said {
                Said::Request(Request::Leave) => gone.push(index),
                Said::Request(request) => self.obey(request, first),
                Said::Gone => {
                    gone.push(index);
                    self.shut_after(first);
                }
                Said::Nothing if !alive => gone.push(index),
                Said::Nothing => {}
            }
        }
        for index in gone.into_iter().rev() {
            self.clients.remove(index);
        }
    }

    fn obey(&mut self, request: Request, first: bool) {
        match request {
            Request::Input(data) if data.is_empty() => self.shut_after(first),
            Request::Input(data) => {
                // Nobody reads: what is typed goes nowhere, as with a pipe to a dead process.
                if self.ends.input.is_some() {
                    self.input.extend_from_slice(&data);
                    self.write_input();
                }
            }
            Request::Window(rows, columns) => self.ends.resize(rows, columns),
            // Shut the other end, too: the program learns by SIGPIPE that nobody reads.
            Request::OutputShut if first && !self.ends.terminal => self.ends.output = None,
            Request::OutputShut | Request::Start | Request::Leave => {}
        }
    }

    /// Standard input ends with the client that ran the container in the foreground.
    fn shut_after(&mut self, first: bool) {
        if first && self.stdin_once {
            self.input_ends = true;
            self.write_input();
        }
    }

    fn write_input(&mut self) {
        while let Some(end) = self.ends.input.as_ref().filter(|_| !self.input.is_empty()) {
            match streams::write(end, &self.input) {
                Some(0) => break,
                Some(size) => drop(self.input.drain(..size)),
                None => {
                    self.input.clear();
                    self.ends.shut_input();
                }
            }
        }
        if self.input_ends && self.input.is_empty() {
            self.ends.shut_input();
        }
    }

    /// Reads once; true when there was something.
    fn read_output(&mut self) -> bool {
        let Some(end) = &self.ends.output else { return false };
        match streams::read(end) {
            Found::Data(data) => {
                // A full disk must not stop the container: its log has a gap, its readers none.
                let _ = self.output_lines.feed(&data, &mut self.log);
                self.tell(&Event::Output(data));
                true
            }
            Found::Nothing => false,
            Found::End => {
                self.ends.output = None;
                false
            }
        }
    }

    fn read_error(&mut self) -> bool {
        let Some(end) = &self.ends.error else { return false };
        match streams::read(end) {
            Found::Data(data) => {
                let _ = self.error_lines.feed(&data, &mut self.log);
                self.tell(&Event::Error(data));
                true
            }
            Found::Nothing => false,
            Found::End => {
                self.ends.error = None;
                false
            }
        }
    }

    fn tell(&mut self, event: &Event) {
        self.clients.retain_mut(|client| client.send(event));
    }
}

/// Adds a descriptor to poll; its place in the list.
fn add<'a>(
    list: &mut Vec<PollFd<'a>>,
    end: &'a Option<File>,
    wanted: bool,
    flags: PollFlags,
) -> Option<usize> {
    let end = end.as_ref().filter(|_| wanted)?;
    list.push(PollFd::new(end.as_fd(), flags));
    Some(list.len() - 1)
}

//! A connection to systemd: unix(7), [D-Bus specification: authentication](https://dbus.freedesktop.org/doc/dbus-specification.html#auth-protocol).

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::message::{Message, Method, Value, kind};

/// The longest that systemd may take to do something.
pub(super) const TIMEOUT: Duration = Duration::from_secs(30);

/// An open connection.
#[derive(Debug)]
pub(super) struct Bus {
    stream: UnixStream,
    serial: u32,
    /// Has come in, and is not a whole message yet.
    input: Vec<u8>,
    /// Have come in while an answer was waited for.
    signals: VecDeque<Message>,
}

/// What the other side has refused.
#[derive(Debug)]
pub(super) struct Refusal {
    /// As `org.freedesktop.systemd1.NoSuchUnit`.
    pub(super) name: String,
    message: String,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "systemd says: {} ({})", self.message.trim_end_matches('.'), self.name)
    }
}

impl std::error::Error for Refusal {}

/// The name of the refusal, if the error is one.
pub(super) fn refusal(error: &anyhow::Error) -> Option<&str> {
    error.downcast_ref::<Refusal>().map(|refusal| refusal.name.as_str())
}

/// True if the other side has hung up, as systemd does when it executes itself anew.
pub(super) fn is_hung_up(error: &anyhow::Error) -> bool {
    let kinds = [ErrorKind::UnexpectedEof, ErrorKind::ConnectionReset, ErrorKind::BrokenPipe];
    error.downcast_ref::<std::io::Error>().is_some_and(|error| kinds.contains(&error.kind()))
}

impl Bus {
    /// Authenticates: as who we are, which the other side asks the kernel. An id said here would have to be
    /// the one outside of all user namespaces.
    pub(super) fn new(stream: UnixStream) -> Result<Self> {
        let mut bus = Self { stream, serial: 0, input: Vec::new(), signals: VecDeque::new() };
        bus.stream.write_all(b"\0AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n")?;
        let deadline = Instant::now() + TIMEOUT;
        loop {
            let Some(end) = bus.input.windows(2).position(|two| two == b"\r\n") else {
                ensure!(bus.input.len() < 4096, "authentication: the answer is too long");
                bus.receive(deadline)?;
                continue;
            };
            let line: Vec<u8> = bus.input.drain(..end + 2).collect();
            match line.get(..3) {
                Some(b"OK ") => return Ok(bus),
                Some(b"DAT") => {}
                _ => bail!("authentication: {:?}", String::from_utf8_lossy(&line).trim_end()),
            }
        }
    }

    /// Ends the connection for all who have it.
    pub(super) fn hang_up(&self) {
        let _ = self.stream.shutdown(std::net::Shutdown::Both); // it may have ended already
    }

    /// Sends a call, whose answer [`Bus::answer`] then waits for.
    pub(super) fn send(&mut self, method: &Method, arguments: &[Value]) -> Result<u32> {
        self.serial += 1;
        let bytes = method.call(self.serial, arguments)?;
        self.stream.write_all(&bytes)?; // Rust ignores SIGPIPE
        Ok(self.serial)
    }

    /// The answer to a call.
    pub(super) fn answer(&mut self, serial: u32) -> Result<Vec<Value>> {
        let deadline = Instant::now() + TIMEOUT;
        loop {
            let message = self.next(deadline)?;
            match message.kind {
                kind::SIGNAL => self.signals.push_back(message),
                kind::REPLY if message.reply_to == serial => return message.values(),
                kind::ERROR if message.reply_to == serial => {
                    let text = match message.values()?.into_iter().next() {
                        Some(Value::Text(text)) => text,
                        _ => "no reason given".to_owned(),
                    };
                    return Err(Refusal { name: message.error, message: text }.into());
                }
                _ => {}
            }
        }
    }

    /// Calls and waits for the answer.
    pub(super) fn call(&mut self, method: &Method, arguments: &[Value]) -> Result<Vec<Value>> {
        let serial = self.send(method, arguments)?;
        self.answer(serial)
    }

    /// The next signal, of those that came in before too.
    pub(super) fn signal(&mut self, deadline: Instant) -> Result<Message> {
        loop {
            if let Some(signal) = self.signals.pop_front() {
                return Ok(signal);
            }
            let message = self.next(deadline)?;
            if message.kind == kind::SIGNAL {
                return Ok(message);
            }
        }
    }

    fn next(&mut self, deadline: Instant) -> Result<Message> {
        loop {
            if let Some((message, length)) = Message::decode(&self.input)? {
                self.input.drain(..length);
                return Ok(message);
            }
            self.receive(deadline)?;
        }
    }

    fn receive(&mut self, deadline: Instant) -> Result<()> {
        self.wait(deadline)?;
        let mut piece = [0; 4096];
        match self.stream.read(&mut piece)? {
            0 => Err(std::io::Error::from(ErrorKind::UnexpectedEof).into()),
            count => {
                self.input.extend_from_slice(&piece[..count]);
                Ok(())
            }
        }
    }

    fn wait(&self, deadline: Instant) -> Result<()> {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let timeout = PollTimeout::try_from(left.as_millis()).unwrap_or(PollTimeout::MAX);
            let mut fds = [PollFd::new(self.stream.as_fd(), PollFlags::POLLIN)];
            match poll(&mut fds, timeout) {
                Ok(0) => bail!("systemd does not answer within {} s", TIMEOUT.as_secs()),
                Ok(_) => return Ok(()),
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno).context("wait for systemd"),
            }
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::message::tests::answer;
    use super::*;

    /// The other end of a connection: what it answers, given what was called by which name.
    pub(in super::super) fn fake(
        script: impl Fn(&str) -> Vec<(u8, &'static str, Vec<Value>)> + Send + 'static,
    ) -> UnixStream {
        let (ours, mut theirs) = UnixStream::pair().expect("a socket pair");
        std::thread::spawn(move || {
            let mut input = Vec::new();
            let mut greeted = false;
            let mut piece = [0; 4096];
            loop {
                match theirs.read(&mut piece) {
                    Ok(count) if count > 0 => input.extend_from_slice(&piece[..count]),
                    _ => return,
                }
                if !greeted {
                    let Some(end) = input.windows(7).position(|bytes| bytes == b"BEGIN\r\n") else {
                        continue;
                    };
                    input.drain(..end + 7);
                    // In two pieces, to be put together again.
                    theirs.write_all(b"DATA\r\nOK 0123").expect("write");
                    theirs.write_all(b"456789\r\n").expect("write");
                    greeted = true;
                }
                while let Some((call, length)) = Message::decode(&input).expect("a good call") {
                    let serial = u32::from_ne_bytes([input[8], input[9], input[10], input[11]]);
                    input.drain(..length);
                    for (kind, name, values) in script(&call.member) {
                        if name == "hang up" {
                            return;
                        }
                        theirs.write_all(&answer(kind, serial, name, &values)).expect("write");
                    }
                }
            }
        });
        ours
    }

    const METHOD: Method =
        Method { destination: None, path: "/org/freedesktop/systemd1", interface: "i.i", member: "Get" };

    #[test]
    fn answers_come_back_to_their_calls_and_signals_are_kept() {
        let mut bus = Bus::new(fake(|_| {
            vec![
                (kind::SIGNAL, "JobRemoved", vec![Value::Uint32(1)]),
                (kind::REPLY, "", vec![Value::Variant(Box::new(Value::text("252")))]),
            ]
        }))
        .expect("authenticate");
        let first = bus.send(&METHOD, &[]).expect("send");
        let second = bus.send(&METHOD, &[Value::Bool(true)]).expect("send");
        assert_eq!(bus.answer(first).expect("an answer"), [Value::text("252")]);
        assert_eq!(bus.answer(second).expect("an answer"), [Value::text("252")]);
        for _ in 0..2 {
            let signal = bus.signal(Instant::now() + TIMEOUT).expect("a signal");
            assert_eq!(signal.values().expect("values"), [Value::Uint32(1)]);
        }
    }

    #[test]
    fn a_refusal_has_its_name_and_reason() {
        let mut bus = Bus::new(fake(|_| {
            vec![(
                kind::ERROR,
                "org.freedesktop.systemd1.NoSuchUnit",
                vec![Value::text("Unit x not loaded.")],
            )]
        }))
        .expect("authenticate");
        let error = bus.call(&METHOD, &[]).expect_err("refused");
        assert_eq!(refusal(&error), Some("org.freedesktop.systemd1.NoSuchUnit"));
        assert_eq!(
            error.to_string(),
            "systemd says: Unit x not loaded (org.freedesktop.systemd1.NoSuchUnit)"
        );
    }

    #[test]
    fn a_connection_that_ends_is_noticed() {
        let mut bus = Bus::new(fake(|_| vec![(0, "hang up", vec![])])).expect("authenticate");
        assert!(is_hung_up(&bus.call(&METHOD, &[]).expect_err("hung up")));
    }

    #[test]
    fn a_server_that_refuses_the_user_is_an_error() {
        let (ours, mut theirs) = UnixStream::pair().expect("a socket pair");
        theirs.write_all(b"REJECTED EXTERNAL\r\n").expect("write");
        let error = Bus::new(ours).expect_err("rejected");
        assert_eq!(error.to_string(), "authentication: \"REJECTED EXTERNAL\"");
    }
}

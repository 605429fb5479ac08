//! Those who are attached. Each has a queue of what it has not taken yet; as long as somebody's
//! queue is not empty nothing more is read from the container, so no output is lost and none piles
//! up: a reader that is slow slows the writer down, as a pipe would.

use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::socket::{MsgFlags, getsockopt, sockopt};
use nix::unistd::geteuid;
use rustix::net::{SocketFlags, accept_with};

use super::protocol::{Event, Request, receive_packet, send_packet};

/// One client.
#[derive(Debug)]
pub(crate) struct Client {
    socket: OwnedFd,
    queue: VecDeque<Vec<u8>>,
    /// The one that ran the container in the foreground: standard input ends with it.
    pub(crate) first: bool,
}

/// What a client had to say.
#[derive(Debug)]
pub(crate) enum Said {
    /// A request.
    Request(Request),
    /// Nothing at the moment.
    Nothing,
    /// It is gone.
    Gone,
}

impl Client {
    /// The one that started this monitor.
    pub(crate) fn first(socket: OwnedFd) -> Self {
        // It cannot fail for a socket that is open; were it so, a slow client would only block.
        let _ = fcntl(&socket, FcntlArg::F_SETFL(OFlag::O_NONBLOCK));
        Self { socket, queue: VecDeque::new(), first: true }
    }

    /// The next that wants to attach; none when there is none, or it is not allowed to.
    pub(crate) fn accept(listener: &OwnedFd) -> Option<Self> {
        let socket = accept_with(listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK).ok()?;
        // The path is for its owner only already; this holds for a descriptor that leaked, too.
        let peer = getsockopt(&socket, sockopt::PeerCredentials).ok()?;
        let allowed = peer.uid() == 0 || peer.uid() == geteuid().as_raw();
        allowed.then(|| Self { socket, queue: VecDeque::new(), first: false })
    }

    /// Its descriptor, to poll.
    pub(crate) fn socket(&self) -> &OwnedFd {
        &self.socket
    }

    /// True when it has not taken all yet.
    pub(crate) fn is_behind(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Queues an event and sends what can be sent; false when the client is gone.
    pub(crate) fn send(&mut self, event: &Event) -> bool {
        self.queue.push_back(event.encode());
        self.flush()
    }

    /// Sends what can be sent; false when the client is gone.
    pub(crate) fn flush(&mut self) -> bool {
        while let Some(packet) = self.queue.front() {
            match send_packet(self.socket.as_fd(), packet, MsgFlags::MSG_DONTWAIT) {
                Ok(true) => drop(self.queue.pop_front()),
                Ok(false) => return true,
                Err(_) => return false,
            }
        }
        true
    }

    /// Hears what it has to say.
    pub(crate) fn listen(&mut self) -> Said {
        match receive_packet(self.socket.as_fd(), MsgFlags::MSG_DONTWAIT) {
            Ok(packet) => Request::decode(&packet).map_or(Said::Gone, Said::Request),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Said::Nothing,
            Err(_) => Said::Gone,
        }
    }
}

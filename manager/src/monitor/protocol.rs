//! What a monitor and its clients say to each other: packets of a SOCK_SEQPACKET socket
//! ([unix(7)](https://man7.org/linux/man-pages/man7/unix.7.html)), the first byte says which.
//!
//! ```text
//! client -> monitor                        monitor -> client
//! S           start the container          R         it runs
//! I data      standard input               O data    its standard output, or its terminal
//! I           end of standard input        E data    its standard error
//! W rows cols the terminal's size          X code    it has ended
//! P           my standard output is shut   F code sentence   it could not be started
//! Q           I leave, keep stdin open
//! ```

use std::fs::{self, File, Permissions};
use std::io::{Error, ErrorKind, Result};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, Backlog, MsgFlags, SockFlag, SockType, UnixAddr, bind, connect, listen, recv, send,
    socket, socketpair,
};

/// The most data in one packet.
pub(crate) const CHUNK: usize = 32 * 1024;

/// A packet from a client.
#[derive(Debug)]
pub(crate) enum Request {
    /// `S`
    Start,
    /// `I`; empty is the end.
    Input(Vec<u8>),
    /// `W`: rows, columns.
    Window(u16, u16),
    /// `P`
    OutputShut,
    /// `Q`
    Leave,
}

/// A packet from a monitor.
#[derive(Debug)]
pub(crate) enum Event {
    /// `R`
    Running,
    /// `O`
    Output(Vec<u8>),
    /// `E`
    Error(Vec<u8>),
    /// `X`
    Exited(u8),
    /// `F`
    Failed(u8, String),
}

impl Request {
    /// The packet.
    pub(crate) fn encode(&self) -> Vec<u8> {
        match self {
            Self::Start => b"S".to_vec(),
            Self::Input(data) => packet(b'I', data),
            Self::Window(rows, columns) => {
                packet(b'W', &[rows.to_le_bytes(), columns.to_le_bytes()].concat())
            }
            Self::OutputShut => b"P".to_vec(),
            Self::Leave => b"Q".to_vec(),
        }
    }

    /// Reads a packet; none when it is not one of ours.
    pub(crate) fn decode(packet: &[u8]) -> Option<Self> {
        Some(match packet {
            [b'S'] => Self::Start,
            [b'I', data @ ..] => Self::Input(data.to_vec()),
            &[b'W', r0, r1, c0, c1] => {
                Self::Window(u16::from_le_bytes([r0, r1]), u16::from_le_bytes([c0, c1]))
            }
            [b'P'] => Self::OutputShut,
            [b'Q'] => Self::Leave,
            _ => return None,
        })
    }
}

impl Event {
    /// The packet.
    pub(crate) fn encode(&self) -> Vec<u8> {
        match self {
            Self::Running => b"R".to_vec(),
            Self::Output(data) => packet(b'O', data),
            Self::Error(data) => packet(b'E', data),
            Self::Exited(code) => vec![b'X', *code],
            Self::Failed(code, sentence) => packet(b'F', &[&[*code], sentence.as_bytes()].concat()),
        }
    }

    /// Reads a packet; none when it is not one of ours.
    pub(crate) fn decode(packet: &[u8]) -> Option<Self> {
        Some(match packet {
            [b'R'] => Self::Running,
            [b'O', data @ ..] => Self::Output(data.to_vec()),
            [b'E', data @ ..] => Self::Error(data.to_vec()),
            [b'X', code] => Self::Exited(*code),
            [b'F', code, sentence @ ..] => {
                Self::Failed(*code, String::from_utf8_lossy(sentence).into_owned())
            }
            _ => return None,
        })
    }
}

fn packet(kind: u8, data: &[u8]) -> Vec<u8> {
    let mut packet = Vec::with_capacity(data.len() + 1);
    packet.push(kind);
    packet.extend_from_slice(data);
    packet
}

/// Two connected ends.
pub(crate) fn pair() -> Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?)
}

/// A listening socket at `folder/name`, for its owner only: `folder` is 0700. Never an abstract
/// one, which anybody in the network namespace could connect to (CVE-2020-15257).
pub(crate) fn listen_at(folder: &Path, name: &str) -> Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None)?;
    through_descriptor(folder, name, |address| bind(socket.as_raw_fd(), address))?;
    fs::set_permissions(folder.join(name), Permissions::from_mode(0o600))?;
    listen(&socket, Backlog::new(16)?)?;
    Ok(socket)
}

/// Connects to the socket at `folder/name`.
pub(crate) fn connect_to(folder: &Path, name: &str) -> Result<OwnedFd> {
    let socket = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None)?;
    through_descriptor(folder, name, |address| connect(socket.as_raw_fd(), address))?;
    Ok(socket)
}

/// A socket's address holds 107 bytes, fewer than a path may have: the folder is named by its
/// descriptor instead.
fn through_descriptor(
    folder: &Path,
    name: &str,
    call: impl FnOnce(&UnixAddr) -> nix::Result<()>,
) -> Result<()> {
    let folder = File::open(folder)?;
    let address = UnixAddr::new(format!("/proc/self/fd/{}/{name}", folder.as_raw_fd()).as_str())?;
    Ok(call(&address)?)
}

/// Sends a packet; false when the other side's queue is full (of a non-blocking socket).
pub(crate) fn send_packet(socket: impl AsFd, packet: &[u8], flags: MsgFlags) -> Result<bool> {
    loop {
        // No SIGPIPE: the other side may leave at any time.
        match send(socket.as_fd().as_raw_fd(), packet, flags | MsgFlags::MSG_NOSIGNAL) {
            Ok(_) => return Ok(true),
            Err(Errno::EAGAIN) => return Ok(false),
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Receives a packet: `UnexpectedEof` when the other side has left, `WouldBlock` when there is none.
pub(crate) fn receive_packet(socket: impl AsFd, flags: MsgFlags) -> Result<Vec<u8>> {
    let mut packet = vec![0; CHUNK + 1];
    loop {
        match recv(socket.as_fd().as_raw_fd(), &mut packet, flags) {
            // Our packets have at least one byte.
            Ok(0) => return Err(Error::from(ErrorKind::UnexpectedEof)),
            Ok(size) => {
                packet.truncate(size);
                return Ok(packet);
            }
            // ECONNRESET: the other side left without reading all we said. It is told once, in front
            // of the packets that are still to be read.
            Err(Errno::EINTR | Errno::ECONNRESET) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_say_what_they_said() {
        let request = Request::decode(&Request::Window(24, 300).encode());
        assert!(matches!(request, Some(Request::Window(24, 300))));
        assert!(matches!(Request::decode(b"I"), Some(Request::Input(data)) if data.is_empty()));
        let event = Event::decode(&Event::Failed(127, "no".into()).encode());
        assert!(matches!(event, Some(Event::Failed(127, sentence)) if sentence == "no"));
        assert!(Event::decode(b"").is_none() && Request::decode(b"W1").is_none());
    }
}

//! rtnetlink(7): the few requests that moving a network device takes. A message is a header, a fixed part
//! and attributes, each padded to four bytes.

use std::os::fd::{AsRawFd, OwnedFd};

use nix::Result;
use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket};

const HEADER: usize = 16;

/// A request's or an answer's fixed part and attributes.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Body(Vec<u8>);

impl Body {
    /// `struct ifinfomsg` for one interface; `up` changes `IFF_UP`.
    pub(crate) fn link(index: i32, up: Option<bool>) -> Self {
        let flags: u32 = if up == Some(true) { libc::IFF_UP as u32 } else { 0 };
        let change: u32 = if up.is_some() { libc::IFF_UP as u32 } else { 0 };
        let mut body = vec![libc::AF_UNSPEC as u8, 0, 0, 0];
        body.extend_from_slice(&index.to_ne_bytes());
        body.extend_from_slice(&flags.to_ne_bytes());
        body.extend_from_slice(&change.to_ne_bytes());
        Self(body)
    }

    /// `struct ifaddrmsg`
    pub(crate) fn address(family: u8, prefix: u8, scope: u8, index: i32) -> Self {
        let mut body = vec![family, prefix, 0, scope];
        body.extend_from_slice(&index.to_ne_bytes());
        Self(body)
    }

    /// Adds an attribute.
    pub(crate) fn with(mut self, kind: u16, value: &[u8]) -> Self {
        let length = (4 + value.len()) as u16;
        self.0.extend_from_slice(&length.to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    /// The fixed part's bytes.
    pub(crate) fn fixed<const N: usize>(&self, at: usize) -> [u8; N] {
        self.0.get(at..at + N).and_then(|bytes| bytes.try_into().ok()).unwrap_or([0; N])
    }

    /// The attributes behind a fixed part of `fixed` bytes.
    pub(crate) fn attributes(&self, fixed: usize) -> Vec<(u16, &[u8])> {
        let mut rest = self.0.get(fixed..).unwrap_or_default();
        let mut found = Vec::new();
        while let [a, b, c, d, ..] = *rest {
            let length = usize::from(u16::from_ne_bytes([a, b]));
            let Some(value) = rest.get(4..length) else { break };
            found.push((u16::from_ne_bytes([c, d]) & 0x3fff, value));
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
        found
    }

    /// The value of an attribute.
    pub(crate) fn attribute(&self, fixed: usize, kind: u16) -> Option<&[u8]> {
        self.attributes(fixed).into_iter().find(|(found, _)| *found == kind).map(|(_, value)| value)
    }
}

/// A socket to the routing part of the network namespace that it was made in.
#[derive(Debug)]
pub(crate) struct Netlink(OwnedFd);

impl Netlink {
    /// A socket in our present network namespace.
    pub(crate) fn open() -> Result<Self> {
        socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkRoute)
            .map(Self)
    }

    /// Sends a request; its answers, without the acknowledgement.
    pub(crate) fn ask(&self, kind: u16, flags: i32, body: &Body) -> Result<Vec<Body>> {
        const DUMPS: u8 = 5;
        for _ in 0..DUMPS {
            if let Some(answers) = self.ask_once(kind, flags, body)? {
                return Ok(answers);
            }
        }
        Err(Errno::EINTR)
    }

    /// None if the answer is not of one piece, because something has changed meanwhile.
    fn ask_once(&self, kind: u16, flags: i32, body: &Body) -> Result<Option<Vec<Body>>> {
        let dump = flags & libc::NLM_F_DUMP == libc::NLM_F_DUMP;
        let flags = flags | libc::NLM_F_REQUEST | if dump { 0 } else { libc::NLM_F_ACK };
        let mut message = ((HEADER + body.0.len()) as u32).to_ne_bytes().to_vec();
        message.extend_from_slice(&kind.to_ne_bytes());
        message.extend_from_slice(&(flags as u16).to_ne_bytes());
        message.extend_from_slice(&[0; 8]); // sequence and port: we ask one thing at a time
        message.extend_from_slice(&body.0);
        send(self.0.as_raw_fd(), &message, MsgFlags::empty())?;
        let mut answers = Vec::new();
        let mut whole = true;
        let mut buffer = vec![0; 1 << 17];
        loop {
            let length = match recv(self.0.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
                Err(Errno::EINTR) => continue,
                other => other?,
            };
            for (kind, flags, body) in split(&buffer[..length])? {
                match i32::from(kind) {
                    libc::NLMSG_ERROR => match i32::from_ne_bytes(body.fixed(0)) {
                        0 => return Ok(whole.then_some(answers)),
                        error => return Err(Errno::from_raw(-error)),
                    },
                    libc::NLMSG_DONE => return Ok(whole.then_some(answers)),
                    _ => answers.push(body),
                }
                whole &= i32::from(flags) & libc::NLM_F_DUMP_INTR == 0;
            }
        }
    }
}

/// The messages of one datagram: type, flags, body.
fn split(mut bytes: &[u8]) -> Result<Vec<(u16, u16, Body)>> {
    let mut messages = Vec::new();
    while bytes.len() >= HEADER {
        let length = u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) as usize;
        let body = bytes.get(HEADER..length).ok_or(Errno::EBADMSG)?;
        let half = |at: usize| u16::from_ne_bytes([bytes[at], bytes[at + 1]]);
        messages.push((half(4), half(6), Body(body.to_vec())));
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(messages)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_read_as_they_were_written() {
        let body = Body::link(7, Some(true)).with(3, b"eth0\0").with(28, &9_u32.to_ne_bytes());
        assert_eq!(i32::from_ne_bytes(body.fixed(4)), 7);
        assert_eq!(body.attributes(16), [(3, &b"eth0\0"[..]), (28, &9_u32.to_ne_bytes()[..])]);
        assert_eq!(body.attribute(16, 4), None);
    }

    #[test]
    fn cut_messages_are_refused() {
        assert_eq!(split(&[200, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]), Err(Errno::EBADMSG));
        assert_eq!(split(&[1, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]), Err(Errno::EBADMSG));
        assert!(Body(vec![0, 0, 0, 0]).attributes(0).is_empty());
    }

    #[test]
    fn the_loopback_device_is_found() {
        let netlink = Netlink::open().expect("a socket");
        let found = netlink.ask(libc::RTM_GETLINK, 0, &Body::link(0, None).with(libc::IFLA_IFNAME, b"lo\0"));
        assert_eq!(i32::from_ne_bytes(found.expect("an answer")[0].fixed(4)), 1);
        let missing = Body::link(0, None).with(libc::IFLA_IFNAME, b"nothing\0");
        assert_eq!(netlink.ask(libc::RTM_GETLINK, 0, &missing), Err(Errno::ENODEV));
        let all = netlink.ask(libc::RTM_GETLINK, libc::NLM_F_DUMP, &Body::link(0, None)).expect("a dump");
        assert!(all.iter().any(|link| link.attribute(16, libc::IFLA_IFNAME) == Some(b"lo\0")));
    }
}

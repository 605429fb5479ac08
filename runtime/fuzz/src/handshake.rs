//! What a new process tells the runtime, and what `start` is told at the gate: any datagrams, with or
//! without descriptors, are messages or an error, and end.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::OnceLock;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

use crate::container::process;
use crate::launch::handshake::Sync;
use crate::sys::socket;

/// The input is a list of datagrams: two bytes say how long each is, and whether a descriptor rides on it.
pub fn run(input: &[u8]) {
    let (ours, theirs) =
        socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC).expect("sockets");
    let mut rest = input;
    for _ in 0..32 {
        let [a, b, tail @ ..] = rest else { break };
        let length = usize::from(u16::from_ne_bytes([*a, *b]) & 0x7fff).min(tail.len());
        let (message, tail) = tail.split_at(length);
        rest = tail;
        let fd = (b & 0x80 != 0).then(some_file);
        if socket::send(&theirs, message, fd).is_err() {
            break;
        }
    }
    drop(theirs);
    let sync = Sync::of_gate(ours);
    let process = process::Plan { args: vec!["sh".to_owned()], ..process::Plan::default() };
    if input.len() % 7 == 0 {
        let _ = sync.wait_for_go();
    }
    loop {
        match sync.next(&process) {
            Ok(Some(_)) => {}
            Ok(None) => break,
            Err(error) => {
                let text = format!("{error:#}");
                assert!(text.len() <= 64 << 10, "an error of {} bytes", text.len());
                break;
            }
        }
    }
}

fn some_file() -> &'static OwnedFd {
    static FILE: OnceLock<OwnedFd> = OnceLock::new();
    FILE.get_or_init(|| File::open("/dev/null").expect("open /dev/null").into())
}

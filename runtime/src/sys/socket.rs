//! unix(7): addresses, and messages with descriptors, recvmsg(2) with SCM_RIGHTS.

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::Result;
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, UnixAddr, recvmsg,
    sendmsg, socket,
};

/// Sends one datagram, with at most one descriptor riding on it.
pub(crate) fn send(socket: impl AsFd, bytes: &[u8], fd: Option<&OwnedFd>) -> Result<()> {
    let fds: Vec<i32> = fd.iter().map(|fd| fd.as_raw_fd()).collect();
    let rights = [ControlMessage::ScmRights(&fds)];
    let control = if fds.is_empty() { &rights[..0] } else { &rights[..] };
    let socket = socket.as_fd().as_raw_fd();
    sendmsg::<UnixAddr>(socket, &[IoSlice::new(bytes)], control, MsgFlags::MSG_NOSIGNAL, None).map(drop)
}

/// Receives one datagram into `buffer`: its length (0 at the end) and the descriptor that came along.
pub(crate) fn receive(socket: impl AsFd, buffer: &mut [u8]) -> Result<(usize, Option<OwnedFd>)> {
    let mut space = nix::cmsg_space!([i32; 1]);
    let mut parts = [IoSliceMut::new(buffer)];
    let socket = socket.as_fd().as_raw_fd();
    let message = recvmsg::<UnixAddr>(socket, &mut parts, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC)?;
    let mut received = None;
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(fds) = control {
            for fd in fds {
                // SAFETY: SCM_RIGHTS has just installed this descriptor for us alone.
                received = Some(unsafe { OwnedFd::from_raw_fd(fd) });
            }
        }
    }
    Ok((message.bytes, received))
}

/// Connects to the stream socket at `path`; `@name` is an abstract one.
pub(crate) fn connect(path: &Path) -> Result<OwnedFd> {
    let stream = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    let call = |address: &UnixAddr| nix::sys::socket::connect(stream.as_raw_fd(), address);
    match path.as_os_str().as_bytes().strip_prefix(b"@") {
        Some(name) => call(&UnixAddr::new_abstract(name)?)?,
        None => with_short_path(path, call)?,
    }
    Ok(stream)
}

/// Sends all bytes over a stream, the descriptor with the first of them.
pub(crate) fn send_all(stream: impl AsFd, mut bytes: &[u8], fd: &OwnedFd) -> Result<()> {
    let raw = stream.as_fd().as_raw_fd();
    let fds = [fd.as_raw_fd()];
    let mut rights = &[ControlMessage::ScmRights(&fds)][..];
    while !bytes.is_empty() {
        match sendmsg::<UnixAddr>(raw, &[IoSlice::new(bytes)], rights, MsgFlags::MSG_NOSIGNAL, None) {
            Ok(length) => (bytes, rights) = (&bytes[length..], &[]),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// unix(7) addresses hold 107 bytes. A longer path is reached through a descriptor of its folder.
pub(crate) fn with_short_path<T>(path: &Path, call: impl FnOnce(&UnixAddr) -> Result<T>) -> Result<T> {
    if let Ok(address) = UnixAddr::new(path) {
        return call(&address);
    }
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else { return Err(Errno::EINVAL) };
    let folder = std::fs::File::open(folder).map_err(|_| Errno::last())?;
    let short = Path::new("/proc/self/fd").join(folder.as_raw_fd().to_string()).join(name);
    call(&UnixAddr::new(&short)?)
}

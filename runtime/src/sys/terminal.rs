//! ioctl_tty(2): pseudo-terminals by descriptor.

use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use nix::Result;
use nix::errno::Errno;
use nix::pty::Winsize;

/// Unlocks the other end of a freshly opened `/dev/ptmx`: TIOCSPTLCK.
pub(crate) fn unlock(master: impl AsFd) -> Result<()> {
    let unlocked: libc::c_int = 0;
    // SAFETY: TIOCSPTLCK reads one int, which outlives the call.
    let done = unsafe { libc::ioctl(master.as_fd().as_raw_fd(), libc::TIOCSPTLCK as _, &raw const unlocked) };
    Errno::result(done).map(drop)
}

/// Opens the other end by descriptor, never by its path, which the container could have replaced
/// (CVE-2025-52565): TIOCGPTPEER.
pub(crate) fn open_peer(master: impl AsFd) -> Result<OwnedFd> {
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: TIOCGPTPEER takes open(2) flags by value and returns a new descriptor.
    let fd = unsafe { libc::ioctl(master.as_fd().as_raw_fd(), libc::TIOCGPTPEER as _, flags) };
    // SAFETY: the kernel has just given us this descriptor, and nobody else owns it.
    Errno::result(fd).map(|fd| unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Makes `terminal` the controlling terminal of this session: TIOCSCTTY.
pub(crate) fn make_controlling(terminal: impl AsFd) -> Result<()> {
    // SAFETY: the argument 0 means: do not steal it from another session.
    let done = unsafe { libc::ioctl(terminal.as_fd().as_raw_fd(), libc::TIOCSCTTY as _, 0) };
    Errno::result(done).map(drop)
}

/// Rows and columns: TIOCGWINSZ.
pub(crate) fn size(terminal: impl AsFd) -> Result<Winsize> {
    let mut size = Winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCGWINSZ writes one winsize, which outlives the call.
    let done = unsafe { libc::ioctl(terminal.as_fd().as_raw_fd(), libc::TIOCGWINSZ as _, &raw mut size) };
    Errno::result(done).map(|_| size)
}

/// Sets rows and columns: TIOCSWINSZ.
pub(crate) fn set_size(terminal: impl AsFd, size: Winsize) -> Result<()> {
    // SAFETY: TIOCSWINSZ reads one winsize, which outlives the call.
    let done = unsafe { libc::ioctl(terminal.as_fd().as_raw_fd(), libc::TIOCSWINSZ as _, &raw const size) };
    Errno::result(done).map(drop)
}

//! pidfd_send_signal(2) for any number: rustix knows named signals only, containers also stop on
//! real-time ones (systemd's `SIGRTMIN+3`).

use std::io::{Error, Result};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

/// Sends a signal to the process that `pidfd` refers to, and to no other that got its number since.
pub(crate) fn send_signal(pidfd: BorrowedFd<'_>, signal: i32) -> Result<()> {
    let info: *const libc::siginfo_t = ptr::null();
    // SAFETY: int pidfd_send_signal(int pidfd, int sig, siginfo_t *info, unsigned flags); a null
    // info asks the kernel to fill one in, as kill(2) does. The descriptor is borrowed, so open.
    let result = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, info, 0u32) };
    if result == 0 { Ok(()) } else { Err(Error::last_os_error()) }
}

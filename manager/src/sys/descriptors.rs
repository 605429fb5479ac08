//! close_range(2): descriptors that a careless parent left open.

use std::io::{Error, Result};

/// Closes every descriptor above standard error. To be called first thing in a process: a pipe of
/// the caller's shell that stays open here for hours would keep its reader waiting.
pub(crate) fn close_inherited() -> Result<()> {
    // SAFETY: int close_range(unsigned first, unsigned last, unsigned flags) touches no memory. The
    // caller has opened nothing yet, so no OwnedFd refers to what is closed.
    let result = unsafe { libc::syscall(libc::SYS_close_range, 3u32, u32::MAX, 0u32) };
    if result == 0 { Ok(()) } else { Err(Error::last_os_error()) }
}

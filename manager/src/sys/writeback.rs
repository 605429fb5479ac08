//! [sync_file_range(2)](https://man7.org/linux/man-pages/man2/sync_file_range.2.html)

use std::os::fd::{AsFd, AsRawFd};

/// Has the kernel begin to write what is dirty of a file, and does not wait for it. It is no promise: where the
/// kernel will not, a later sync writes it.
pub(crate) fn write_out(file: impl AsFd) {
    // SAFETY: the call touches no memory of ours, and the descriptor is open as long as it is borrowed.
    let _ = unsafe { libc::sync_file_range(file.as_fd().as_raw_fd(), 0, 0, libc::SYNC_FILE_RANGE_WRITE) };
}

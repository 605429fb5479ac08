//! seccomp(2): load a filter, ask what the kernel knows.

use std::os::fd::{FromRawFd, OwnedFd};

use libc::sock_filter;
use nix::Result;
use nix::errno::Errno;

/// `seccomp(SECCOMP_SET_MODE_FILTER, flags, &{length, program})` for this thread and all its children; with
/// `SECCOMP_FILTER_FLAG_NEW_LISTENER` among `flags` it returns the listener.
pub(crate) fn load_with_listener(program: &[sock_filter], flags: u32) -> Result<OwnedFd> {
    let length = u16::try_from(program.len()).map_err(|_| Errno::EINVAL)?;
    let program = libc::sock_fprog { len: length, filter: program.as_ptr().cast_mut() };
    // SAFETY: `program` and what it points to outlive the call; the kernel copies both and writes to neither.
    let listener = unsafe {
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, std::ptr::from_ref(&program))
    };
    // SAFETY: the kernel has just given us this descriptor, and nobody else owns it.
    Errno::result(listener).map(|fd| unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Whether the kernel knows all these flags: it looks at them before it looks at the missing program.
pub(crate) fn kernel_knows(flags: u32) -> bool {
    // WAIT_KILLABLE_RECV is refused without a listener.
    let flags = flags | libc::SECCOMP_FILTER_FLAG_NEW_LISTENER as u32;
    let none = std::ptr::null::<libc::sock_fprog>();
    // SAFETY: a null pointer is what makes the call fail, with EFAULT, if the flags are good.
    let done = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, none) };
    Errno::result(done) == Err(Errno::EFAULT)
}

//! Where the program begins. Rust's own start also asks for the stack's borders and sets up a signal stack
//! for overflows, some twenty system calls that every command would pay; what matters of it is here.

use std::ffi::{c_char, c_int};

use nix::errno::Errno;

/// Called by the C library, which has given the arguments to `std::env` before.
// SAFETY: the C library calls `main` once, and nothing else in this crate has the name.
#[unsafe(no_mangle)]
extern "C" fn main(_count: c_int, _words: *const *const c_char) -> c_int {
    if fill_standard_streams().is_err() {
        return 1;
    }
    // A reader that has gone is an error of the write, not our end.
    // SAFETY: ignoring a signal installs no handler.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
    i32::from(crate::run())
}

/// Descriptors 0 to 2 that the caller closed would be given to the next files we open, which would then be
/// taken for standard streams.
fn fill_standard_streams() -> nix::Result<()> {
    let mut streams = [0, 1, 2].map(|fd| libc::pollfd { fd, events: 0, revents: 0 });
    // SAFETY: three entries are passed, and three are there.
    Errno::result(unsafe { libc::poll(streams.as_mut_ptr(), 3, 0) })?;
    for stream in streams.iter().filter(|stream| stream.revents & libc::POLLNVAL != 0) {
        // SAFETY: a constant path; the lowest free descriptor is this one, as those below are open by now.
        let fd = Errno::result(unsafe { libc::open(c"/dev/null".as_ptr(), libc::O_RDWR) })?;
        debug_assert_eq!(fd, stream.fd);
    }
    Ok(())
}

//! prctl(2) PR_SET_PDEATHSIG for programs that we start.

use std::io::{Error, Result};
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::unistd::{Pid, getpid, getppid};

/// Has the program killed when this thread dies: a runtime that went on alone would make a
/// container that nobody knows of.
pub(crate) fn die_with_us(command: &mut Command) {
    let us = getpid();
    // SAFETY: between fork and exec the closure makes two system calls and allocates nothing, so it
    // may run in the copy of a process with threads, too.
    unsafe { command.pre_exec(move || ask(us)) };
}

fn ask(parent: Pid) -> Result<()> {
    set_pdeathsig(Signal::SIGKILL)?;
    // It may have died before we asked.
    if getppid() == parent { Ok(()) } else { Err(Error::from_raw_os_error(libc::ESRCH)) }
}

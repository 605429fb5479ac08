//! signal(7) dispositions, which a program inherits from whoever started it.

use nix::sys::signal::{SigHandler, SigSet, Signal, signal};

/// Gives every signal its default action and blocks none. `nohup` and shells in the background
/// ignore some, and what we ignore every program in the container would ignore, too. SIGPIPE is
/// left alone: Rust ignores it here and puts it right in the programs we start.
pub(crate) fn reset() -> nix::Result<()> {
    for number in Signal::iterator().filter(|&number| number != Signal::SIGPIPE) {
        // SAFETY: sighandler_t signal(int signum, SIG_DFL) installs no function of ours, so there
        // is none that could be unsafe to run.
        match unsafe { signal(number, SigHandler::SigDfl) } {
            // SIGKILL and SIGSTOP cannot be changed, and need not be.
            Ok(_) | Err(nix::errno::Errno::EINVAL) => {}
            Err(error) => return Err(error),
        }
    }
    SigSet::empty().thread_set_mask()
}

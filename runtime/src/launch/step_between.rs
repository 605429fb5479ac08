//! A new process that must come from one that has entered namespaces first: a user namespace, which gives
//! the right to enter and to make others, and a pid namespace, which only children are born into.

use std::os::fd::{BorrowedFd, OwnedFd};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::sys::wait::waitpid;
use nix::unistd::{Pid, setgroups};

use super::handshake::{self, Message, Sync};
use crate::container::process;
use crate::fault::{self, Point};
use crate::sys::process::{Fork, clone3, exit_now, pidfd_open, set_undumpable};

/// Forks a process that `enter`s and then makes the new one with `flags` of clone3, as our child, in which
/// `run` goes on. `ours` is the end of the socket pair that neither of them is to have.
pub(super) fn fork(
    ours: &Sync,
    process: &process::Plan,
    enter: impl FnOnce() -> Result<()>,
    flags: u64,
    cgroup: Option<BorrowedFd>,
    run: impl FnOnce(),
) -> Result<(Pid, OwnedFd)> {
    let (hear, tell) = handshake::pair()?;
    match clone3(0, None, false).context("fork")? {
        Fork::Child => {
            ours.close_in_child();
            let what = "clone3 into new namespaces (linux.namespaces)";
            let made = inherit_oom_score(process)
                // The container's processes see what is made below, so it must be closed to them from birth.
                .and_then(|()| set_undumpable().context("become undumpable"))
                .and_then(|()| leave_groups(process))
                .and_then(|()| enter())
                .inspect(|()| fault::point(Point::BetweenEntered))
                .and_then(|()| clone3(flags, cgroup, true).context(what));
            match made {
                Ok(Fork::Child) => {
                    drop((hear, tell)); // or the death of who made us would not end the stream
                    run() // never returns
                }
                Ok(Fork::Parent(pid, _)) => {
                    fault::point(Point::BetweenForked);
                    drop(tell.send_child(pid.as_raw()));
                }
                Err(error) => tell.send_error(&error),
            }
            exit_now(0)
        }
        Fork::Parent(between, _) => {
            drop(tell);
            waitpid(between, None).context("wait for the step between")?;
            match hear.next(process)? {
                Some(Message::Child(pid)) => {
                    let pid = Pid::from_raw(pid);
                    Ok((pid, pidfd_open(pid).context("pidfd_open")?))
                }
                _ => bail!("the process that joins the namespaces was killed"),
            }
        }
    }
}

/// Before a user namespace is entered: the runtime's own groups are not the container's (CVE-2022-36109), and
/// where setgroups(2) is denied inside, nobody could leave them any more.
pub(super) fn leave_groups(process: &process::Plan) -> Result<()> {
    if process.keeps_groups {
        return Ok(());
    }
    match setgroups(&[]) {
        Ok(()) | Err(Errno::EPERM) => Ok(()), // an ordinary user may not
        other => other.context("leave the runtime's groups"),
    }
}

/// The files in /proc of an undumpable process belong to root, so an ordinary user sets the score here.
fn inherit_oom_score(process: &process::Plan) -> Result<()> {
    if nix::unistd::geteuid().is_root() { Ok(()) } else { process.set_oom_score(Pid::this()) }
}

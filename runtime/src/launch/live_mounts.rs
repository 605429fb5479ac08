//! `mounts add` and `mounts remove`: what a running container sees, changed. Sources are opened on the
//! host's side, as at `create`; a process in the container's namespaces then puts them in place, by
//! descriptors, since whatever the container has at a path may have changed a moment ago.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use nix::fcntl::{OFlag, open};
use nix::sched::{CloneFlags, setns};
use nix::sys::stat::{Mode, umask};
use nix::sys::wait::waitpid;

use super::handshake::{self, Message};
use super::{init, join, step_between};
use crate::container::id_mapped::Donors;
use crate::container::lsm::MountLabel;
use crate::container::mounts::{self, Mount, Place};
use crate::container::process;
use crate::state_dir::{Init, State};
use crate::sys::process::{Fork, clone3, exit_now, set_parent_death_signal, set_undumpable};

/// Adds all of them, in their order, or none.
pub(crate) fn add(
    state: &State,
    target: &Init,
    mut list: Vec<Mount>,
    propagation: u64,
    label: Option<&MountLabel>,
) -> Result<()> {
    let mut donors = Donors::default();
    for (n, mount) in list.iter_mut().enumerate() {
        mount.prepare(propagation, label, &mut donors).with_context(|| format!("mounts[{n}]"))?;
    }
    let namespaces = CloneFlags::from_bits_retain(state.namespaces);
    inside(state, target, |root| {
        let place = Place {
            root,
            cgroups: &state.cgroups,
            cgroup_namespace: namespaces.contains(CloneFlags::CLONE_NEWCGROUP),
            user_namespace: namespaces.contains(CloneFlags::CLONE_NEWUSER),
            label,
        };
        let mut read_only_later = Vec::new();
        for (n, mount) in list.iter().enumerate() {
            let add = || -> Result<_> {
                let late = mount.clone_inside(root)?;
                ensure!(
                    late.is_none() || !mount.is_id_mapped(),
                    "options: a folder of the container's own cannot be id-mapped while it runs"
                );
                mount.apply(&place, late.as_ref())
            };
            match add().with_context(|| format!("mounts[{n}]")) {
                Ok(later) => read_only_later.extend(later),
                Err(error) => {
                    for done in list[..n].iter().rev() {
                        let _ = mounts::unmount(root, done.target()); // what is on its way says more
                    }
                    return Err(error);
                }
            }
        }
        mounts::make_read_only(&read_only_later)
    })
}

/// Takes the mounts on these places away, the last first.
pub(crate) fn remove(state: &State, target: &Init, destinations: &[PathBuf]) -> Result<()> {
    inside(state, target, |root| {
        destinations.iter().enumerate().rev().try_for_each(|(n, path)| {
            let context = || format!("mounts[{n}]: unmount {path:?}");
            mounts::unmount(root, &mounts::clean(path)).with_context(context)
        })
    })
}

/// Has a process do the `work` that has entered the container.
fn inside(state: &State, target: &Init, work: impl FnOnce(BorrowedFd) -> Result<()>) -> Result<()> {
    let namespaces = CloneFlags::from_bits_retain(state.namespaces);
    ensure!(
        namespaces.contains(CloneFlags::CLONE_NEWNS),
        "the container has no mount namespace of its own: its mounts are the host's"
    );
    let nobody = process::nothing();
    let (ours, theirs) = handshake::pair()?;
    // As with `exec`, processes of the container see the child from its birth on (CVE-2016-9962).
    set_undumpable().context("become undumpable")?;
    let first = namespaces & CloneFlags::CLONE_NEWPID;
    if !first.is_empty() {
        setns(target.pidfd.as_fd(), first).context("join the container's pid namespace")?;
    }
    let enter = || -> Result<()> {
        set_parent_death_signal(libc::SIGKILL)?;
        theirs.check_other_side()?;
        init::unblock_signals()?;
        umask(Mode::empty());
        step_between::leave_groups(&nobody)?;
        join::enter(target, namespaces - first).context("join the container's namespaces")?;
        if namespaces.contains(CloneFlags::CLONE_NEWUSER) {
            init::become_root()?;
            set_parent_death_signal(libc::SIGKILL)?; // changing ids has cleared it
            set_undumpable()?;
        }
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let root = open(Path::new("/"), flags, Mode::empty()).context("open the container's root")?;
        work(root.as_fd())
    };
    match clone3(0, None, false).context("fork into the container")? {
        Fork::Child => {
            ours.close_in_child();
            match enter() {
                Ok(()) => drop(theirs.say_ready()), // a runtime that is gone hears nothing
                Err(error) => theirs.send_error(&error),
            }
            exit_now(0)
        }
        Fork::Parent(pid, _) => {
            drop(theirs);
            let answer = ours.next(&nobody);
            waitpid(pid, None).context("wait for the process inside")?;
            match answer? {
                Some(Message::Ready) => Ok(()),
                _ => bail!("the process inside was killed"),
            }
        }
    }
}

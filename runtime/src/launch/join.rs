//! `exec`'s side: a new process in a container that exists. Enter, then the tail of the list in
//! `init.rs`.

use std::convert::Infallible;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sched::{CloneFlags, setns};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Pid, geteuid, setsid};

use super::agent::Agent;
use super::handshake::{self, Message, Sync};
use super::last_steps::{self, LastSteps, ProcPlace, WaitFor};
use super::{Process, init, step_between};
use crate::cgroup::Door;
use crate::container::intel_rdt::Groups;
use crate::container::{mounts, process, rlimits, rootfs, terminal};
use crate::fault::{self, Point};
use crate::log;
use crate::state_dir::{Init, State};
use crate::sys::process as sys;
use crate::sys::process::{Fork, clone3};

struct Join<'a> {
    state: &'a State,
    target: &'a Init,
    process: &'a process::Plan,
    door: &'a Door,
    sync: &'a Sync,
    last: &'a LastSteps,
    proc_place: &'a ProcPlace,
}

/// Makes the process up to its last step, which [`Process::release`] lets it take. An agent is told `shown`,
/// the container's state as JSON.
pub(crate) fn join(
    state: &State,
    target: &Init,
    process: &process::Plan,
    door: &Door,
    agent: Option<Agent>,
    shown: &str,
) -> Result<Process> {
    let (ours, theirs) = handshake::pair()?;
    let proc_place = ProcPlace::reserve(&process.labels)?;
    // In a user namespace a process could not raise a hard limit for itself.
    let namespaces = CloneFlags::from_bits_retain(state.namespaces);
    let limits = if namespaces.contains(CloneFlags::CLONE_NEWUSER) { &[][..] } else { &process.limits };
    let last = last_steps::prepare(process, &theirs, WaitFor::Go, &proc_place, limits)?;
    let join = Join { state, target, process, door, sync: &theirs, last: &last, proc_place: &proc_place };
    process.scheduling.set_initial_affinity()?;
    let (pid, pidfd) = fork(&join, namespaces, &ours)?;
    fault::point(Point::ExecForked);
    drop(theirs);
    let mut made = Process { pid, pidfd, terminal: None, net_devices: None, sync: ours };
    let moved = if state.cgroups.is_joined_by_systemd() {
        state.cgroups.attach(pid, target.pid, door.below.as_deref()).and_then(|()| made.sync.send_go())
    } else {
        Ok(())
    };
    moved
        .and_then(|()| follow(&mut made, process, limits.is_empty(), state.intel_rdt.as_ref(), agent, shown))
        .inspect_err(|_| made.kill_and_reap())
        .map(|()| made)
}

/// Makes the child, which belongs to the container's pid namespace.
fn fork(join: &Join, namespaces: CloneFlags, ours: &Sync) -> Result<(Pid, OwnedFd)> {
    let first = namespaces & CloneFlags::CLONE_NEWPID;
    if namespaces.contains(CloneFlags::CLONE_NEWUSER) && !geteuid().is_root() {
        let first = first | CloneFlags::CLONE_NEWUSER;
        let enter = || setns(join.target.pidfd.as_fd(), first).context("join the container's user namespace");
        let run = || join.run(namespaces - first);
        return step_between::fork(ours, join.process, enter, 0, join.cgroup(), run);
    }
    // Processes of the container will see the child from its birth on, so it must be closed to them
    // from its birth on (CVE-2016-9962). It inherits this from us.
    sys::set_undumpable()?;
    if !first.is_empty() {
        setns(join.target.pidfd.as_fd(), first).context("join the container's pid namespace")?;
    }
    let forked = match clone3(0, join.cgroup(), false) {
        Err(Errno::EBUSY) if join.door.below.is_none() => {
            let now = join.state.cgroups.unified_of(join.target.pid)?;
            clone3(0, now.as_ref().map(AsFd::as_fd), false)
        }
        other => other,
    };
    match forked.context("fork into the container")? {
        Fork::Child => {
            ours.close_in_child();
            join.run(namespaces - first)
        }
        Fork::Parent(pid, pidfd) => Ok((pid, pidfd)),
    }
}

fn follow(
    made: &mut Process,
    process: &process::Plan,
    limit: bool,
    intel_rdt: Option<&Groups>,
    mut agent: Option<Agent>,
    shown: &str,
) -> Result<()> {
    process.set_oom_score(made.pid)?;
    intel_rdt.map_or(Ok(()), |groups| groups.add(made.pid))?;
    loop {
        match made.sync.next(process)? {
            Some(Message::Ready) => break,
            Some(Message::Terminal(fd)) => made.terminal = Some(fd),
            Some(Message::Listener(number)) => {
                let agent = agent.take().context("linux.seccomp: a listener that nobody asked for")?;
                agent.hand_over(made, number, shown)?;
                made.sync.send_go()?;
            }
            Some(_) => {}
            None => anyhow::bail!("the process was killed before it was ready (has the container ended?)"),
        }
    }
    if limit { rlimits::apply(&process.limits, made.pid) } else { Ok(()) }
}

/// Joins them all at once; or one by one where some are not the user namespace's own, which can only be
/// entered before it.
pub(super) fn enter(target: &Init, namespaces: CloneFlags) -> nix::Result<()> {
    let target = target.pidfd.as_fd();
    let user = namespaces & CloneFlags::CLONE_NEWUSER;
    match setns(target, namespaces) {
        Err(Errno::EPERM) if !user.is_empty() => {}
        other => return other,
    }
    let mut later = user;
    let all = (0..i32::BITS - 1).map(|bit| CloneFlags::from_bits_retain(1 << bit));
    for one in all.filter(|one| (namespaces - user).contains(*one)) {
        match setns(target, one) {
            Err(Errno::EPERM) => later |= one,
            other => other?,
        }
    }
    setns(target, later)
}

impl Join<'_> {
    /// The cgroup to be born into.
    fn cgroup(&self) -> Option<BorrowedFd<'_>> {
        self.door.unified().filter(|_| !self.state.cgroups.is_joined_by_systemd())
    }

    /// Joins `namespaces`, those that were not entered before the fork.
    fn run(&self, namespaces: CloneFlags) -> ! {
        match self.steps(namespaces) {
            Ok(never) => match never {},
            Err(error) => {
                self.sync.send_error(&error);
                sys::exit_now(1)
            }
        }
    }

    fn steps(&self, namespaces: CloneFlags) -> Result<Infallible> {
        fault::point(Point::JoinBorn);
        sys::set_parent_death_signal(libc::SIGKILL)?;
        self.sync.check_other_side()?;
        super::log_birth();
        init::unblock_signals()?;
        umask(Mode::empty());
        if self.state.cgroups.is_joined_by_systemd() {
            self.sync.wait_for_go()?;
        }
        self.door.enter()?;
        fault::point(Point::JoinInCgroup);
        self.process.scheduling.set_final_affinity()?;
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let own_mounts = self.state.namespaces & CloneFlags::CLONE_NEWNS.bits() != 0;
        let path = format!("/proc/{}/root", self.target.pid);
        let its_root = if own_mounts { None } else { Some(open(path.as_str(), flags, Mode::empty())) };
        if its_root.is_some() {
            // Else the number may be another process's by now, and that root another root.
            sys::pidfd_send_signal(&self.target.pidfd, 0).context("the container has ended")?;
        }
        if namespaces.contains(CloneFlags::CLONE_NEWUSER) {
            step_between::leave_groups(self.process)?;
        }
        if !namespaces.is_empty() {
            enter(self.target, namespaces).context("join the container's namespaces")?;
        }
        if let Some(root) = its_root {
            rootfs::enter_root(root.with_context(|| format!("open {path}"))?.as_fd())?;
        }
        if CloneFlags::from_bits_retain(self.state.namespaces).contains(CloneFlags::CLONE_NEWUSER) {
            init::become_root()?;
            sys::set_parent_death_signal(libc::SIGKILL)?; // changing ids has cleared it
            sys::set_undumpable()?;
        }
        fault::point(Point::JoinInNamespaces);
        setsid().context("setsid")?;
        if self.state.new_keyring {
            init::join_keyring(&self.state.id, false)?;
        }
        self.process.apply_policies()?;
        let root = open("/", flags, Mode::empty()).context("open the container's root")?;
        let root = root.as_fd();
        if self.process.terminal {
            let (master, slave) = terminal::open_pair(root, self.process.console_size, self.process.uid)
                .context("process.terminal")?;
            self.sync.send_terminal(&master)?;
            terminal::take(&slave)?;
        } else {
            init::take_streams(root, self.process.uid)?;
        }
        let _ = mounts::make_dirs(root, &mounts::clean(self.process.cwd.as_ref())); // chdir will tell
        let env = self.process.env_with_home(Some(root));
        if self.process.labels.any() {
            self.proc_place.put(Some(init::own_proc()?))?;
        }
        init::default_pipe_signal()?;
        self.sync.keep_across_exec()?;
        log::debug("setns_init: about to exec");
        fault::point(Point::JoinLast);
        Err(self.last.exec(self.process, &env))
    }
}

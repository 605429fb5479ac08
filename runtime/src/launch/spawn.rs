//! The host's side of `create` and `run`: from a plan to a process that stands at its last step.
//! Whatever fails, everything made so far is taken back.

use std::cell::RefCell;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use anyhow::{Context, Result, anyhow, bail};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::CloneFlags;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, geteuid};

use super::agent::Agent;
use super::gate::Gate;
use super::handshake::{self, Message, Sync};
use super::init::Init;
use super::last_steps::{self, ProcPlace, WaitFor};
use super::{Process, start_hooks, step_between};
use crate::cgroup::Door;
use crate::container::hooks::{Output, Surroundings};
use crate::container::id_mapped::Donors;
use crate::container::mounts::Mount;
use crate::container::{self, hooks, net_devices, rlimits};
use crate::fault::{self, Point};
use crate::state_dir::{StateDir, Status};
use crate::sys::process::{Fork, clone3, pidfd_send_signal, set_undumpable};

/// How `create` and `run` were called.
#[derive(Clone, Debug, Default)]
pub(crate) struct Options {
    pub(crate) id: String,
    /// Absolute.
    pub(crate) bundle: PathBuf,
    pub(crate) no_pivot: bool,
    pub(crate) no_new_keyring: bool,
    /// True: the process waits at the gate for `start`; false: for [`Process::release`].
    pub(crate) gate: bool,
}

/// Makes the container up to its last step. Its cgroups must exist; `door` leads into them.
pub(crate) fn spawn(
    plan: &mut container::Plan,
    options: &Options,
    dir: &StateDir,
    door: Door,
    agent: Option<Agent>,
    state: &dyn Fn(Status, i32) -> String,
) -> Result<Process> {
    plan.rootfs.attach_on_host(|number| dir.write_mount(number))?;
    let mut mounts = std::mem::take(&mut plan.mounts);
    // An ordinary user may copy mounts only in a mount namespace of his own.
    let prepare_inside = !geteuid().is_root();
    if !prepare_inside {
        // What is born in a user namespace could be looked into by any process of our user that sees it,
        // with whatever few capabilities: to the kernel it is that namespace's owner. An ordinary user has
        // no such neighbours but his own, and could not write the maps of a process that is closed.
        set_undumpable().context("become undumpable")?;
        prepare_mounts(&mut mounts, plan)?;
    }
    let (ours, theirs) = handshake::pair()?;
    let gate = if options.gate { Some(Gate::close(&dir.gate())?) } else { None };
    fault::point(Point::CreateGate);
    let proc_place = ProcPlace::reserve(&plan.process.labels)?;
    let limits = own_limits(plan);
    let start_hooks = start_hooks::prepare(&plan.spec, &plan.process, limits)?;
    let wait = match &gate {
        _ if !start_hooks.is_empty() => WaitFor::Nothing,
        Some(gate) => WaitFor::Start(gate),
        None => WaitFor::Go,
    };
    let last = last_steps::prepare(&plan.process, &theirs, wait, &proc_place, limits)?;
    let hook_output = plan.annotations.hook_output()?;
    let init = Init {
        id: &options.id,
        plan,
        mounts: RefCell::new(mounts),
        prepare_inside,
        options,
        door: &door,
        sync: &theirs,
        agent: agent.as_ref(),
        dir,
        gate: gate.as_ref(),
        last: &last,
        proc_place: &proc_place,
        start_hooks: &start_hooks,
        hook_output: &hook_output,
        state,
    };
    let ours_before = plan.namespaces.before_fork()?;
    let forked = fork(&init, &ours);
    plan.mounts = init.mounts.into_inner();
    // Hooks run in the runtime's own namespaces, to be restored first.
    ours_before.restore()?;
    let (pid, pidfd) = forked?;
    fault::point(Point::CreateForked);
    // What only the new process may hold: else its death would never end the stream.
    drop((theirs, gate, start_hooks));
    let process = Process { pid, pidfd, terminal: None, net_devices: None, sync: ours };
    finish(process, plan, options, dir, agent, &hook_output, state).map_err(|(process, error)| {
        process.kill_and_reap();
        error
    })
}

/// Opens what the mounts show, where the host's paths are seen.
pub(super) fn prepare_mounts(mounts: &mut [Mount], plan: &container::Plan) -> Result<()> {
    let propagation = plan.rootfs.source_propagation();
    let mut donors = Donors::default();
    for (n, mount) in mounts.iter_mut().enumerate() {
        let label = plan.mount_label.as_ref();
        mount.prepare(propagation, label, &mut donors).with_context(|| format!("mounts[{n}]"))?;
    }
    Ok(())
}

/// The limits that the process sets for itself; in a user namespace it could not raise a hard one, so
/// there the runtime does it.
fn own_limits(plan: &container::Plan) -> &[rlimits::Limit] {
    if plan.namespaces.has(CloneFlags::CLONE_NEWUSER) { &[] } else { &plan.process.limits }
}

/// One clone3 for all namespaces; with a step between where a joined namespace must come first.
fn fork(init: &Init, ours: &Sync) -> Result<(Pid, OwnedFd)> {
    let namespaces = &init.plan.namespaces;
    let (flags, cgroup) = (namespaces.clone_flags(), init.door.unified());
    if namespaces.need_a_step_between() {
        let enter = || namespaces.enter_all();
        return step_between::fork(ours, &init.plan.process, enter, flags, cgroup, || init.run());
    }
    match clone3(flags, cgroup, false).context("clone3 into new namespaces (linux.namespaces)")? {
        Fork::Child => {
            ours.close_in_child();
            init.run()
        }
        Fork::Parent(pid, pidfd) => Ok((pid, pidfd)),
    }
}

/// Follows the new process until it is ready.
fn finish(
    mut process: Process,
    plan: &container::Plan,
    options: &Options,
    dir: &StateDir,
    mut agent: Option<Agent>,
    hook_output: &Output,
    state: &dyn Fn(Status, i32) -> String,
) -> Result<Process, (Process, anyhow::Error)> {
    let mut donors = Donors::default();
    let mut follow = || -> Result<()> {
        // While an ordinary user may: soon its files in /proc belong to root.
        plan.process.set_oom_score(process.pid)?;
        plan.cgroups.start_unit(process.pid, &plan.limits, plan.cgroup_owner())?;
        if let Some(maps) = &plan.id_maps {
            maps.write(process.pid).context("linux.uidMappings and linux.gidMappings")?;
            fault::point(Point::CreateMaps);
        }
        if plan.cgroups.is_made_by_systemd() || plan.id_maps.is_some() {
            process.sync.send_go()?;
        }
        // Before the first "go" that the payload could be released by: whoever finds it running finds
        // its pid as well.
        dir.write_init(process.pid)?;
        fault::point(Point::CreateInit);
        if let Some(rdt) = &plan.intel_rdt {
            rdt.create()?;
            rdt.groups.add(process.pid)?;
        }
        // A process that is dead already has no namespaces: what it says follows.
        if !plan.net_devices.is_empty()
            && let Some(namespace) = plan.namespaces.network_of(process.pid)
        {
            process.net_devices = Some(net_devices::move_all(&plan.net_devices, namespace.as_fd())?);
        }
        loop {
            match process.sync.next(&plan.process)? {
                Some(Message::Ready) if process.net_devices.is_none() && !plan.net_devices.is_empty() => {
                    bail!("linux.netDevices: open the container's network namespace");
                }
                Some(Message::Ready) => break,
                Some(Message::Terminal(fd)) => process.terminal = Some(fd),
                Some(Message::Hooks) => {
                    let state = state(Status::Creating, process.pid.as_raw());
                    let around = Surroundings { state: &state, cwd: &options.bundle, output: hook_output };
                    runtime_hooks(plan, around)?;
                    fault::point(Point::CreateHooks);
                    process.sync.send_go()?;
                }
                Some(Message::MapIds(n, tree)) => {
                    let mount = plan.mounts.get(n).context("a mount that there is not")?;
                    mount.map_ids(&tree, &mut donors).with_context(|| format!("mounts[{n}]"))?;
                    process.sync.send_go()?;
                }
                Some(Message::Listener(number)) => {
                    let agent = agent.take().context("linux.seccomp: a listener that nobody asked for")?;
                    agent.hand_over(&process, number, &state(Status::Creating, process.pid.as_raw()))?;
                    process.sync.send_go()?;
                }
                Some(Message::Child(_) | Message::Leaving) => {}
                None => return Err(process.why_it_died(plan)),
            }
        }
        fault::point(Point::CreateReady);
        if own_limits(plan).is_empty() { rlimits::apply(&plan.process.limits, process.pid) } else { Ok(()) }
    };
    match follow() {
        Ok(()) => Ok(process),
        Err(error) => Err((process, error)),
    }
}

fn runtime_hooks(plan: &container::Plan, around: Surroundings) -> Result<()> {
    let Some(all) = plan.spec.hooks() else { return Ok(()) };
    hooks::run("prestart", hooks::deprecated_prestart(all), around)?;
    hooks::run("createRuntime", all.create_runtime(), around)
}

impl Process {
    /// Lets a process that waits for "go" become its payload; returns once it is, or says why it is not.
    pub(crate) fn release(&self, plan: &container::process::Plan) -> Result<()> {
        self.sync.send_go()?;
        let mut leaving = false;
        while let Some(message) = self.sync.next(plan)? {
            leaving |= matches!(message, Message::Leaving);
        }
        if leaving {
            Ok(())
        } else {
            Err(anyhow!("the process was killed before it could execute {:?}", plan.args[0]))
        }
    }

    /// For a process that fails: nothing of it stays.
    pub(crate) fn kill_and_reap(&self) {
        self.net_devices.iter().for_each(net_devices::Moved::take_back);
        let _ = pidfd_send_signal(&self.pidfd, libc::SIGKILL); // dead already is as good
        while waitpid(self.pid, None) == Err(Errno::EINTR) {}
    }

    /// The stream ends a moment before the process can be waited for.
    fn why_it_died(&self, plan: &container::Plan) -> anyhow::Error {
        let mut fds = [PollFd::new(self.pidfd.as_fd(), PollFlags::POLLIN)];
        let _ = poll(&mut fds, PollTimeout::from(1000_u16)); // waitpid will tell
        let limited = plan.limits.has_memory_limit();
        match waitpid(self.pid, Some(WaitPidFlag::WNOHANG | WaitPidFlag::__WALL)) {
            Ok(WaitStatus::Signaled(_, Signal::SIGKILL, _)) if limited => {
                anyhow!("container init was OOM-killed (memory limit too low?)")
            }
            Ok(status) if plan.process.asks_an_agent() => anyhow!(
                "container init died before it was ready ({status:?}): with SCMP_ACT_NOTIFY, linux.seccomp has to allow write, read, close and accept4"
            ),
            Ok(status) => anyhow!("container init died before it was ready ({status:?})"),
            Err(errno) => anyhow!("container init died before it was ready ({errno})"),
        }
    }
}

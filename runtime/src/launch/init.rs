//! The container's side: THE ordered list from birth to execve. Runs in the forked child of a process
//! with one thread, in a copy of its memory, so ordinary code is fine.

use std::cell::RefCell;
use std::convert::Infallible;
use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sched::CloneFlags;
use nix::sys::signal::{SigSet, SigmaskHow, sigprocmask};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, major, minor, umask};
use nix::unistd::{Gid, Uid, fchown, setresgid, setresuid, setsid};

use super::agent::Agent;
use super::gate::Gate;
use super::handshake::Sync;
use super::last_steps::{LastSteps, ProcPlace};
use super::spawn::{self, Options};
use super::start_hooks::StartHook;
use crate::cgroup::Door;
use crate::container::hooks::{Output, Surroundings};
use crate::container::mounts::Mount;
use crate::container::{self, devices, hooks, hostname, mounts, scheduling, sysctl, terminal};
use crate::fault::{self, Point};
use crate::log;
use crate::state_dir::{StateDir, Status};
use crate::sys::mount::NewFs;
use crate::sys::path::open_in_root;
use crate::sys::process as sys;
use crate::sys::seccomp::load_with_listener;

/// What the child has from its parent.
pub(super) struct Init<'a> {
    pub(super) id: &'a str,
    pub(super) plan: &'a container::Plan,
    pub(super) mounts: RefCell<Vec<Mount>>,
    /// True if the runtime could not open what they show.
    pub(super) prepare_inside: bool,
    pub(super) options: &'a Options,
    pub(super) door: &'a Door,
    pub(super) sync: &'a Sync,
    pub(super) agent: Option<&'a Agent>,
    pub(super) dir: &'a StateDir,
    pub(super) gate: Option<&'a Gate>,
    pub(super) last: &'a LastSteps,
    pub(super) proc_place: &'a ProcPlace,
    pub(super) start_hooks: &'a [StartHook],
    pub(super) hook_output: &'a Output,
    /// The container's state as hooks see it, with the pid to be filled in.
    pub(super) state: &'a dyn Fn(Status, i32) -> String,
}

impl Init<'_> {
    /// Never returns: becomes the payload, or tells the runtime why not.
    pub(super) fn run(&self) -> ! {
        match self.steps() {
            Ok(never) => match never {},
            Err(error) => {
                self.sync.send_error(&error);
                sys::exit_now(1)
            }
        }
    }

    fn steps(&self) -> Result<Infallible> {
        let plan = self.plan;
        let process = &plan.process;
        fault::point(Point::InitBorn);
        // First of all: if the runtime is killed, so are we.
        sys::set_parent_death_signal(libc::SIGKILL)?;
        if let Some(agent) = self.agent {
            agent.close_in_child();
        }
        self.sync.check_other_side()?; // it may have been killed before that
        super::log_birth();
        unblock_signals()?;
        umask(Mode::empty()); // modes of mount points are as written here; the payload gets its own
        if plan.cgroups.is_made_by_systemd() || plan.id_maps.is_some() {
            self.sync.wait_for_go()?; // we are moved, and the maps are written, from outside
        }
        plan.namespaces.make_time_namespace()?;
        if plan.namespaces.has(CloneFlags::CLONE_NEWUSER) {
            become_root()?;
            sys::set_parent_death_signal(libc::SIGKILL)?; // changing ids has cleared it
        }
        // From here on the container could see us.
        sys::set_undumpable()?;
        // Limits count from here, before anything is allocated for the container; and the cgroup
        // namespace's root is the cgroup that we are in when it is made.
        self.door.enter()?;
        fault::point(Point::InitInCgroup);
        scheduling::reset_affinity();
        plan.namespaces.enter_in_child()?;
        plan.namespaces.make_cgroup_namespace()?;
        fault::point(Point::InitInNamespaces);
        setsid().context("setsid")?;
        if !self.options.no_new_keyring {
            join_keyring(self.id, true)?;
        }
        hostname::apply(&plan.spec)?;
        if plan.namespaces.is_new(CloneFlags::CLONE_NEWNET) {
            sys::bring_up_interface("lo").context("bring up the loopback interface")?;
        }
        process.apply_policies()?;

        if self.prepare_inside {
            spawn::prepare_mounts(&mut self.mounts.borrow_mut(), plan)?;
        }
        let root = plan.rootfs.attach()?;
        let root = root.as_fd();
        let read_only_later = self.mount(root)?;
        if !self.mounts.borrow().iter().any(Mount::replaces_dev) {
            let user_namespace = plan.namespaces.has(CloneFlags::CLONE_NEWUSER);
            devices::make(root, &plan.devices, user_namespace)?;
        }
        fault::point(Point::InitMounted);
        self.hooks_before_pivot()?;
        fault::point(Point::InitHooks);

        let proc = self.own_proc()?;
        // Through a procfs of our own, so what the container has at /proc does not matter.
        if let Some(proc) = &proc {
            sysctl::apply(&plan.sysctls, proc.as_fd())?;
        }
        let slave = self.terminal(root)?;
        mounts::make_read_only(&read_only_later)?;
        drop(read_only_later);
        plan.paths.apply(root)?;
        mounts::make_dirs(root, &mounts::clean(process.cwd.as_ref()))
            .map(drop)
            .or_else(|error| if is_cwd_error(&error) { Ok(()) } else { Err(error) })
            .with_context(|| format!("process.cwd: make {:?}", process.cwd))?;
        plan.rootfs.enter(root, self.options.no_pivot)?;
        plan.rootfs.finish(root)?;
        fault::point(Point::InitInRoot);
        match slave {
            Some(slave) => terminal::take(&slave)?,
            None => take_streams(root, process.uid)?,
        }
        let env = process.env_with_home(Some(root));
        self.start_container_hooks(&env)?;
        self.sync.keep_across_exec()?;
        if let Some(gate) = self.gate.filter(|_| self.start_hooks.is_empty()) {
            gate.keep_across_exec()?;
        }
        self.proc_place.put(proc)?;
        // Rust ignores SIGPIPE; until here that was right for us too.
        default_pipe_signal()?;
        log::debug("init: closing the pipe to signal completion"); // which the payload's execve does
        fault::point(Point::InitLast);
        Err(self.last.exec(process, &env))
    }

    fn mount(&self, root: BorrowedFd) -> Result<Vec<OwnedFd>> {
        let place = mounts::Place {
            root,
            cgroups: &self.plan.cgroups,
            cgroup_namespace: self.plan.namespaces.has(CloneFlags::CLONE_NEWCGROUP),
            user_namespace: self.plan.namespaces.has(CloneFlags::CLONE_NEWUSER),
            label: self.plan.mount_label.as_ref(),
        };
        let mut read_only_later = Vec::new();
        // "The runtime MUST mount entries in the listed order." - config.md#mounts
        for (n, mount) in self.mounts.borrow().iter().enumerate() {
            let context = || format!("mounts[{n}]");
            let late = mount.clone_inside(root).with_context(context)?;
            if let Some(tree) = late.as_ref().filter(|_| mount.is_id_mapped()) {
                self.sync.ask_for_id_map(n, tree)?;
                self.sync.wait_for_go()?;
            }
            read_only_later.extend(mount.apply(&place, late.as_ref()).with_context(context)?);
        }
        Ok(read_only_later)
    }

    /// "after the runtime environment has been created ... but before the pivot_root": the runtime's in
    /// its own namespaces, then the container's in the container's.
    fn hooks_before_pivot(&self) -> Result<()> {
        let Some(hooks) = self.plan.spec.hooks() else { return Ok(()) };
        let any = |list: &Option<Vec<_>>| list.as_ref().is_some_and(|list| !list.is_empty());
        if any(hooks::deprecated_prestart(hooks)) || any(hooks.create_runtime()) {
            self.sync.ask_for_hooks()?;
            self.sync.wait_for_go()?;
        }
        if any(hooks.create_container()) {
            let state = (self.state)(Status::Creating, nix::unistd::getpid().as_raw());
            let around =
                Surroundings { state: &state, cwd: &self.plan.rootfs.path, output: self.hook_output };
            hooks::run("createContainer", hooks.create_container(), around)?;
        }
        Ok(())
    }

    /// These run inside, when `start` has been called and before the payload. The program in `init/`
    /// knows no hooks, so this process waits at the gate itself, and whoever opened it is told the rest.
    fn start_container_hooks(&self, env: &[String]) -> Result<()> {
        if self.start_hooks.is_empty() {
            return Ok(());
        }
        self.dir.close_in_child();
        sys::clear_parent_death_signal()?; // as the program in init/ does before it says so
        self.load_filter_with_listener()?;
        self.sync.say_ready()?;
        match self.gate {
            Some(gate) => self.sync.become_one_with(gate.wait()?)?,
            None => self.sync.wait_for_go()?,
        }
        let state = (self.state)(Status::Created, nix::unistd::getpid().as_raw());
        self.start_hooks
            .iter()
            .enumerate()
            .try_for_each(|(n, hook)| hook.run(n, &state, self.hook_output, env))
    }

    /// One listener for the hooks and the payload: all of them inherit the filter.
    fn load_filter_with_listener(&self) -> Result<()> {
        let process = &self.plan.process;
        let Some(filter) = process.filter.as_ref().filter(|_| process.asks_an_agent()) else { return Ok(()) };
        let listener =
            load_with_listener(&filter.program, filter.flags).context("linux.seccomp: load the filter")?;
        self.sync.say_listener(listener.as_raw_fd())?;
        self.sync.wait_for_go()
    }

    /// A procfs that nobody else has and nothing can be mounted on, if one is needed.
    fn own_proc(&self) -> Result<Option<OwnedFd>> {
        if self.plan.sysctls.is_empty() && !self.plan.process.labels.any() {
            return Ok(None);
        }
        own_proc().map(Some)
    }

    fn terminal(&self, root: BorrowedFd) -> Result<Option<OwnedFd>> {
        let process = &self.plan.process;
        if !process.terminal {
            return Ok(None);
        }
        let (master, slave) =
            terminal::open_pair(root, process.console_size, process.uid).context("process.terminal")?;
        terminal::bind_console(root, &slave).context("process.terminal")?;
        self.sync.send_terminal(&master)?;
        Ok(Some(slave))
    }
}

/// A working folder that cannot be made, since a file is in the way or the place is read-only, is
/// told by the chdir that follows.
fn is_cwd_error(error: &anyhow::Error) -> bool {
    matches!(error.root_cause().downcast_ref(), Some(Errno::EROFS | Errno::EACCES | Errno::ENOTDIR))
}

/// A detached procfs of our pid namespace.
pub(super) fn own_proc() -> Result<OwnedFd> {
    let fs = NewFs::open(c"proc").context("open a procfs")?;
    fs.mount(0).context("make a procfs of our own, for sysctls and labels")
}

/// The runtime blocks signals from before the fork on; a new program expects none blocked.
pub(super) fn unblock_signals() -> Result<()> {
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None).context("unblock signals")
}

/// As a new program expects it.
pub(super) fn default_pipe_signal() -> Result<()> {
    sys::default_signal(libc::SIGPIPE).context("reset SIGPIPE")
}

/// Makes the standard streams the container's. The host's /dev/null becomes the container's own: through a
/// descriptor its owner and mode could be changed. Others become the user's, who can then open them by
/// their names in /dev too, as with runc.
pub(super) fn take_streams(root: BorrowedFd, uid: u32) -> Result<()> {
    for number in 0..3 {
        let stream = sys::standard_stream(number);
        let Ok(stat) = fstat(stream) else { continue }; // closed
        if !is_null(&stat) {
            if stat.st_uid != uid {
                give_stream(stream, uid)?;
            }
            continue;
        }
        if let Ok(null) = open_in_root(root, Path::new("dev/null"), OFlag::O_RDWR.bits(), 0)
            && fstat(&null).is_ok_and(|stat| is_null(&stat))
        {
            sys::replace_standard_stream(number, &null).context("reopen /dev/null")?;
        }
    }
    Ok(())
}

/// The group stays: a terminal's is tty.
fn give_stream(stream: BorrowedFd, uid: u32) -> Result<()> {
    match fchown(stream, Some(Uid::from_raw(uid)), None) {
        // Its owner or its group is nobody in our user namespace, or its file system is read-only.
        Err(Errno::EPERM | Errno::EINVAL | Errno::EROFS) => Ok(()),
        other => other.with_context(|| format!("give a standard stream to user {uid}")),
    }
}

fn is_null(stat: &FileStat) -> bool {
    let kind = SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT;
    kind == SFlag::S_IFCHR && (major(stat.st_rdev), minor(stat.st_rdev)) == (1, 3)
}

/// Root of the new user namespace.
pub(super) fn become_root() -> Result<()> {
    let (uid, gid) = (Uid::from_raw(0), Gid::from_raw(0));
    setresgid(gid, gid, gid).context("become group 0 of the user namespace (linux.gidMappings)")?;
    setresuid(uid, uid, uid).context("become user 0 of the user namespace (linux.uidMappings)")
}

/// A session keyring of the container's own, so that it does not see the caller's. `exec` finds it by its
/// name, which the kernel allows only with the right to search it.
pub(super) fn join_keyring(id: &str, new: bool) -> Result<()> {
    // What the kernel gives a new session keyring (all to its possessor; view, read and link to its owner),
    // and the owner's search.
    const PERMISSIONS: u32 = 0x3f13_0000 | 0x0008_0000;
    let name = CString::new(format!("_ses.{id}"))?;
    match sys::join_session_keyring(&name) {
        Ok(key) if new => sys::set_key_permissions(key, PERMISSIONS)
            .context("let exec search the session keyring (--no-new-keyring leaves it out)"),
        Ok(_) | Err(Errno::ENOSYS) => Ok(()), // a kernel without keyrings has nothing to hide
        Err(errno) => Err(errno).context("join a session keyring (--no-new-keyring leaves it out)"),
    }
}

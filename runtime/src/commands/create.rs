//! `create`: runtime.md#create. Also what `run` begins with.

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use clap::{ArgMatches, Command};
use nix::sched::CloneFlags;
use oci_spec::runtime::Spec;
use serde_json::json;

use crate::bundle::{self, Bundle};
use crate::cgroup::Door;
use crate::cli::{self, Context};
use crate::container::hooks::Surroundings;
use crate::container::intel_rdt::Groups;
use crate::container::{self, hooks, rootfs};
use crate::fault::{self, Point};
use crate::launch::Process;
use crate::launch::agent::Agent;
use crate::launch::notify::{self, Listener};
use crate::launch::spawn::{self, Options};
use crate::log;
use crate::state_dir::{self, State, StateDir, Status};
use crate::sys::process::cloexec_from;
use crate::sys::socket;

pub(super) fn flags(command: Command) -> Command {
    shared_flags(command.about("Make a container that waits for start")).arg(cli::id())
}

/// The flags that `create` and `run` have in common.
pub(super) fn shared_flags(command: Command) -> Command {
    command
        .arg(cli::path("bundle", "The bundle's folder").short('b').default_value("."))
        .arg(
            cli::path("config", "The configuration's file, if it is not config.json in the bundle")
                .short('f'),
        )
        .arg(cli::path("console-socket", "A unix socket that gets the terminal's other end"))
        .arg(cli::path("pidfd-socket", "A unix socket that gets a pidfd of the container's init"))
        .arg(cli::path("pid-file", "Write the container's pid here"))
        .arg(cli::flag("no-pivot", "Use MS_MOVE and chroot instead of pivot_root, for a root on a ramdisk"))
        .arg(cli::flag("no-new-keyring", "Keep the caller's session keyring"))
        .arg(
            cli::value("preserve-fds", "N", "Pass on the caller's descriptors 3 to N+2")
                .value_parser(clap::value_parser!(u32).range(..1024))
                .default_value("0"),
        )
}

pub(super) fn run(context: &Context, matches: &ArgMatches) -> Result<u8> {
    let id = cli::text(matches, "id");
    let mut made = make(context, id, matches, true).context("create failed")?;
    if let Err(error) = made.pass_on(matches) {
        made.take_back();
        return Err(error.context("create failed"));
    }
    fault::point(Point::CreatePassedOn);
    Ok(0)
}

/// A container that stands at its last step.
#[derive(Debug)]
pub(super) struct Made {
    pub(super) plan: container::Plan,
    pub(super) process: Process,
    pub(super) state: State,
    /// Until somebody else has removed it. By its name it might be another's by then.
    dir: Option<StateDir>,
}

/// Makes the container. Whatever fails, nothing of it stays.
pub(super) fn make(context: &Context, id: &str, matches: &ArgMatches, gate: bool) -> Result<Made> {
    let bundle = matches.get_one::<PathBuf>("bundle").map_or(Path::new("."), PathBuf::as_path);
    let mut bundle = bundle::load(bundle, matches.get_one("config").map(PathBuf::as_path))?;
    if bundle.spec.process().is_none() && !gate {
        bail!("process: process property must not be empty");
    }
    keep_descriptors(matches, &mut bundle.spec)?;
    let notifies = notify::caller().is_some();
    if notifies {
        notify::add_to(&mut bundle.spec, &context.root.join(id))?;
    }
    let Bundle { dir: folder, text, spec } = bundle;
    let mut plan = container::plan(spec, &folder, id, context.manager)?;
    plan.limits.strict = context.strict;
    check_terminal(matches, plan.process.terminal, gate)?;
    let agent = Agent::connect(&plan.process)?;
    let dir = StateDir::create(&context.root, id)?;
    fault::point(Point::CreateFolder);
    let mut state = new_state(id, folder, &plan, matches);
    let owner = plan.cgroup_owner();
    let begun = dir.write(&text, &state);
    let begun = begun.and_then(|()| if notifies { notify::make_folder(&dir.path) } else { Ok(()) });
    fault::point(Point::CreateState);
    let begun = begun.and_then(|()| plan.cgroups.create(&plan.limits, owner));
    let begun = begun.and_then(|door| {
        if plan.cgroups.is_reduced() {
            state.cgroups = plan.cgroups.clone();
            dir.replace_state(&state).inspect_err(|_| drop(plan.cgroups.remove()))?;
        }
        Ok(door)
    });
    if state.shares_pids && !plan.cgroups.has_any() {
        log::warn(
            "a container with neither a cgroup nor a pid namespace of its own: its processes cannot be found \
             to be killed. Such configuration is strongly discouraged",
        );
    }
    let door = match begun {
        Ok(door) => door,
        // Nothing of it is there but the folder: whatever is in the cgroup's place is not ours.
        Err(error) => {
            remove_state(&state, dir, plan.spec.hooks().as_ref());
            return Err(error.context("unable to start container process"));
        }
    };
    fault::point(Point::CreateCgroups);
    let made = make_in(&dir, &mut plan, &state, (door, agent), matches, gate);
    match made {
        Ok(process) => Ok(Made { plan, process, state, dir: Some(dir) }),
        Err(error) => {
            let _ = super::delete::kill_rest(&state); // the removal of the cgroups will tell
            remove_all(&state, dir, plan.spec.hooks().as_ref());
            Err(error)
        }
    }
}

fn make_in(
    dir: &StateDir,
    plan: &mut container::Plan,
    state: &State,
    (door, agent): (Door, Option<Agent>),
    matches: &ArgMatches,
    gate: bool,
) -> Result<Process> {
    let options = Options {
        id: state.id.clone(),
        bundle: state.bundle.clone(),
        no_pivot: matches.get_flag("no-pivot"),
        no_new_keyring: matches.get_flag("no-new-keyring"),
        gate,
    };
    let for_hooks = |status, pid| for_hooks(state, status, pid);
    spawn::spawn(plan, &options, dir, door, agent, &for_hooks).context("unable to start container process")
}

/// Sends terminal and pidfd where they were asked for, and writes the pid file. `kind` tells whose pidfd it
/// is: `standard` for a container's init, `setns` for what `exec` has made.
pub(super) fn pass_on(process: &Process, matches: &ArgMatches, kind: &str) -> Result<()> {
    if let (Some(path), Some(terminal)) = (matches.get_one::<PathBuf>("console-socket"), &process.terminal) {
        send(path, b"/dev/ptmx", terminal).context("--console-socket")?;
    }
    if let Some(path) = matches.get_one::<PathBuf>("pidfd-socket") {
        send(path, kind.as_bytes(), &process.pidfd).context("--pidfd-socket")?;
    }
    match matches.get_one::<PathBuf>("pid-file") {
        Some(path) => write_pid_file(path, process.pid.as_raw()),
        None => Ok(()),
    }
}

fn send(path: &Path, name: &[u8], fd: &std::os::fd::OwnedFd) -> Result<()> {
    let socket = UnixStream::connect(path).with_context(|| format!("connect to {path:?}"))?;
    socket::send(&socket, name, Some(fd)).with_context(|| format!("send to {path:?}"))
}

/// Digits without a line end, under the final name only when complete: callers poll for it.
fn write_pid_file(path: &Path, pid: i32) -> Result<()> {
    let context = || format!("--pid-file: write {path:?}");
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().with_context(context)?);
    let draft = path.with_file_name(name);
    std::fs::write(&draft, pid.to_string()).with_context(context)?;
    fault::point(Point::CreatePidFileDraft);
    std::fs::rename(&draft, path).with_context(context)
}

fn new_state(id: &str, bundle: PathBuf, plan: &container::Plan, matches: &ArgMatches) -> State {
    let all = [
        CloneFlags::CLONE_NEWNS,
        CloneFlags::CLONE_NEWCGROUP,
        CloneFlags::CLONE_NEWUTS,
        CloneFlags::CLONE_NEWIPC,
        CloneFlags::CLONE_NEWUSER,
        CloneFlags::CLONE_NEWPID,
        CloneFlags::CLONE_NEWNET,
        container::namespaces::NEWTIME,
    ];
    State {
        oci_version: plan.spec.version().clone(),
        id: id.to_owned(),
        bundle,
        rootfs: plan.rootfs.path.clone(),
        created: state_dir::now(),
        annotations: plan.spec.annotations().iter().flatten().map(|(k, v)| (k.clone(), v.clone())).collect(),
        cgroups: plan.cgroups.clone(),
        intel_rdt: plan.intel_rdt.as_ref().map(|rdt| rdt.groups.clone()),
        namespaces: all.iter().filter(|kind| plan.namespaces.has(**kind)).map(CloneFlags::bits).sum(),
        shares_pids: !plan.namespaces.is_new(CloneFlags::CLONE_NEWPID),
        waits_itself: plan
            .spec
            .hooks()
            .as_ref()
            .is_some_and(|hooks| hooks.start_container().as_ref().is_some_and(|list| !list.is_empty())),
        new_keyring: !matches.get_flag("no-new-keyring"),
    }
}

/// runtime.md#state, as hooks read it.
pub(super) fn for_hooks(state: &State, status: Status, pid: i32) -> String {
    let mut json = json!({
        "ociVersion": state.oci_version,
        "id": state.id,
        "status": status,
        "bundle": state.bundle,
        "annotations": state.annotations,
    });
    if pid > 0 {
        json["pid"] = pid.into();
    }
    json.to_string()
}

/// Marks what the caller leaked into us close-on-exec; counts systemd's sockets (sd_listen_fds(3)) to
/// what is kept.
fn keep_descriptors(matches: &ArgMatches, spec: &mut Spec) -> Result<()> {
    let listen = listen_fds();
    let keep = listen + matches.get_one::<u32>("preserve-fds").copied().unwrap_or(0);
    check_descriptors(keep)?;
    if listen > 0
        && let Some(process) = spec.process_mut()
    {
        let env = process.env_mut().get_or_insert_default();
        env.push(format!("LISTEN_FDS={listen}"));
        env.push("LISTEN_PID=1".to_owned());
        env.extend(std::env::var("LISTEN_FDNAMES").map(|names| format!("LISTEN_FDNAMES={names}")));
    }
    Ok(())
}

/// Refuses descriptors that are not there, and lets none beyond them through.
pub(super) fn check_descriptors(keep: u32) -> Result<()> {
    for fd in 3..3 + keep {
        let path = format!("/proc/self/fd/{fd}");
        std::fs::symlink_metadata(&path)
            .with_context(|| format!("--preserve-fds: unable to stat preserved-fd {fd} (of {keep} fds)"))?;
    }
    cloexec_from(3 + keep).context("close descriptors on exec")
}

fn listen_fds() -> u32 {
    let for_us = std::env::var("LISTEN_PID").is_ok_and(|pid| pid == std::process::id().to_string());
    let count = std::env::var("LISTEN_FDS").ok().and_then(|count| count.parse().ok());
    count.filter(|_| for_us).unwrap_or(0)
}

fn check_terminal(matches: &ArgMatches, terminal: bool, gate: bool) -> Result<()> {
    let detached = gate || matches.get_flag("detach");
    let socket = matches.get_one::<PathBuf>("console-socket").is_some();
    if terminal && detached && !socket {
        bail!("cannot allocate tty if runtime will detach without setting console socket");
    }
    if socket && !(terminal && detached) {
        bail!("cannot use console socket if runtime will not detach or allocate tty");
    }
    Ok(())
}

impl Made {
    /// See [`pass_on`].
    pub(super) fn pass_on(&self, matches: &ArgMatches) -> Result<()> {
        if let Some(path) = &self.plan.annotations.pidfd_receiver {
            send(path, b"standard", &self.process.pidfd).context("annotations: run.oci.pidfd_receiver")?;
        }
        pass_on(&self.process, matches, "standard")
    }

    /// Where it can say that it is ready, if somebody wants to know.
    pub(super) fn listener(&self) -> Result<Option<Listener>> {
        self.dir.as_ref().map_or(Ok(None), |dir| Listener::bind(&dir.path))
    }

    /// Lets others at the container while `work` is done, which may remove it.
    pub(super) fn unlocked_while<T>(&mut self, work: impl FnOnce(&Self) -> T) -> Result<T> {
        let Some(dir) = self.dir.take() else { return Ok(work(self)) };
        let (dir, done) = dir.unlocked_while(|| work(self))?;
        self.dir = dir;
        Ok(done)
    }

    /// Lets others at the container for good.
    pub(super) fn unlock(&mut self) {
        self.dir = None;
    }

    /// Kills it and removes everything, after a failure.
    pub(super) fn take_back(&mut self) {
        self.process.kill_and_reap();
        self.remove();
    }

    /// Removes everything of a container that has ended, if nobody else has.
    pub(super) fn remove(&mut self) {
        let Some(dir) = self.dir.take() else { return };
        let _ = super::delete::kill_rest(&self.state); // the removal of the cgroups will tell
        remove_all(&self.state, dir, self.plan.spec.hooks().as_ref());
    }
}

/// Cgroups, then the poststop hooks, then the folder: what a kill in between leaves is found again by
/// `delete --force`.
pub(super) fn remove_all(state: &State, dir: StateDir, hooks: Option<&oci_spec::runtime::Hooks>) {
    if let Err(error) = state.cgroups.remove() {
        log::warn(&format!("{error:#}"));
    }
    if let Some(Err(error)) = state.intel_rdt.as_ref().map(Groups::remove) {
        log::warn(&format!("{error:#}"));
    }
    remove_state(state, dir, hooks);
}

/// The part of [`remove_all`] that follows when the cgroups are gone.
fn remove_state(state: &State, dir: StateDir, hooks: Option<&oci_spec::runtime::Hooks>) {
    if let Some(number) = dir.mount()
        && let Err(error) = rootfs::detach_from_host(&state.rootfs, number)
    {
        log::warn(&format!("{error:#}"));
    }
    fault::point(Point::DeleteUnmounted);
    if let Some(hooks) = hooks {
        let json = for_hooks(state, Status::Stopped, 0);
        let output = state.hook_output().unwrap_or_else(|error| {
            log::warn(&format!("{error:#}")); // the hooks run all the same
            hooks::Output::default()
        });
        let around = Surroundings { state: &json, cwd: &state.bundle, output: &output };
        for failure in hooks::run_all("poststop", hooks.poststop(), around) {
            log::warn(&format!("{failure:#}")); // "MUST log a warning", and go on
        }
    }
    fault::point(Point::DeleteHooks);
    if let Err(error) = dir.remove() {
        log::warn(&format!("{error:#}"));
    }
}

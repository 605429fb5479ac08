//! `exec`: one more process in a running container.

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use clap::{Arg, ArgAction, ArgMatches, Command};
use nix::sched::CloneFlags;
use oci_spec::runtime::{Capabilities, Capability, LinuxCapabilitiesBuilder, Process};

use super::create;
use crate::bundle;
use crate::cgroup::Below;
use crate::cli::{self, Context};
use crate::container::{capabilities, process};
use crate::fault::{self, Point};
use crate::launch::agent::Agent;
use crate::launch::join;
use crate::launch::supervise::{self, Signals};
use crate::state_dir::{self, Status};

pub(super) fn flags(command: Command) -> Command {
    let list = |name: &'static str, placeholder: &'static str, help: &'static str| {
        cli::value(name, placeholder, help).action(ArgAction::Append)
    };
    command
        .about("Run one more process in a running container")
        .arg(cli::path("console-socket", "A unix socket that gets the terminal's other end"))
        .arg(cli::path("pidfd-socket", "A unix socket that gets a pidfd of the process"))
        .arg(cli::path("pid-file", "Write the process's pid here"))
        .arg(cli::value("cwd", "DIR", "Its working folder"))
        .arg(list("env", "NAME=VALUE", "Set a variable").short('e'))
        .arg(cli::flag("tty", "Give it a terminal").short('t'))
        .arg(cli::value("user", "UID[:GID]", "Its ids, by number").short('u'))
        .arg(list("additional-gids", "GID", "One more group").short('g'))
        .arg(cli::path("process", "Take the process from this JSON file").short('p'))
        .arg(cli::flag("detach", "Do not wait for its end").short('d'))
        .arg(cli::value("process-label", "LABEL", "Its SELinux label"))
        .arg(cli::value("apparmor", "PROFILE", "Its AppArmor profile"))
        .arg(cli::flag("no-new-privs", "Set no_new_privs"))
        .arg(list("cap", "NAME", "One more capability").short('c'))
        .arg(
            cli::value("preserve-fds", "N", "Pass on the caller's descriptors 3 to N+2")
                .value_parser(clap::value_parser!(u32).range(..1024))
                .default_value("0"),
        )
        .arg(list("cgroup", "[CONTROLLER:]PATH", "Run it in this cgroup below the container's"))
        .arg(cli::flag("ignore-paused", "Wait with the container instead of refusing a paused one"))
        .arg(cli::id())
        .arg(
            Arg::new("args")
                .value_name("COMMAND")
                .num_args(0..)
                .trailing_var_arg(true)
                .allow_hyphen_values(true)
                .help("The command and its arguments"),
        )
}

pub(super) fn run(context: &Context, matches: &ArgMatches) -> Result<u8> {
    exec(context, matches).context("exec failed")
}

fn exec(context: &Context, matches: &ArgMatches) -> Result<u8> {
    let id = cli::text(matches, "id");
    let state = state_dir::load(&context.root, id)?;
    let Some(init) = state_dir::init(&context.root, id)? else {
        bail!("cannot exec in a stopped container");
    };
    let status = state_dir::status(&context.root, &state, Some(&init));
    if status == Status::Paused && !matches.get_flag("ignore-paused") {
        bail!("cannot exec in a paused container (use --ignore-paused to override)");
    }
    let spec = state_dir::load_spec(&context.root, id)?;
    let process = wanted(matches, spec.process().as_ref())?;
    capabilities::warn_of_what_is_left_out(process.capabilities().as_ref());
    let mut plan = process::plan(&process, spec.linux().as_ref(), &state.asked()?)?;
    let namespaces = CloneFlags::from_bits_retain(state.namespaces);
    plan.let_groups_stay(namespaces.contains(CloneFlags::CLONE_NEWUSER));
    let detach = matches.get_flag("detach");
    let socket = matches.get_one::<PathBuf>("console-socket").is_some();
    if plan.terminal && detach && !socket {
        bail!("cannot allocate tty if runtime will detach without setting console socket");
    }
    if socket && !(plan.terminal && detach) {
        bail!("cannot use console socket if runtime will not detach or allocate tty");
    }
    create::check_descriptors(matches.get_one::<u32>("preserve-fds").copied().unwrap_or(0))?;
    let agent = Agent::connect(&plan)?;
    let below = matches.get_many::<String>("cgroup").unwrap_or_default();
    let door = state.cgroups.open(&Below::parse(below.map(String::as_str))?)?;
    let signals = if detach { None } else { Some(Signals::hold()?) };
    let shown = create::for_hooks(&state, status, init.pid.as_raw());
    let process = join::join(&state, &init, &plan, &door, agent, &shown)
        .context("unable to start container process")?;
    fault::point(Point::ExecReady);
    // The pid file is there once nothing but the last step is left; engines take its absence for failure.
    let ready = if detach { Ok(()) } else { supervise::keep_line_ends(&process) };
    let started = ready
        .and_then(|()| create::pass_on(&process, matches, "setns"))
        .inspect(|()| fault::point(Point::ExecPassedOn))
        .and_then(|()| process.release(&plan).context("unable to start container process"));
    if let Err(error) = started {
        process.kill_and_reap();
        if let Some(path) = matches.get_one::<PathBuf>("pid-file") {
            let _ = std::fs::remove_file(path); // may not have been written
        }
        return Err(error);
    }
    fault::point(Point::ExecReleased);
    match signals {
        Some(signals) => supervise::wait(&process, &signals, None),
        None => Ok(0),
    }
}

/// The process asked for: the file's as it is, or the container's with what the flags change.
fn wanted(matches: &ArgMatches, base: Option<&Process>) -> Result<Process> {
    let args: Vec<String> = matches.get_many("args").into_iter().flatten().cloned().collect();
    if let Some(path) = matches.get_one::<PathBuf>("process") {
        if !args.is_empty() {
            bail!("--process and a command cannot be given both");
        }
        return from_file(path, base);
    }
    if args.is_empty() {
        bail!("process args cannot be empty: give a command, or --process FILE");
    }
    let mut process =
        base.cloned().context("the container has no process to take defaults from: use --process")?;
    process.set_args(Some(args));
    process.set_terminal(Some(matches.get_flag("tty")));
    if !matches.get_flag("tty") {
        process.set_console_size(None);
    }
    if let Some(cwd) = matches.get_one::<String>("cwd") {
        process.set_cwd(PathBuf::from(cwd));
    }
    let env = process.env_mut().get_or_insert_default();
    env.extend(matches.get_many::<String>("env").into_iter().flatten().cloned());
    if let Some(label) = matches.get_one::<String>("process-label") {
        process.set_selinux_label(Some(label.clone()));
    }
    if let Some(profile) = matches.get_one::<String>("apparmor") {
        process.set_apparmor_profile(Some(profile.clone()));
    }
    if matches.get_flag("no-new-privs") {
        process.set_no_new_privileges(Some(true));
    }
    change_user(&mut process, matches)?;
    add_capabilities(&mut process, matches)?;
    Ok(process)
}

fn from_file(path: &PathBuf, base: Option<&Process>) -> Result<Process> {
    let text = std::fs::read(path).with_context(|| format!("read --process {path:?}"))?;
    let mut process = bundle::parse_process(&text).with_context(|| format!("--process {path:?}"))?;
    // What the file leaves out is as in the container.
    if let Some(base) = base {
        if process.capabilities().is_none() {
            process.set_capabilities(base.capabilities().clone());
        }
        if process.apparmor_profile().is_none() {
            process.set_apparmor_profile(base.apparmor_profile().clone());
        }
        if process.selinux_label().is_none() {
            process.set_selinux_label(base.selinux_label().clone());
        }
        if process.rlimits().is_none() {
            process.set_rlimits(base.rlimits().clone());
        }
        if process.scheduler().is_none() {
            process.set_scheduler(base.scheduler().clone());
        }
        if process.io_priority().is_none() {
            process.set_io_priority(*base.io_priority());
        }
        if process.exec_cpu_affinity().is_none() {
            process.set_exec_cpu_affinity(base.exec_cpu_affinity().clone());
        }
    }
    Ok(process)
}

/// Digits only: a name could be one of the image's making (CVE-2016-3697, CVE-2026-30892).
fn change_user(process: &mut Process, matches: &ArgMatches) -> Result<()> {
    let number = |flag: &str, text: &str| -> Result<u32> {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse()
            .ok()
            .filter(|id| digits && *id != u32::MAX)
            .with_context(|| format!("{flag}: {text:?} is not an id"))
    };
    let user = process.user_mut();
    if let Some(wanted) = matches.get_one::<String>("user") {
        let (uid, gid) =
            wanted.split_once(':').map_or((wanted.as_str(), None), |(uid, gid)| (uid, Some(gid)));
        user.set_uid(number("--user", uid)?);
        if let Some(gid) = gid {
            user.set_gid(number("--user", gid)?);
        }
    }
    if let Some(more) = matches.get_many::<String>("additional-gids") {
        let groups = user.additional_gids_mut().get_or_insert_default();
        for gid in more {
            groups.push(number("--additional-gids", gid)?);
        }
    }
    Ok(())
}

/// To bounding, effective and permitted; ambient only if the container has inheritable ones; never
/// inheritable (CVE-2022-29162).
fn add_capabilities(process: &mut Process, matches: &ArgMatches) -> Result<()> {
    let Some(names) = matches.get_many::<String>("cap") else { return Ok(()) };
    let mut more = Capabilities::new();
    for name in names {
        if capabilities::bit(name).is_none() {
            bail!("--cap: unknown capability {name:?}");
        }
        more.insert(serde_json::from_value::<Capability>(name.as_str().into())?);
    }
    let old = process.capabilities().clone().unwrap_or_default();
    let with =
        |set: &Option<Capabilities>| -> Capabilities { set.iter().flatten().chain(&more).copied().collect() };
    let inheritable = old.inheritable().clone().unwrap_or_default();
    let ambient =
        if inheritable.is_empty() { old.ambient().clone().unwrap_or_default() } else { with(old.ambient()) };
    let sets = LinuxCapabilitiesBuilder::default()
        .bounding(with(old.bounding()))
        .effective(with(old.effective()))
        .permitted(with(old.permitted()))
        .inheritable(inheritable)
        .ambient(ambient)
        .build()?;
    process.set_capabilities(Some(sets));
    Ok(())
}

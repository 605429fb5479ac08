//! `create`: everything of `run` but the running. The flags of both stand here.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail, ensure};
use jiff::Timestamp;
use oci_spec::image::Config;

use super::pull::{self, PullPolicy};
use crate::bundle::capabilities;
use crate::cli::Context;
use crate::container::record::{Mount, Network, Process, Record, Resources, Root, Seccomp, Security, Source};
use crate::container::{
    Container, check_name, files, name, new_id, oci_runtime, short_id, signal, size, volume,
};
use crate::output;
use crate::registry::RegistryArgs;
use crate::store::{LocalImage, Store};

/// The environment that docker gives every container.
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Less than this and not even the runtime's own start fits in.
const MEMORY_LEAST: i64 = 6 * 1024 * 1024;
/// Seconds between the stop signal and SIGKILL.
const STOP_TIMEOUT: u64 = 10;

/// What a container is made of.
#[derive(Debug, clap::Args)]
pub(crate) struct ContainerArgs {
    /// Keep standard input open
    #[arg(short, long)]
    interactive: bool,
    /// Give the container a terminal
    #[arg(short, long)]
    tty: bool,
    /// Remove the container when it ends
    #[arg(long)]
    rm: bool,
    /// Name the container
    #[arg(long)]
    name: Option<String>,
    /// Set an environment variable; without a value it is taken from here
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// Read environment variables from a file
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,
    /// The working directory inside the container
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<String>,
    /// The user, by name or number
    #[arg(short, long, value_name = "USER[:GROUP]")]
    user: Option<String>,
    /// Mount a folder of the host, a named volume, or a new anonymous volume. Options: ro, rw,
    /// nocopy, private, rprivate, slave, rslave
    #[arg(short, long, value_name = "[SOURCE:]DIR[:OPTIONS]")]
    volume: Vec<String>,
    /// Mount an empty file system in memory
    #[arg(long, value_name = "DIR[:OPTIONS]")]
    tmpfs: Vec<String>,
    /// Run this program instead of the image's entry point; an empty text runs COMMAND alone
    #[arg(long, value_name = "PROGRAM")]
    entrypoint: Option<String>,
    /// Make the root filesystem read-only
    #[arg(long)]
    read_only: bool,
    /// Limit the memory: a number of bytes, or one with b, k, m or g
    #[arg(short, long, value_name = "BYTES")]
    memory: Option<String>,
    /// Limit memory and swap together; -1 for unlimited swap, default twice the memory
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true)]
    memory_swap: Option<String>,
    /// Limit the processors, as 1.5
    #[arg(long, value_name = "NUMBER")]
    cpus: Option<String>,
    /// Limit the number of processes; -1 for unlimited
    #[arg(long, value_name = "NUMBER", allow_hyphen_values = true)]
    pids_limit: Option<i64>,
    /// Add a capability, or ALL
    #[arg(long, value_name = "NAME")]
    cap_add: Vec<String>,
    /// Drop a capability, or ALL
    #[arg(long, value_name = "NAME")]
    cap_drop: Vec<String>,
    /// All capabilities and devices, no seccomp, nothing hidden: root on the host in all but name
    #[arg(long)]
    privileged: bool,
    /// The network: `none` has loopback only, there are no bridges and ports yet
    #[arg(long, visible_alias = "net", value_enum, default_value_t = Network::None)]
    network: Network,
    /// The host name inside; default the container's short id, or the host's with --network host
    #[arg(short = 'h', long, value_name = "NAME")]
    hostname: Option<String>,
    /// Print help
    #[arg(long, action = clap::ArgAction::Help)]
    help: Option<bool>,
    /// Attach a label
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    label: Vec<String>,
    /// The signal that stops the container
    #[arg(long, value_name = "SIGNAL")]
    stop_signal: Option<String>,
    /// Seconds before a container that is told to stop is killed
    #[arg(long, value_name = "SECONDS")]
    stop_timeout: Option<u64>,
    /// When to pull the image
    #[arg(long, value_enum, default_value_t)]
    pull: PullPolicy,
    /// Pull for this platform instead of this machine's
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    platform: Option<String>,
    /// Do not print what the pull does
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    registry: RegistryArgs,
    /// no-new-privileges, seccomp=unconfined or seccomp=FILE
    #[arg(long, value_name = "OPTION")]
    security_opt: Vec<String>,
    /// The OCI runtime, a path or a name on PATH [env: MANAGER_RUNTIME]; default `runtime` beside
    /// this program
    #[arg(long, value_name = "PROGRAM")]
    runtime: Option<String>,
    /// Write the container's id to a new file
    #[arg(long, value_name = "FILE")]
    cidfile: Option<PathBuf>,
    /// IMAGE is a folder to be used as the root filesystem, and written to
    #[arg(long)]
    rootfs: bool,
    /// The image: a reference, or its id
    image: String,
    /// The program to run, and its arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

/// Make a container without starting it
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    container: ContainerArgs,
}

/// Makes a container and prints its id.
pub(crate) fn run(args: Args, context: &Context) -> Result<u8> {
    let container = create(context, &args.container, true)?;
    output::print(&format!("{}\n", container.record.id))?;
    Ok(0)
}

/// Makes a container; `foreground` when whoever makes it is going to be its standard input.
pub(crate) fn create(context: &Context, args: &ContainerArgs, foreground: bool) -> Result<Container> {
    // All that can be wrong with the flags is found before anything is pulled or made.
    let settings = Settings::check(args)?;
    if let Some(file) = &args.cidfile {
        ensure!(
            !file.exists(),
            "container ID file found, make sure the other container isn't running or delete {}",
            file.display()
        );
    }
    // Until `containers/ID/image` says that the image is in use, no sweep may take it away.
    let _held = Store::open(&context.root)?.hold()?;
    let image = find_image(context, args)?;
    let record = settings.record(context, args, image, foreground)?;
    let container = Container::create(context, record)?;
    if let Some(file) = &args.cidfile
        && let Err(error) = write_cidfile(file, &container.record.id)
    {
        crate::container::remove::remove(context, &container, false)?;
        return Err(error);
    }
    Ok(container)
}

fn write_cidfile(file: &std::path::Path, id: &str) -> Result<()> {
    let made = OpenOptions::new().write(true).create_new(true).open(file);
    made.and_then(|mut made| made.write_all(id.as_bytes()))
        .with_context(|| format!("write {}", file.display()))
}

/// The image to run; none with `--rootfs`.
fn find_image(context: &Context, args: &ContainerArgs) -> Result<Option<LocalImage>> {
    if args.rootfs {
        return Ok(None);
    }
    let platform = args.platform.as_deref();
    pull::ensure(context, &args.image, args.pull, platform, &args.registry, args.quiet).map(Some)
}

/// Flags that have been read and found right.
struct Settings {
    env: Vec<String>,
    labels: BTreeMap<String, String>,
    mounts: Vec<Mount>,
    resources: Resources,
    security: Security,
    stop_signal: Option<i32>,
    runtime: PathBuf,
}

impl Settings {
    fn check(args: &ContainerArgs) -> Result<Self> {
        if let Some(name) = &args.name {
            check_name(name, "container")?;
        }
        if let Some(hostname) = &args.hostname {
            let valid = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
            let fits = (1..=64).contains(&hostname.len());
            ensure!(fits && hostname.bytes().all(valid), "invalid hostname: {hostname:?}");
        }
        let mounts = args.volume.iter().map(|text| volume::parse(text));
        let mounts = mounts.chain(args.tmpfs.iter().map(|text| volume::parse_tmpfs(text)));
        let mounts: Vec<Mount> = mounts.collect::<Result<_>>()?;
        for (index, mount) in mounts.iter().enumerate() {
            let twice = mounts[..index].iter().any(|other| other.destination == mount.destination);
            ensure!(!twice, "duplicate mount point: {}", mount.destination);
        }
        Ok(Self {
            env: environment(args)?,
            labels: args.label.iter().map(|label| split(label)).collect(),
            mounts,
            resources: resources(args)?,
            security: security(args)?,
            stop_signal: args.stop_signal.as_deref().map(signal::parse).transpose()?,
            runtime: oci_runtime::find(args.runtime.as_deref())?,
        })
    }

    /// Puts flags and image together.
    fn record(
        self,
        context: &Context,
        args: &ContainerArgs,
        image: Option<LocalImage>,
        foreground: bool,
    ) -> Result<Record> {
        let id = new_id()?;
        let name = args.name.clone().unwrap_or_else(|| name::invent(context, &id));
        let config = image.as_ref().and_then(|image| image.config.config().clone()).unwrap_or_default();
        let root = match image {
            Some(image) => Root::Image {
                name: args.image.clone(),
                reference: image.name,
                manifest: Box::new(image.manifest),
                id: image.id,
                layers: image.layers,
            },
            None => Root::Folder(
                fs::canonicalize(&args.image).with_context(|| format!("--rootfs {}", args.image))?,
            ),
        };
        let hostname = hostname(args, &id);
        let mut labels: BTreeMap<String, String> =
            config.labels().clone().unwrap_or_default().into_iter().collect();
        labels.extend(self.labels);
        let stop_signal = match (self.stop_signal, config.stop_signal()) {
            (Some(number), _) => number,
            (None, Some(text)) => signal::parse(text).context("the image's stop signal")?,
            (None, None) => libc::SIGTERM,
        };
        Ok(Record {
            process: process(args, &config, &hostname, &self.env, foreground)?,
            mounts: with_image_volumes(self.mounts, &config)?,
            id,
            name,
            created: Timestamp::now().to_string(),
            root,
            labels,
            hostname,
            network: args.network,
            read_only: args.read_only,
            resources: self.resources,
            security: self.security,
            stop_signal,
            stop_timeout: args.stop_timeout.unwrap_or(STOP_TIMEOUT),
            auto_remove: args.rm,
            runtime: self.runtime,
            cidfile: args.cidfile.clone(),
        })
    }
}

fn hostname(args: &ContainerArgs, id: &str) -> String {
    let host = || nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
    let given = args.hostname.clone().or_else(|| host().filter(|_| args.network == Network::Host));
    given.unwrap_or_else(|| short_id(id).to_owned())
}

/// [conversion.md](https://github.com/opencontainers/image-spec/blob/main/conversion.md): a command
/// line replaces the image's Cmd, an entry point both.
fn process(
    args: &ContainerArgs,
    image: &Config,
    hostname: &str,
    env: &[String],
    foreground: bool,
) -> Result<Process> {
    let of_image = |words: &Option<Vec<String>>| words.clone().unwrap_or_default();
    let (entrypoint, mut command) = match &args.entrypoint {
        Some(program) if program.is_empty() => (Vec::new(), Vec::new()),
        Some(program) => (vec![program.clone()], Vec::new()),
        None => (of_image(image.entrypoint()), of_image(image.cmd())),
    };
    if !args.command.is_empty() {
        command.clone_from(&args.command);
    }
    let words: Vec<String> = entrypoint.iter().chain(&command).cloned().collect();
    ensure!(!words.is_empty(), "no command specified: neither here nor in {}", args.image);
    let mut all = Vec::new();
    let mut own = vec![PATH.to_owned(), format!("HOSTNAME={hostname}")];
    if args.tty {
        own.push("TERM=xterm".into());
    }
    for variable in own.iter().chain(image.env().iter().flatten()).chain(env) {
        set_variable(&mut all, variable);
    }
    Ok(Process {
        args: words,
        entrypoint,
        command,
        env: all,
        user: args.user.clone().or_else(|| image.user().clone()).unwrap_or_default(),
        cwd: args.workdir.clone().or_else(|| image.working_dir().clone()).unwrap_or_default(),
        terminal: args.tty,
        open_stdin: args.interactive,
        stdin_once: args.interactive && foreground,
    })
}

/// Sets `NAME=value` in place of an earlier one; a NAME alone removes it.
pub(crate) fn set_variable(all: &mut Vec<String>, variable: &str) {
    let (name, value) =
        variable.split_once('=').map_or((variable, None), |(name, value)| (name, Some(value)));
    let place = all.iter().position(|other| other.split('=').next() == Some(name));
    match (place, value) {
        (Some(place), Some(_)) => variable.clone_into(&mut all[place]),
        (Some(place), None) => drop(all.remove(place)),
        (None, Some(_)) => all.push(variable.to_owned()),
        (None, None) => {}
    }
}

/// The image's VOLUMEs, where nothing else is mounted.
fn with_image_volumes(mut mounts: Vec<Mount>, image: &Config) -> Result<Vec<Mount>> {
    let mut places: Vec<&String> = image.volumes().iter().flatten().collect();
    places.sort();
    for place in places {
        if mounts.iter().all(|mount| mount.destination.trim_end_matches('/') != place.trim_end_matches('/')) {
            mounts.push(volume::of_image(place).context("the image's VOLUME")?);
        }
    }
    mounts.sort_by_key(|mount| PathBuf::from(&mount.destination).components().count());
    Ok(mounts)
}

/// `--env-file`, then `-e`. A name without a value is taken from our own environment.
fn environment(args: &ContainerArgs) -> Result<Vec<String>> {
    let mut all = Vec::new();
    for file in &args.env_file {
        let text = fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
        for line in
            text.lines().map(str::trim_start).filter(|line| !line.is_empty() && !line.starts_with('#'))
        {
            let name = line.split('=').next().unwrap_or_default();
            let valid = !name.is_empty() && !name.contains(char::is_whitespace);
            ensure!(valid, "{}: invalid environment variable: {line:?}", file.display());
            all.extend(given_or_inherited(line));
        }
    }
    all.extend(variables(&args.env)?);
    Ok(all)
}

/// `-e` flags as `NAME=value`.
pub(crate) fn variables(given: &[String]) -> Result<Vec<String>> {
    let mut all = Vec::new();
    for variable in given {
        ensure!(
            !variable.is_empty() && !variable.starts_with('='),
            "invalid environment variable: {variable:?}"
        );
        all.extend(given_or_inherited(variable));
    }
    Ok(all)
}

/// A variable without a value that we do not have either is not set: as docker does.
fn given_or_inherited(variable: &str) -> Option<String> {
    if variable.contains('=') {
        return Some(variable.to_owned());
    }
    std::env::var(variable).ok().map(|value| format!("{variable}={value}"))
}

fn split(label: &str) -> (String, String) {
    let (name, value) = label.split_once('=').unwrap_or((label, ""));
    (name.to_owned(), value.to_owned())
}

fn resources(args: &ContainerArgs) -> Result<Resources> {
    let memory = args.memory.as_deref().map(size::parse_bytes).transpose()?.filter(|&bytes| bytes != 0);
    let memory_swap = match args.memory_swap.as_deref() {
        Some("-1") => Some(-1),
        given => given.map(size::parse_bytes).transpose()?.filter(|&bytes| bytes != 0),
    };
    ensure!(memory.is_none_or(|bytes| bytes >= MEMORY_LEAST), "minimum memory limit allowed is 6MB");
    if let Some(swap) = memory_swap {
        let memory = memory.context("--memory-swap needs --memory")?;
        ensure!(
            swap == -1 || swap >= memory,
            "--memory-swap is memory and swap together: it cannot be less than --memory"
        );
        ensure!(
            crate::container::cgroup::limits_swap(),
            "--memory-swap: this kernel does not account for swap"
        );
    }
    let pids = args.pids_limit.filter(|&limit| limit != 0);
    ensure!(pids.is_none_or(|limit| limit >= -1), "invalid --pids-limit {}", pids.unwrap_or(0));
    let nano_cpus = args.cpus.as_deref().map(size::parse_cpus).transpose()?;
    let here = i64::try_from(std::thread::available_parallelism().map_or(1, usize::from)).unwrap_or(i64::MAX);
    if let Some(cpus) = nano_cpus {
        ensure!(
            cpus <= here.saturating_mul(1_000_000_000),
            "range of CPUs is from 0.01 to {here}.00, as there are only {here} CPUs available"
        );
    }
    Ok(Resources { memory, memory_swap, nano_cpus, pids })
}

fn security(args: &ContainerArgs) -> Result<Security> {
    let mut security = Security {
        privileged: args.privileged,
        cap_add: args.cap_add.clone(),
        cap_drop: args.cap_drop.clone(),
        capabilities: capabilities::set(&args.cap_add, &args.cap_drop, args.privileged)?,
        no_new_privileges: false,
        seccomp: Seccomp::Default,
        options: args.security_opt.clone(),
    };
    for option in &args.security_opt {
        match option.split_once(['=', ':']).unwrap_or((option, "")) {
            ("no-new-privileges", "" | "true") => security.no_new_privileges = true,
            ("no-new-privileges", "false") => security.no_new_privileges = false,
            ("seccomp", "unconfined") => security.seccomp = Seccomp::Unconfined,
            ("seccomp", "builtin") => security.seccomp = Seccomp::Default,
            ("seccomp", file) if !file.is_empty() => {
                let text = files::read(file.as_ref())?
                    .with_context(|| format!("seccomp profile {file} does not exist"))?;
                let profile =
                    serde_json::from_slice(&text).with_context(|| format!("seccomp profile {file}"))?;
                let at = crate::bundle::seccomp::Circumstances::here(&security.capabilities);
                crate::bundle::seccomp::convert(&profile, &at).with_context(|| file.to_owned())?;
                security.seccomp = Seccomp::Profile(profile);
            }
            _ => bail!("--security-opt {option} is not supported"),
        }
    }
    Ok(security)
}

/// True for a mount that has a folder in the host's file system, for `ps` and `inspect`.
pub(crate) fn is_volume(mount: &Mount) -> bool {
    matches!(mount.source, Source::Volume { .. } | Source::Anonymous)
}

#[cfg(test)]
mod tests {
    use super::set_variable;

    #[test]
    fn a_later_variable_takes_the_place_of_an_earlier_one() {
        let mut all = vec!["A=1".to_owned(), "B=2".to_owned()];
        for variable in ["A=3", "C=", "B"] {
            set_variable(&mut all, variable);
        }
        assert_eq!(all, ["A=3", "C="]);
    }
}

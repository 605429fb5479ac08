//! `mounts add` and `mounts remove`, as crun has them: mounts of a container that runs.

use std::os::fd::AsFd;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail, ensure};
use clap::{Arg, ArgMatches, Command};
use nix::unistd::geteuid;
use oci_spec::runtime::Mount;

use crate::cli::{self, Context};
use crate::container::id_mapped::ContainerIds;
use crate::container::{lsm, mounts, rootfs};
use crate::launch::live_mounts;
use crate::state_dir::{self, Init, State, StateDir};

pub(super) fn flags(command: Command) -> Command {
    command
        .about("Add mounts to a running container, or take them away")
        .arg(Arg::new("action").required(true).value_parser(["add", "remove"]).help("What to do"))
        .arg(cli::id())
        .arg(
            Arg::new("file")
                .value_name("FILE")
                .required(true)
                .value_parser(clap::value_parser!(PathBuf))
                .help("A JSON list as mounts in config.json; to remove, only the destinations count"),
        )
}

pub(super) fn run(context: &Context, matches: &ArgMatches) -> Result<u8> {
    let (id, action) = (cli::text(matches, "id"), cli::text(matches, "action"));
    let file = matches.get_one::<PathBuf>("file").context("a file")?;
    let text = std::fs::read(file).with_context(|| format!("read {file:?}"))?;
    let list: Vec<Mount> =
        serde_json::from_slice(&text).with_context(|| format!("{file:?}: a list of mounts"))?;
    ensure!(geteuid().is_root(), "mounts {action}: only root can change a running container's mounts");
    let _lock = StateDir::open(&context.root, id)?;
    let state = state_dir::load(&context.root, id)?;
    let Some(init) = state_dir::init(&context.root, id)? else { bail!("container not running") };
    if action == "add" {
        add(context, &state, &init, list).context("mounts add")?;
    } else {
        let destinations: Vec<PathBuf> = list.iter().map(|mount| mount.destination().clone()).collect();
        live_mounts::remove(&state, &init, &destinations).context("mounts remove")?;
    }
    Ok(0)
}

fn add(context: &Context, state: &State, init: &Init, list: Vec<Mount>) -> Result<()> {
    let mut spec = state_dir::load_spec(&context.root, &state.id)?;
    let label = spec.linux().as_ref().and_then(|linux| linux.mount_label().clone());
    let label = lsm::plan_mount_label(label.as_deref(), state.asked()?.mount_context_type.as_deref())?;
    let propagation = rootfs::plan(&spec, &state.bundle, true)?.source_propagation();
    spec.set_mounts(Some(list));
    let users = state.user_namespace(init)?;
    let ids = users.as_ref().map_or(ContainerIds::Host, |file| ContainerIds::Joined(file.as_fd()));
    let list = mounts::plan(&spec, &state.bundle, &state.rootfs, ids)?;
    live_mounts::add(state, init, list, propagation, label.as_ref())
}

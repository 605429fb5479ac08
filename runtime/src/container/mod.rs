//! One file for each section of config.md and config-linux.md. Each has a `plan` that checks and
//! translates its section without touching anything; all plans exist before anything is made.

pub(crate) mod annotations;
pub(crate) mod capabilities;
pub(crate) mod copy_up;
pub(crate) mod cpu_list;
pub(crate) mod devices;
pub(crate) mod filesystem;
pub(crate) mod hooks;
pub(crate) mod hostname;
pub(crate) mod id_mapped;
pub(crate) mod id_maps;
pub(crate) mod intel_rdt;
pub(crate) mod lsm;
pub(crate) mod masked_paths;
pub(crate) mod memory_policy;
pub(crate) mod mount_options;
pub(crate) mod mounts;
pub(crate) mod namespaces;
pub(crate) mod net_devices;
pub(crate) mod process;
pub(crate) mod rlimits;
pub(crate) mod rootfs;
pub(crate) mod rootless;
pub(crate) mod scheduling;
pub(crate) mod seccomp;
pub(crate) mod sysctl;
pub(crate) mod terminal;

use std::path::Path;

use anyhow::{Context, Result, bail};
use nix::sched::CloneFlags;
use nix::unistd::Uid;
use oci_spec::runtime::{Linux, Spec};

use self::annotations::Annotations;
use self::id_mapped::ContainerIds;
use crate::cgroup::{self, Manager, Place, resources};

/// Everything that is known of a container before anything of it is made.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) spec: Spec,
    pub(crate) annotations: Annotations,
    pub(crate) rootfs: rootfs::RootFs,
    pub(crate) namespaces: namespaces::Namespaces,
    pub(crate) id_maps: Option<id_maps::IdMaps>,
    pub(crate) mounts: Vec<mounts::Mount>,
    pub(crate) mount_label: Option<lsm::MountLabel>,
    pub(crate) devices: Vec<devices::Device>,
    pub(crate) paths: masked_paths::Paths,
    pub(crate) net_devices: Vec<net_devices::Device>,
    pub(crate) sysctls: Vec<sysctl::Sysctl>,
    pub(crate) process: process::Plan,
    pub(crate) cgroups: Place,
    pub(crate) limits: cgroup::Limits,
    pub(crate) intel_rdt: Option<intel_rdt::IntelRdt>,
}

/// Reads the whole configuration; refuses what it forbids.
pub(crate) fn plan(spec: Spec, bundle: &Path, id: &str, manager: Manager) -> Result<Plan> {
    let linux = spec.linux().clone().map_or_else(|| serde_json::from_str("{}"), Ok)?;
    let linux = &linux;
    let namespaces = namespaces::plan(linux)?;
    rootless::check(&namespaces)?;
    let own_mounts = namespaces.has(CloneFlags::CLONE_NEWNS);
    if !own_mounts {
        check_without_mount_namespace(linux, &namespaces)?;
    }
    hostname::check(&spec, &namespaces)?;
    if let Some(hooks) = spec.hooks() {
        hooks::check(hooks)?;
    }
    let annotations = spec.annotations().iter().flatten().map(|(key, value)| (&**key, &**value));
    let annotations = annotations::plan(annotations)?;
    annotations.warn_of_unknown();
    let mut process = match spec.process() {
        Some(process) => {
            capabilities::warn_of_what_is_left_out(process.capabilities().as_ref());
            process::plan(process, Some(linux), &annotations)?
        }
        None => process::nothing(),
    };
    process.let_groups_stay(namespaces.has(CloneFlags::CLONE_NEWUSER));
    let id_maps = user_namespace(linux, &namespaces, &process)?;
    let ids = match (&id_maps, namespaces.file(CloneFlags::CLONE_NEWUSER)) {
        (Some(maps), _) => ContainerIds::New(maps),
        (None, Some(file)) => ContainerIds::Joined(file),
        (None, None) => ContainerIds::Host,
    };
    let rootfs = rootfs::plan(&spec, bundle, own_mounts)?;
    Ok(Plan {
        mounts: mounts::plan(&spec, bundle, &rootfs.path, ids)?,
        rootfs,
        mount_label: lsm::plan_mount_label(
            linux.mount_label().as_deref(),
            annotations.mount_context_type.as_deref(),
        )?,
        devices: devices::plan(linux)?,
        paths: masked_paths::plan(linux)?,
        net_devices: net_devices::plan(linux, &namespaces)?,
        sysctls: sysctl::plan(linux, &namespaces)?,
        cgroups: find_cgroups(&spec, linux, id, manager)?,
        intel_rdt: intel_rdt::plan(linux, id)?,
        limits: resources::plan(linux.resources().as_ref())?,
        namespaces,
        id_maps,
        process,
        annotations,
        spec,
    })
}

/// The maps to write. Those of a user namespace that is joined are only compared.
fn user_namespace(
    linux: &Linux,
    namespaces: &namespaces::Namespaces,
    process: &process::Plan,
) -> Result<Option<id_maps::IdMaps>> {
    let uids = linux.uid_mappings().as_deref().unwrap_or_default();
    let gids = linux.gid_mappings().as_deref().unwrap_or_default();
    if namespaces.is_new(CloneFlags::CLONE_NEWUSER) {
        let maps = id_maps::plan(uids, gids)?;
        process.check_mapped(&maps)?;
        return Ok(Some(maps));
    }
    if !uids.is_empty() || !gids.is_empty() {
        let Some(namespace) = namespaces.file(CloneFlags::CLONE_NEWUSER) else {
            bail!("linux.uidMappings, linux.gidMappings: need a user namespace in linux.namespaces");
        };
        process.check_mapped(&id_maps::check_joined(namespace, uids, gids)?)?;
    }
    Ok(None)
}

/// Without a mount namespace of its own the container's mounts are the host's as well.
fn check_without_mount_namespace(linux: &Linux, namespaces: &namespaces::Namespaces) -> Result<()> {
    let any = |paths: &Option<Vec<String>>| paths.as_ref().is_some_and(|paths| !paths.is_empty());
    for (name, paths) in [("maskedPaths", linux.masked_paths()), ("readonlyPaths", linux.readonly_paths())] {
        if any(paths) {
            bail!("linux.{name}: unable to restrict sys entries without a private MNT namespace");
        }
    }
    if linux.rootfs_propagation().as_ref().is_some_and(|kind| !kind.is_empty()) {
        bail!("linux.rootfsPropagation: needs a mount namespace in linux.namespaces");
    }
    if namespaces.has(CloneFlags::CLONE_NEWUSER) {
        bail!("linux.namespaces: a user namespace needs a mount namespace beside it");
    }
    Ok(())
}

fn find_cgroups(spec: &Spec, linux: &Linux, id: &str, manager: Manager) -> Result<Place> {
    let path = linux.cgroups_path().as_deref();
    match manager {
        Manager::Files => Place::find(path, id).context("linux.cgroupsPath"),
        Manager::Nobody => Place::find_none(id),
        Manager::Systemd => {
            let annotations = spec.annotations().iter().flatten();
            Place::find_unit(path, id, annotations.map(|(key, value)| (&**key, &**value)))
        }
    }
}

impl Plan {
    /// The container's root user, if its cgroup is to be his: a user namespace, a cgroup namespace of its
    /// own, and a writable view of its cgroup - config-linux.md#cgroup-ownership.
    pub(crate) fn cgroup_owner(&self) -> Option<Uid> {
        let writable = |mount: &oci_spec::runtime::Mount| {
            let read_only = |option: &String| option == "ro" || option == "rro";
            matches!(mount.typ().as_deref(), Some("cgroup" | "cgroup2"))
                && !mount.options().iter().flatten().any(read_only)
        };
        let shown = self.spec.mounts().iter().flatten().any(writable);
        let owner = self.id_maps.as_ref().and_then(|maps| maps.host_uid(0)).map(Uid::from_raw);
        owner.filter(|_| shown && self.namespaces.is_new(CloneFlags::CLONE_NEWCGROUP))
    }
}

//! [Control groups](https://github.com/opencontainers/runtime-spec/blob/v1.3.0/config-linux.md#control-groups).

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use serde_json::json;

use crate::case::{Case, Need, Scene};
use crate::requirement::*;

pub(super) static CASES: &[Case] = &[
    Case {
        name: "cgroup/is_at_its_path",
        proves: &[&CGROUPS_PATH],
        needs: &[Need::Controller("pids")],
        run: is_at_its_path,
    },
    Case {
        name: "cgroup/has_its_limit_of_processes",
        proves: &[&PIDS_LIMIT],
        needs: &[Need::Controller("pids")],
        run: has_its_limit_of_processes,
    },
    Case {
        name: "cgroup/refuses_a_limit_that_it_cannot_set",
        proves: &[&CGROUPS_ERROR],
        needs: &[],
        run: refuses_a_limit_that_it_cannot_set,
    },
    Case {
        name: "cgroup/refuses_a_controller_that_is_not_there",
        proves: &[&CGROUPS_UNIFIED],
        needs: &[],
        run: refuses_a_controller_that_is_not_there,
    },
];

/// The folder of a process's cgroup that has the pids controller, and its path in the hierarchy.
fn pids_cgroup(pid: i32) -> Result<(PathBuf, String)> {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).context("cgroups of the container")?;
    let path_of = |controllers: &str| {
        text.lines().find_map(|line| {
            let (names, path) = line.split_once(':')?.1.split_once(':')?;
            (names == controllers || names.split(',').any(|name| name == controllers)).then_some(path)
        })
    };
    // v1 names the controller, v2 has one hierarchy without a name.
    if let Some(path) = path_of("pids") {
        return Ok((PathBuf::from(format!("/sys/fs/cgroup/pids{path}")), path.to_owned()));
    }
    let path = path_of("").context("the container is in no cgroup with pids")?;
    Ok((PathBuf::from(format!("/sys/fs/cgroup{path}")), path.to_owned()))
}

fn is_at_its_path(scene: &Scene<'_>) -> Result<()> {
    let mut bundle = scene.bundle()?;
    let name = format!("/{}-somewhere/below", scene.id());
    bundle.set("/linux/cgroupsPath", json!(name));
    let container = scene.create(&bundle)?;
    let (folder, path) = pids_cgroup(container.pid()?)?;
    // Below the mount point, or where a container that we run in has its own root.
    scene.expect(&CGROUPS_PATH, path.ends_with(&name), format_args!("the cgroup is {path}"));
    scene.expect(&CGROUPS_PATH, folder.is_dir(), format_args!("{} is not there", folder.display()));
    container.must("kill", &["KILL"])?;
    drop(container);
    // Runtimes may leave the folder above, which others could use as well.
    if let Some(parent) = folder.parent() {
        sweep(parent);
    }
    Ok(())
}

/// Removes an empty cgroup of this name in all hierarchies.
fn sweep(folder: &std::path::Path) {
    let Some(name) = folder.file_name() else { return };
    let Ok(hierarchies) = fs::read_dir("/sys/fs/cgroup") else { return };
    // What is in use or not there stays.
    let _ = fs::remove_dir(folder);
    for hierarchy in hierarchies.flatten() {
        let _ = fs::remove_dir(hierarchy.path().join(name));
    }
}

fn has_its_limit_of_processes(scene: &Scene<'_>) -> Result<()> {
    let mut bundle = scene.bundle()?;
    bundle.set("/linux/resources", json!({"pids": {"limit": 77}}));
    let container = scene.create(&bundle)?;
    let (folder, _) = pids_cgroup(container.pid()?)?;
    let seen = fs::read_to_string(folder.join("pids.max")).context("pids.max")?;
    scene.expect_same(&PIDS_LIMIT, "pids.max", seen.trim(), "77");
    Ok(())
}

fn refuses_a_limit_that_it_cannot_set(scene: &Scene<'_>) -> Result<()> {
    let mut bundle = scene.bundle()?;
    bundle.set("/linux/resources", json!({"cpu": {"cpus": "100000"}}));
    scene.expect_refused(&CGROUPS_ERROR, "a CPU that no machine has", &bundle)?;
    // Version 2 has nothing like it.
    if std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
        let mut bundle = scene.bundle()?;
        bundle.set("/linux/resources", json!({"memory": {"swappiness": 30}}));
        scene.expect_refused(&CGROUPS_ERROR, "swappiness on cgroup version 2", &bundle)?;
    }
    Ok(())
}

fn refuses_a_controller_that_is_not_there(scene: &Scene<'_>) -> Result<()> {
    let mut bundle = scene.bundle()?;
    bundle.set("/linux/resources", json!({"unified": {"invented.max": "1"}}));
    scene.expect_refused(&CGROUPS_UNIFIED, "a controller that is none", &bundle)
}

//! [Delete](https://github.com/opencontainers/runtime-spec/blob/v1.3.0/runtime.md#delete).

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::case::{Case, Scene};
use crate::requirement::*;

pub(super) static CASES: &[Case] = &[
    Case {
        name: "delete/undoes_create",
        proves: &[&DELETE_UNDOES_CREATE, &DELETE_ONLY_OWN],
        needs: &[],
        run: undoes_create,
    },
    Case { name: "delete/frees_the_id", proves: &[&DELETE_FREES_ID], needs: &[], run: frees_the_id },
    Case {
        name: "delete/of_a_running_container_is_an_error",
        proves: &[&DELETE_ONLY_STOPPED],
        needs: &[],
        run: of_a_running_container_is_an_error,
    },
    Case {
        name: "delete/of_a_created_container_is_an_error",
        proves: &[&DELETE_ONLY_STOPPED],
        needs: &[],
        run: of_a_created_container_is_an_error,
    },
    Case {
        name: "delete/of_nothing_is_an_error",
        proves: &[&DELETE_NEEDS_ID, &DELETE_ONLY_STOPPED],
        needs: &[],
        run: of_nothing_is_an_error,
    },
];

fn undoes_create(scene: &Scene<'_>) -> Result<()> {
    let mut bundle = scene.bundle()?;
    bundle.probe(&["wait"]);
    let before = fs::read_to_string("/proc/self/mountinfo").context("own mounts")?;
    let mut container = scene.create(&bundle)?;
    let cgroups = cgroups_of(container.pid()?, &container.id);
    container.start()?;
    container.must("kill", &["KILL"])?;
    container.wait()?;
    container.must("delete", &[])?;
    scene.expect_same(&DELETE_UNDOES_CREATE, "status after delete", container.status()?.as_str(), "none");
    for cgroup in cgroups {
        scene.expect(&DELETE_UNDOES_CREATE, !Path::new(&cgroup).exists(), format_args!("{cgroup} is left"));
    }
    let after = fs::read_to_string("/proc/self/mountinfo").context("own mounts")?;
    // Others may mount as well while this runs.
    let left: Vec<&str> = after
        .lines()
        .filter(|line| !before.contains(line) && line.contains(&*bundle.directory().to_string_lossy()))
        .collect();
    scene.expect(&DELETE_UNDOES_CREATE, left.is_empty(), format_args!("mounts are left: {left:?}"));
    let kept = bundle.rootfs("probe").exists() && bundle.directory().join("config.json").exists();
    scene.expect(&DELETE_ONLY_OWN, kept, "the bundle was deleted as well");
    Ok(())
}

/// The folders of the cgroups that were made for this process: those that have the id in their name.
fn cgroups_of(pid: i32, id: &str) -> Vec<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    text.lines()
        .filter_map(|line| {
            let mut fields = line.splitn(3, ':').skip(1);
            let (controllers, path) = (fields.next()?, fields.next()?);
            let hierarchy = controllers.trim_start_matches("name=");
            path.contains(id).then(|| format!("/sys/fs/cgroup/{hierarchy}{path}"))
        })
        .filter(|path| Path::new(path).exists())
        .collect()
}

fn frees_the_id(scene: &Scene<'_>) -> Result<()> {
    let mut bundle = scene.bundle()?;
    bundle.probe(&["exit", "0"]);
    let container = scene.run(&bundle)?;
    container.must("delete", &[])?;
    let (again, output) = scene.try_create_as(&bundle, &container.id)?;
    scene.expect(&DELETE_FREES_ID, output.ok(), output.complaint());
    scene.expect_same(&DELETE_FREES_ID, "status", again.status()?.as_str(), "created");
    Ok(())
}

fn of_a_running_container_is_an_error(scene: &Scene<'_>) -> Result<()> {
    let mut bundle = scene.bundle()?;
    bundle.probe(&["wait"]);
    let container = scene.create(&bundle)?;
    container.start()?;
    container.wait_for("ready")?;
    let output = container.call("delete", &[])?;
    scene.expect(&DELETE_ONLY_STOPPED, !output.ok(), "a running container was deleted");
    scene.expect_same(&DELETE_ONLY_STOPPED, "status", container.status()?.as_str(), "running");
    Ok(())
}

fn of_a_created_container_is_an_error(scene: &Scene<'_>) -> Result<()> {
    let bundle = scene.bundle()?;
    let container = scene.create(&bundle)?;
    let output = container.call("delete", &[])?;
    scene.expect(&DELETE_ONLY_STOPPED, !output.ok(), "a created container was deleted");
    scene.expect_same(&DELETE_ONLY_STOPPED, "status", container.status()?.as_str(), "created");
    Ok(())
}

fn of_nothing_is_an_error(scene: &Scene<'_>) -> Result<()> {
    scene.expect(&DELETE_NEEDS_ID, !scene.runtime.call(&["delete"])?.ok(), "delete without an id worked");
    let output = scene.runtime.call(&["delete", &scene.id()])?;
    scene.expect(&DELETE_ONLY_STOPPED, !output.ok(), "delete of an unknown container worked");
    Ok(())
}

//! [State](https://github.com/opencontainers/runtime-spec/blob/v1.3.0/runtime.md#state) and the
//! operation that asks for it.

use anyhow::Result;
use serde_json::json;

use crate::case::{Case, Scene};
use crate::requirement::*;

pub(super) static CASES: &[Case] = &[
    Case {
        name: "state/tells_what_a_created_container_is",
        proves: &[&STATE_FIELDS, &STATE_STATUS, &STATE_BUNDLE, &STATE_ANNOTATIONS],
        needs: &[],
        run: tells_what_a_created_container_is,
    },
    Case {
        name: "state/follows_the_life_of_the_process",
        proves: &[&STATE_STATUS],
        needs: &[],
        run: follows_the_life_of_the_process,
    },
    Case {
        name: "state/pid_is_the_container_process",
        proves: &[&STATE_PID],
        needs: &[],
        run: pid_is_the_container_process,
    },
    Case {
        name: "state/of_an_unknown_container_is_an_error",
        proves: &[&STATE_UNKNOWN],
        needs: &[],
        run: of_an_unknown_container_is_an_error,
    },
    Case {
        name: "state/without_an_id_is_an_error",
        proves: &[&STATE_NEEDS_ID],
        needs: &[],
        run: without_an_id_is_an_error,
    },
];

fn tells_what_a_created_container_is(scene: &Scene<'_>) -> Result<()> {
    let mut bundle = scene.bundle()?;
    bundle.set("/annotations", json!({"org.example.colour": "blue"}));
    let container = scene.create(&bundle)?;
    let state = container.state()?;
    scene.expect_same(&STATE_FIELDS, "id", &state["id"], &json!(container.id));
    scene.expect_same(&STATE_STATUS, "status", &state["status"], &json!("created"));
    let version = state["ociVersion"].as_str().unwrap_or_default();
    let numbers = version.split(['-', '+']).next().unwrap_or_default().split('.');
    let semver = numbers.clone().count() == 3 && numbers.clone().all(|number| number.parse::<u32>().is_ok());
    scene.expect(&STATE_FIELDS, semver, format_args!("ociVersion is {}", state["ociVersion"]));
    scene.expect_same(&STATE_BUNDLE, "bundle", &state["bundle"], &json!(bundle.directory()));
    let colour = &state["annotations"]["org.example.colour"];
    scene.expect_same(&STATE_ANNOTATIONS, "the annotation", colour, &json!("blue"));
    Ok(())
}

fn follows_the_life_of_the_process(scene: &Scene<'_>) -> Result<()> {
    let mut bundle = scene.bundle()?;
    bundle.probe(&["wait"]);
    let mut container = scene.create(&bundle)?;
    scene.expect_same(&STATE_STATUS, "status after create", container.status()?.as_str(), "created");
    container.start()?;
    container.wait_for("ready")?;
    scene.expect_same(&STATE_STATUS, "status after start", container.status()?.as_str(), "running");
    container.must("kill", &["KILL"])?;
    container.wait()?;
    scene.expect_same(&STATE_STATUS, "status after the end", container.status()?.as_str(), "stopped");
    Ok(())
}

fn pid_is_the_container_process(scene: &Scene<'_>) -> Result<()> {
    let mut bundle = scene.bundle()?;
    bundle.probe(&["wait"]);
    let container = scene.create(&bundle)?;
    container.start()?;
    container.wait_for("ready")?;
    let pid = container.state()?["pid"].as_i64().unwrap_or_default();
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let seen = String::from_utf8_lossy(&line).replace('\0', " ");
    scene.expect(&STATE_PID, seen == "/probe wait ", format_args!("process {pid} is {seen:?}"));
    Ok(())
}

fn of_an_unknown_container_is_an_error(scene: &Scene<'_>) -> Result<()> {
    let output = scene.runtime.call(&["state", &scene.id()])?;
    scene.expect(&STATE_UNKNOWN, !output.ok(), format_args!("state printed {}", output.stdout));
    Ok(())
}

fn without_an_id_is_an_error(scene: &Scene<'_>) -> Result<()> {
    let output = scene.runtime.call(&["state"])?;
    scene.expect(&STATE_NEEDS_ID, !output.ok(), format_args!("state printed {}", output.stdout));
    Ok(())
}

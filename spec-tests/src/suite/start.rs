//! [Start](https://github.com/opencontainers/runtime-spec/blob/v1.3.0/runtime.md#start).

use anyhow::Result;

use crate::case::{Case, Scene};
use crate::container::Exit;
use crate::requirement::*;

pub(super) static CASES: &[Case] = &[
    Case {
        name: "start/runs_the_program",
        proves: &[&START_RUNS_PROCESS, &CREATE_NOT_RUN],
        needs: &[],
        run: runs_the_program,
    },
    Case {
        name: "start/of_a_running_container_is_an_error",
        proves: &[&START_ONLY_CREATED],
        needs: &[],
        run: of_a_running_container_is_an_error,
    },
    Case {
        name: "start/of_a_stopped_container_is_an_error",
        proves: &[&START_ONLY_CREATED],
        needs: &[],
        run: of_a_stopped_container_is_an_error,
    },
    Case {
        name: "start/of_nothing_is_an_error",
        proves: &[&START_NEEDS_ID, &START_ONLY_CREATED],
        needs: &[],
        run: of_nothing_is_an_error,
    },
    Case {
        name: "start/without_a_process_is_an_error",
        proves: &[&CREATE_WITHOUT_PROCESS, &START_WITHOUT_PROCESS],
        needs: &[],
        run: without_a_process_is_an_error,
    },
];

fn runs_the_program(scene: &Scene<'_>) -> Result<()> {
    let mut bundle = scene.bundle()?;
    bundle.probe(&["exit", "7"]);
    let file = bundle.share().join("hooks");
    bundle.set("/process/args", serde_json::json!(["/probe", "hook", "program", "/shared/hooks", "7"]));
    let mut container = scene.create(&bundle)?;
    // Long enough for a program that was not held back.
    std::thread::sleep(std::time::Duration::from_millis(50));
    scene.expect(&CREATE_NOT_RUN, !file.exists(), "the program ran before start");
    container.start()?;
    let exit = container.wait()?;
    scene.expect(&START_RUNS_PROCESS, file.exists(), "the program did not run");
    let known = exit == Exit::Code(7) || exit == Exit::Unknown;
    scene.expect(&START_RUNS_PROCESS, known, format_args!("the program ended with {exit:?} and not with 7"));
    Ok(())
}

fn of_a_running_container_is_an_error(scene: &Scene<'_>) -> Result<()> {
    let mut bundle = scene.bundle()?;
    bundle.probe(&["wait"]);
    let container = scene.create(&bundle)?;
    container.start()?;
    container.wait_for("ready")?;
    let output = container.call("start", &[])?;
    scene.expect(&START_ONLY_CREATED, !output.ok(), "a running container was started again");
    let status = container.status()?;
    scene.expect_same(&START_ONLY_CREATED, "status after a second start", status.as_str(), "running");
    let count = container.stdout()?.matches("ready").count();
    scene.expect_same(&START_ONLY_CREATED, "number of runs of the program", count, 1);
    Ok(())
}

fn of_a_stopped_container_is_an_error(scene: &Scene<'_>) -> Result<()> {
    let mut bundle = scene.bundle()?;
    bundle.probe(&["exit", "0"]);
    let container = scene.run(&bundle)?;
    let output = container.call("start", &[])?;
    scene.expect(&START_ONLY_CREATED, !output.ok(), "a stopped container was started");
    let status = container.status()?;
    scene.expect_same(&START_ONLY_CREATED, "status after a second start", status.as_str(), "stopped");
    Ok(())
}

fn of_nothing_is_an_error(scene: &Scene<'_>) -> Result<()> {
    scene.expect(&START_NEEDS_ID, !scene.runtime.call(&["start"])?.ok(), "start without an id worked");
    let output = scene.runtime.call(&["start", &scene.id()])?;
    scene.expect(&START_ONLY_CREATED, !output.ok(), "start of an unknown container worked");
    Ok(())
}

fn without_a_process_is_an_error(scene: &Scene<'_>) -> Result<()> {
    let mut bundle = scene.bundle()?;
    bundle.remove("process");
    let (container, output) = scene.try_create(&bundle)?;
    scene.expect(&CREATE_WITHOUT_PROCESS, output.ok(), output.complaint());
    if output.ok() {
        let started = container.call("start", &[])?;
        scene.expect(&START_WITHOUT_PROCESS, !started.ok(), "start worked without a process");
    }
    Ok(())
}

//! [Kill](https://github.com/opencontainers/runtime-spec/blob/v1.3.0/runtime.md#kill).

use anyhow::Result;
use nix::sys::signal::Signal;

use crate::case::{Case, Scene};
use crate::container::Exit;
use crate::requirement::*;

pub(super) static CASES: &[Case] = &[
    Case {
        name: "kill/sends_the_signal_by_name_and_number",
        proves: &[&KILL_SENDS],
        needs: &[],
        run: sends_the_signal_by_name_and_number,
    },
    Case {
        name: "kill/ends_a_created_container",
        proves: &[&KILL_SENDS],
        needs: &[],
        run: ends_a_created_container,
    },
    Case {
        name: "kill/of_a_stopped_container_is_an_error",
        proves: &[&KILL_ONLY_ALIVE],
        needs: &[],
        run: of_a_stopped_container_is_an_error,
    },
    Case {
        name: "kill/of_nothing_is_an_error",
        proves: &[&KILL_NEEDS_ID, &KILL_ONLY_ALIVE],
        needs: &[],
        run: of_nothing_is_an_error,
    },
    Case {
        name: "kill/with_an_unknown_signal_is_an_error",
        proves: &[&KILL_SENDS],
        needs: &[],
        run: with_an_unknown_signal_is_an_error,
    },
];

fn sends_the_signal_by_name_and_number(scene: &Scene<'_>) -> Result<()> {
    for (word, number) in [("TERM", 15), ("SIGUSR1", 10), ("12", 12), ("1", 1)] {
        let mut bundle = scene.bundle()?;
        bundle.probe(&["catch"]);
        let mut container = scene.create(&bundle)?;
        container.start()?;
        container.wait_for("ready")?;
        container.must("kill", &[word])?;
        let Ok(_) = container.wait() else {
            scene.expect(&KILL_SENDS, false, format_args!("kill {word} sent nothing"));
            continue;
        };
        let heard = container.stdout()?.lines().last().unwrap_or_default().to_owned();
        let asked = format!("signal {number}");
        scene.expect(&KILL_SENDS, heard == asked, format_args!("kill {word}: the process heard {heard:?}"));
    }
    Ok(())
}

fn ends_a_created_container(scene: &Scene<'_>) -> Result<()> {
    let bundle = scene.bundle()?;
    let mut container = scene.create(&bundle)?;
    container.must("kill", &["KILL"])?;
    let exit = container.wait()?;
    let killed = [Exit::Signal(Signal::SIGKILL), Exit::Unknown].contains(&exit);
    scene.expect(&KILL_SENDS, killed, format_args!("the process ended with {exit:?}"));
    scene.expect_same(&KILL_SENDS, "status", container.status()?.as_str(), "stopped");
    scene.expect(
        &KILL_SENDS,
        container.stdout()?.is_empty(),
        "the program ran although it was never started",
    );
    Ok(())
}

fn of_a_stopped_container_is_an_error(scene: &Scene<'_>) -> Result<()> {
    let mut bundle = scene.bundle()?;
    bundle.probe(&["exit", "0"]);
    let container = scene.run(&bundle)?;
    for signal in ["TERM", "KILL"] {
        let output = container.call("kill", &[signal])?;
        scene.expect(
            &KILL_ONLY_ALIVE,
            !output.ok(),
            format_args!("kill {signal} of a stopped container worked"),
        );
    }
    scene.expect_same(&KILL_ONLY_ALIVE, "status", container.status()?.as_str(), "stopped");
    Ok(())
}

fn of_nothing_is_an_error(scene: &Scene<'_>) -> Result<()> {
    scene.expect(&KILL_NEEDS_ID, !scene.runtime.call(&["kill"])?.ok(), "kill without an id worked");
    let output = scene.runtime.call(&["kill", &scene.id(), "TERM"])?;
    scene.expect(&KILL_ONLY_ALIVE, !output.ok(), "kill of an unknown container worked");
    Ok(())
}

fn with_an_unknown_signal_is_an_error(scene: &Scene<'_>) -> Result<()> {
    let mut bundle = scene.bundle()?;
    bundle.probe(&["wait"]);
    let container = scene.create(&bundle)?;
    container.start()?;
    container.wait_for("ready")?;
    for signal in ["SIGNONE", "4711", "-3"] {
        let output = container.call("kill", &[signal])?;
        scene.expect(&KILL_SENDS, !output.ok(), format_args!("kill {signal} worked"));
    }
    scene.expect_same(&KILL_SENDS, "status", container.status()?.as_str(), "running");
    Ok(())
}

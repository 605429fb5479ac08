//! [Process](https://github.com/opencontainers/runtime-spec/blob/v1.3.0/config.md#process): arguments,
//! environment, working directory, and the small attributes.

use anyhow::Result;
use serde_json::json;

use crate::case::{Case, Scene};
use crate::container::Exit;
use crate::requirement::*;

pub(super) static CASES: &[Case] = &[
    Case {
        name: "process/gets_its_arguments",
        proves: &[&PROCESS_ARGS],
        needs: &[],
        run: gets_its_arguments,
    },
    Case {
        name: "process/is_found_on_the_containers_path",
        proves: &[&PROCESS_ARGS],
        needs: &[],
        run: is_found_on_the_containers_path,
    },
    Case {
        name: "process/gets_its_environment",
        proves: &[&PROCESS_ENV],
        needs: &[],
        run: gets_its_environment,
    },
    Case {
        name: "process/starts_in_its_working_directory",
        proves: &[&PROCESS_CWD],
        needs: &[],
        run: starts_in_its_working_directory,
    },
    Case {
        name: "process/refuses_a_relative_working_directory",
        proves: &[&PROCESS_CWD_ABSOLUTE],
        needs: &[],
        run: refuses_a_relative_working_directory,
    },
    Case {
        name: "process/that_is_not_there_is_an_error",
        proves: &[&START_RUNS_PROCESS],
        needs: &[],
        run: that_is_not_there_is_an_error,
    },
    Case {
        name: "process/has_only_its_standard_descriptors",
        proves: &[&FILE_DESCRIPTORS],
        needs: &[],
        run: has_only_its_standard_descriptors,
    },
    Case {
        name: "process/gains_no_privileges_when_asked",
        proves: &[&NO_NEW_PRIVILEGES],
        needs: &[],
        run: gains_no_privileges_when_asked,
    },
    Case {
        name: "process/has_its_oom_score_adjustment",
        proves: &[&OOM_SCORE_ADJ],
        needs: &[],
        run: has_its_oom_score_adjustment,
    },
    Case {
        name: "process/has_its_personality",
        proves: &[&PERSONALITY],
        needs: &[],
        run: has_its_personality,
    },
    Case {
        name: "process/exit_code_is_its_own",
        proves: &[&START_RUNS_PROCESS],
        needs: &[],
        run: exit_code_is_its_own,
    },
];

fn gets_its_arguments(scene: &Scene<'_>) -> Result<()> {
    let words = ["report", "", "two words", "$HOME", "ä\n\"'\\", "--"];
    let mut bundle = scene.bundle()?;
    bundle.probe(&words);
    let args = scene.run(&bundle)?.report()?.args;
    let asked: Vec<&str> = ["/probe"].into_iter().chain(words).collect();
    scene.expect(&PROCESS_ARGS, args == asked, format_args!("the arguments are {args:?}"));
    Ok(())
}

fn is_found_on_the_containers_path(scene: &Scene<'_>) -> Result<()> {
    let mut bundle = scene.bundle()?;
    bundle.set("/process/args", json!(["probe", "report"]));
    bundle.set("/process/env", json!(["PATH=/nowhere:/"]));
    let args = scene.run(&bundle)?.report()?.args;
    scene.expect(&PROCESS_ARGS, args == ["probe", "report"], format_args!("the arguments are {args:?}"));
    Ok(())
}

fn gets_its_environment(scene: &Scene<'_>) -> Result<()> {
    let mut bundle = scene.bundle()?;
    let asked = ["PATH=/", "HOME=/home/me", "EMPTY=", "TWO=a b", "EQUALS=a=b=c"];
    bundle.set("/process/env", json!(asked));
    let mut seen = scene.observe(&mut bundle, &[])?.env;
    seen.sort();
    let mut sorted = asked;
    sorted.sort_unstable();
    scene.expect(&PROCESS_ENV, seen == sorted, format_args!("the environment is {seen:?}"));
    Ok(())
}

fn starts_in_its_working_directory(scene: &Scene<'_>) -> Result<()> {
    let mut bundle = scene.bundle()?;
    bundle.set("/process/cwd", json!("/tmp"));
    let seen = scene.observe(&mut bundle, &[])?;
    scene.expect_same(&PROCESS_CWD, "the working directory", seen.cwd.as_str(), "/tmp");
    Ok(())
}

fn refuses_a_relative_working_directory(scene: &Scene<'_>) -> Result<()> {
    let mut bundle = scene.bundle()?;
    bundle.set("/process/cwd", json!("tmp"));
    scene.expect_refused(&PROCESS_CWD_ABSOLUTE, "a relative working directory", &bundle)
}

fn that_is_not_there_is_an_error(scene: &Scene<'_>) -> Result<()> {
    let mut bundle = scene.bundle()?;
    bundle.set("/process/args", json!(["/nowhere/at/all"]));
    let (container, output) = scene.try_create(&bundle)?;
    // Whichever of the two notices it.
    let worked = output.ok() && container.call("start", &[])?.ok();
    scene.expect(&START_RUNS_PROCESS, !worked, "create and start worked without a program");
    Ok(())
}

fn has_only_its_standard_descriptors(scene: &Scene<'_>) -> Result<()> {
    let mut bundle = scene.bundle()?;
    let fds = scene.observe(&mut bundle, &[])?.fds;
    let numbers: Vec<i32> = fds.keys().copied().collect();
    scene.expect(&FILE_DESCRIPTORS, numbers == [0, 1, 2], format_args!("open are {fds:?}"));
    Ok(())
}

fn gains_no_privileges_when_asked(scene: &Scene<'_>) -> Result<()> {
    for (asked, value) in [(true, "1"), (false, "0")] {
        let mut bundle = scene.bundle()?;
        bundle.set("/process/noNewPrivileges", json!(asked));
        let seen = scene.observe(&mut bundle, &[])?;
        let seen = seen.status.get("NoNewPrivs").map(String::as_str);
        scene.expect_same(&NO_NEW_PRIVILEGES, &format!("NoNewPrivs for {asked}"), seen, Some(value));
    }
    Ok(())
}

fn has_its_oom_score_adjustment(scene: &Scene<'_>) -> Result<()> {
    let own = std::fs::read_to_string("/proc/self/oom_score_adj").unwrap_or_default();
    let own: i32 = own.trim().parse().unwrap_or(0);
    for asked in [None, Some((own + 123).min(1000))] {
        let mut bundle = scene.bundle()?;
        if let Some(asked) = asked {
            bundle.set("/process/oomScoreAdj", json!(asked));
        }
        let seen = scene.observe(&mut bundle, &[])?;
        let seen = seen.files.get("oom_score_adj").map(|text| text.trim().to_owned());
        let value = asked.unwrap_or(own).to_string();
        scene.expect_same(&OOM_SCORE_ADJ, &format!("oom_score_adj for {asked:?}"), seen, Some(value));
    }
    Ok(())
}

fn has_its_personality(scene: &Scene<'_>) -> Result<()> {
    if cfg!(not(target_arch = "x86_64")) {
        scene.skip("LINUX32 needs a 64-bit machine that runs 32-bit programs");
        return Ok(());
    }
    let mut bundle = scene.bundle()?;
    bundle.set("/linux/personality", json!({"domain": "LINUX32"}));
    let seen = scene.observe(&mut bundle, &[])?;
    // PER_LINUX32 of personality(2)
    let seen = seen.files.get("personality").map(|text| text.trim().to_owned());
    scene.expect_same(&PERSONALITY, "the personality", seen.as_deref(), Some("00000008"));
    Ok(())
}

fn exit_code_is_its_own(scene: &Scene<'_>) -> Result<()> {
    for code in [0, 1, 42, 255] {
        let mut bundle = scene.bundle()?;
        bundle.probe(&["exit", &code.to_string()]);
        let exit = scene.run(&bundle)?.wait()?;
        let own = [Exit::Code(code), Exit::Unknown].contains(&exit);
        scene.expect(&START_RUNS_PROCESS, own, format_args!("exit {code} became {exit:?}"));
    }
    Ok(())
}

//! [Hooks](https://github.com/opencontainers/runtime-spec/blob/v1.3.0/config.md#posix-platform-hooks)
//! and what their failing does to the
//! [lifecycle](https://github.com/opencontainers/runtime-spec/blob/v1.3.0/runtime.md#lifecycle).

use anyhow::Result;
use serde_json::json;

use crate::bundle::Bundle;
use crate::case::{Case, Scene};
use crate::requirement::*;

pub(super) static CASES: &[Case] = &[
    Case {
        name: "hooks/run_in_the_order_of_the_lifecycle",
        proves: &[&HOOKS_LIFECYCLE, &HOOKS_LISTED_ORDER],
        needs: &[],
        run: run_in_the_order_of_the_lifecycle,
    },
    Case { name: "hooks/get_the_state", proves: &[&HOOKS_STATE], needs: &[], run: get_the_state },
    Case {
        name: "hooks/run_in_their_namespaces",
        proves: &[&HOOKS_NAMESPACE],
        needs: &[],
        run: run_in_their_namespaces,
    },
    Case {
        name: "hooks/get_their_arguments_and_environment",
        proves: &[&HOOKS_ARGS_ENV],
        needs: &[],
        run: get_their_arguments_and_environment,
    },
    Case {
        name: "hooks/failing_before_the_program_undo_create",
        proves: &[&HOOK_FAILS_CREATE],
        needs: &[],
        run: failing_before_the_program_undo_create,
    },
    Case {
        name: "hooks/failing_start_container_fails_start",
        proves: &[&HOOK_FAILS_START],
        needs: &[],
        run: failing_start_container_fails_start,
    },
    Case {
        name: "hooks/failing_poststart_destroys_the_container",
        proves: &[&HOOK_FAILS_POSTSTART],
        needs: &[],
        run: failing_poststart_destroys_the_container,
    },
    Case {
        name: "hooks/failing_poststop_is_only_a_warning",
        proves: &[&HOOK_FAILS_POSTSTOP],
        needs: &[],
        run: failing_poststop_is_only_a_warning,
    },
    Case {
        name: "hooks/past_their_timeout_are_aborted",
        proves: &[&HOOKS_TIMEOUT],
        needs: &[],
        run: past_their_timeout_are_aborted,
    },
    Case {
        name: "hooks/refuses_a_timeout_of_nothing",
        proves: &[&HOOKS_TIMEOUT_POSITIVE],
        needs: &[],
        run: refuses_a_timeout_of_nothing,
    },
    Case {
        name: "hooks/refuses_a_relative_path",
        proves: &[&HOOKS_ABSOLUTE],
        needs: &[],
        run: refuses_a_relative_path,
    },
];

const KINDS: [&str; 6] =
    ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];

/// A bundle with one hook of each kind, which writes its kind.
fn with_all_hooks(scene: &Scene<'_>) -> Result<Bundle> {
    let mut bundle = scene.bundle()?;
    bundle.share();
    for kind in KINDS {
        bundle.hook(kind, kind, &[]);
    }
    Ok(bundle)
}

fn run_in_the_order_of_the_lifecycle(scene: &Scene<'_>) -> Result<()> {
    let mut bundle = with_all_hooks(scene)?;
    for kind in KINDS {
        bundle.hook(kind, &format!("{kind} again"), &[]);
    }
    bundle.set("/process/args", json!(["/probe", "hook", "program", "/shared/hooks"]));
    let mut container = scene.create(&bundle)?;
    let called = |from: usize| -> Result<Vec<String>> {
        Ok(container.hooks()?.into_iter().skip(from).map(|call| call.hook).collect())
    };
    let create = called(0)?;
    let asked = [
        "prestart",
        "prestart again",
        "createRuntime",
        "createRuntime again",
        "createContainer",
        "createContainer again",
    ];
    scene.expect(&HOOKS_LIFECYCLE, create == asked, format_args!("create called {create:?}"));
    container.start()?;
    let start = called(create.len())?;
    // The program and poststart hooks run side by side.
    let without_program: Vec<&String> = start.iter().filter(|name| *name != "program").collect();
    let asked = ["startContainer", "startContainer again", "poststart", "poststart again"];
    scene.expect(&HOOKS_LIFECYCLE, without_program == asked, format_args!("start called {start:?}"));
    container.wait()?;
    let before = container.hooks()?.len();
    container.must("delete", &[])?;
    let all: Vec<String> = container.hooks()?.into_iter().map(|call| call.hook).collect();
    let delete = all.get(before..).unwrap_or_default();
    scene.expect(
        &HOOKS_LIFECYCLE,
        delete == ["poststop", "poststop again"],
        format_args!("delete called {delete:?}"),
    );
    let position = |name: &str| all.iter().position(|called| called == name);
    scene.expect(
        &HOOKS_LIFECYCLE,
        position("startContainer again") < position("program"),
        format_args!("the program ran before the startContainer hooks: {all:?}"),
    );
    for kind in KINDS {
        let both = position(kind).is_some() && position(kind) < position(&format!("{kind} again"));
        scene.expect(&HOOKS_LISTED_ORDER, both, format_args!("{kind} hooks were called as {all:?}"));
    }
    Ok(())
}

fn get_the_state(scene: &Scene<'_>) -> Result<()> {
    let mut bundle = with_all_hooks(scene)?;
    bundle.set("/annotations", json!({"org.example.colour": "blue"}));
    let mut container = scene.create(&bundle)?;
    let pid = container.pid()?;
    container.start()?;
    container.wait()?;
    container.must("delete", &[])?;
    let calls = container.hooks()?;
    scene.expect_same(&HOOKS_STATE, "the number of hooks called", calls.len(), KINDS.len());
    for call in calls {
        let (hook, state) = (call.hook, call.state);
        let say = |what: &str| format!("{hook} hook: {what} in {state}");
        scene.expect(&HOOKS_STATE, state["id"] == json!(container.id), say("another id"));
        scene.expect(&HOOKS_STATE, state["bundle"] == json!(bundle.directory()), say("another bundle"));
        scene.expect(&HOOKS_STATE, state["ociVersion"].is_string(), say("no ociVersion"));
        let colour = &state["annotations"]["org.example.colour"];
        scene.expect(&HOOKS_STATE, colour == "blue", say("no annotation"));
        let statuses: &[&str] = match hook.as_str() {
            "prestart" | "createRuntime" | "createContainer" => &["creating", "created"],
            "startContainer" => &["created"],
            "poststart" => &["running", "stopped"],
            _ => &["stopped"],
        };
        let status = state["status"].as_str().unwrap_or_default();
        scene.expect(&HOOKS_STATE, statuses.contains(&status), say("a wrong status"));
        // As the runtime sees it, or as the container does.
        let asked = if ["createContainer", "startContainer"].contains(&hook.as_str()) { 1 } else { pid };
        let right = state["pid"] == asked || hook.starts_with("post");
        scene.expect(&HOOKS_STATE, right, say("a wrong pid"));
    }
    Ok(())
}

fn run_in_their_namespaces(scene: &Scene<'_>) -> Result<()> {
    let bundle = with_all_hooks(scene)?;
    let container = scene.run(&bundle)?;
    container.must("delete", &[])?;
    let inside = container.report()?.namespaces;
    let calls = container.hooks()?;
    scene.expect_same(&HOOKS_NAMESPACE, "the number of hooks called", calls.len(), KINDS.len());
    for call in calls {
        for kind in ["mnt", "net", "uts", "ipc"] {
            let is_inside = call.observation.namespaces.get(kind) == inside.get(kind);
            let asked = ["createContainer", "startContainer"].contains(&call.hook.as_str());
            scene.expect(
                &HOOKS_NAMESPACE,
                is_inside == asked,
                format_args!("the {} hook ran in the {kind} namespace of the wrong side", call.hook),
            );
        }
        // Only startContainer's path is looked up inside.
        scene.expect(
            &HOOKS_NAMESPACE,
            call.hook != "startContainer" || call.observation.mount("/").is_some(),
            "the startContainer hook has no root",
        );
    }
    Ok(())
}

fn get_their_arguments_and_environment(scene: &Scene<'_>) -> Result<()> {
    let mut bundle = with_all_hooks(scene)?;
    for kind in KINDS {
        bundle.set(&format!("/hooks/{kind}"), {
            let mut hooks = bundle.config["hooks"][kind].clone();
            hooks[0]["env"] = json!([format!("KIND={kind}"), "EMPTY="]);
            hooks[0]["args"][0] = json!("another name");
            hooks
        });
    }
    let container = scene.run(&bundle)?;
    container.must("delete", &[])?;
    let calls = container.hooks()?;
    scene.expect_same(&HOOKS_ARGS_ENV, "the number of hooks called", calls.len(), KINDS.len());
    for call in calls {
        let name = call.observation.args.first().map(String::as_str);
        scene.expect_same(
            &HOOKS_ARGS_ENV,
            &format!("{} hook's first argument", call.hook),
            name,
            Some("another name"),
        );
        let asked = vec!["EMPTY=".to_owned(), format!("KIND={}", call.hook)];
        let mut environment = call.observation.env;
        environment.sort();
        scene.expect_same(&HOOKS_ARGS_ENV, &format!("{} hook's environment", call.hook), environment, asked);
    }
    Ok(())
}

fn failing_before_the_program_undo_create(scene: &Scene<'_>) -> Result<()> {
    for kind in ["prestart", "createRuntime", "createContainer"] {
        let mut bundle = scene.bundle()?;
        bundle.share();
        bundle.hook(kind, kind, &["1"]).hook("poststop", "poststop", &[]);
        let (container, output) = scene.try_create(&bundle)?;
        scene.expect(
            &HOOK_FAILS_CREATE,
            !output.ok(),
            format_args!("create worked after a {kind} hook failed"),
        );
        if output.ok() {
            continue;
        }
        let status = container.status()?;
        scene.expect(
            &HOOK_FAILS_CREATE,
            status == "none",
            format_args!("a failed {kind} hook left {status}"),
        );
        let called: Vec<String> = container.hooks()?.into_iter().map(|call| call.hook).collect();
        scene.expect(
            &HOOK_FAILS_CREATE,
            called == [kind, "poststop"],
            format_args!("hooks called: {called:?}"),
        );
    }
    Ok(())
}

fn failing_start_container_fails_start(scene: &Scene<'_>) -> Result<()> {
    let mut bundle = scene.bundle()?;
    bundle.share();
    bundle.hook("startContainer", "startContainer", &["1"]);
    bundle.set("/process/args", json!(["/probe", "hook", "program", "/shared/hooks"]));
    let mut container = scene.create(&bundle)?;
    let output = container.call("start", &[])?;
    scene.expect(&HOOK_FAILS_START, !output.ok(), "start worked although the hook failed");
    container.wait()?;
    let called: Vec<String> = container.hooks()?.into_iter().map(|call| call.hook).collect();
    scene.expect(&HOOK_FAILS_START, called == ["startContainer"], format_args!("what ran: {called:?}"));
    Ok(())
}

fn failing_poststart_destroys_the_container(scene: &Scene<'_>) -> Result<()> {
    let mut bundle = scene.bundle()?;
    bundle.share();
    bundle.hook("poststart", "poststart", &["1"]).hook("poststop", "poststop", &[]);
    bundle.probe(&["wait"]);
    let container = scene.create(&bundle)?;
    let output = container.call("start", &[])?;
    scene.expect(&HOOK_FAILS_POSTSTART, !output.ok(), "start worked although the hook failed");
    let status = container.status()?;
    scene.expect(&HOOK_FAILS_POSTSTART, status == "none", format_args!("the container is {status}"));
    let called: Vec<String> = container.hooks()?.into_iter().map(|call| call.hook).collect();
    let both = called == ["poststart", "poststop"];
    scene.expect(&HOOK_FAILS_POSTSTART, both, format_args!("hooks called: {called:?}"));
    Ok(())
}

fn failing_poststop_is_only_a_warning(scene: &Scene<'_>) -> Result<()> {
    let mut bundle = scene.bundle()?;
    bundle.share();
    bundle.hook("poststop", "first", &["1"]).hook("poststop", "second", &[]);
    let container = scene.run(&bundle)?;
    let output = container.call("delete", &[])?;
    scene.expect(&HOOK_FAILS_POSTSTOP, output.ok(), output.complaint());
    let called: Vec<String> = container.hooks()?.into_iter().map(|call| call.hook).collect();
    scene.expect(
        &HOOK_FAILS_POSTSTOP,
        called == ["first", "second"],
        format_args!("hooks called: {called:?}"),
    );
    scene.expect_same(&HOOK_FAILS_POSTSTOP, "status", container.status()?.as_str(), "none");
    Ok(())
}

fn past_their_timeout_are_aborted(scene: &Scene<'_>) -> Result<()> {
    let mut bundle = scene.bundle()?;
    bundle.share();
    bundle.hook("createRuntime", "createRuntime", &["0", "60"]);
    bundle.set("/hooks/createRuntime", {
        let mut hooks = bundle.config["hooks"]["createRuntime"].clone();
        hooks[0]["timeout"] = json!(1);
        hooks
    });
    let (_container, output) = scene.try_create(&bundle)?;
    scene.expect(&HOOKS_TIMEOUT, !output.ok(), "create worked although the hook was too slow");
    Ok(())
}

fn refuses_a_timeout_of_nothing(scene: &Scene<'_>) -> Result<()> {
    for timeout in [0, -1] {
        let mut bundle = scene.bundle()?;
        bundle.share();
        bundle.hook("poststop", "poststop", &[]);
        bundle.set("/hooks/poststop", {
            let mut hooks = bundle.config["hooks"]["poststop"].clone();
            hooks[0]["timeout"] = json!(timeout);
            hooks
        });
        scene.expect_refused(&HOOKS_TIMEOUT_POSITIVE, &format!("a timeout of {timeout}"), &bundle)?;
    }
    Ok(())
}

fn refuses_a_relative_path(scene: &Scene<'_>) -> Result<()> {
    let mut bundle = scene.bundle()?;
    bundle.set("/hooks/poststop", json!([{"path": "bin/true"}]));
    scene.expect_refused(&HOOKS_ABSOLUTE, "a relative path", &bundle)
}

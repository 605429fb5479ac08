//! [Create](https://github.com/opencontainers/runtime-spec/blob/v1.3.0/runtime.md#create): ids,
//! bundles, and configurations that have to be refused.

use std::fs;

use anyhow::{Context, Result};
use serde_json::json;

use crate::case::{Case, Scene};
use crate::container::Exit;
use crate::requirement::*;

pub(super) static CASES: &[Case] = &[
    Case {
        name: "create/refuses_an_id_in_use",
        proves: &[&CREATE_UNIQUE_ID],
        needs: &[],
        run: refuses_an_id_in_use,
    },
    Case {
        name: "create/refuses_an_id_that_is_a_path",
        proves: &[&CREATE_VALID_ID],
        needs: &[],
        run: refuses_an_id_that_is_a_path,
    },
    Case {
        name: "create/needs_an_id_and_a_bundle",
        proves: &[&CREATE_NEEDS_ID_AND_BUNDLE, &ERROR_LEAVES_NOTHING],
        needs: &[],
        run: needs_an_id_and_a_bundle,
    },
    Case { name: "create/writes_the_pid_file", proves: &[&PID_FILE], needs: &[], run: writes_the_pid_file },
    Case {
        name: "create/keeps_the_configuration",
        proves: &[&CONFIG_SNAPSHOT],
        needs: &[],
        run: keeps_the_configuration,
    },
    Case {
        name: "create/ignores_unknown_properties",
        proves: &[&UNKNOWN_IGNORED],
        needs: &[],
        run: ignores_unknown_properties,
    },
    Case {
        name: "create/refuses_a_configuration_that_is_not_json",
        proves: &[&INVALID_REFUSED, &ERROR_LEAVES_NOTHING],
        needs: &[],
        run: refuses_a_configuration_that_is_not_json,
    },
    Case {
        name: "create/refuses_a_version_that_is_none",
        proves: &[&VERSION_SEMVER, &INVALID_REFUSED, &ERROR_LEAVES_NOTHING],
        needs: &[],
        run: refuses_a_version_that_is_none,
    },
    Case {
        name: "create/refuses_a_missing_root",
        proves: &[&ROOT_EXISTS, &ERROR_LEAVES_NOTHING],
        needs: &[],
        run: refuses_a_missing_root,
    },
    Case {
        name: "create/refuses_a_mount_that_fails",
        proves: &[&CREATE_APPLIES_ALL, &CREATE_ENVIRONMENT, &ERROR_LEAVES_NOTHING],
        needs: &[],
        run: refuses_a_mount_that_fails,
    },
    Case {
        name: "create/refuses_an_empty_annotation_key",
        proves: &[&ANNOTATION_KEYS],
        needs: &[],
        run: refuses_an_empty_annotation_key,
    },
];

fn refuses_an_id_in_use(scene: &Scene<'_>) -> Result<()> {
    let mut bundle = scene.bundle()?;
    bundle.probe(&["exit", "3"]);
    let mut container = scene.create(&bundle)?;
    let output = {
        // A bundle of its own: only the id is the same. Called by hand, since a container would
        // delete the id when it goes.
        let other = scene.bundle()?;
        other.write()?;
        scene.runtime.call(&["create", "--bundle", &other.directory().to_string_lossy(), &container.id])?
    };
    scene.expect(&CREATE_UNIQUE_ID, !output.ok(), "a second container got the same id");
    scene.expect_same(&CREATE_UNIQUE_ID, "status of the first", container.status()?.as_str(), "created");
    container.start()?;
    let exit = container.wait()?;
    let own = [Exit::Code(3), Exit::Unknown].contains(&exit);
    scene.expect(&CREATE_UNIQUE_ID, own, format_args!("the first container ended with {exit:?}"));
    Ok(())
}

fn refuses_an_id_that_is_a_path(scene: &Scene<'_>) -> Result<()> {
    let bundle = scene.bundle()?;
    bundle.write()?;
    for id in ["../outside", "a/b", "..", ""] {
        let (_container, output) = scene.try_create_as(&bundle, id)?;
        scene.expect(&CREATE_VALID_ID, !output.ok(), format_args!("create accepted the id {id:?}"));
    }
    Ok(())
}

fn needs_an_id_and_a_bundle(scene: &Scene<'_>) -> Result<()> {
    let bundle = scene.bundle()?;
    bundle.write()?;
    let directory = bundle.directory().to_string_lossy().into_owned();
    let output = scene.runtime.call(&["create", "--bundle", &directory])?;
    scene.expect(&CREATE_NEEDS_ID_AND_BUNDLE, !output.ok(), "create worked without an id");
    let id = scene.id();
    let nowhere = format!("{directory}/nowhere");
    for (bundle, what) in [(nowhere.as_str(), "a missing bundle"), ("/proc", "a bundle without config.json")]
    {
        let output = scene.runtime.call(&["create", "--bundle", bundle, &id])?;
        scene.expect(&CREATE_NEEDS_ID_AND_BUNDLE, !output.ok(), format_args!("create worked with {what}"));
        let state = scene.runtime.call(&["state", &id])?;
        scene.expect(&ERROR_LEAVES_NOTHING, !state.ok(), format_args!("{what} left {}", state.stdout));
    }
    Ok(())
}

fn writes_the_pid_file(scene: &Scene<'_>) -> Result<()> {
    let bundle = scene.bundle()?;
    let container = scene.create(&bundle)?;
    let text = fs::read_to_string(bundle.directory().join("pid")).context("pid file")?;
    // Engines parse the bytes as they are.
    let asked = container.state()?["pid"].to_string();
    scene.expect_same(&PID_FILE, "the pid file", text, asked);
    Ok(())
}

fn keeps_the_configuration(scene: &Scene<'_>) -> Result<()> {
    let mut bundle = scene.bundle()?;
    bundle.probe(&["exit", "5"]);
    let mut container = scene.create(&bundle)?;
    bundle.probe(&["exit", "6"]);
    bundle.write()?;
    container.start()?;
    let exit = container.wait()?;
    let kept = [Exit::Code(5), Exit::Unknown].contains(&exit);
    scene.expect(&CONFIG_SNAPSHOT, kept, format_args!("the process ended with {exit:?} and not with 5"));
    Ok(())
}

fn ignores_unknown_properties(scene: &Scene<'_>) -> Result<()> {
    let mut bundle = scene.bundle()?;
    bundle.set("/invented", json!({"a": [1, 2]}));
    bundle.set("/process/invented", json!("b"));
    bundle.set("/linux/invented", json!(true));
    let (_container, output) = scene.try_create(&bundle)?;
    scene.expect(&UNKNOWN_IGNORED, output.ok(), output.complaint());
    Ok(())
}

fn refuses_a_configuration_that_is_not_json(scene: &Scene<'_>) -> Result<()> {
    for text in ["{", "[]", "", r#"{"ociVersion": "1.0.2", "process": {"args": "sh"}}"#] {
        let bundle = scene.bundle()?;
        fs::write(bundle.directory().join("config.json"), text).context("write config.json")?;
        let id = scene.id();
        let (container, output) = scene.try_create_as(&bundle, &id)?;
        scene.expect(&INVALID_REFUSED, !output.ok(), format_args!("create accepted {text:?}"));
        let status = container.status()?;
        scene.expect(
            &ERROR_LEAVES_NOTHING,
            status == "none" || output.ok(),
            format_args!("{text:?} left {status}"),
        );
    }
    Ok(())
}

fn refuses_a_version_that_is_none(scene: &Scene<'_>) -> Result<()> {
    for version in ["", "abc", "1.0"] {
        let mut bundle = scene.bundle()?;
        bundle.set("/ociVersion", json!(version));
        scene.expect_refused(&VERSION_SEMVER, &format!("ociVersion {version:?}"), &bundle)?;
    }
    let mut bundle = scene.bundle()?;
    bundle.set("/ociVersion", json!("9.0.0"));
    scene.expect_refused(&INVALID_REFUSED, "a version that it cannot know", &bundle)
}

fn refuses_a_missing_root(scene: &Scene<'_>) -> Result<()> {
    let mut bundle = scene.bundle()?;
    bundle.set("/root/path", json!("nowhere"));
    scene.expect_refused(&ROOT_EXISTS, "a root that is not there", &bundle)
}

fn refuses_a_mount_that_fails(scene: &Scene<'_>) -> Result<()> {
    let mut bundle = scene.bundle()?;
    bundle.mount("/mnt", "bind", "/nowhere/at/all", &["bind"]);
    scene.expect_refused(&CREATE_APPLIES_ALL, "a bind mount of nothing", &bundle)?;
    let mut bundle = scene.bundle()?;
    bundle.mount("/mnt", "no-such-filesystem", "none", &[]);
    scene.expect_refused(&CREATE_ENVIRONMENT, "a file system that is none", &bundle)
}

fn refuses_an_empty_annotation_key(scene: &Scene<'_>) -> Result<()> {
    let mut bundle = scene.bundle()?;
    bundle.set("/annotations", json!({"": "value"}));
    scene.expect_refused(&ANNOTATION_KEYS, "an annotation without a key", &bundle)
}

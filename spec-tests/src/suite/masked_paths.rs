//! [Masked](https://github.com/opencontainers/runtime-spec/blob/v1.3.0/config-linux.md#masked-paths) and
//! [read-only](https://github.com/opencontainers/runtime-spec/blob/v1.3.0/config-linux.md#readonly-paths)
//! paths.

use std::fs;

use anyhow::{Context, Result};
use serde_json::json;

use crate::bundle::Bundle;
use crate::case::{Case, Scene};
use crate::requirement::*;

pub(super) static CASES: &[Case] = &[
    Case { name: "masked_paths/cannot_be_read", proves: &[&MASKED_PATHS], needs: &[], run: cannot_be_read },
    Case {
        name: "masked_paths/refuses_a_relative_one",
        proves: &[&MASKED_ABSOLUTE],
        needs: &[],
        run: refuses_a_relative_one,
    },
    Case {
        name: "readonly_paths/cannot_be_written",
        proves: &[&READONLY_PATHS],
        needs: &[],
        run: cannot_be_written,
    },
    Case {
        name: "readonly_paths/refuses_a_relative_one",
        proves: &[&READONLY_ABSOLUTE],
        needs: &[],
        run: refuses_a_relative_readonly_one,
    },
];

/// A file and a folder with a file, below `/secret`.
fn with_secrets(scene: &Scene<'_>) -> Result<Bundle> {
    let bundle = scene.bundle()?;
    fs::create_dir_all(bundle.rootfs("secret/folder")).context("make a folder")?;
    for file in ["secret/file", "secret/folder/file"] {
        fs::write(bundle.rootfs(file), "secret").context("make a file")?;
    }
    Ok(bundle)
}

fn cannot_be_read(scene: &Scene<'_>) -> Result<()> {
    let mut bundle = with_secrets(scene)?;
    // One that is not there is passed over.
    bundle.set("/linux/maskedPaths", json!(["/secret/file", "/secret/folder", "/nowhere", "/proc/version"]));
    let paths = ["/secret/file", "/secret/folder", "/secret/folder/file", "/proc/version"];
    let seen = scene.observe(&mut bundle, &paths)?;
    for path in paths {
        let seen = seen.path(path);
        let content = seen.content.unwrap_or_default();
        scene.expect(&MASKED_PATHS, content.is_empty(), format_args!("{path} shows {content:?}"));
        let entries = seen.entries.unwrap_or_default();
        scene.expect(&MASKED_PATHS, entries.is_empty(), format_args!("{path} shows {entries:?}"));
    }
    let there = seen.path("/secret/folder/file").kind.is_some();
    scene.expect(&MASKED_PATHS, !there, "a file below a masked folder is to be seen");
    Ok(())
}

fn refuses_a_relative_one(scene: &Scene<'_>) -> Result<()> {
    let mut bundle = with_secrets(scene)?;
    bundle.set("/linux/maskedPaths", json!(["secret/file"]));
    scene.expect_refused(&MASKED_ABSOLUTE, "a relative masked path", &bundle)
}

fn cannot_be_written(scene: &Scene<'_>) -> Result<()> {
    let mut bundle = with_secrets(scene)?;
    bundle.set("/linux/readonlyPaths", json!(["/secret/file", "/secret/folder", "/nowhere", "/proc/sys"]));
    let paths =
        ["/secret", "/secret/file", "/secret/folder", "/secret/folder/file", "/proc/sys/net/ipv4/ip_forward"];
    let seen = scene.observe(&mut bundle, &paths)?;
    for path in paths.into_iter().skip(1) {
        let error = seen.path(path).write_error;
        let refused = error.as_deref() == Some("EROFS");
        scene.expect(&READONLY_PATHS, refused, format_args!("writing {path}: {error:?}"));
        let error = seen.path(path).read_error;
        scene.expect(&READONLY_PATHS, error.is_none(), format_args!("reading {path}: {error:?}"));
    }
    scene.expect(&READONLY_PATHS, seen.path("/secret").writable(), "what is beside them cannot be written");
    Ok(())
}

fn refuses_a_relative_readonly_one(scene: &Scene<'_>) -> Result<()> {
    let mut bundle = with_secrets(scene)?;
    bundle.set("/linux/readonlyPaths", json!(["secret/file"]));
    scene.expect_refused(&READONLY_ABSOLUTE, "a relative read-only path", &bundle)
}

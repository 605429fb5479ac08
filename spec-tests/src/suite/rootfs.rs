//! [Root](https://github.com/opencontainers/runtime-spec/blob/v1.3.0/config.md#root).

use anyhow::Result;
use serde_json::json;

use crate::case::{Case, Scene};
use crate::requirement::*;

pub(super) static CASES: &[Case] = &[
    Case {
        name: "rootfs/is_the_bundles_and_writable",
        proves: &[&ROOT_EXISTS, &ROOT_READONLY],
        needs: &[],
        run: is_the_bundles_and_writable,
    },
    Case {
        name: "rootfs/is_read_only_when_asked",
        proves: &[&ROOT_READONLY],
        needs: &[],
        run: is_read_only_when_asked,
    },
    Case {
        name: "rootfs/may_have_an_absolute_path",
        proves: &[&ROOT_EXISTS],
        needs: &[],
        run: may_have_an_absolute_path,
    },
];

fn is_the_bundles_and_writable(scene: &Scene<'_>) -> Result<()> {
    let mut bundle = scene.bundle()?;
    let seen = scene.observe(&mut bundle, &["/"])?.path("/");
    let entries = seen.entries.clone().unwrap_or_default();
    let asked = ["dev", "etc", "lib", "lib64", "probe", "proc", "shared", "sys", "tmp"];
    scene.expect(&ROOT_EXISTS, entries == asked, format_args!("the root has {entries:?}"));
    scene.expect(&ROOT_READONLY, seen.writable(), format_args!("writing in /: {:?}", seen.write_error));
    Ok(())
}

fn is_read_only_when_asked(scene: &Scene<'_>) -> Result<()> {
    let mut bundle = scene.bundle()?;
    bundle.set("/root/readonly", json!(true));
    let seen = scene.observe(&mut bundle, &["/", "/etc", "/dev"])?;
    for path in ["/", "/etc"] {
        let error = seen.path(path).write_error;
        scene.expect(
            &ROOT_READONLY,
            error.as_deref() == Some("EROFS"),
            format_args!("writing in {path}: {error:?}"),
        );
    }
    let error = seen.path("/dev").write_error;
    scene.expect(&ROOT_READONLY, error.is_none(), format_args!("/dev is a mount of its own, yet {error:?}"));
    Ok(())
}

fn may_have_an_absolute_path(scene: &Scene<'_>) -> Result<()> {
    let mut bundle = scene.bundle()?;
    bundle.set("/root/path", json!(bundle.directory().join("rootfs")));
    let seen = scene.observe(&mut bundle, &["/probe"])?;
    scene.expect_same(&ROOT_EXISTS, "/probe", seen.path("/probe").kind.as_deref(), Some("file"));
    Ok(())
}

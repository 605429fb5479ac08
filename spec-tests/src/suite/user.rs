//! [User](https://github.com/opencontainers/runtime-spec/blob/v1.3.0/config.md#posix-platform-user).

use anyhow::Result;
use serde_json::json;

use crate::case::{Case, Scene};
use crate::requirement::*;

pub(super) static CASES: &[Case] = &[
    Case { name: "user/has_its_ids_and_groups", proves: &[&USER], needs: &[], run: has_its_ids_and_groups },
    Case { name: "user/has_no_other_groups", proves: &[&USER], needs: &[], run: has_no_other_groups },
    Case { name: "user/has_its_umask", proves: &[&UMASK], needs: &[], run: has_its_umask },
];

fn has_its_ids_and_groups(scene: &Scene<'_>) -> Result<()> {
    let mut bundle = scene.bundle()?;
    bundle.set("/process/user", json!({"uid": 1234, "gid": 2345, "additionalGids": [10, 3456]}));
    let seen = scene.observe(&mut bundle, &[])?;
    scene.expect_same(&USER, "real, effective and saved uid", seen.uids, [1234; 3]);
    scene.expect_same(&USER, "real, effective and saved gid", seen.gids, [2345; 3]);
    let groups: Vec<u32> = seen.groups.into_iter().filter(|group| *group != 2345).collect();
    scene.expect_same(&USER, "additional groups", groups, vec![10, 3456]);
    Ok(())
}

fn has_no_other_groups(scene: &Scene<'_>) -> Result<()> {
    let mut bundle = scene.bundle()?;
    bundle.set("/process/user", json!({"uid": 1, "gid": 1}));
    let seen = scene.observe(&mut bundle, &[])?;
    let groups: Vec<u32> = seen.groups.into_iter().filter(|group| *group != 1).collect();
    scene.expect_same(&USER, "additional groups", groups, vec![]);
    Ok(())
}

fn has_its_umask(scene: &Scene<'_>) -> Result<()> {
    for umask in [0o027, 0, 0o077] {
        let mut bundle = scene.bundle()?;
        bundle.set("/process/user/umask", json!(umask));
        let seen = scene.observe(&mut bundle, &[])?;
        let seen = seen.status.get("Umask").and_then(|text| u32::from_str_radix(text, 8).ok());
        scene.expect_same(&UMASK, "the umask", seen, Some(umask));
    }
    Ok(())
}

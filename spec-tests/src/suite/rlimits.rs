//! [Resource limits](https://github.com/opencontainers/runtime-spec/blob/v1.3.0/config.md#posix-process).

use anyhow::{Context, Result};
use nix::sys::resource::{Resource, getrlimit};
use serde_json::json;

use crate::case::{Case, Scene};
use crate::requirement::*;

pub(super) static CASES: &[Case] = &[
    Case {
        name: "rlimits/are_soft_and_hard_as_configured",
        proves: &[&RLIMITS],
        needs: &[],
        run: are_soft_and_hard_as_configured,
    },
    Case {
        name: "rlimits/refuse_a_name_that_is_none",
        proves: &[&RLIMITS_UNKNOWN],
        needs: &[],
        run: refuse_a_name_that_is_none,
    },
    Case {
        name: "rlimits/refuse_the_same_twice",
        proves: &[&RLIMITS_DUPLICATE],
        needs: &[],
        run: refuse_the_same_twice,
    },
];

fn are_soft_and_hard_as_configured(scene: &Scene<'_>) -> Result<()> {
    let mut bundle = scene.bundle()?;
    let mut asked = Vec::new();
    for resource in
        [Resource::RLIMIT_NOFILE, Resource::RLIMIT_CORE, Resource::RLIMIT_NPROC, Resource::RLIMIT_STACK]
    {
        // Below our own hard limit: raising one may be more than we are allowed.
        let (_, hard) = getrlimit(resource).context("own limits")?;
        let hard = hard.min(64 << 20) - 1;
        let soft = hard / 2;
        bundle.add("/process/rlimits", json!({"type": format!("{resource:?}"), "soft": soft, "hard": hard}));
        asked.push((format!("{resource:?}"), (soft, hard)));
    }
    let seen = scene.observe(&mut bundle, &[])?.rlimits;
    for (name, limits) in asked {
        scene.expect_same(&RLIMITS, &name, seen.get(&name), Some(&limits));
    }
    Ok(())
}

fn refuse_a_name_that_is_none(scene: &Scene<'_>) -> Result<()> {
    let mut bundle = scene.bundle()?;
    bundle.add("/process/rlimits", json!({"type": "RLIMIT_NOTHING", "soft": 1, "hard": 1}));
    scene.expect_refused(&RLIMITS_UNKNOWN, "RLIMIT_NOTHING", &bundle)
}

fn refuse_the_same_twice(scene: &Scene<'_>) -> Result<()> {
    let mut bundle = scene.bundle()?;
    // Falling: raising a limit may be refused for another reason.
    for limit in [200, 100] {
        bundle.add("/process/rlimits", json!({"type": "RLIMIT_NOFILE", "soft": limit, "hard": limit}));
    }
    scene.expect_refused(&RLIMITS_DUPLICATE, "RLIMIT_NOFILE twice", &bundle)
}

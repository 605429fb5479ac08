//! [Seccomp](https://github.com/opencontainers/runtime-spec/blob/v1.3.0/config-linux.md#seccomp).

use anyhow::Result;
use serde_json::json;

use crate::case::{Case, Scene};
use crate::requirement::*;

pub(super) static CASES: &[Case] = &[
    Case {
        name: "seccomp/refuses_the_listed_calls",
        proves: &[&SECCOMP],
        needs: &[],
        run: refuses_the_listed_calls,
    },
    Case {
        name: "seccomp/is_absent_unless_asked",
        proves: &[&SECCOMP],
        needs: &[],
        run: is_absent_unless_asked,
    },
    Case {
        name: "seccomp/refuses_an_errno_that_an_action_does_not_take",
        proves: &[&SECCOMP_ERRNO],
        needs: &[],
        run: refuses_an_errno_that_an_action_does_not_take,
    },
];

fn refuses_the_listed_calls(scene: &Scene<'_>) -> Result<()> {
    for no_new_privileges in [false, true] {
        for (rest, answer) in [(json!({}), "EPERM"), (json!({"errnoRet": 18}), "EXDEV")] {
            let mut rule = rest;
            rule["names"] = json!(["mkdir", "mkdirat"]);
            rule["action"] = json!("SCMP_ACT_ERRNO");
            let mut bundle = scene.bundle()?;
            bundle.set("/process/noNewPrivileges", json!(no_new_privileges));
            bundle.set("/linux/seccomp", json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}));
            bundle.probe(&["call", "mkdir"]);
            let container = scene.run(&bundle)?;
            let seen = container.stdout()?;
            scene.expect_same(&SECCOMP, "mkdir inside", seen.trim(), answer);
        }
    }
    Ok(())
}

fn is_absent_unless_asked(scene: &Scene<'_>) -> Result<()> {
    let own = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let own = own.lines().find_map(|line| line.strip_prefix("Seccomp:")).map(|mode| mode.trim().to_owned());
    let mut bundle = scene.bundle()?;
    let seen = scene.observe(&mut bundle, &[])?;
    scene.expect_same(&SECCOMP, "the mode without a filter", seen.status.get("Seccomp"), own.as_ref());
    Ok(())
}

fn refuses_an_errno_that_an_action_does_not_take(scene: &Scene<'_>) -> Result<()> {
    let mut bundle = scene.bundle()?;
    let rule = json!({"names": ["mkdir"], "action": "SCMP_ACT_KILL", "errnoRet": 1});
    bundle.set("/linux/seccomp", json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}));
    scene.expect_refused(&SECCOMP_ERRNO, "errnoRet with SCMP_ACT_KILL", &bundle)
}

//! [Capabilities](https://github.com/opencontainers/runtime-spec/blob/v1.3.0/config.md#linux-process).

use anyhow::Result;
use serde_json::json;

use crate::case::{Case, Scene};
use crate::requirement::*;

pub(super) static CASES: &[Case] = &[
    Case {
        name: "capabilities/are_the_five_sets_of_root",
        proves: &[&CAPABILITIES],
        needs: &[],
        run: are_the_five_sets_of_root,
    },
    Case {
        name: "capabilities/are_the_five_sets_of_a_user",
        proves: &[&CAPABILITIES],
        needs: &[],
        run: are_the_five_sets_of_a_user,
    },
    Case {
        name: "capabilities/unknown_ones_are_only_a_warning",
        proves: &[&CAPABILITIES_UNKNOWN],
        needs: &[],
        run: unknown_ones_are_only_a_warning,
    },
];

// Their bits: linux/capability.h
const CHOWN: (&str, u64) = ("CAP_CHOWN", 1);
const KILL: (&str, u64) = ("CAP_KILL", 1 << 5);
const BIND: (&str, u64) = ("CAP_NET_BIND_SERVICE", 1 << 10);
const CHROOT: (&str, u64) = ("CAP_SYS_CHROOT", 1 << 18);
const AUDIT: (&str, u64) = ("CAP_AUDIT_WRITE", 1 << 29);

/// A set: its property, its line of /proc/self/status, what is in it.
type Set<'a> = (&'a str, &'a str, &'a [(&'a str, u64)]);

fn sets(scene: &Scene<'_>, uid: u32, asked: [Set<'_>; 5]) -> Result<()> {
    let mut bundle = scene.bundle()?;
    bundle.set("/process/user/uid", json!(uid));
    for (property, _, set) in asked {
        let names: Vec<&str> = set.iter().map(|(name, _)| *name).collect();
        bundle.set(&format!("/process/capabilities/{property}"), json!(names));
    }
    let seen = scene.observe(&mut bundle, &[])?;
    for (property, line, set) in asked {
        let bits: u64 = set.iter().map(|(_, bit)| bit).sum();
        let bits_seen = seen.capabilities(line).unwrap_or(u64::MAX);
        let met = bits_seen == bits;
        scene.expect(
            &CAPABILITIES,
            met,
            format_args!("the {property} set is {bits_seen:#x} and not {bits:#x}"),
        );
    }
    Ok(())
}

fn are_the_five_sets_of_root(scene: &Scene<'_>) -> Result<()> {
    // execve(2) gives a root process its whole bounding set, so these are the same; inheritable too,
    // since root's permitted set is made of bounding and inheritable.
    let all: &[_] = &[CHOWN, KILL, AUDIT];
    sets(
        scene,
        0,
        [
            ("bounding", "CapBnd", all),
            ("effective", "CapEff", all),
            ("inheritable", "CapInh", &[CHOWN]),
            ("permitted", "CapPrm", all),
            ("ambient", "CapAmb", &[]),
        ],
    )
}

fn are_the_five_sets_of_a_user(scene: &Scene<'_>) -> Result<()> {
    // Across the execve of a user only the ambient set survives in permitted and effective.
    let ambient: &[_] = &[BIND, KILL];
    sets(
        scene,
        1000,
        [
            ("bounding", "CapBnd", &[BIND, KILL, CHROOT, AUDIT]),
            ("effective", "CapEff", ambient),
            ("inheritable", "CapInh", &[BIND, KILL, CHROOT]),
            ("permitted", "CapPrm", ambient),
            ("ambient", "CapAmb", ambient),
        ],
    )
}

fn unknown_ones_are_only_a_warning(scene: &Scene<'_>) -> Result<()> {
    let mut bundle = scene.bundle()?;
    for set in ["bounding", "effective", "permitted"] {
        bundle.set(&format!("/process/capabilities/{set}"), json!(["CAP_KILL", "CAP_FLY"]));
    }
    let (container, output) = scene.try_create(&bundle)?;
    scene.expect(&CAPABILITIES_UNKNOWN, output.ok(), output.complaint());
    if output.ok() {
        scene.expect_same(&CAPABILITIES_UNKNOWN, "status", container.status()?.as_str(), "created");
    }
    Ok(())
}

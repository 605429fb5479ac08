//! [Devices](https://github.com/opencontainers/runtime-spec/blob/v1.3.0/config-linux.md#devices).

use std::fs;

use anyhow::{Context, Result};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use serde_json::json;

use crate::bundle::Bundle;
use crate::case::{Case, Scene};
use crate::probe::Observation;
use crate::requirement::*;

pub(super) static CASES: &[Case] = &[
    Case {
        name: "devices/default_ones_are_there",
        proves: &[&DEVICES_DEFAULT, &DEV_SYMLINKS],
        needs: &[],
        run: default_ones_are_there,
    },
    Case {
        name: "devices/listed_ones_are_there",
        proves: &[&DEVICES],
        needs: &[],
        run: listed_ones_are_there,
    },
    Case {
        name: "devices/refuse_a_path_with_something_else",
        proves: &[&DEVICES_MISMATCH],
        needs: &[],
        run: refuse_a_path_with_something_else,
    },
    Case {
        name: "devices/can_be_used_when_allowed",
        proves: &[&DEVICES_ALLOWED],
        needs: &[],
        run: can_be_used_when_allowed,
    },
    Case {
        name: "devices/cannot_be_used_when_denied",
        proves: &[&DEVICES_ALLOWED],
        needs: &[],
        run: cannot_be_used_when_denied,
    },
];

fn default_ones_are_there(scene: &Scene<'_>) -> Result<()> {
    let devices = [
        ("/dev/null", (1, 3)),
        ("/dev/zero", (1, 5)),
        ("/dev/full", (1, 7)),
        ("/dev/random", (1, 8)),
        ("/dev/urandom", (1, 9)),
        ("/dev/tty", (5, 0)),
    ];
    let links = [
        ("/dev/fd", "/proc/self/fd"),
        ("/dev/stdin", "/proc/self/fd/0"),
        ("/dev/stdout", "/proc/self/fd/1"),
        ("/dev/stderr", "/proc/self/fd/2"),
    ];
    let paths: Vec<&str> = devices
        .iter()
        .map(|(path, _)| *path)
        .chain(links.iter().map(|(path, _)| *path))
        .chain(["/dev/ptmx"])
        .collect();
    let mut bundle = scene.bundle()?;
    let seen = scene.observe(&mut bundle, &paths)?;
    for (path, numbers) in devices {
        let node = seen.path(path);
        scene.expect_same(&DEVICES_DEFAULT, path, node.kind.as_deref(), Some("char"));
        scene.expect_same(&DEVICES_DEFAULT, path, node.device, numbers);
        scene.expect_same(&DEVICES_DEFAULT, &format!("{path}'s mode"), node.mode, 0o666);
    }
    for path in ["/dev/null", "/dev/zero", "/dev/urandom"] {
        let node = seen.path(path);
        let usable = node.read_error.is_none() && node.write_error.is_none();
        scene.expect(
            &DEVICES_DEFAULT,
            usable,
            format_args!("{path}: {:?} {:?}", node.read_error, node.write_error),
        );
    }
    // A link into devpts, or a bind mount of its node.
    let ptmx = seen.path("/dev/ptmx");
    let linked = ptmx.link.as_deref().is_some_and(|link| link.ends_with("pts/ptmx"));
    let right = linked || ptmx.device == (5, 2);
    scene.expect(&DEVICES_DEFAULT, right, format_args!("/dev/ptmx is {:?} {:?}", ptmx.kind, ptmx.link));
    for (path, target) in links {
        scene.expect_same(&DEV_SYMLINKS, path, seen.path(path).link.as_deref(), Some(target));
    }
    Ok(())
}

fn listed_ones_are_there(scene: &Scene<'_>) -> Result<()> {
    let mut bundle = scene.bundle()?;
    bundle.set(
        "/linux/devices",
        json!([
            {"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 0o640, "uid": 11, "gid": 12},
            {"path": "/dev/sub/block", "type": "b", "major": 7, "minor": 77, "fileMode": 0o600},
            {"path": "/dev/pipe", "type": "p", "fileMode": 0o622, "uid": 13, "gid": 14},
        ]),
    );
    let seen = scene.observe(&mut bundle, &["/dev/fuse", "/dev/sub/block", "/dev/pipe"])?;
    for (path, kind, device, mode, owner) in [
        ("/dev/fuse", "char", (10, 229), 0o640, (11, 12)),
        ("/dev/sub/block", "block", (7, 77), 0o600, (0, 0)),
        ("/dev/pipe", "fifo", (0, 0), 0o622, (13, 14)),
    ] {
        let node = seen.path(path);
        scene.expect_same(&DEVICES, path, node.kind.as_deref(), Some(kind));
        scene.expect_same(&DEVICES, &format!("{path}'s numbers"), node.device, device);
        scene.expect_same(&DEVICES, &format!("{path}'s mode"), node.mode, mode);
        scene.expect_same(&DEVICES, &format!("{path}'s owner"), (node.uid, node.gid), owner);
    }
    Ok(())
}

fn refuse_a_path_with_something_else(scene: &Scene<'_>) -> Result<()> {
    let mut bundle = scene.bundle()?;
    fs::write(bundle.rootfs("etc/device"), "a file").context("make a file")?;
    bundle.set("/linux/devices", json!([{"path": "/etc/device", "type": "c", "major": 1, "minor": 3}]));
    scene.expect_refused(&DEVICES_MISMATCH, "a device where a file is", &bundle)?;
    let mut bundle = scene.bundle()?;
    let mode = Mode::from_bits_truncate(0o666);
    mknod(&bundle.rootfs("etc/device"), SFlag::S_IFCHR, mode, makedev(1, 5)).context("make a device")?;
    bundle.set("/linux/devices", json!([{"path": "/etc/device", "type": "c", "major": 1, "minor": 3}]));
    scene.expect_refused(&DEVICES_MISMATCH, "a device where another device is", &bundle)
}

/// fuse and tun, with rules for them after one that denies everything.
fn with_rules(scene: &Scene<'_>, rules: &[(bool, u64)]) -> Result<Bundle> {
    let mut bundle = scene.bundle()?;
    bundle.set(
        "/linux/devices",
        json!([
            {"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229},
            {"path": "/dev/tun", "type": "c", "major": 10, "minor": 200},
        ]),
    );
    bundle.set("/linux/resources/devices", json!([{"allow": false, "access": "rwm"}]));
    for (allow, minor) in rules {
        bundle.add(
            "/linux/resources/devices",
            json!({"allow": allow, "type": "c", "major": 10, "minor": minor, "access": "rwm"}),
        );
    }
    Ok(bundle)
}

/// The cgroup is asked before the driver, which may be missing (ENODEV, ENXIO).
fn is_denied(seen: &Observation, path: &str) -> bool {
    seen.path(path).read_error.as_deref() == Some("EPERM")
}

fn can_be_used_when_allowed(scene: &Scene<'_>) -> Result<()> {
    let mut bundle = with_rules(scene, &[(false, 229), (true, 229)])?;
    let seen = scene.observe(&mut bundle, &["/dev/fuse", "/dev/null"])?;
    for path in ["/dev/fuse", "/dev/null"] {
        scene.expect(&DEVICES_ALLOWED, !is_denied(&seen, path), format_args!("{path} cannot be opened"));
    }
    Ok(())
}

fn cannot_be_used_when_denied(scene: &Scene<'_>) -> Result<()> {
    let mut bundle = with_rules(scene, &[(true, 229), (false, 229), (false, 200)])?;
    let seen = scene.observe(&mut bundle, &["/dev/fuse", "/dev/tun"])?;
    for path in ["/dev/fuse", "/dev/tun"] {
        scene.expect(&DEVICES_ALLOWED, is_denied(&seen, path), format_args!("{path} can be opened"));
    }
    Ok(())
}

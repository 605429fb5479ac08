//! `features`: features.md. Generated from the tables that parse, so it cannot promise too much.

use anyhow::Result;
use clap::{ArgMatches, Command};
use serde_json::json;

use crate::cli::Context;
use crate::container::{capabilities, lsm, mount_options, seccomp};

pub(super) fn flags(command: Command) -> Command {
    command.about("Print what this runtime can do, as JSON")
}

pub(super) fn run(_: &Context, _: &ArgMatches) -> Result<u8> {
    let supported = json!({
        "ociVersionMin": "1.0.0",
        "ociVersionMax": "1.3.0",
        "hooks": ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"],
        "mountOptions": mount_options::names().filter(|name| !name.ends_with("idmap")).collect::<Vec<_>>(),
        "linux": {
            "namespaces": ["cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"],
            "capabilities": &capabilities::NAMES[..],
            "cgroup": {"v1": true, "v2": true, "systemd": false, "systemdUser": false, "rdma": false},
            "seccomp": seccomp::features(),
            "apparmor": {"enabled": lsm::apparmor_is_on()},
            "selinux": {"enabled": lsm::selinux_is_on()},
            "intelRdt": {"enabled": false},
            "mountExtensions": {"idmap": {"enabled": false}},
            "netDevices": {"enabled": false},
        },
        "annotations": {
            "org.opencontainers.runc.checkpoint.enabled": "false",
        },
        "potentiallyUnsafeConfigAnnotations": [],
    });
    println!("{}", serde_json::to_string_pretty(&supported)?);
    Ok(0)
}

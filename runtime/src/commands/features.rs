//! `features`: features.md. Generated from the tables that parse, so it cannot promise too much.

use anyhow::Result;
use clap::{ArgMatches, Command};
use serde::Serialize;
use serde_json::json;

use crate::cli::Context;
use crate::container::{annotations, capabilities, lsm, memory_policy, mount_options, seccomp};

pub(super) fn flags(command: Command) -> Command {
    command.about("Print what this runtime can do, as JSON")
}

pub(super) fn run(_: &Context, _: &ArgMatches) -> Result<u8> {
    let supported = json!({
        "ociVersionMin": "1.0.0",
        "ociVersionMax": "1.3.0",
        "hooks": ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"],
        "mountOptions": mount_options::names().collect::<Vec<_>>(),
        "linux": {
            "namespaces": ["cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"],
            "capabilities": &capabilities::NAMES[..],
            "cgroup": {"v1": true, "v2": true, "systemd": true, "systemdUser": true, "rdma": true},
            "seccomp": filters(),
            "apparmor": {"enabled": lsm::apparmor_is_on()},
            "selinux": {"enabled": lsm::selinux_is_on()},
            "intelRdt": {"enabled": true, "schemata": true, "monitoring": true},
            "memoryPolicy": {"modes": memory_policy::MODES, "flags": memory_policy::FLAGS},
            "mountExtensions": {"idmap": {"enabled": true}},
            "netDevices": {"enabled": true},
        },
        "annotations": {
            "org.opencontainers.runc.checkpoint.enabled": "false",
        },
        "potentiallyUnsafeConfigAnnotations": annotations::UNSAFE,
    });
    let mut text = Vec::new();
    let indent = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    supported.serialize(&mut serde_json::Serializer::with_formatter(&mut text, indent))?;
    println!("{}", String::from_utf8_lossy(&text));
    Ok(0)
}

/// What the filter compiler takes.
fn filters() -> serde_json::Value {
    let actions = ["KILL", "KILL_PROCESS", "KILL_THREAD", "TRAP", "ERRNO", "TRACE", "ALLOW", "LOG", "NOTIFY"];
    let operators = ["NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ"];
    let known = seccomp::FLAGS.map(|(flag, _)| flag);
    let supported = seccomp::FLAGS.iter().filter(|(_, bits)| seccomp::is_supported(*bits));
    json!({
        "enabled": true,
        "actions": actions.map(|name| format!("SCMP_ACT_{name}")),
        "operators": operators.map(|name| format!("SCMP_CMP_{name}")),
        "archs": seccomp::architecture_names().collect::<Vec<_>>(),
        "knownFlags": known,
        "supportedFlags": supported.map(|(flag, _)| flag).collect::<Vec<_>>(),
    })
}

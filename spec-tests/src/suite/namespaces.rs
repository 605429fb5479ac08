//! [Namespaces](https://github.com/opencontainers/runtime-spec/blob/v1.3.0/config-linux.md#namespaces),
//! [id mappings](https://github.com/opencontainers/runtime-spec/blob/v1.3.0/config-linux.md#user-namespace-mappings) and
//! [time offsets](https://github.com/opencontainers/runtime-spec/blob/v1.3.0/config-linux.md#offset-for-time-namespace).

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use serde_json::json;

use crate::bundle::Bundle;
use crate::case::{Case, Need, Scene};
use crate::requirement::*;

pub(super) static CASES: &[Case] = &[
    Case {
        name: "namespaces/without_a_path_are_new",
        proves: &[&NAMESPACES_NEW],
        needs: &[Need::Namespace("cgroup")],
        run: without_a_path_are_new,
    },
    Case {
        name: "namespaces/not_listed_are_the_runtimes",
        proves: &[&NAMESPACES_INHERITED],
        needs: &[],
        run: not_listed_are_the_runtimes,
    },
    Case {
        name: "namespaces/with_a_path_are_joined",
        proves: &[&NAMESPACES_PATH],
        needs: &[Need::Namespace("cgroup")],
        run: with_a_path_are_joined,
    },
    Case {
        name: "namespaces/of_processes_can_be_joined",
        proves: &[&NAMESPACES_PATH],
        needs: &[],
        run: of_processes_can_be_joined,
    },
    Case {
        name: "namespaces/refuse_a_path_of_another_type",
        proves: &[&NAMESPACES_PATH_TYPE],
        needs: &[],
        run: refuse_a_path_of_another_type,
    },
    Case {
        name: "namespaces/refuse_the_same_type_twice",
        proves: &[&NAMESPACES_DUPLICATE],
        needs: &[],
        run: refuse_the_same_type_twice,
    },
    Case {
        name: "namespaces/refuse_an_unknown_type",
        proves: &[&INVALID_REFUSED],
        needs: &[],
        run: refuse_an_unknown_type,
    },
    Case {
        name: "namespaces/of_users_have_their_mappings",
        proves: &[&ID_MAPPINGS, &NAMESPACES_NEW],
        needs: &[Need::Namespace("user")],
        run: of_users_have_their_mappings,
    },
    Case {
        name: "namespaces/of_time_have_their_offsets",
        proves: &[&TIME_OFFSETS, &NAMESPACES_NEW],
        needs: &[Need::Namespace("time")],
        run: of_time_have_their_offsets,
    },
];

/// Types of the configuration and their names in `/proc/self/ns`.
const KINDS: [(&str, &str); 6] = [
    ("pid", "pid"),
    ("mount", "mnt"),
    ("ipc", "ipc"),
    ("uts", "uts"),
    ("network", "net"),
    ("cgroup", "cgroup"),
];

/// The namespaces of a process of the host: ours with "self".
fn of_process(pid: &str) -> Result<BTreeMap<String, String>> {
    let mut found = BTreeMap::new();
    for (_, name) in KINDS.into_iter().chain([("user", "user"), ("time", "time")]) {
        if let Ok(link) = std::fs::read_link(format!("/proc/{pid}/ns/{name}")) {
            found.insert(name.to_owned(), link.to_string_lossy().into_owned());
        }
    }
    anyhow::ensure!(!found.is_empty(), "namespaces of process {pid}: none to be read");
    Ok(found)
}

fn without_a_path_are_new(scene: &Scene<'_>) -> Result<()> {
    let own = of_process("self")?;
    let mut bundle = scene.bundle()?;
    bundle.namespace("cgroup", Some(json!({})));
    let seen = scene.observe(&mut bundle, &[])?;
    for (kind, name) in KINDS {
        let new = seen.namespaces.contains_key(name) && seen.namespaces.get(name) != own.get(name);
        scene.expect(
            &NAMESPACES_NEW,
            new,
            format_args!("the {kind} namespace is {:?}", seen.namespaces.get(name)),
        );
    }
    scene.expect_same(&NAMESPACES_NEW, "the process's own pid", seen.pid, 1);
    Ok(())
}

fn not_listed_are_the_runtimes(scene: &Scene<'_>) -> Result<()> {
    let own = of_process("self")?;
    for (kind, name) in
        [("ipc", "ipc"), ("uts", "uts"), ("network", "net"), ("pid", "pid"), ("cgroup", "cgroup")]
    {
        let mut bundle = scene.bundle()?;
        bundle.namespace(kind, None);
        if kind == "network" {
            // sysfs belongs to the network namespace; mounting it anew is refused in one that is not ours.
            bind_sys(&mut bundle);
        }
        let seen = scene.observe(&mut bundle, &[])?;
        let same = seen.namespaces.get(name) == own.get(name);
        scene.expect(&NAMESPACES_INHERITED, same, format_args!("the {kind} namespace is not the runtime's"));
    }
    Ok(())
}

fn bind_sys(bundle: &mut Bundle) {
    let mounts = bundle.config["mounts"].as_array().cloned().unwrap_or_default();
    let rest: Vec<_> = mounts.into_iter().filter(|mount| mount["destination"] != "/sys").collect();
    bundle.set("/mounts", json!(rest));
}

fn with_a_path_are_joined(scene: &Scene<'_>) -> Result<()> {
    let mut bundle = scene.bundle()?;
    bundle.namespace("cgroup", Some(json!({})));
    bundle.set("/hostname", json!("first"));
    bundle.probe(&["wait"]);
    let first = scene.create(&bundle)?;
    let pid = first.pid()?.to_string();
    let asked = of_process(&pid)?;
    let mut bundle = scene.bundle()?;
    let kinds = [("ipc", "ipc"), ("uts", "uts"), ("network", "net"), ("cgroup", "cgroup")];
    for (kind, name) in kinds {
        bundle.namespace(kind, Some(json!({"path": format!("/proc/{pid}/ns/{name}")})));
    }
    let seen = scene.observe(&mut bundle, &[])?;
    for (kind, name) in kinds {
        let same = seen.namespaces.get(name) == asked.get(name);
        scene.expect(&NAMESPACES_PATH, same, format_args!("the {kind} namespace is another one"));
    }
    scene.expect_same(
        &NAMESPACES_PATH,
        "the host name of the joined namespace",
        seen.hostname.as_str(),
        "first",
    );
    for (kind, name) in [("mount", "mnt"), ("pid", "pid")] {
        let same = seen.namespaces.get(name) == asked.get(name);
        scene.expect(&NAMESPACES_NEW, !same, format_args!("the {kind} namespace was joined as well"));
    }
    Ok(())
}

fn of_processes_can_be_joined(scene: &Scene<'_>) -> Result<()> {
    let mut bundle = scene.bundle()?;
    bundle.probe(&["wait"]);
    let first = scene.create(&bundle)?;
    first.start()?;
    let path = format!("/proc/{}/ns/pid", first.pid()?);
    let mut bundle = scene.bundle()?;
    bundle.namespace("pid", Some(json!({"path": path})));
    let seen = scene.observe(&mut bundle, &[])?;
    let asked = std::fs::read_link(&path).context("namespace of the first container")?;
    let same = seen.namespaces.get("pid").map(String::as_str) == asked.to_str();
    scene.expect(&NAMESPACES_PATH, same, "the pid namespace is another one");
    scene.expect(&NAMESPACES_PATH, seen.pid > 1, format_args!("the second process's pid is {}", seen.pid));
    Ok(())
}

fn refuse_a_path_of_another_type(scene: &Scene<'_>) -> Result<()> {
    for (kind, path) in
        [("network", "/proc/self/ns/ipc"), ("ipc", "/proc/self/ns/uts"), ("uts", "/etc/passwd")]
    {
        let mut bundle = scene.bundle()?;
        bundle.namespace(kind, Some(json!({"path": path})));
        scene.expect_refused(&NAMESPACES_PATH_TYPE, &format!("{path} as {kind} namespace"), &bundle)?;
    }
    Ok(())
}

fn refuse_the_same_type_twice(scene: &Scene<'_>) -> Result<()> {
    let mut bundle = scene.bundle()?;
    bundle.add("/linux/namespaces", json!({"type": "ipc"}));
    scene.expect_refused(&NAMESPACES_DUPLICATE, "two ipc namespaces", &bundle)
}

fn refuse_an_unknown_type(scene: &Scene<'_>) -> Result<()> {
    let mut bundle = scene.bundle()?;
    bundle.add("/linux/namespaces", json!({"type": "weather"}));
    scene.expect_refused(&INVALID_REFUSED, "a namespace of type weather", &bundle)
}

fn of_users_have_their_mappings(scene: &Scene<'_>) -> Result<()> {
    let mut bundle = scene.bundle()?;
    bundle.namespace("user", Some(json!({})));
    bundle.set("/linux/uidMappings", json!([{"containerID": 0, "hostID": 100_000, "size": 1000}, {"containerID": 1000, "hostID": 200_000, "size": 1}]));
    bundle.set("/linux/gidMappings", json!([{"containerID": 0, "hostID": 300_000, "size": 2000}]));
    bundle.set("/process/user", json!({"uid": 5, "gid": 6, "additionalGids": [7]}));
    let seen = scene.observe(&mut bundle, &[])?;
    let map = |name: &str| -> Vec<u32> {
        let text = seen.files.get(name).map(String::as_str).unwrap_or_default();
        text.split_whitespace().filter_map(|number| number.parse().ok()).collect()
    };
    scene.expect_same(&ID_MAPPINGS, "uid_map", map("uid_map"), vec![0, 100_000, 1000, 1000, 200_000, 1]);
    scene.expect_same(&ID_MAPPINGS, "gid_map", map("gid_map"), vec![0, 300_000, 2000]);
    scene.expect_same(&ID_MAPPINGS, "uid inside", seen.uids, [5; 3]);
    scene.expect_same(&ID_MAPPINGS, "gid inside", seen.gids, [6; 3]);
    let own = of_process("self")?;
    let new = seen.namespaces.get("user") != own.get("user");
    scene.expect(&NAMESPACES_NEW, new, "the user namespace is the runtime's");
    Ok(())
}

fn of_time_have_their_offsets(scene: &Scene<'_>) -> Result<()> {
    let mut bundle = scene.bundle()?;
    bundle.namespace("time", Some(json!({})));
    bundle.set(
        "/linux/timeOffsets",
        json!({"monotonic": {"secs": 3600}, "boottime": {"secs": 7200, "nanosecs": 5}}),
    );
    let seen = scene.observe(&mut bundle, &[])?;
    let own = of_process("self")?;
    let new = seen.namespaces.get("time") != own.get("time");
    scene.expect(&NAMESPACES_NEW, new, "the time namespace is the runtime's");
    let text = seen.files.get("timens_offsets").map(String::as_str).unwrap_or_default();
    let words: Vec<&str> = text.split_whitespace().collect();
    let asked = ["monotonic", "3600", "0", "boottime", "7200", "5"];
    scene.expect(&TIME_OFFSETS, words == asked, format_args!("the offsets are {words:?}"));
    Ok(())
}

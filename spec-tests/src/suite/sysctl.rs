//! [Sysctl](https://github.com/opencontainers/runtime-spec/blob/v1.3.0/config-linux.md#sysctl).

use anyhow::Result;
use serde_json::json;

use crate::case::{Case, Scene};
use crate::requirement::*;

pub(super) static CASES: &[Case] = &[
    Case {
        name: "sysctl/sets_parameters_of_the_containers_namespaces",
        proves: &[&SYSCTL],
        needs: &[],
        run: sets_parameters_of_the_containers_namespaces,
    },
    Case {
        name: "sysctl/refuses_parameters_of_the_host",
        proves: &[&CREATE_APPLIES_ALL],
        needs: &[],
        run: refuses_parameters_of_the_host,
    },
];

fn sets_parameters_of_the_containers_namespaces(scene: &Scene<'_>) -> Result<()> {
    let mut bundle = scene.bundle()?;
    bundle.set("/linux/sysctl", json!({"net.ipv4.ip_forward": "1", "kernel.shm_rmid_forced": "1"}));
    let paths = ["/proc/sys/net/ipv4/ip_forward", "/proc/sys/kernel/shm_rmid_forced"];
    let seen = scene.observe(&mut bundle, &paths)?;
    for path in paths {
        scene.expect_same(&SYSCTL, path, seen.path(path).content.as_deref(), Some("1\n"));
    }
    Ok(())
}

fn refuses_parameters_of_the_host(scene: &Scene<'_>) -> Result<()> {
    // Without a namespace of its own the container would change the host: the value is the one that is
    // there, so that nothing changes when a runtime does write it.
    let path = "/proc/sys/kernel/shm_rmid_forced";
    let value = std::fs::read_to_string(path).unwrap_or_default();
    let mut bundle = scene.bundle()?;
    bundle.namespace("ipc", None);
    bundle.set("/linux/sysctl", json!({"kernel.shm_rmid_forced": value.trim()}));
    scene.expect_refused(&CREATE_APPLIES_ALL, "a parameter of the host", &bundle)
}

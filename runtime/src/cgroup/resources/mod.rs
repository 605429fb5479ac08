//! `linux.resources`: config-linux.md#control-groups. One table that says which property becomes which
//! file with which value, in rows of two columns:
//!
//! ```text
//! property       controller   version 1                 version 2
//! memory.limit   memory       memory.limit_in_bytes     memory.max
//! memory.swap    memory       memory.memsw...           memory.swap.max, less the limit
//! cpu.shares     cpu          cpu.shares                cpu.weight, on another scale
//! blockIO...     blkio, io    blkio.*                   io.*
//! ```
//! Which column counts is decided for each controller by the hierarchy that it is in: a host may have the
//! most on version 1 and one of them on version 2. A property without a file there is an error, or, where
//! engines send it everywhere, a warning.

mod block_io;
mod cpu;
mod memory;
mod names;
mod others;

use std::borrow::Cow;

use anyhow::Result;
use oci_spec::runtime::LinuxResources;
use serde::Deserialize;
use serde_json::Value as Json;

use super::devices::{self, DeviceRules};
use crate::bundle;

/// A row of the table, with its values.
#[derive(Debug)]
pub(super) struct Setting {
    /// Below `linux.resources.`, for error messages.
    pub(super) property: Cow<'static, str>,
    pub(super) v1: Column,
    pub(super) v2: Column,
}

/// What to do in a hierarchy of one version.
#[derive(Debug)]
pub(super) struct Column {
    pub(super) controller: Cow<'static, str>,
    pub(super) action: Action,
}

#[derive(Debug)]
pub(super) enum Action {
    /// The first of these files that the kernel has gets its value.
    Write(Files),
    /// The same, where a kernel without the file does what is asked for anyway.
    IfThere(Files),
    /// Another row says it all.
    Nothing,
    /// There is no such file in this version, or it would have no effect. Why this is worth a warning only.
    Warn(&'static str),
    /// The same as an error.
    Refuse(&'static str),
}

/// File names with what goes into them.
pub(super) type Files = Vec<(Cow<'static, str>, Value)>;

/// What goes into a file.
#[derive(Debug)]
pub(super) enum Value {
    Text(String),
    /// `cpu.max` has two numbers; the first one, the quota, stays.
    Period(u64),
    /// `memory.swap.max` counts swap alone; this is memory and swap together, so less `memory.max`.
    SwapAndMemory(u64),
}

/// Everything to write.
#[derive(Debug, Default)]
pub(crate) struct Limits {
    pub(super) settings: Vec<Setting>,
    pub(super) devices: Option<DeviceRules>,
    /// True if the configuration has device rules of its own.
    pub(super) devices_asked: bool,
    /// `memory.checkBeforeUpdate`: the limits that must not be below what is used now. Version 1 refuses
    /// that by itself.
    pub(super) above_usage: Option<memory::AboveUsage>,
    /// What would be a warning for having no effect is an error.
    pub(crate) strict: bool,
}

impl Limits {
    /// True if a process may be killed for the memory that it uses.
    pub(crate) fn has_memory_limit(&self) -> bool {
        self.settings.iter().any(|setting| setting.v2.controller == "memory")
    }
}

/// Translates what a new container is to have.
pub(crate) fn plan(resources: Option<&LinuxResources>) -> Result<Limits> {
    // Without rules a container still has the default devices only, and not all of the host's.
    let rules = resources.and_then(|resources| resources.devices().as_deref()).unwrap_or_default();
    let mut limits = match resources {
        Some(resources) => {
            memory::check_new(resources)?;
            plan_update(resources)?
        }
        None => Limits::default(),
    };
    limits.devices = Some(devices::plan(rules)?);
    limits.devices_asked = !rules.is_empty();
    Ok(limits)
}

/// Translates what a container that exists is to have now. What is absent stays as it is, and so do the
/// devices: what is attached there may be another program's by now (that of a GPU's driver).
pub(crate) fn plan_update(resources: &LinuxResources) -> Result<Limits> {
    let mut limits = Limits::default();
    let settings = &mut limits.settings;
    if let Some(memory) = resources.memory() {
        settings.extend(memory::plan(memory)?);
        limits.above_usage = memory::above_usage(memory);
    }
    if let Some(cpu) = resources.cpu() {
        settings.extend(cpu::plan(cpu)?);
    }
    if let Some(pids) = resources.pids() {
        settings.push(others::pids(pids));
    }
    if let Some(io) = resources.block_io() {
        settings.extend(block_io::plan(io)?);
    }
    settings.extend(others::huge_pages(resources.hugepage_limits().as_deref().unwrap_or_default())?);
    if let Some(network) = resources.network() {
        settings.extend(others::network(network)?);
    }
    settings.extend(others::rdma(resources.rdma().iter().flatten())?);
    // Last, since it may say again what was said above.
    settings.extend(others::unified(resources.unified().iter().flatten())?);
    Ok(limits)
}

/// Reads a `linux.resources` of its own, for `update`.
pub(crate) fn parse(text: &[u8]) -> Result<LinuxResources> {
    bundle::refuse_list(text)?;
    let mut resources = serde_json::from_slice(text)?;
    mend(&mut resources, serde_json::from_slice(text)?)?;
    Ok(resources)
}

/// Mends what oci-spec has not read as it stands in the JSON:
/// - runc reads names in any case, and there are such configurations: what such names say is lost;
/// - a `pids` without a `limit` looks like one with the limit 0.
pub(crate) fn mend(resources: &mut LinuxResources, mut json: Json) -> Result<()> {
    if names::correct(&mut json) {
        *resources = LinuxResources::deserialize(&json)?;
    }
    if resources.pids().is_some() && json.pointer("/pids/limit").is_none() {
        resources.set_pids(None);
    }
    Ok(())
}

/// A row for a controller that has the same name in both versions.
fn row(property: impl Into<Cow<'static, str>>, controller: &'static str, v1: Action, v2: Action) -> Setting {
    let column = |action| Column { controller: controller.into(), action };
    Setting { property: property.into(), v1: column(v1), v2: column(v2) }
}

/// See [`Action::IfThere`].
fn if_there(condition: bool, action: Action) -> Action {
    match action {
        Action::Write(files) if condition => Action::IfThere(files),
        other => other,
    }
}

/// A file and its text.
fn text(file: impl Into<Cow<'static, str>>, value: impl ToString) -> Action {
    value_in(file, Value::Text(value.to_string()))
}

fn value_in(file: impl Into<Cow<'static, str>>, value: Value) -> Action {
    Action::Write(vec![(file.into(), value)])
}

/// Two files, of which a kernel has one or the other, or neither.
fn either(first: (&'static str, impl ToString), second: (&'static str, impl ToString)) -> Action {
    let entry = |(file, text): (&'static str, String)| (file.into(), Value::Text(text));
    Action::Write(vec![entry((first.0, first.1.to_string())), entry((second.0, second.1.to_string()))])
}

const NOT_ON_V2: Action = Action::Refuse("cannot be set on cgroup version 2");

/// Version 2 has a word for what version 1 writes as -1.
fn or_max(limit: i64) -> String {
    if limit < 0 { "max".to_owned() } else { limit.to_string() }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// `property: file=text` for each row, in one version; refusals as `property: reason`.
    fn column(settings: &[Setting], version: u8) -> Vec<String> {
        let one = |setting: &Setting| {
            let column = if version == 1 { &setting.v1 } else { &setting.v2 };
            let said = match &column.action {
                Action::Write(files) | Action::IfThere(files) => {
                    let files = files.iter().map(|(file, value)| match value {
                        Value::Text(text) => format!("{file}={text}"),
                        other => format!("{file}={other:?}"),
                    });
                    let said = files.collect::<Vec<_>>().join(" or ");
                    if matches!(column.action, Action::IfThere(_)) { said + " if there" } else { said }
                }
                Action::Nothing => return None,
                Action::Warn(why) | Action::Refuse(why) => (*why).to_owned(),
            };
            Some(format!("{}: {said}", setting.property))
        };
        settings.iter().filter_map(one).collect()
    }

    fn planned(json: Json) -> Result<Vec<Setting>> {
        plan(Some(&parse(json.to_string().as_bytes())?)).map(|limits| limits.settings)
    }

    fn refusal(json: Json) -> String {
        match planned(json) {
            Ok(settings) => panic!("taken as {settings:?}"),
            Err(error) => format!("{error:#}"),
        }
    }
    /// Each property, and what becomes of it in version 1 and in version 2.
    #[test]
    fn every_property_has_its_row() {
        let cases: [(Json, &[&str], &[&str]); 25] = [
            (
                json!({"memory": {"limit": 100, "reservation": 50, "swap": 300}}),
                &[
                    "memory.limit: memory.limit_in_bytes=100",
                    "memory.swap: memory.memsw.limit_in_bytes=300",
                    "memory.reservation: memory.soft_limit_in_bytes=50",
                ],
                &[
                    "memory.limit: memory.max=100",
                    "memory.swap: memory.swap.max=200",
                    "memory.reservation: memory.low=50",
                ],
            ),
            (
                json!({"memory": {"limit": -1}}),
                &[
                    "memory.limit: memory.limit_in_bytes=-1",
                    "memory.swap: memory.memsw.limit_in_bytes=-1 if there",
                ],
                &["memory.limit: memory.max=max", "memory.swap: memory.swap.max=max if there"],
            ),
            (
                json!({"memory": {"limit": 7, "swap": 7}}),
                &["memory.limit: memory.limit_in_bytes=7", "memory.swap: memory.memsw.limit_in_bytes=7"],
                &["memory.limit: memory.max=7", "memory.swap: memory.swap.max=0 if there"],
            ),
            (
                json!({"memory": {"limit": 7, "swap": -1}}),
                &[
                    "memory.limit: memory.limit_in_bytes=7",
                    "memory.swap: memory.memsw.limit_in_bytes=-1 if there",
                ],
                &["memory.limit: memory.max=7", "memory.swap: memory.swap.max=max if there"],
            ),
            (
                json!({"memory": {"swappiness": 60, "disableOOMKiller": true}}),
                &["memory.swappiness: memory.swappiness=60", "memory.disableOOMKiller: memory.oom_control=1"],
                &[
                    "memory.swappiness: has no effect on cgroup version 2",
                    "memory.disableOOMKiller: cannot be set on cgroup version 2",
                ],
            ),
            // What engines send for "nothing".
            (
                json!({"memory": {"limit": 0, "swap": 0, "swappiness": null, "disableOOMKiller": false}}),
                &[],
                &[],
            ),
            (
                json!({"memory": {"swappiness": 18446744073709551615_u64, "useHierarchy": true, "kernel": 0}}),
                &[],
                &[],
            ),
            (
                json!({"cpu": {"shares": 0, "quota": 0, "period": 0, "cpus": "", "realtimeRuntime": 0}}),
                &[],
                &[],
            ),
            (
                json!({"blockIO": {"weight": 0, "weightDevice": [], "throttleReadBpsDevice": null}, "pids": {}}),
                &[],
                &[],
            ),
            (
                json!({"network": {"classID": 0, "priorities": []}, "hugepageLimits": [], "rdma": {}, "unified": {}}),
                &[],
                &[],
            ),
            (
                json!({"cpu": {"shares": 1024}}),
                &["cpu.shares: cpu.shares=1024"],
                &["cpu.shares: cpu.weight=100"],
            ),
            (
                json!({"cpu": {"quota": 50000, "period": 200000, "burst": 1000}}),
                &[
                    "cpu.period: cpu.cfs_period_us=200000",
                    "cpu.quota: cpu.cfs_quota_us=50000",
                    "cpu.burst: cpu.cfs_burst_us=1000",
                ],
                &["cpu.quota: cpu.max=50000 200000", "cpu.burst: cpu.max.burst=1000"],
            ),
            (json!({"cpu": {"quota": -1}}), &["cpu.quota: cpu.cfs_quota_us=-1"], &["cpu.quota: cpu.max=max"]),
            (
                json!({"cpu": {"period": 5000}}),
                &["cpu.period: cpu.cfs_period_us=5000"],
                &["cpu.period: cpu.max=Period(5000)"],
            ),
            (json!({"cpu": {"idle": 1}}), &["cpu.idle: cpu.idle=1"], &["cpu.idle: cpu.idle=1"]),
            (
                json!({"cpu": {"idle": 1, "shares": 200}}),
                &[
                    "cpu.shares: unable to apply both: idle tasks get what nobody else wants, whatever their weight",
                    "cpu.idle: cpu.idle=1",
                ],
                &[
                    "cpu.shares: unable to apply both: idle tasks get what nobody else wants, whatever their weight",
                    "cpu.idle: cpu.idle=1",
                ],
            ),
            (
                json!({"cpu": {"shares": 1}}),
                &["cpu.shares: the minimum allowed cpu-shares is 2"],
                &["cpu.shares: cpu.weight=1"],
            ),
            (
                json!({"cpu": {"cpus": "0-1", "mems": "0", "realtimePeriod": 9, "realtimeRuntime": 3}}),
                &[
                    "cpu.realtimePeriod: cpu.rt_period_us=9",
                    "cpu.realtimeRuntime: cpu.rt_runtime_us=3",
                    "cpu.cpus: cpuset.cpus=0-1",
                    "cpu.mems: cpuset.mems=0",
                ],
                &[
                    "cpu.realtimePeriod: cannot be set on cgroup version 2",
                    "cpu.realtimeRuntime: cannot be set on cgroup version 2",
                    "cpu.cpus: cpuset.cpus=0-1",
                    "cpu.mems: cpuset.mems=0",
                ],
            ),
            (json!({"pids": {"limit": 0}}), &["pids.limit: pids.max=1"], &["pids.limit: pids.max=1"]),
            (json!({"pids": {"limit": -5}}), &["pids.limit: pids.max=max"], &["pids.limit: pids.max=max"]),
            (
                json!({"blockIO": {
                    "weight": 750, "leafWeight": 20,
                    "weightDevice": [{"major": 8, "minor": 0, "weight": 10, "leafWeight": 1000}],
                    "throttleReadBpsDevice": [{"major": 8, "minor": 16, "rate": 99}],
                    "throttleWriteIOPSDevice": [{"major": 8, "minor": 16, "rate": 0}],
                }}),
                &[
                    "blockIO.weight: blkio.weight=750 or blkio.bfq.weight=750",
                    "blockIO.leafWeight: blkio.leaf_weight=20",
                    "blockIO.weightDevice[0].weight: blkio.weight_device=8:0 10 or blkio.bfq.weight_device=8:0 10",
                    "blockIO.weightDevice[0].leafWeight: blkio.leaf_weight_device=8:0 1000",
                    "blockIO.throttleReadBpsDevice[0]: blkio.throttle.read_bps_device=8:16 99",
                    "blockIO.throttleWriteIOPSDevice[0]: blkio.throttle.write_iops_device=8:16 0",
                ],
                &[
                    "blockIO.weight: io.bfq.weight=750 or io.weight=7475",
                    "blockIO.leafWeight: cannot be set on cgroup version 2",
                    "blockIO.weightDevice[0].weight: io.bfq.weight=8:0 10 or io.weight=8:0 1",
                    "blockIO.weightDevice[0].leafWeight: cannot be set on cgroup version 2",
                    "blockIO.throttleReadBpsDevice[0]: io.max=8:16 rbps=99",
                    "blockIO.throttleWriteIOPSDevice[0]: io.max=8:16 wiops=max",
                ],
            ),
            (
                json!({"hugepageLimits": [{"pagesize": "2MB", "limit": 4194304}]}),
                &[
                    "hugepageLimits[0]: hugetlb.2MB.limit_in_bytes=4194304",
                    "hugepageLimits[0]: hugetlb.2MB.rsvd.limit_in_bytes=4194304 if there",
                ],
                &[
                    "hugepageLimits[0]: hugetlb.2MB.max=4194304",
                    "hugepageLimits[0]: hugetlb.2MB.rsvd.max=4194304 if there",
                ],
            ),
            (
                json!({"network": {"classID": 1048577, "priorities": [{"name": "eth0", "priority": 500}]}}),
                &[
                    "network.classID: net_cls.classid=1048577",
                    "network.priorities[0]: net_prio.ifpriomap=eth0 500",
                ],
                &[
                    "network.classID: cannot be set on cgroup version 2",
                    "network.priorities[0]: cannot be set on cgroup version 2",
                ],
            ),
            (
                json!({"rdma": {"mlx5_1": {"hcaHandles": 3, "hcaObjects": 10000}, "mlx4_0": {"hcaObjects": 4}, "none": {}}}),
                &[
                    "rdma.mlx4_0: rdma.max=mlx4_0 hca_object=4",
                    "rdma.mlx5_1: rdma.max=mlx5_1 hca_handle=3 hca_object=10000",
                ],
                &[
                    "rdma.mlx4_0: rdma.max=mlx4_0 hca_object=4",
                    "rdma.mlx5_1: rdma.max=mlx5_1 hca_handle=3 hca_object=10000",
                ],
            ),
            (
                json!({"unified": {"misc.max": "sev 2", "cgroup.max.depth": "5"}}),
                &[
                    "unified[\"cgroup.max.depth\"]: invalid configuration: cannot use unified on cgroup v1",
                    "unified[\"misc.max\"]: invalid configuration: cannot use unified on cgroup v1",
                ],
                &[
                    "unified[\"cgroup.max.depth\"]: cgroup.max.depth=5",
                    "unified[\"misc.max\"]: misc.max=sev 2",
                ],
            ),
        ];
        for (json, v1, v2) in cases {
            let settings = planned(json.clone()).unwrap_or_else(|error| panic!("{json}: {error:#}"));
            assert_eq!(column(&settings, 1), v1, "{json}");
            assert_eq!(column(&settings, 2), v2, "{json}");
        }
    }

    #[test]
    fn what_makes_no_sense_names_its_property() {
        let cases = [
            (json!({"memory": {"swap": 5}}), "memory.swap: unable to set swap limit without memory limit"),
            (
                json!({"memory": {"swap": 5, "limit": -1}}),
                "memory.swap: unable to set swap limit without memory limit",
            ),
            (
                json!({"memory": {"swap": 5, "limit": 6}}),
                "memory.swap: memory+swap limit should be >= memory limit",
            ),
            (json!({"memory": {"limit": -2}}), "memory.limit: -2 is neither a number of bytes nor -1"),
            (json!({"memory": {"swappiness": 101}}), "memory.swappiness: 101 is not between 0 and 100"),
            (json!({"blockIO": {"weight": 9}}), "blockIO.weight: 9 is not between 10 and 1000"),
            (
                json!({"hugepageLimits": [{"pageSize": "02MB", "limit": 1}]}),
                "hugepageLimits[0].pageSize: \"02MB\" is not a size like \"2MB\"",
            ),
            (
                json!({"hugepageLimits": [{"pageSize": "../2MB", "limit": 1}]}),
                "hugepageLimits[0].pageSize: \"../2MB\" is not a size like \"2MB\"",
            ),
            (
                json!({"network": {"priorities": [{"name": "a b", "priority": 1}]}}),
                "network.priorities[0].name: \"a b\" is not an interface",
            ),
            (
                json!({"unified": {"nodot": "1"}}),
                "unified[\"nodot\"]: must be in the form CONTROLLER.PARAMETER",
            ),
            (
                json!({"unified": {"../memory.max": "1"}}),
                "unified[\"../memory.max\"]: must be a file name (no slashes)",
            ),
            (json!({"unified": {"cgroup.procs": "1"}}), "unified[\"cgroup.procs\"]: is not a limit"),
        ];
        for (json, expected) in cases {
            assert_eq!(refusal(json), format!("linux.resources.{expected}"));
        }
    }

    #[test]
    fn an_update_of_swap_alone_counts_from_the_limit_in_force() {
        let resources = parse(br#"{"memory": {"swap": 300}}"#).expect("good resources");
        let limits = plan_update(&resources).expect("a plan");
        assert_eq!(column(&limits.settings, 2), ["memory.swap: memory.swap.max=SwapAndMemory(300)"]);
    }
}

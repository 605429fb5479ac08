//! `linux.resources`: config-linux.md#control-groups. One place that says which field becomes which
//! file with which value.

use anyhow::{Result, bail};
use oci_spec::runtime::LinuxResources;

use super::devices::{self, DeviceRules};
use crate::log;

/// One file to write.
#[derive(Debug)]
pub(crate) struct Setting {
    /// The property of config.json, for error messages.
    pub(crate) property: &'static str,
    pub(crate) controller: &'static str,
    pub(crate) file: &'static str,
    pub(crate) value: String,
}

/// Everything to write, for both versions; the host decides which list counts.
#[derive(Debug, Default)]
pub(crate) struct Limits {
    pub(crate) v1: Vec<Setting>,
    pub(crate) v2: Vec<Setting>,
    /// Listed in `v1` too, and without a counterpart on version 2.
    pub(crate) only_v1: Vec<&'static str>,
    /// The same, where a warning says so, as with runc: a hint to the kernel and not a limit.
    pub(crate) hints_of_v1: Vec<&'static str>,
    /// What no kernel of today does, on either version.
    pub(crate) without_effect: Vec<&'static str>,
    /// What would be a warning for having no effect is an error.
    pub(crate) strict: bool,
    /// What version 1 has no file for.
    pub(crate) only_v2: Vec<Setting>,
    pub(crate) devices: Option<DeviceRules>,
    /// True if the configuration has device rules of its own.
    pub(crate) devices_asked: bool,
}

/// Translates; refuses what this runtime does not limit yet.
pub(crate) fn plan(resources: Option<&LinuxResources>) -> Result<Limits> {
    // Without rules a container still has the default devices only, and not all of the host's.
    let rules = resources.and_then(|resources| resources.devices().as_deref()).unwrap_or_default();
    let mut limits = Limits {
        devices: Some(devices::plan(rules)?),
        devices_asked: !rules.is_empty(),
        ..Limits::default()
    };
    let Some(resources) = resources else { return Ok(limits) };
    refuse_what_is_missing(resources)?;
    plan_memory(resources, &mut limits)?;
    plan_cpu(resources, &mut limits)?;
    if let Some(limit) = resources.pids().as_ref().map(|pids| pids.limit()).filter(|limit| *limit != 0) {
        limits.both("linux.resources.pids.limit", "pids", "pids.max", or_max(limit));
    }
    Ok(limits)
}

fn refuse_what_is_missing(resources: &LinuxResources) -> Result<()> {
    let missing = [
        (
            "blockIO",
            resources.block_io().as_ref().is_some_and(|io| *io != Default::default() && !is_empty_io(io)),
        ),
        ("hugepageLimits", resources.hugepage_limits().as_ref().is_some_and(|list| !list.is_empty())),
        (
            "network",
            resources.network().as_ref().is_some_and(|net| {
                net.class_id().is_some_and(|id| id != 0)
                    || net.priorities().as_ref().is_some_and(|list| !list.is_empty())
            }),
        ),
        ("rdma", resources.rdma().as_ref().is_some_and(|map| !map.is_empty())),
        ("unified", resources.unified().as_ref().is_some_and(|map| !map.is_empty())),
    ];
    for (name, asked) in missing {
        if asked {
            bail!("linux.resources.{name} is not supported yet");
        }
    }
    Ok(())
}

/// Engines send `blockIO` with nothing in it.
fn is_empty_io(io: &oci_spec::runtime::LinuxBlockIo) -> bool {
    let none =
        |list: &Option<Vec<oci_spec::runtime::LinuxThrottleDevice>>| list.as_ref().is_none_or(Vec::is_empty);
    io.weight().unwrap_or(0) == 0
        && io.leaf_weight().unwrap_or(0) == 0
        && io.weight_device().as_ref().is_none_or(Vec::is_empty)
        && none(io.throttle_read_bps_device())
        && none(io.throttle_write_bps_device())
        && none(io.throttle_read_iops_device())
        && none(io.throttle_write_iops_device())
}

fn or_max(limit: i64) -> String {
    if limit < 0 { "max".to_owned() } else { limit.to_string() }
}

impl Limits {
    /// A warning for each property that is asked for and has no effect here; with `strict` an error.
    pub(super) fn tell_without_effect(&self, properties: &[&'static str], place: &str) -> Result<()> {
        for property in properties {
            if self.strict {
                bail!("{property}: has no effect on {place}");
            }
            log::warn(&format!("{property}: has no effect on {place}"));
        }
        Ok(())
    }

    fn both(&mut self, property: &'static str, controller: &'static str, file: &'static str, value: String) {
        self.v1.push(Setting { property, controller, file, value: value.clone() });
        self.v2.push(Setting { property, controller, file, value });
    }

    fn v1(
        &mut self,
        property: &'static str,
        controller: &'static str,
        file: &'static str,
        value: impl ToString,
    ) {
        self.v1.push(Setting { property, controller, file, value: value.to_string() });
    }

    fn v2(
        &mut self,
        property: &'static str,
        controller: &'static str,
        file: &'static str,
        value: impl ToString,
    ) {
        self.v2.push(Setting { property, controller, file, value: value.to_string() });
    }
}

fn plan_memory(resources: &LinuxResources, limits: &mut Limits) -> Result<()> {
    let Some(memory) = resources.memory() else { return Ok(()) };
    let limit = memory.limit().filter(|limit| *limit != 0);
    let swap = memory.swap().filter(|swap| *swap != 0);
    if let Some(limit) = limit {
        limits.v1("linux.resources.memory.limit", "memory", "memory.limit_in_bytes", limit);
        limits.v2("linux.resources.memory.limit", "memory", "memory.max", or_max(limit));
    }
    if let Some(low) = memory.reservation().filter(|low| *low != 0) {
        limits.v1("linux.resources.memory.reservation", "memory", "memory.soft_limit_in_bytes", low);
        limits.v2("linux.resources.memory.reservation", "memory", "memory.low", or_max(low));
    }
    match (swap, limit) {
        (None, Some(-1)) => limits.v2("linux.resources.memory.swap", "memory", "memory.swap.max", "max"),
        (None, _) => {}
        (Some(-1), _) => {
            limits.v1("linux.resources.memory.swap", "memory", "memory.memsw.limit_in_bytes", -1);
            limits.v2("linux.resources.memory.swap", "memory", "memory.swap.max", "max");
        }
        (Some(_), None | Some(-1)) => {
            bail!("linux.resources.memory.swap: unable to set swap limit without memory limit")
        }
        (Some(swap), Some(limit)) if swap < limit => {
            bail!("linux.resources.memory.swap: memory+swap limit should be >= memory limit")
        }
        // Version 1 counts memory and swap together, version 2 swap alone.
        (Some(swap), Some(limit)) => {
            limits.v1("linux.resources.memory.swap", "memory", "memory.memsw.limit_in_bytes", swap);
            limits.v2("linux.resources.memory.swap", "memory", "memory.swap.max", swap - limit);
        }
    }
    // "kernel" and "kernelTCP" are deprecated: "MAY be ignored"; and a new cgroup has no usage that
    // "checkBeforeUpdate" could compare a limit with.
    for (property, asked) in [
        ("linux.resources.memory.kernel", memory.kernel().is_some_and(|limit| limit != 0)),
        ("linux.resources.memory.kernelTCP", memory.kernel_tcp().is_some_and(|limit| limit != 0)),
    ] {
        if asked {
            log::warn(&format!("{property}: deprecated, and without effect on this kernel"));
        }
    }
    if memory.use_hierarchy() == Some(false) {
        limits.without_effect.push("linux.resources.memory.useHierarchy");
    }
    if let Some(swappiness) = memory.swappiness() {
        if swappiness > 100 {
            bail!("linux.resources.memory.swappiness: {swappiness} is not between 0 and 100");
        }
        limits.v1("linux.resources.memory.swappiness", "memory", "memory.swappiness", swappiness);
        limits.hints_of_v1.push("linux.resources.memory.swappiness");
    }
    if memory.disable_oom_killer() == Some(true) {
        limits.v1("linux.resources.memory.disableOOMKiller", "memory", "memory.oom_control", 1);
        limits.only_v1.push("linux.resources.memory.disableOOMKiller");
    }
    Ok(())
}

fn plan_cpu(resources: &LinuxResources, limits: &mut Limits) -> Result<()> {
    let Some(cpu) = resources.cpu() else { return Ok(()) };
    if let Some(shares) = cpu.shares().filter(|shares| *shares != 0) {
        limits.v1("linux.resources.cpu.shares", "cpu", "cpu.shares", shares);
        limits.v2("linux.resources.cpu.shares", "cpu", "cpu.weight", weight(shares));
    }
    // The period first: the kernel checks the quota against it.
    let (quota, period) =
        (cpu.quota().filter(|quota| *quota != 0), cpu.period().filter(|period| *period != 0));
    if let Some(period) = period {
        limits.v1("linux.resources.cpu.period", "cpu", "cpu.cfs_period_us", period);
    }
    if let Some(quota) = quota {
        limits.v1("linux.resources.cpu.quota", "cpu", "cpu.cfs_quota_us", quota.max(-1));
    }
    if quota.is_some() || period.is_some() {
        let quota = quota.filter(|quota| *quota > 0).map_or("max".to_owned(), |quota| quota.to_string());
        let value = format!("{quota} {}", period.unwrap_or(100_000));
        limits.v2("linux.resources.cpu.quota", "cpu", "cpu.max", value);
    }
    if let Some(burst) = cpu.burst() {
        limits.v1("linux.resources.cpu.burst", "cpu", "cpu.cfs_burst_us", burst);
        limits.v2("linux.resources.cpu.burst", "cpu", "cpu.max.burst", burst);
    }
    if let Some(idle) = cpu.idle().filter(|idle| *idle != 0) {
        limits.v1("linux.resources.cpu.idle", "cpu", "cpu.idle", idle);
        limits.v2("linux.resources.cpu.idle", "cpu", "cpu.idle", idle);
    }
    if let Some(period) = cpu.realtime_period().filter(|period| *period != 0) {
        limits.v1("linux.resources.cpu.realtimePeriod", "cpu", "cpu.rt_period_us", period);
        limits.only_v1.push("linux.resources.cpu.realtimePeriod");
    }
    if let Some(runtime) = cpu.realtime_runtime().filter(|runtime| *runtime != 0) {
        limits.v1("linux.resources.cpu.realtimeRuntime", "cpu", "cpu.rt_runtime_us", runtime);
        limits.only_v1.push("linux.resources.cpu.realtimeRuntime");
    }
    if let Some(cpus) = cpu.cpus().as_ref().filter(|cpus| !cpus.is_empty()) {
        limits.both("linux.resources.cpu.cpus", "cpuset", "cpuset.cpus", cpus.clone());
    }
    if let Some(mems) = cpu.mems().as_ref().filter(|mems| !mems.is_empty()) {
        limits.both("linux.resources.cpu.mems", "cpuset", "cpuset.mems", mems.clone());
    }
    Ok(())
}

/// cpu.shares (2..262144, default 1024) to cpu.weight (1..10000, default 100): the curve that all
/// runtimes have agreed on, exact at both ends and at the defaults.
fn weight(shares: u64) -> u64 {
    if shares <= 2 {
        return 1;
    }
    if shares >= 262_144 {
        return 10_000;
    }
    let l = (shares as f64).log2();
    let exponent = (l * l + 125.0 * l) / 612.0 - 7.0 / 34.0;
    10_f64.powf(exponent).ceil() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_become_weights_at_the_agreed_points() {
        assert_eq!([0, 2, 1024, 262_144].map(weight), [1, 1, 100, 10_000]);
    }
}

//! `memory`: [config-linux.md#memory](https://github.com/opencontainers/runtime-spec/blob/v1.3.0/config-linux.md#memory).

use anyhow::{Result, bail};
use oci_spec::runtime::{LinuxMemory, LinuxResources};

use super::{Action, NOT_ON_V2, Setting, Value, if_there, or_max, row, text, value_in};
use crate::log;

/// Limits that are refused if more is used already.
#[derive(Clone, Copy, Debug)]
pub(in crate::cgroup) struct AboveUsage {
    pub(in crate::cgroup) limit: Option<u64>,
    /// Of memory and swap together.
    pub(in crate::cgroup) swap: Option<u64>,
}

impl AboveUsage {
    /// What cannot be read is not checked.
    pub(in crate::cgroup) fn check(&self, usage: Option<u64>) -> Result<()> {
        for (what, limit) in [("memory+swap", self.swap), ("memory", self.limit)] {
            if let (Some(limit), Some(usage)) = (limit, usage)
                && limit <= usage
            {
                bail!("linux.resources.memory: rejecting {what} limit {limit}: {usage} bytes are used");
            }
        }
        Ok(())
    }
}

/// In a new cgroup there is no limit yet that swap could be counted from.
pub(super) fn check_new(resources: &LinuxResources) -> Result<()> {
    let Some(memory) = resources.memory() else { return Ok(()) };
    if asked(memory.swap()).is_some_and(|swap| swap > 0) && asked(memory.limit()).is_none() {
        bail!("linux.resources.memory.swap: unable to set swap limit without memory limit");
    }
    Ok(())
}

pub(super) fn plan(memory: &LinuxMemory) -> Result<Vec<Setting>> {
    let limits = [("limit", memory.limit()), ("reservation", memory.reservation()), ("swap", memory.swap())];
    for (name, limit) in limits {
        if let Some(limit) = limit.filter(|limit| *limit < -1) {
            bail!("linux.resources.memory.{name}: {limit} is neither a number of bytes nor -1");
        }
    }
    let mut rows = Vec::new();
    let limit = asked(memory.limit());
    if let Some(limit) = limit {
        let (v1, v2) = (text("memory.limit_in_bytes", limit), text("memory.max", or_max(limit)));
        rows.push(row("memory.limit", "memory", v1, v2));
    }
    rows.extend(swap(limit, asked(memory.swap()))?);
    if let Some(low) = asked(memory.reservation()) {
        let (v1, v2) = (text("memory.soft_limit_in_bytes", low), text("memory.low", or_max(low)));
        rows.push(row("memory.reservation", "memory", v1, v2));
    }
    warn_of_what_is_deprecated(memory);
    if memory.use_hierarchy() == Some(false) {
        let action = || Action::Warn("has no effect on this kernel");
        rows.push(row("memory.useHierarchy", "memory", action(), action()));
    }
    // Go's -1, which older engines send for "as it is", arrives as the largest number.
    if let Some(swappiness) = memory.swappiness().filter(|value| *value != u64::MAX) {
        if swappiness > 100 {
            bail!("linux.resources.memory.swappiness: {swappiness} is not between 0 and 100");
        }
        let v2 = Action::Warn("has no effect on cgroup version 2");
        rows.push(row("memory.swappiness", "memory", text("memory.swappiness", swappiness), v2));
    }
    if memory.disable_oom_killer() == Some(true) {
        rows.push(row("memory.disableOOMKiller", "memory", text("memory.oom_control", 1), NOT_ON_V2));
    }
    Ok(rows)
}

/// Version 1 counts memory and swap together, version 2 swap alone.
fn swap(limit: Option<i64>, swap: Option<i64>) -> Result<Option<Setting>> {
    const PROPERTY: &str = "memory.swap";
    const V1: &str = "memory.memsw.limit_in_bytes";
    const V2: &str = "memory.swap.max";
    Ok(match (swap, limit) {
        // Unlimited memory means unlimited swap. A kernel that does not count swap does not limit it.
        (None | Some(-1), Some(-1)) | (Some(-1), _) => {
            let (v1, v2) = (text(V1, -1), text(V2, "max"));
            Some(row(PROPERTY, "memory", if_there(true, v1), if_there(true, v2)))
        }
        (None, _) => None,
        (Some(_), Some(-1)) => {
            bail!("linux.resources.memory.swap: unable to set swap limit without memory limit")
        }
        (Some(swap), None) => {
            let v2 = value_in(V2, Value::SwapAndMemory(swap.unsigned_abs()));
            Some(row(PROPERTY, "memory", text(V1, swap), v2))
        }
        (Some(swap), Some(limit)) if swap < limit => {
            bail!("linux.resources.memory.swap: memory+swap limit should be >= memory limit")
        }
        (Some(swap), Some(limit)) => {
            // A kernel that does not count swap cannot give more of it than it has.
            let v2 = if_there(swap == limit, text(V2, swap - limit));
            Some(row(PROPERTY, "memory", text(V1, swap), v2))
        }
    })
}

/// "MAY be ignored".
fn warn_of_what_is_deprecated(memory: &LinuxMemory) {
    for (name, limit) in [("kernel", memory.kernel()), ("kernelTCP", memory.kernel_tcp())] {
        if asked(limit).is_some() {
            log::warn(&format!(
                "linux.resources.memory.{name}: deprecated, and without effect on this kernel"
            ));
        }
    }
}

/// `checkBeforeUpdate`; see [`super::Limits`].
pub(super) fn above_usage(memory: &LinuxMemory) -> Option<AboveUsage> {
    let bytes = |limit: Option<i64>| limit.filter(|limit| *limit > 0).map(i64::unsigned_abs);
    let check = AboveUsage { limit: bytes(memory.limit()), swap: bytes(memory.swap()) };
    (memory.check_before_update() == Some(true)).then_some(check)
}

/// Engines write 0 for what nobody asked for.
fn asked(limit: Option<i64>) -> Option<i64> {
    limit.filter(|limit| *limit != 0)
}

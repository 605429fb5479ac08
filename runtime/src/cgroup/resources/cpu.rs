//! `cpu`: [config-linux.md#cpu](https://github.com/opencontainers/runtime-spec/blob/v1.3.0/config-linux.md#cpu).

use anyhow::Result;
use oci_spec::runtime::LinuxCpu;

use super::{Action, NOT_ON_V2, Setting, Value, if_there, row, text, value_in};

/// What runc says, with systemd.
pub(super) const IDLE_HAS_NO_WEIGHT: Action =
    Action::Warn("unable to apply both: idle tasks get what nobody else wants, whatever their weight");

pub(super) fn plan(cpu: &LinuxCpu) -> Result<Vec<Setting>> {
    let mut rows = Vec::new();
    let shares = cpu.shares().filter(|shares| *shares != 0);
    if let Some(shares) = shares {
        let (v1, v2) = match cpu.idle() {
            Some(1) => (IDLE_HAS_NO_WEIGHT, IDLE_HAS_NO_WEIGHT),
            _ => (v1_shares(shares), text("cpu.weight", weight(shares))),
        };
        rows.push(row("cpu.shares", "cpu", v1, v2));
    }
    rows.extend(bandwidth(cpu));
    if let Some(burst) = cpu.burst() {
        let file = |name: &'static str| if_there(burst == 0, text(name, burst));
        rows.push(row("cpu.burst", "cpu", file("cpu.cfs_burst_us"), file("cpu.max.burst")));
    }
    if let Some(idle) = cpu.idle() {
        let file = || if_there(idle == 0, text("cpu.idle", idle));
        rows.push(row("cpu.idle", "cpu", file(), file()));
    }
    if let Some(period) = cpu.realtime_period().filter(|period| *period != 0) {
        rows.push(row("cpu.realtimePeriod", "cpu", text("cpu.rt_period_us", period), NOT_ON_V2));
    }
    if let Some(runtime) = cpu.realtime_runtime().filter(|runtime| *runtime != 0) {
        rows.push(row("cpu.realtimeRuntime", "cpu", text("cpu.rt_runtime_us", runtime), NOT_ON_V2));
    }
    for (property, file, list) in
        [("cpu.cpus", "cpuset.cpus", cpu.cpus()), ("cpu.mems", "cpuset.mems", cpu.mems())]
    {
        if let Some(list) = list.as_ref().filter(|list| !list.is_empty()) {
            rows.push(row(property, "cpuset", text(file, list), text(file, list)));
        }
    }
    Ok(rows)
}

/// The kernel would quietly take the nearest number that it allows.
fn v1_shares(shares: u64) -> Action {
    match shares {
        ..2 => Action::Refuse("the minimum allowed cpu-shares is 2"),
        262_145.. => Action::Refuse("the maximum allowed cpu-shares is 262144"),
        _ => text("cpu.shares", shares),
    }
}

/// Quota and period are one file in version 2; what is not given stays as it is.
fn bandwidth(cpu: &LinuxCpu) -> Vec<Setting> {
    let quota = cpu.quota().filter(|quota| *quota != 0);
    let period = cpu.period().filter(|period| *period != 0);
    let mut rows = Vec::new();
    // The period first: where the kernel checks the quota against it, it has to be there.
    if let Some(period) = period {
        let v2 = match quota {
            Some(_) => Action::Nothing,
            None => value_in("cpu.max", Value::Period(period)),
        };
        rows.push(row("cpu.period", "cpu", text("cpu.cfs_period_us", period), v2));
    }
    if let Some(quota) = quota {
        let max = if quota < 0 { "max".to_owned() } else { quota.to_string() };
        let v2 = match period {
            Some(period) => text("cpu.max", format!("{max} {period}")),
            None => text("cpu.max", max),
        };
        rows.push(row("cpu.quota", "cpu", text("cpu.cfs_quota_us", quota.max(-1)), v2));
    }
    rows
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

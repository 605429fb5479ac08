//! `blockIO`: [config-linux.md#block-io](https://github.com/opencontainers/runtime-spec/blob/v1.3.0/config-linux.md#block-io).
//! Weights are BFQ's where that scheduler is there, since its scale is the property's.

use anyhow::{Result, bail};
use oci_spec::runtime::{LinuxBlockIo, LinuxThrottleDevice};

use super::{Action, Column, NOT_ON_V2, Setting, either, text};

pub(super) fn plan(io: &LinuxBlockIo) -> Result<Vec<Setting>> {
    let mut rows = Vec::new();
    if let Some(weight) = in_range("blockIO.weight", io.weight())? {
        let v1 = either(("blkio.weight", weight), ("blkio.bfq.weight", weight));
        let v2 = either(("io.bfq.weight", weight), ("io.weight", io_weight(weight)));
        rows.push(row("blockIO.weight".to_owned(), v1, v2));
    }
    if let Some(weight) = in_range("blockIO.leafWeight", io.leaf_weight())? {
        rows.push(row("blockIO.leafWeight".to_owned(), text("blkio.leaf_weight", weight), NOT_ON_V2));
    }
    for (n, device) in io.weight_device().iter().flatten().enumerate() {
        let number = format!("{}:{}", device.major(), device.minor());
        let property = format!("blockIO.weightDevice[{n}].weight");
        if let Some(weight) = in_range(&property, device.weight())? {
            let line = |weight: u64| format!("{number} {weight}");
            let v1 = either(
                ("blkio.weight_device", line(weight.into())),
                ("blkio.bfq.weight_device", line(weight.into())),
            );
            let v2 = either(("io.bfq.weight", line(weight.into())), ("io.weight", line(io_weight(weight))));
            rows.push(row(property, v1, v2));
        }
        let property = format!("blockIO.weightDevice[{n}].leafWeight");
        if let Some(weight) = in_range(&property, device.leaf_weight())? {
            let v1 = text("blkio.leaf_weight_device", format!("{number} {weight}"));
            rows.push(row(property, v1, NOT_ON_V2));
        }
    }
    rows.extend(throttles("ReadBps", "read_bps", "rbps", io.throttle_read_bps_device()));
    rows.extend(throttles("WriteBps", "write_bps", "wbps", io.throttle_write_bps_device()));
    rows.extend(throttles("ReadIOPS", "read_iops", "riops", io.throttle_read_iops_device()));
    rows.extend(throttles("WriteIOPS", "write_iops", "wiops", io.throttle_write_iops_device()));
    Ok(rows)
}

fn throttles(
    name: &str,
    v1: &str,
    v2: &str,
    devices: &Option<Vec<LinuxThrottleDevice>>,
) -> impl Iterator<Item = Setting> {
    devices.iter().flatten().enumerate().map(move |(n, device)| {
        let number = format!("{}:{}", device.major(), device.minor());
        // No limit is 0 in version 1.
        let rate = if device.rate() == 0 { "max".to_owned() } else { device.rate().to_string() };
        row(
            format!("blockIO.throttle{name}Device[{n}]"),
            text(format!("blkio.throttle.{v1}_device"), format!("{number} {}", device.rate())),
            text("io.max", format!("{number} {v2}={rate}")),
        )
    })
}

/// The controller has another name in each version.
fn row(property: String, v1: Action, v2: Action) -> Setting {
    let v1 = Column { controller: "blkio".into(), action: v1 };
    let v2 = Column { controller: "io".into(), action: v2 };
    Setting { property: property.into(), v1, v2 }
}

/// 0 is what engines write for none.
fn in_range(property: &str, weight: Option<u16>) -> Result<Option<u16>> {
    match weight {
        None | Some(0) => Ok(None),
        Some(10..=1000) => Ok(weight),
        Some(other) => bail!("linux.resources.{property}: {other} is not between 10 and 1000"),
    }
}

/// 10..1000 on io.weight's scale of 1..10000.
fn io_weight(weight: u16) -> u64 {
    1 + (u64::from(weight) - 10) * 9999 / 990
}

//! `pids`, `hugepageLimits`, `network`, `rdma` and `unified`:
//! [config-linux.md](https://github.com/opencontainers/runtime-spec/blob/v1.3.0/config-linux.md#pids).

use std::collections::BTreeMap;

use anyhow::{Result, bail};
use oci_spec::runtime::{LinuxHugepageLimit, LinuxNetwork, LinuxPids, LinuxRdma};

use super::cpu::IDLE_HAS_NO_WEIGHT;
use super::{Action, Column, NOT_ON_V2, Setting, if_there, or_max, row, text};

/// The kernel's 0 would not let the first process in; every runtime takes it for 1.
pub(super) fn pids(pids: &LinuxPids) -> Setting {
    let limit = or_max(if pids.limit() == 0 { 1 } else { pids.limit() });
    row("pids.limit", "pids", text("pids.max", &limit), text("pids.max", &limit))
}

pub(super) fn huge_pages(limits: &[LinuxHugepageLimit]) -> Result<Vec<Setting>> {
    let mut rows = Vec::new();
    for (n, limit) in limits.iter().enumerate() {
        let (size, bytes) = (limit.page_size(), limit.limit());
        if !is_page_size(size) {
            bail!("linux.resources.hugepageLimits[{n}].pageSize: {size:?} is not a size like \"2MB\"");
        }
        if bytes < 0 {
            bail!("linux.resources.hugepageLimits[{n}].limit: {bytes} is not a number of bytes");
        }
        let property = format!("hugepageLimits[{n}]");
        let files = |kind| {
            let v1 = text(format!("hugetlb.{size}{kind}.limit_in_bytes"), bytes);
            (v1, text(format!("hugetlb.{size}{kind}.max"), bytes))
        };
        let ((used1, used2), (reserved1, reserved2)) = (files(""), files(".rsvd"));
        rows.push(row(property.clone(), "hugetlb", used1, used2));
        // Reservations can be limited since Linux 5.7.
        let (v1, v2) = (if_there(true, reserved1), if_there(true, reserved2));
        rows.push(row(property, "hugetlb", v1, v2));
    }
    Ok(rows)
}

/// "The value of pageSize MUST be in the format `<size><unit-prefix>B` (64KB, 2MB, 1GB)".
fn is_page_size(text: &str) -> bool {
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let number = !digits.is_empty() && !digits.starts_with('0') && digits.bytes().all(|b| b.is_ascii_digit());
    number && matches!(&text[digits.len()..], "KB" | "MB" | "GB")
}

pub(super) fn network(network: &LinuxNetwork) -> Result<Vec<Setting>> {
    let mut rows = Vec::new();
    if let Some(class) = network.class_id().filter(|class| *class != 0) {
        rows.push(row("network.classID", "net_cls", text("net_cls.classid", class), NOT_ON_V2));
    }
    for (n, priority) in network.priorities().iter().flatten().enumerate() {
        let name = priority.name();
        if name.is_empty() || name.contains(char::is_whitespace) {
            bail!("linux.resources.network.priorities[{n}].name: {name:?} is not an interface");
        }
        let v1 = text("net_prio.ifpriomap", format!("{name} {}", priority.priority()));
        rows.push(row(format!("network.priorities[{n}]"), "net_prio", v1, NOT_ON_V2));
    }
    Ok(rows)
}

pub(super) fn rdma<'a>(devices: impl Iterator<Item = (&'a String, &'a LinuxRdma)>) -> Result<Vec<Setting>> {
    let mut rows = Vec::new();
    for (device, limits) in devices.collect::<BTreeMap<_, _>>() {
        if device.is_empty() || device.contains(char::is_whitespace) {
            bail!("linux.resources.rdma: {device:?} is not a device");
        }
        let mut line = device.clone();
        for (name, limit) in [("hca_handle", limits.hca_handles()), ("hca_object", limits.hca_objects())] {
            line.extend(limit.map(|limit| format!(" {name}={limit}")));
        }
        if line != *device {
            rows.push(row(
                format!("rdma.{device}"),
                "rdma",
                text("rdma.max", &line),
                text("rdma.max", &line),
            ));
        }
    }
    Ok(rows)
}

/// Files of version 2 by their names. Those of the core that move processes or change what the cgroup is
/// are not limits.
pub(super) fn unified<'a>(files: impl Iterator<Item = (&'a String, &'a String)>) -> Result<Vec<Setting>> {
    const OF_THE_CORE: [&str; 3] = ["cgroup.max.depth", "cgroup.max.descendants", "cgroup.pressure"];
    let mut rows = Vec::new();
    let files: BTreeMap<&String, &String> = files.collect();
    let is_idle = files.iter().any(|(file, value)| *file == "cpu.idle" && value.trim() == "1");
    for (file, value) in files {
        let property = format!("unified[{file:?}]");
        let Some((controller, rest)) = file.split_once('.') else {
            bail!("linux.resources.{property}: must be in the form CONTROLLER.PARAMETER");
        };
        if file.contains('/') {
            bail!("linux.resources.{property}: must be a file name (no slashes)");
        }
        if controller.is_empty() || rest.is_empty() || file.contains('\0') {
            bail!("linux.resources.{property}: must be in the form CONTROLLER.PARAMETER");
        }
        if controller == "cgroup" && !OF_THE_CORE.contains(&file.as_str()) {
            bail!("linux.resources.{property}: is not a limit");
        }
        let column = |action| Column { controller: controller.to_owned().into(), action };
        rows.push(Setting {
            property: property.into(),
            v1: column(Action::Refuse("invalid configuration: cannot use unified on cgroup v1")),
            v2: column(match file.as_str() {
                "cpu.weight" if is_idle => IDLE_HAS_NO_WEIGHT,
                _ => text(file.clone(), value),
            }),
        });
    }
    Ok(rows)
}

//! What a container uses, in the shape of runc's `events`: engines and exporters read that. Names, units
//! and what is left out when it is zero are runc's; the numbers of cgroup version 2 are brought into the
//! terms of version 1, which that shape was made for.

mod v1;
mod v2;

use std::collections::BTreeMap;
use std::path::Path;

use nix::unistd::Pid;
use serde::Serialize;

use super::Place;

/// `data` of a `stats` event.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Stats {
    cpu: Cpu,
    cpuset: CpuSet,
    memory: Memory,
    pids: Pids,
    blkio: BlockIo,
    hugetlb: BTreeMap<String, HugePages>,
    /// None for a container in somebody else's network namespace, whose traffic is not its own.
    network_interfaces: Option<Vec<NetworkInterface>>,
}

#[derive(Debug, Default, Serialize)]
struct Cpu {
    usage: CpuUsage,
    #[serde(skip_serializing_if = "is_default")]
    throttling: Throttling,
    #[serde(skip_serializing_if = "Option::is_none")]
    psi: Option<Pressures>,
}

/// In nanoseconds.
#[derive(Debug, Default, Serialize)]
struct CpuUsage {
    #[serde(skip_serializing_if = "is_default")]
    total: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    percpu: Vec<u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    percpu_kernel: Vec<u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    percpu_user: Vec<u64>,
    kernel: u64,
    user: u64,
}

#[derive(Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Throttling {
    #[serde(skip_serializing_if = "is_default")]
    periods: u64,
    #[serde(skip_serializing_if = "is_default")]
    throttled_periods: u64,
    /// In nanoseconds.
    #[serde(skip_serializing_if = "is_default")]
    throttled_time: u64,
}

/// Pressure stall information: [psi.html](https://docs.kernel.org/accounting/psi.html).
#[derive(Debug, Default, Serialize)]
struct Pressures {
    some: Pressure,
    full: Pressure,
}

#[derive(Debug, Default, Serialize)]
struct Pressure {
    avg10: f64,
    avg60: f64,
    avg300: f64,
    total: u64,
}

#[derive(Debug, Default, Serialize)]
struct CpuSet {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    cpus: Vec<u16>,
    cpu_exclusive: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    mems: Vec<u16>,
    mem_hardwall: u64,
    mem_exclusive: u64,
    memory_migrate: u64,
    memory_spread_page: u64,
    memory_spread_slab: u64,
    memory_pressure: u64,
    sched_load_balance: u64,
    sched_relax_domain_level: i64,
}

#[derive(Debug, Default, Serialize)]
struct Memory {
    #[serde(skip_serializing_if = "is_default")]
    cache: u64,
    #[serde(skip_serializing_if = "is_default")]
    usage: MemoryUse,
    /// Of memory and swap together.
    #[serde(skip_serializing_if = "is_default")]
    swap: MemoryUse,
    #[serde(skip_serializing_if = "is_default")]
    kernel: MemoryUse,
    #[serde(rename = "kernelTCP", skip_serializing_if = "is_default")]
    kernel_tcp: MemoryUse,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    raw: BTreeMap<String, u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    psi: Option<Pressures>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
struct MemoryUse {
    limit: u64,
    #[serde(skip_serializing_if = "is_default")]
    usage: u64,
    #[serde(skip_serializing_if = "is_default")]
    max: u64,
    failcnt: u64,
}

#[derive(Debug, Default, Serialize)]
struct Pids {
    #[serde(skip_serializing_if = "is_default")]
    current: u64,
    /// 0 for none.
    #[serde(skip_serializing_if = "is_default")]
    limit: u64,
}

#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct BlockIo {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    io_service_bytes_recursive: Vec<BlockIoEntry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    io_serviced_recursive: Vec<BlockIoEntry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    io_queue_recursive: Vec<BlockIoEntry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    io_service_time_recursive: Vec<BlockIoEntry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    io_wait_time_recursive: Vec<BlockIoEntry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    io_merged_recursive: Vec<BlockIoEntry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    io_time_recursive: Vec<BlockIoEntry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    sectors_recursive: Vec<BlockIoEntry>,
    #[serde(skip_serializing_if = "Option::is_none")]
    psi: Option<Pressures>,
}

#[derive(Debug, Default, PartialEq, Serialize)]
struct BlockIoEntry {
    #[serde(skip_serializing_if = "is_default")]
    major: u64,
    #[serde(skip_serializing_if = "is_default")]
    minor: u64,
    #[serde(skip_serializing_if = "String::is_empty")]
    op: String,
    #[serde(skip_serializing_if = "is_default")]
    value: u64,
}

#[derive(Debug, Default, Serialize)]
struct HugePages {
    #[serde(skip_serializing_if = "is_default")]
    usage: u64,
    #[serde(skip_serializing_if = "is_default")]
    max: u64,
    failcnt: u64,
}

/// A line of `/proc/PID/net/dev`.
#[derive(Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
struct NetworkInterface {
    name: String,
    rx_bytes: u64,
    rx_packets: u64,
    rx_errors: u64,
    rx_dropped: u64,
    tx_bytes: u64,
    tx_packets: u64,
    tx_errors: u64,
    tx_dropped: u64,
}

/// Asks the kernel. What it does not count here stays zero. `init` has the network namespace to count.
pub(crate) fn read(place: &Place, init: Option<Pid>) -> Stats {
    let mut stats = Stats::default();
    for group in &place.v1 {
        v1::read(group, &mut stats);
    }
    if let Some(group) = &place.v2 {
        v2::read(Folder(&group.dir), place.v1.is_empty(), &mut stats);
    }
    stats.network_interfaces = init
        .and_then(|init| std::fs::read_to_string(format!("/proc/{init}/net/dev")).ok())
        .map(|text| text.lines().filter_map(interface).collect());
    stats
}

/// A cgroup's folder.
#[derive(Clone, Copy)]
struct Folder<'a>(&'a Path);

impl Folder<'_> {
    fn text(self, file: &str) -> Option<String> {
        std::fs::read_to_string(self.0.join(file)).ok()
    }

    /// `max` is the largest number.
    fn number(self, file: &str) -> Option<u64> {
        let text = self.text(file)?;
        if text.trim() == "max" { Some(u64::MAX) } else { text.trim().parse().ok() }
    }

    fn numbers(self, file: &str) -> Vec<u64> {
        let text = self.text(file).unwrap_or_default();
        text.split_whitespace().filter_map(|word| word.parse().ok()).collect()
    }

    /// Lines of a word and a number.
    fn keyed(self, file: &str) -> BTreeMap<String, u64> {
        let text = self.text(file).unwrap_or_default();
        let line = |line: &str| {
            let (key, value) = line.split_once(' ')?;
            Some((key.to_owned(), value.trim().parse().ok()?))
        };
        text.lines().filter_map(line).collect()
    }

    /// The page sizes of `hugetlb.SIZE.<ending>`.
    fn huge_page_sizes(self, ending: &str) -> Vec<String> {
        let size = |name: &str| {
            let size = name.strip_prefix("hugetlb.")?.strip_suffix(ending)?;
            (!size.contains('.')).then(|| size.to_owned())
        };
        let names = std::fs::read_dir(self.0).into_iter().flatten().flatten();
        names.filter_map(|entry| size(entry.file_name().to_str()?)).collect()
    }
}

/// `eth0: 1 2 3 4 ...`: eight numbers received, eight sent.
fn interface(line: &str) -> Option<NetworkInterface> {
    let (name, numbers) = line.split_once(':')?;
    let numbers: Vec<u64> = numbers.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    let [
        rx_bytes,
        rx_packets,
        rx_errors,
        rx_dropped,
        _,
        _,
        _,
        _,
        tx_bytes,
        tx_packets,
        tx_errors,
        tx_dropped,
        ..,
    ] = numbers[..]
    else {
        return None;
    };
    Some(NetworkInterface {
        name: name.trim().to_owned(),
        rx_bytes,
        rx_packets,
        rx_errors,
        rx_dropped,
        tx_bytes,
        tx_packets,
        tx_errors,
        tx_dropped,
    })
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interfaces_are_read() {
        let line = "  eth0: 1 2 3 4 0 0 0 0 5 6 7 8 0 0 0 0";
        let read = interface(line).expect("a line of an interface");
        assert_eq!((read.name.as_str(), read.rx_bytes, read.tx_dropped), ("eth0", 1, 8));
        assert_eq!(interface(" face |bytes    packets errs"), None);
    }
}

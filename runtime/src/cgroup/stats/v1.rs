//! Statistics of the controllers of version 1.

use super::{BlockIoEntry, CpuSet, Folder, HugePages, MemoryUse, Stats, Throttling};
use crate::cgroup::v1::Group;

pub(super) fn read(group: &Group, stats: &mut Stats) {
    let dir = Folder(&group.dir);
    for controller in group.name.split(',') {
        match controller {
            "cpu" => throttling(dir, stats),
            "cpuacct" => cpu(dir, stats),
            "cpuset" => stats.cpuset = cpuset(dir),
            "memory" => memory(dir, stats),
            "pids" => {
                stats.pids.current = dir.number("pids.current").unwrap_or(0);
                stats.pids.limit = dir.number("pids.max").filter(|limit| *limit != u64::MAX).unwrap_or(0);
            }
            "blkio" => block_io(dir, stats),
            "hugetlb" => huge_pages(dir, stats),
            _ => {}
        }
    }
}

fn throttling(dir: Folder, stats: &mut Stats) {
    let read = dir.keyed("cpu.stat");
    let number = |key| read.get(key).copied().unwrap_or(0);
    stats.cpu.throttling = Throttling {
        periods: number("nr_periods"),
        throttled_periods: number("nr_throttled"),
        throttled_time: number("throttled_time"),
    };
}

fn cpu(dir: Folder, stats: &mut Stats) {
    const TICK: u64 = 10_000_000; // nanoseconds; USER_HZ is 100 on every architecture that we run on
    let ticks = dir.keyed("cpuacct.stat");
    let usage = &mut stats.cpu.usage;
    usage.total = dir.number("cpuacct.usage").unwrap_or(0);
    usage.user = ticks.get("user").copied().unwrap_or(0).saturating_mul(TICK);
    usage.kernel = ticks.get("system").copied().unwrap_or(0).saturating_mul(TICK);
    usage.percpu = dir.numbers("cpuacct.usage_percpu");
    // cpu user system
    for line in dir.text("cpuacct.usage_all").unwrap_or_default().lines().skip(1) {
        let numbers: Vec<u64> = line.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        if let [_, user, kernel, ..] = numbers[..] {
            usage.percpu_user.push(user);
            usage.percpu_kernel.push(kernel);
        }
    }
}

fn cpuset(dir: Folder) -> CpuSet {
    let number = |name: &str| dir.number(&format!("cpuset.{name}")).unwrap_or(0);
    let level = dir.text("cpuset.sched_relax_domain_level");
    CpuSet {
        cpus: list(&dir.text("cpuset.cpus").unwrap_or_default()),
        cpu_exclusive: number("cpu_exclusive"),
        mems: list(&dir.text("cpuset.mems").unwrap_or_default()),
        mem_hardwall: number("mem_hardwall"),
        mem_exclusive: number("mem_exclusive"),
        memory_migrate: number("memory_migrate"),
        memory_spread_page: number("memory_spread_page"),
        memory_spread_slab: number("memory_spread_slab"),
        memory_pressure: number("memory_pressure"),
        sched_load_balance: number("sched_load_balance"),
        sched_relax_domain_level: level.and_then(|text| text.trim().parse().ok()).unwrap_or(0),
    }
}

/// `0-2,5` in full.
fn list(text: &str) -> Vec<u16> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.parse().ok()?..=last.parse().ok()?)
    };
    text.trim().split(',').filter_map(range).flatten().collect()
}

fn memory(dir: Folder, stats: &mut Stats) {
    let usage = |name: &str| {
        let number = |what: &str| dir.number(&format!("memory.{name}{what}"));
        MemoryUse {
            limit: number("limit_in_bytes").unwrap_or(0),
            usage: number("usage_in_bytes").unwrap_or(0),
            max: number("max_usage_in_bytes").unwrap_or(0),
            failcnt: number("failcnt").unwrap_or(0),
        }
    };
    let memory = &mut stats.memory;
    memory.raw = dir.keyed("memory.stat");
    memory.cache = memory.raw.get("cache").copied().unwrap_or(0);
    memory.usage = usage("");
    memory.swap = usage("memsw.");
    memory.kernel = usage("kmem.");
    memory.kernel_tcp = usage("kmem.tcp.");
}

/// BFQ counts most, but only for its devices; then what throttling counts for all.
fn block_io(dir: Folder, stats: &mut Stats) {
    let from = |files: [&str; 3]| {
        let mut read = files.iter().map(|file| entries(&dir.text(file).unwrap_or_default()));
        read.find(|entries| !entries.is_empty()).unwrap_or_default()
    };
    let counted = |name: &str| {
        let (bfq, cfq) = (format!("blkio.bfq.{name}_recursive"), format!("blkio.{name}_recursive"));
        let (throttled, old) = (format!("blkio.throttle.{name}_recursive"), format!("blkio.throttle.{name}"));
        let entries = from([&bfq, &cfq, &throttled]);
        if entries.is_empty() { from([&old, "", ""]) } else { entries }
    };
    let io = &mut stats.blkio;
    io.io_service_bytes_recursive = counted("io_service_bytes");
    io.io_serviced_recursive = counted("io_serviced");
    io.io_queue_recursive = counted("io_queued");
    io.io_service_time_recursive = counted("io_service_time");
    io.io_wait_time_recursive = counted("io_wait_time");
    io.io_merged_recursive = counted("io_merged");
    io.io_time_recursive = counted("time");
    io.sectors_recursive = counted("sectors");
}

/// `8:0 Read 1282048`, or without a word; the last line, of all devices, has none.
fn entries(text: &str) -> Vec<BlockIoEntry> {
    let entry = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (device, op, value) = match words[..] {
            [device, op, value] => (device, op, value),
            [device, value] => (device, "", value),
            _ => return None,
        };
        let (major, minor) = device.split_once(':')?;
        Some(BlockIoEntry {
            major: major.parse().ok()?,
            minor: minor.parse().ok()?,
            op: op.to_owned(),
            value: value.parse().ok()?,
        })
    };
    text.lines().filter_map(entry).collect()
}

fn huge_pages(dir: Folder, stats: &mut Stats) {
    for size in dir.huge_page_sizes(".usage_in_bytes") {
        let number = |what: &str| dir.number(&format!("hugetlb.{size}.{what}")).unwrap_or(0);
        let (usage, max) = (number("usage_in_bytes"), number("max_usage_in_bytes"));
        stats.hugetlb.insert(size.clone(), HugePages { usage, max, failcnt: number("failcnt") });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_and_entries_are_read() {
        assert_eq!(list("0-2,5\n"), [0, 1, 2, 5]);
        assert_eq!(list("\n"), Vec::<u16>::new());
        let read = entries("8:0 Read 12\n8:16 7\nTotal 19\n");
        let expected = BlockIoEntry { major: 8, minor: 0, op: "Read".to_owned(), value: 12 };
        assert_eq!((read.len(), &read[0]), (2, &expected));
    }
}

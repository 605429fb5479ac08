//! Statistics of the unified hierarchy.

use super::{BlockIoEntry, Folder, HugePages, MemoryUse, Pressure, Pressures, Stats, Throttling};

/// With `all`; else only those of controllers that no version 1 hierarchy has.
pub(super) fn read(dir: Folder, all: bool, stats: &mut Stats) {
    huge_pages(dir, stats);
    if !all {
        return;
    }
    cpu(dir, stats);
    memory(dir, stats);
    stats.pids.current = dir.number("pids.current").unwrap_or_else(|| processes(dir));
    stats.pids.limit = dir.number("pids.max").filter(|limit| *limit != u64::MAX).unwrap_or(0);
    for (line, device) in dir.text("io.stat").unwrap_or_default().lines().filter_map(device_line) {
        io(line, device, stats);
    }
    stats.blkio.psi = pressures(dir, "io.pressure");
}

/// Without the controller.
fn processes(dir: Folder) -> u64 {
    dir.text("cgroup.procs").unwrap_or_default().lines().count() as u64
}

fn cpu(dir: Folder, stats: &mut Stats) {
    let read = dir.keyed("cpu.stat");
    let number = |key| read.get(key).copied().unwrap_or(0);
    let nanoseconds = |key| number(key).saturating_mul(1000);
    let usage = &mut stats.cpu.usage;
    usage.total = nanoseconds("usage_usec");
    usage.user = nanoseconds("user_usec");
    usage.kernel = nanoseconds("system_usec");
    stats.cpu.throttling = Throttling {
        periods: number("nr_periods"),
        throttled_periods: number("nr_throttled"),
        throttled_time: nanoseconds("throttled_usec"),
    };
    stats.cpu.psi = pressures(dir, "cpu.pressure");
}

fn memory(dir: Folder, stats: &mut Stats) {
    let usage = |name: &str| MemoryUse {
        limit: dir.number(&format!("memory.{name}max")).unwrap_or(0),
        usage: dir.number(&format!("memory.{name}current")).unwrap_or(0),
        max: dir.number(&format!("memory.{name}peak")).unwrap_or(0),
        failcnt: 0,
    };
    let memory = &mut stats.memory;
    memory.raw = dir.keyed("memory.stat");
    memory.cache = memory.raw.get("file").copied().unwrap_or(0);
    memory.usage = usage("");
    let swap = usage("swap.");
    // The peaks of both need not have been at the same time.
    memory.swap = MemoryUse {
        limit: swap.limit.saturating_add(memory.usage.limit),
        usage: swap.usage.saturating_add(memory.usage.usage),
        max: 0,
        failcnt: 0,
    };
    memory.psi = pressures(dir, "memory.pressure");
}

/// `8:0 rbytes=1 wbytes=2 ...`
fn device_line(line: &str) -> Option<(&str, (u64, u64))> {
    let (device, rest) = line.split_once(' ')?;
    let (major, minor) = device.split_once(':')?;
    Some((rest, (major.parse().ok()?, minor.parse().ok()?)))
}

fn io(line: &str, (major, minor): (u64, u64), stats: &mut Stats) {
    for (key, value) in line.split_whitespace().filter_map(|word| word.split_once('=')) {
        let (bytes, count) =
            (&mut stats.blkio.io_service_bytes_recursive, &mut stats.blkio.io_serviced_recursive);
        let (list, op) = match key {
            "rbytes" => (bytes, "Read"),
            "wbytes" => (bytes, "Write"),
            "dbytes" => (bytes, "Discard"),
            "rios" => (count, "Read"),
            "wios" => (count, "Write"),
            "dios" => (count, "Discard"),
            _ => continue,
        };
        if let Ok(value) = value.parse() {
            list.push(BlockIoEntry { major, minor, op: op.to_owned(), value });
        }
    }
}

fn huge_pages(dir: Folder, stats: &mut Stats) {
    for size in dir.huge_page_sizes(".current") {
        let usage = dir.number(&format!("hugetlb.{size}.current")).unwrap_or(0);
        let failures = dir.keyed(&format!("hugetlb.{size}.events"));
        let failcnt = failures.get("max").copied().unwrap_or(0);
        stats.hugetlb.insert(size, HugePages { usage, max: 0, failcnt });
    }
}

/// Absent where the kernel does not count it.
fn pressures(dir: Folder, file: &str) -> Option<Pressures> {
    let text = dir.text(file)?;
    let mut pressures = Pressures::default();
    for line in text.lines() {
        match line.split_once(' ') {
            Some(("some", rest)) => pressures.some = pressure(rest),
            Some(("full", rest)) => pressures.full = pressure(rest),
            _ => {}
        }
    }
    Some(pressures)
}

/// `avg10=0.00 avg60=0.00 avg300=0.00 total=0`
fn pressure(text: &str) -> Pressure {
    let mut pressure = Pressure::default();
    for (key, value) in text.split_whitespace().filter_map(|word| word.split_once('=')) {
        match key {
            "avg10" => pressure.avg10 = value.parse().unwrap_or(0.0),
            "avg60" => pressure.avg60 = value.parse().unwrap_or(0.0),
            "avg300" => pressure.avg300 = value.parse().unwrap_or(0.0),
            "total" => pressure.total = value.parse().unwrap_or(0),
            _ => {}
        }
    }
    pressure
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_devices_and_of_pressure_are_read() {
        let mut stats = Stats::default();
        let (line, device) = device_line("8:16 rbytes=1 wios=2 cost.usage=3").expect("a device's line");
        io(line, device, &mut stats);
        let entry = |value, op: &str| BlockIoEntry { major: 8, minor: 16, op: op.to_owned(), value };
        assert_eq!(stats.blkio.io_service_bytes_recursive, [entry(1, "Read")]);
        assert_eq!(stats.blkio.io_serviced_recursive, [entry(2, "Write")]);
        let read = pressure("avg10=1.50 avg60=0.20 avg300=0.00 total=77");
        assert_eq!((read.avg10, read.avg60, read.total), (1.5, 0.2, 77));
    }
}

//! The properties of a unit: those that say what a limit in the cgroup's files says, and those that
//! annotations ask for. [systemd.resource-control(5)](https://www.freedesktop.org/software/systemd/man/systemd.resource-control.html).

use anyhow::{Context, Result, bail, ensure};

use super::message::Value;
use super::{Version, gvariant};
use crate::container::cpu_list::CpuList;

/// Properties with their values, in the order in which they were set; a later one counts.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Properties(Vec<(String, Value)>);

impl Properties {
    pub(super) fn set(&mut self, name: &str, value: Value) {
        self.0.retain(|(known, _)| known != name);
        self.0.push((name.to_owned(), value));
    }

    pub(super) fn extend(&mut self, more: Self) {
        more.0.into_iter().for_each(|(name, value)| self.set(&name, value));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// As D-Bus has them: a(sv).
    pub(super) fn value(&self) -> Value {
        let one = |(name, value): &(String, Value)| {
            Value::Struct(vec![Value::text(&**name), Value::Variant(Box::new(value.clone()))])
        };
        Value::Array("(sv)".to_owned(), self.0.iter().map(one).collect())
    }
}

/// Files with a number, or "max", the property that says the same, and the version of systemd that knows
/// it first.
const NUMBERS: [(&str, &str, u32); 14] = [
    ("memory.max", "MemoryMax", 0),
    ("memory.high", "MemoryHigh", 0),
    ("memory.low", "MemoryLow", 0),
    ("memory.min", "MemoryMin", 240),
    ("memory.swap.max", "MemorySwapMax", 232),
    ("memory.zswap.max", "MemoryZSwapMax", 253),
    ("memory.limit_in_bytes", "MemoryLimit", 0),
    ("pids.max", "TasksMax", 0),
    ("cpu.weight", "CPUWeight", 232),
    ("cpu.shares", "CPUShares", 0),
    ("io.weight", "IOWeight", 0),
    ("blkio.weight", "BlockIOWeight", 0),
    ("cpu.cfs_period_us", "", 0),
    ("cpu.cfs_quota_us", "", 0),
];

/// What systemd has to know of these files' contents, so that it does not write its own over them. Files
/// that it knows nothing of are left alone by it.
pub(super) fn of_files(files: &[(&str, String)], version: Version) -> Result<Properties> {
    let mut all = Properties::default();
    let text_of =
        |name: &str| files.iter().rev().find(|(file, _)| *file == name).map(|(_, text)| text.trim());
    let mut period = None;
    for (file, text) in files {
        let (file, text) = (*file, text.trim());
        if let Some((_, property, since)) =
            NUMBERS.iter().find(|(known, name, _)| *known == file && !name.is_empty())
        {
            // "default 100" of io.weight; lines for single devices are not for all.
            let text = text.strip_prefix("default ").unwrap_or(text).lines().next().unwrap_or_default();
            if let Some(number) = number(text).filter(|_| version.0 >= *since) {
                all.set(property, Value::Uint64(number));
            }
            continue;
        }
        match file {
            "cpu.max" => {
                let mut words = text.split_whitespace();
                let quota = words.next().and_then(number).filter(|quota| *quota != u64::MAX);
                // Without a period, the one before stays.
                period = words.next().and_then(number).or(period);
                set_quota(&mut all, quota, period, version);
            }
            // 0 is the weight of those who run only when nobody else wants to.
            "cpu.idle" if text == "1" && version.0 >= 252 => all.set("CPUWeight", Value::Uint64(0)),
            // Idle and back again, the kernel gives the default weight.
            "cpu.idle" if text == "0" && text_of("cpu.weight").is_none() => {
                all.set("CPUWeight", Value::Uint64(100))
            }
            "cpuset.cpus" | "cpuset.mems" if version.0 >= 244 => {
                let name = if file == "cpuset.cpus" { "AllowedCPUs" } else { "AllowedMemoryNodes" };
                let bits = bits(text).with_context(|| format!("{file}: {text:?}"))?;
                all.set(name, Value::Array("y".to_owned(), bits.into_iter().map(Value::Byte).collect()));
            }
            _ => {}
        }
    }
    let (quota, period) = (text_of("cpu.cfs_quota_us"), text_of("cpu.cfs_period_us"));
    if quota.is_some() || period.is_some() {
        let quota = quota.and_then(number).filter(|quota| *quota != u64::MAX);
        set_quota(&mut all, quota, period.and_then(number), version);
    }
    Ok(all)
}

/// "max", and -1 of version 1, are systemd's infinity.
fn number(text: &str) -> Option<u64> {
    if matches!(text, "max" | "-1") { Some(u64::MAX) } else { text.parse().ok() }
}

/// A quota as systemd keeps it: microseconds in each second, in steps of 10 ms.
pub(in super::super) fn per_second(quota: u64, period: u64) -> u64 {
    const STEP: u64 = 10_000;
    let exact = u128::from(quota) * 1_000_000 / u128::from(period.max(1));
    u64::try_from(exact).unwrap_or(u64::MAX - STEP).next_multiple_of(STEP)
}

fn set_quota(all: &mut Properties, quota: Option<u64>, period: Option<u64>, version: Version) {
    let per_second = quota.map(|quota| per_second(quota, period.unwrap_or(100_000)));
    all.set("CPUQuotaPerSecUSec", Value::Uint64(per_second.unwrap_or(u64::MAX)));
    if let Some(period) = period.filter(|_| version.0 >= 242) {
        all.set("CPUQuotaPeriodUSec", Value::Uint64(period));
    }
}

/// `0-2,8` as one bit for each number, the lowest first.
fn bits(list: &str) -> Result<Vec<u8>> {
    let mut bytes: Vec<u8> =
        CpuList::parse(list)?.words().iter().flat_map(|word| word.to_le_bytes()).collect();
    bytes.truncate(bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1));
    Ok(bytes)
}

/// The device rules for version 1, where systemd writes its own whenever it is reloaded: by default that
/// everything is allowed. `lines` are those for devices.allow, as `c 1:3 rwm`.
pub(super) fn of_devices(lines: &[&str], version: Version) -> Properties {
    let drivers = (version.0 < 240).then(|| std::fs::read_to_string("/proc/devices").unwrap_or_default());
    let allow = lines.iter().filter_map(|line| device_allow(line, drivers.as_deref()));
    let allow = allow.map(|(device, access)| Value::Struct(vec![Value::text(device), Value::text(access)]));
    let mut all = Properties::default();
    all.set("DevicePolicy", Value::text("strict"));
    all.set("DeviceAllow", Value::Array("(ss)".to_owned(), allow.collect()));
    all
}

/// `/dev/char/1:3` needs no such file. All minor numbers of a major one are `char-136`, or for a systemd before
/// 240 `char-pts`, with the driver's name: what has no driver yet cannot be said to that one.
fn device_allow(line: &str, drivers: Option<&str>) -> Option<(String, String)> {
    let mut words = line.split(' ');
    let (kind, numbers, access) = (words.next()?, words.next()?, words.next()?);
    let (kind, heading) = match kind {
        "b" => ("block", "Block devices:"),
        _ => ("char", "Character devices:"),
    };
    let device = match numbers.split_once(':')? {
        ("*", "*") => format!("{kind}-*"),
        ("*", _) => return None,
        (major, "*") if drivers.is_none() => format!("{kind}-{major}"),
        (major, "*") => {
            let lines = drivers?.lines().skip_while(|line| *line != heading).skip(1);
            let mut lines = lines.take_while(|line| !line.is_empty()).map(str::trim_start);
            format!("{kind}-{}", lines.find_map(|line| line.strip_prefix(major)?.strip_prefix(' '))?)
        }
        (major, minor) => format!("/dev/{kind}/{major}:{minor}"),
    };
    Some((device, access.to_owned()))
}

/// What annotations may ask for, by the whole name or by its beginning: what limits, counts, times, orders or
/// describes the unit. Everything else is refused, since a property can also execute a program (ExecStopPost),
/// start another unit (OnSuccess, Wants), load one (BPFProgram), switch the host off (SuccessAction), or take
/// back what the runtime sets (DeviceAllow). Whoever may write annotations need not be the host's root
/// (CVE-2024-3154).
const ALLOWED: [&str; 8] = [
    "CollectMode",
    "DefaultDependencies",
    "Description",
    "Documentation",
    "After",
    "Before",
    "OOMPolicy",
    "IPAccounting",
];
const ALLOWED_BEGINNINGS: [&str; 16] = [
    "Allowed",
    "BlockIO",
    "CPU",
    "IO",
    "IPAddress",
    "Kill",
    "ManagedOOM",
    "Memory",
    "RuntimeMax",
    "RuntimeRandomizedExtra",
    "SendSIG",
    "Startup",
    "Tasks",
    "TimeoutStop",
    "FinalKillSignal",
    "RestartKillSignal",
];

/// `org.systemd.property.NAME`: a value in GVariant's text format.
pub(super) fn of_annotations<'a>(
    annotations: impl Iterator<Item = (&'a str, &'a str)>,
) -> Result<Properties> {
    let mut all = Properties::default();
    for (key, text) in annotations {
        let Some(name) = key.strip_prefix("org.systemd.property.") else { continue };
        let (name, value) = annotation(name, text).with_context(|| format!("annotations[{key:?}]"))?;
        all.set(&name, value);
    }
    Ok(all)
}

fn annotation(name: &str, text: &str) -> Result<(String, Value)> {
    ensure!(
        name.len() > 2 && name.chars().all(|c| c.is_ascii_alphanumeric()),
        "{name:?} is not the name of a property"
    );
    let allowed = ALLOWED.contains(&name) || ALLOWED_BEGINNINGS.iter().any(|start| name.starts_with(start));
    ensure!(
        allowed,
        "the property {name} is not allowed here: only those that limit, time, order or describe the unit are"
    );
    let value = gvariant::parse(text).with_context(|| format!("{text:?}"))?;
    // TimeoutStopSec=5 is TimeoutStopUSec=5000000 in D-Bus, which has whole microseconds.
    match name.strip_suffix("Sec").filter(|rest| rest.ends_with(|c: char| c.is_ascii_lowercase())) {
        Some(rest) => Ok((format!("{rest}USec"), Value::Uint64(microseconds(&value)?))),
        None => Ok((name.to_owned(), value)),
    }
}

fn microseconds(seconds: &Value) -> Result<u64> {
    let whole: i128 = match *seconds {
        Value::Byte(number) => number.into(),
        Value::Int16(number) => number.into(),
        Value::Uint16(number) => number.into(),
        Value::Int32(number) => number.into(),
        Value::Uint32(number) => number.into(),
        Value::Int64(number) => number.into(),
        Value::Uint64(u64::MAX) => return Ok(u64::MAX), // never
        Value::Uint64(number) => number.into(),
        Value::Double(number) if number.is_finite() && (0.0..1e12).contains(&number) => {
            return Ok((number * 1e6) as u64);
        }
        ref other => bail!("{other} is not a number of seconds"),
    };
    u64::try_from(whole * 1_000_000).ok().with_context(|| format!("{whole} is not a number of seconds"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn properties(files: &[(&str, &str)], version: u32) -> Vec<(String, Value)> {
        let files: Vec<(&str, String)> =
            files.iter().map(|(file, text)| (*file, (*text).to_owned())).collect();
        of_files(&files, Version(version)).expect("good files").0
    }

    fn numbers(files: &[(&str, &str)], version: u32) -> Vec<String> {
        let say = |(name, value)| match value {
            Value::Uint64(u64::MAX) => format!("{name}=infinity"),
            Value::Uint64(number) => format!("{name}={number}"),
            other => format!("{name}={other:?}"),
        };
        properties(files, version).into_iter().map(say).collect()
    }

    #[test]
    fn files_become_properties() {
        type Case = (&'static [(&'static str, &'static str)], &'static [&'static str]);
        let cases: [Case; 13] = [
            (
                &[("memory.max", "100"), ("memory.swap.max", "max")],
                &["MemoryMax=100", "MemorySwapMax=infinity"],
            ),
            (&[("pids.max", "7\n"), ("memory.oom.group", "1")], &["TasksMax=7"]),
            (&[("cpu.max", "50000 100000")], &["CPUQuotaPerSecUSec=500000", "CPUQuotaPeriodUSec=100000"]),
            // Rounded up to steps of 10 ms.
            (&[("cpu.max", "12345 100000")], &["CPUQuotaPerSecUSec=130000", "CPUQuotaPeriodUSec=100000"]),
            (&[("cpu.max", "5000")], &["CPUQuotaPerSecUSec=50000"]),
            (
                &[("cpu.max", "max 50000"), ("cpu.max", "5000")],
                &["CPUQuotaPerSecUSec=100000", "CPUQuotaPeriodUSec=50000"],
            ),
            (&[("cpu.max", "max")], &["CPUQuotaPerSecUSec=infinity"]),
            (
                &[("cpu.weight", "39"), ("io.weight", "default 200\n8:0 300")],
                &["CPUWeight=39", "IOWeight=200"],
            ),
            (&[("io.weight", "8:0 300")], &[]),
            (&[("cpu.idle", "1")], &["CPUWeight=0"]),
            (&[("cpu.idle", "0")], &["CPUWeight=100"]),
            (
                &[("cpu.shares", "512"), ("memory.limit_in_bytes", "-1"), ("blkio.weight", "10")],
                &["CPUShares=512", "MemoryLimit=infinity", "BlockIOWeight=10"],
            ),
            (
                &[("cpu.cfs_period_us", "50000"), ("cpu.cfs_quota_us", "25000")],
                &["CPUQuotaPerSecUSec=500000", "CPUQuotaPeriodUSec=50000"],
            ),
        ];
        for (files, expected) in cases {
            assert_eq!(numbers(files, 252), expected, "{files:?}");
        }
    }

    #[test]
    fn an_older_systemd_is_told_what_it_knows() {
        let files =
            [("cpu.max", "50000 100000"), ("memory.min", "1"), ("cpuset.cpus", "0"), ("cpu.idle", "1")];
        assert_eq!(numbers(&files, 239), ["CPUQuotaPerSecUSec=500000"]);
    }

    #[test]
    fn lists_become_bits() {
        for (list, expected) in [("0", vec![1]), ("0-2,8", vec![7, 1]), ("9", vec![0, 2])] {
            assert_eq!(bits(list).expect(list), expected, "{list}");
        }
        for bad in ["x", "2-1", "1-", "99999999"] {
            assert!(bits(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn device_rules_name_what_systemd_can_name() {
        let groups = "Character devices:\n  1 mem\n136 pts\n\nBlock devices:\n  8 sd\n";
        let cases = [
            ("c 1:3 rwm", Some(("/dev/char/1:3", "rwm"))),
            ("b 8:0 r", Some(("/dev/block/8:0", "r"))),
            ("c *:* m", Some(("char-*", "m"))),
            ("c 136:* rw", Some(("char-pts", "rw"))),
            ("c 36:* rw", None),
            ("b 8:* rw", Some(("block-sd", "rw"))),
            ("b 136:* rw", None),
            ("c *:3 rw", None),
        ];
        for (line, expected) in cases {
            let allowed = device_allow(line, Some(groups));
            let allowed = allowed.as_ref().map(|(device, access)| (&**device, &**access));
            assert_eq!(allowed, expected, "{line}");
        }
        let by_number = Some(("char-241".to_owned(), "rw".to_owned()));
        assert_eq!(device_allow("c 241:* rw", None), by_number);
    }

    #[test]
    fn annotations_are_properties() {
        let good = [
            ("TimeoutStopUSec", "uint64 5", "TimeoutStopUSec", Value::Uint64(5)),
            ("TimeoutStopSec", "5", "TimeoutStopUSec", Value::Uint64(5_000_000)),
            ("RuntimeMaxSec", "double 1.5", "RuntimeMaxUSec", Value::Uint64(1_500_000)),
            ("CollectMode", "'inactive-or-failed'", "CollectMode", Value::text("inactive-or-failed")),
            ("After", "['a.service']", "After", Value::texts(["a.service"])),
            ("CPUQuotaPerSecUSec", "@t 7", "CPUQuotaPerSecUSec", Value::Uint64(7)),
        ];
        for (name, text, expected, value) in good {
            assert_eq!(annotation(name, text).expect(name), (expected.to_owned(), value));
        }
        let key = "org.systemd.property.TasksMax";
        let all = [("other", "x"), (key, "uint64 9")];
        assert_eq!(
            of_annotations(all.into_iter()).expect("good").0,
            [("TasksMax".to_owned(), Value::Uint64(9))]
        );
    }

    #[test]
    fn cve_2024_3154_what_executes_or_loads_is_refused() {
        let bad = [
            "ExecStart",
            "ExecStartPre",
            "ExecStop",
            "ExecStopPost",
            "ExecReload",
            "ExecCondition",
            "SuccessAction",
            "FailureAction",
            "StartLimitAction",
            "JobTimeoutAction",
            "RebootArgument",
            "OnSuccess",
            "OnFailure",
            "Wants",
            "Requires",
            "BindsTo",
            "Upholds",
            "Conflicts",
            "PropagatesStopTo",
            "TriggeredBy",
            "BPFProgram",
            "IPIngressFilterPath",
            "IPEgressFilterPath",
            "DeviceAllow",
            "DevicePolicy",
            "Delegate",
            "Slice",
            "PIDs",
            "User",
            "RootImage",
            "LoadCredential",
            "Environment",
            "WorkingDirectory",
            "Type",
            "Restart",
            "BusName",
            "Controller",
        ];
        for name in bad {
            let error = annotation(name, "'x'").expect_err(name).to_string();
            assert!(error.contains("is not allowed here"), "{error}");
        }
        for name in ["", "A", "Task sMax", "Tasks.Max", "TasksMax=5"] {
            assert!(annotation(name, "1").is_err(), "{name}");
        }
        for seconds in ["'x'", "-1", "true", "double -1.0"] {
            assert!(annotation("TimeoutStopSec", seconds).is_err(), "{seconds}");
        }
    }
}

//! `update`: other limits for a container that exists.
//!
//! What is not given stays as it is, and if one limit cannot be set, all are again what they were. What is
//! in force is what stands in the cgroup's files; nothing is recorded beside them. A copy in the state
//! could only go stale, since engines write into these files too, and nobody would read it: `exec` joins
//! the cgroup as it is, and no container starts twice.

use std::io::Read;

use anyhow::{Context as _, Result, bail};
use clap::{ArgMatches, Command};
use oci_spec::runtime::LinuxResources;
use serde_json::{Map, Value, json};

use crate::cgroup::resources;
use crate::cli::{self, Context};
use crate::container::intel_rdt;
use crate::state_dir::{self, StateDir};

/// How a flag's value is written.
#[derive(Clone, Copy)]
enum Kind {
    /// A number, which may be negative.
    Number,
    /// One that may not.
    Count,
    /// A number of bytes, perhaps with a unit, or -1.
    Bytes,
    /// A list such as 0-3,7.
    Text,
}

/// Flag, its property below `linux.resources`, how its value is written, help.
const FLAGS: [(&str, (&str, &str), Kind, &str); 16] = [
    ("blkio-weight", ("blockIO", "weight"), Kind::Count, "Weight of input and output, 10 to 1000"),
    ("cpu-period", ("cpu", "period"), Kind::Count, "Length of a period, in microseconds"),
    ("cpu-quota", ("cpu", "quota"), Kind::Number, "Time on a processor within a period; -1 for no limit"),
    ("cpu-burst", ("cpu", "burst"), Kind::Count, "Time that may be saved up beyond the quota"),
    ("cpu-share", ("cpu", "shares"), Kind::Count, "Weight against others, 2 to 262144"),
    ("cpu-rt-period", ("cpu", "realtimePeriod"), Kind::Count, "The same for real-time tasks (cgroup v1)"),
    ("cpu-rt-runtime", ("cpu", "realtimeRuntime"), Kind::Number, "Time of real-time tasks (cgroup v1)"),
    ("cpuset-cpus", ("cpu", "cpus"), Kind::Text, "Processors to run on, as in 0-3,7"),
    ("cpuset-mems", ("cpu", "mems"), Kind::Text, "Memory nodes to use"),
    ("cpu-idle", ("cpu", "idle"), Kind::Number, "1 to run only when nobody else wants to"),
    ("memory", ("memory", "limit"), Kind::Bytes, "Most memory, as in 512M; -1 for no limit, of swap too"),
    (
        "memory-reservation",
        ("memory", "reservation"),
        Kind::Bytes,
        "Memory that is left to it when others need some",
    ),
    ("memory-swap", ("memory", "swap"), Kind::Bytes, "Most memory and swap together; -1 for no limit"),
    ("kernel-memory", ("memory", "kernel"), Kind::Bytes, "Obsolete, has no effect"),
    ("kernel-memory-tcp", ("memory", "kernelTCP"), Kind::Bytes, "Obsolete, has no effect"),
    ("pids-limit", ("pids", "limit"), Kind::Number, "Most processes and threads; -1 for no limit"),
];

pub(super) fn flags(command: Command) -> Command {
    let flag = |(name, _, kind, help): (&'static str, _, Kind, &'static str)| {
        let placeholder = match kind {
            Kind::Number | Kind::Count => "N",
            Kind::Bytes => "BYTES",
            Kind::Text => "LIST",
        };
        cli::value(name, placeholder, help).hide(name.starts_with("kernel-"))
    };
    command
        .about("Change the limits of a container")
        .arg(
            cli::value("resources", "FILE", "Take linux.resources from this JSON file, or - from standard input; other flags do not count then")
                .short('r'),
        )
        .args(FLAGS.map(flag))
        .arg(cli::value("l3-cache-schema", "SCHEMA", "Intel RDT: the L3 cache, as in L3:0=f"))
        .arg(cli::value("mem-bw-schema", "SCHEMA", "Intel RDT: the memory bandwidth, as in MB:0=50"))
        .arg(cli::id())
}

pub(super) fn run(context: &Context, matches: &ArgMatches) -> Result<u8> {
    let id = cli::text(matches, "id");
    let limits = resources::plan_update(&wanted(matches)?)?;
    let schemata =
        intel_rdt::plan_update(cli::text(matches, "l3-cache-schema"), cli::text(matches, "mem-bw-schema"))?;
    let _lock = StateDir::open(&context.root, id)?;
    let state = state_dir::load(&context.root, id)?;
    if state_dir::init(&context.root, id)?.is_none() {
        bail!("container not running");
    }
    if schemata.is_empty() {
        state.cgroups.update(&limits).context("update")?;
        return Ok(0);
    }
    let groups = state.intel_rdt.as_ref();
    let groups = groups.context("updating a non-existent Intel RDT configuration is not supported")?;
    let before = groups.update(&schemata).context("update")?;
    state.cgroups.update(&limits).context("update").map_err(|error| match groups.update(&before) {
        Ok(_) => error,
        Err(other) => error.context(format!("and not all was taken back: {other:#}")),
    })?;
    Ok(0)
}

fn wanted(matches: &ArgMatches) -> Result<LinuxResources> {
    match cli::text(matches, "resources") {
        "" => from_flags(matches),
        file => {
            let mut text = Vec::new();
            match file {
                "-" => std::io::stdin().read_to_end(&mut text),
                file => std::fs::File::open(file).and_then(|mut file| file.read_to_end(&mut text)),
            }
            .with_context(|| format!("--resources: read {file:?}"))?;
            resources::parse(&text).with_context(|| format!("--resources: {file:?}"))
        }
    }
}

/// As the JSON that the flags stand for, so that both ways go through one door.
fn from_flags(matches: &ArgMatches) -> Result<LinuxResources> {
    let mut json = Map::new();
    for (name, property, kind, _) in FLAGS {
        let text = cli::text(matches, name);
        if text.is_empty() {
            continue;
        }
        let value = match kind {
            Kind::Number => text.parse::<i64>().map(Value::from).ok(),
            Kind::Count => text.parse::<u64>().map(Value::from).ok(),
            Kind::Bytes => bytes(text).map(Value::from),
            Kind::Text => Some(Value::from(text)),
        };
        let value = value.with_context(|| format!("invalid value for {name}: {text:?}"))?;
        let (group, field) = property;
        json.entry(group).or_insert_with(|| json!({}))[field] = value;
    }
    let text = Value::Object(json).to_string();
    resources::parse(text.as_bytes()).context("a value is out of range")
}

/// `-1`, `4096`, `64k`, `1.5G`, `2GiB`, `100mb`: units are powers of 1024, as with runc.
fn bytes(text: &str) -> Option<i64> {
    if text == "-1" {
        return Some(-1);
    }
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let unit = unit.trim_start().to_ascii_lowercase();
    let letter = unit.strip_suffix("ib").or(unit.strip_suffix('b')).unwrap_or(&unit);
    let power = match letter {
        "" => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        "p" => 5,
        _ => return None,
    };
    let factor = 1_i64 << (10 * power);
    match number.parse::<i64>() {
        Ok(number) => number.checked_mul(factor),
        Err(_) => {
            let product = number.parse::<f64>().ok()? * factor as f64;
            (product < i64::MAX as f64).then_some(product as i64)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::bytes;

    #[test]
    fn bytes_have_units() {
        let good = [
            ("-1", -1),
            ("0", 0),
            ("4096", 4096),
            ("64k", 65536),
            ("50M", 50 << 20),
            ("100mb", 100 << 20),
            ("1.5G", 3 << 29),
            ("2GiB", 2 << 30),
            ("7 b", 7),
        ];
        for (text, number) in good {
            assert_eq!(bytes(text), Some(number), "{text}");
        }
        for bad in ["", "x", "-2", "-1k", "1x", "1kk", "9999999999999999999", "9000000T", "1.2.3"] {
            assert_eq!(bytes(bad), None, "{bad}");
        }
    }
}

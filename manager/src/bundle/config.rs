//! `config.json` as docker's users expect it: docker's mounts, devices, masked paths, limits.
//! [config.md](https://github.com/opencontainers/runtime-spec/blob/main/config.md),
//! [config-linux.md](https://github.com/opencontainers/runtime-spec/blob/main/config-linux.md)
//!
//! Nothing of an image's labels becomes an annotation: runtimes obey some (`run.oci.*`,
//! `org.systemd.property.*`), and an image is a stranger (CVE-2026-53488).

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use nix::sys::stat::{major, minor};
use serde_json::{Map, Value, json};

use super::seccomp::{self, Circumstances};
use super::user::User;
use crate::container::record::{Network, Record, Resources, Seccomp, Source};
use crate::container::{Container, cgroup, record};

/// Hidden: they tell about the host, or let a write reach it.
pub(crate) const MASKED_PATHS: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

/// Visible, but not to be written.
pub(crate) const READONLY_PATHS: [&str; 5] =
    ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// The whole configuration. `sources` are the host's paths of the record's mounts.
pub(crate) fn build(container: &Container, rootfs: &Path, user: &User, sources: &[PathBuf]) -> Result<Value> {
    let record = &container.record;
    let mut process = process(record, user)?;
    process["terminal"] = record.process.terminal.into();
    Ok(json!({
        "ociVersion": "1.0.2",
        "process": process,
        "root": { "path": rootfs, "readonly": record.read_only },
        "hostname": record.hostname,
        "mounts": mounts(container, sources),
        "linux": linux(record)?,
    }))
}

/// The first process; `exec` starts from it, too.
pub(crate) fn process(record: &Record, user: &User) -> Result<Value> {
    let asked = &record.process;
    let cwd = if asked.cwd.is_empty() { "/" } else { &asked.cwd };
    ensure!(cwd.starts_with('/'), "the working directory {cwd:?} is not an absolute path");
    // A descriptor that leaked into the runtime would be a way out (CVE-2024-21626).
    let inside_proc = Path::new(cwd).components().nth(1).is_some_and(|part| part.as_os_str() == "proc");
    ensure!(!inside_proc, "the working directory {cwd:?} is in /proc");
    let mut env = asked.env.clone();
    if !env.iter().any(|variable| variable.starts_with("HOME=")) {
        env.push(format!("HOME={}", user.home));
    }
    let capabilities = &record.security.capabilities;
    // Raising what the caller has is always allowed, lowering it is not.
    let own: Option<i32> =
        fs::read_to_string("/proc/self/oom_score_adj").ok().and_then(|text| text.trim().parse().ok());
    Ok(json!({
        "user": { "uid": user.uid, "gid": user.gid, "additionalGids": user.groups },
        "args": asked.args,
        "env": env,
        "cwd": cwd,
        "capabilities": {
            "bounding": capabilities,
            "effective": capabilities,
            "permitted": capabilities,
        },
        "noNewPrivileges": record.security.no_new_privileges,
        "oomScoreAdj": own.unwrap_or(0).max(0),
    }))
}

/// Docker's mounts, the three files of `/etc`, and what was asked for; outer ones first.
fn mounts(container: &Container, sources: &[PathBuf]) -> Vec<Value> {
    let record = &container.record;
    let writable = if record.security.privileged { "rw" } else { "ro" };
    let mount = |destination: &str, kind: &str, source: &str, options: &[&str]| json!({ "destination": destination, "type": kind, "source": source, "options": options });
    let mut all = vec![
        mount("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
        mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        mount(
            "/dev/pts",
            "devpts",
            "devpts",
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        ),
        mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", writable]),
        mount("/sys/fs/cgroup", "cgroup", "cgroup", &[writable, "nosuid", "noexec", "nodev"]),
        mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        mount("/dev/shm", "tmpfs", "shm", &["nosuid", "noexec", "nodev", "mode=1777", "size=67108864"]),
    ];
    for name in ["resolv.conf", "hostname", "hosts"] {
        let source = container.folder.join(name);
        all.push(mount(&format!("/etc/{name}"), "bind", &source.to_string_lossy(), &["rbind", "rprivate"]));
    }
    let recursive = record.mounts.iter().any(|mount| mount.read_only && mount.source != Source::Tmpfs)
        && container.runtime().knows_mount_option("rro");
    for (asked, source) in record.mounts.iter().zip(sources) {
        all.retain(|other| other["destination"] != asked.destination);
        all.push(asked_mount(asked, source, recursive));
    }
    // A stable sort: what was asked for stays in its order, and hides nothing that lies deeper.
    all.sort_by_key(|mount| {
        mount["destination"].as_str().map_or(0, |path| Path::new(path).components().count())
    });
    all
}

fn asked_mount(asked: &record::Mount, source: &Path, recursive: bool) -> Value {
    let tmpfs = asked.source == Source::Tmpfs;
    let mut options = asked.options.clone();
    if !tmpfs {
        options.push("rbind".into());
        if !matches!(asked.source, Source::Bind(_)) {
            options.push("rprivate".into());
        }
    }
    match (asked.read_only, recursive && !tmpfs) {
        // Read-only with all that is mounted below, where kernel and runtime can do it.
        (true, true) => options.extend(["ro".into(), "rro".into()]),
        (true, false) => options.push("ro".into()),
        (false, _) => {}
    }
    json!({
        "destination": asked.destination,
        "type": if tmpfs { "tmpfs" } else { "bind" },
        "source": source,
        "options": options,
    })
}

fn linux(record: &Record) -> Result<Value> {
    let mut linux = Map::new();
    let mut namespaces = vec!["mount", "uts", "pid", "ipc", "cgroup"];
    if record.network == Network::None {
        namespaces.push("network");
        // Its ports are nobody else's, so every user may open all of them, and ping.
        linux.insert(
            "sysctl".into(),
            json!({
                "net.ipv4.ip_unprivileged_port_start": "0",
                "net.ipv4.ping_group_range": "0 2147483647",
            }),
        );
    }
    let namespaces: Vec<Value> = namespaces.into_iter().map(|kind| json!({ "type": kind })).collect();
    linux.insert("namespaces".into(), namespaces.into());
    linux.insert("cgroupsPath".into(), cgroup::path(&record.id).into());
    linux.insert("resources".into(), resources(&record.resources, record.security.privileged));
    if record.security.privileged {
        linux.insert("devices".into(), host_devices("/dev".as_ref())?.into());
    } else {
        linux.insert("maskedPaths".into(), json!(MASKED_PATHS));
        linux.insert("readonlyPaths".into(), json!(READONLY_PATHS));
    }
    let at = Circumstances::here(&record.security.capabilities);
    match &record.security.seccomp {
        Seccomp::Unconfined => {}
        Seccomp::Default if record.security.privileged => {}
        Seccomp::Default => drop(linux.insert("seccomp".into(), seccomp::default(&at)?)),
        Seccomp::Profile(profile) => drop(linux.insert("seccomp".into(), seccomp::convert(profile, &at)?)),
    }
    Ok(linux.into())
}

/// [config-linux.md#control-groups](https://github.com/opencontainers/runtime-spec/blob/main/config-linux.md#control-groups)
fn resources(asked: &Resources, privileged: bool) -> Value {
    let mut resources = Map::new();
    resources.insert("devices".into(), device_rules(privileged));
    if let Some(limit) = asked.memory {
        let mut memory = Map::new();
        memory.insert("limit".into(), limit.into());
        if let Some(swap) = asked.memory_swap {
            memory.insert("swap".into(), swap.into());
        } else if cgroup::limits_swap() {
            // Docker's default: as much swap as memory.
            memory.insert("swap".into(), limit.saturating_mul(2).into());
        }
        resources.insert("memory".into(), memory.into());
    }
    if let Some(nano_cpus) = asked.nano_cpus {
        let period = 100_000;
        resources.insert("cpu".into(), json!({ "period": period, "quota": nano_cpus / 10_000 }));
    }
    if let Some(limit) = asked.pids {
        resources.insert("pids".into(), json!({ "limit": limit }));
    }
    resources.into()
}

/// No device but null, zero, full, random, urandom, tty and the console.
fn device_rules(privileged: bool) -> Value {
    if privileged {
        return json!([{ "allow": true, "access": "rwm" }]);
    }
    let mut rules = vec![json!({ "allow": false, "access": "rwm" })];
    for (major, minor) in [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 1)] {
        rules.push(json!({ "allow": true, "type": "c", "major": major, "minor": minor, "access": "rwm" }));
    }
    rules.into()
}

/// Every device node of the host, for `--privileged`. What the container has itself (terminals,
/// shared memory, message queues) is left out.
fn host_devices(folder: &Path) -> Result<Vec<Value>> {
    const OWN: [&str; 8] = ["pts", "shm", "fd", "mqueue", "console", "ptmx", "tty", ".lxc"];
    let mut devices = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("read {}", folder.display()))? {
        let entry = entry.with_context(|| format!("read {}", folder.display()))?;
        let (path, name) = (entry.path(), entry.file_name());
        if OWN.iter().any(|&own| name == own) {
            continue;
        }
        // Nodes come and go while we look.
        let Ok(data) = entry.metadata() else { continue };
        let kind = data.file_type();
        if kind.is_dir() {
            devices.extend(host_devices(&path)?);
        } else if kind.is_char_device() || kind.is_block_device() {
            devices.push(json!({
                "path": path,
                "type": if kind.is_char_device() { "c" } else { "b" },
                "major": major(data.rdev()),
                "minor": minor(data.rdev()),
                "fileMode": data.mode() & 0o7777,
                "uid": data.uid(),
                "gid": data.gid(),
            }));
        }
    }
    Ok(devices)
}

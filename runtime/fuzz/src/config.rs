//! `config.json` and what `exec --process` is given: read and planned as a whole, nothing of it made.
//! Whatever stands in it, there is a plan, or an error of one line that names the property.

use std::path::Path;

use libfuzzer_sys::arbitrary::{Result, Unstructured};
use oci_spec::runtime::{LinuxNamespace, Spec};
use serde_json::{Value, json};

use crate::cgroup::Manager;
use crate::container::annotations::Annotations;
use crate::container::{self, process};
use crate::{bundle, property};

/// The input is a text as it is, or says what to change in a configuration that has every property.
pub fn run(input: &[u8]) {
    let Some((how, rest)) = input.split_first() else { return };
    if how % 2 == 0 {
        let _ = plan(rest);
        let _ = bundle::parse_process(rest)
            .and_then(|section| process::plan(&section, None, &Annotations::default()));
        let _ = property::at(rest, usize::from(*how), rest.len() / 2);
    } else if let Ok(config) = changed(&mut Unstructured::new(rest)) {
        if let Err(error) = plan(config.to_string().as_bytes()) {
            let error = format!("{error:#}");
            let first = error.split([' ', ':', '.', '[']).next().unwrap_or_default();
            assert!(PROPERTIES.contains(&first), "no property in {error:?} of {config}");
            assert!(!error.contains('\n'), "{error:?} has several lines");
        }
    }
}

const PROPERTIES: [&str; 9] =
    ["ociVersion", "root", "mounts", "process", "hostname", "domainname", "hooks", "annotations", "linux"];

fn plan(text: &[u8]) -> anyhow::Result<()> {
    let mut spec = bundle::parse(text)?;
    touch_nothing(&mut spec);
    let plan = container::plan(spec, Path::new("/"), "fuzz", Manager::Files)?;
    // What the kernel is handed as C strings, and the rules of config.md that later steps rely on.
    let process = &plan.process;
    assert!(process.args.iter().chain(&process.env).all(|text| !text.contains('\0')), "{process:?}");
    assert!(process.args.is_empty() || process.cwd.starts_with('/'), "{process:?}");
    assert!(process.env.iter().all(|entry| entry.find('=').is_some_and(|at| at > 0)), "{process:?}");
    Ok(())
}

/// Planning looks at the root file system and opens the namespaces that are to be joined.
fn touch_nothing(spec: &mut Spec) {
    if let Some(root) = spec.root_mut() {
        root.set_path("/".into());
    }
    let Some(linux) = spec.linux_mut() else { return };
    for namespace in linux.namespaces_mut().iter_mut().flatten() {
        let mut new = LinuxNamespace::default();
        new.set_typ(namespace.typ());
        *namespace = new;
    }
}

/// Some values of [`whole`] replaced by others.
fn changed(input: &mut Unstructured) -> Result<Value> {
    let mut config = whole();
    for _ in 0..input.int_in_range(1..=6)? {
        let sections = config.as_object_mut().expect("an object");
        let chosen = input.choose_index(sections.len())?;
        let section = sections.values_mut().nth(chosen).expect("it has so many");
        *descend(section, input)? = value(input, 0)?;
    }
    Ok(config)
}

fn descend<'a>(from: &'a mut Value, input: &mut Unstructured) -> Result<&'a mut Value> {
    let count = match &*from {
        Value::Object(members) => members.len(),
        Value::Array(items) => items.len(),
        _ => 0,
    };
    if count == 0 || input.ratio(1, 8)? {
        return Ok(from);
    }
    let chosen = input.choose_index(count)?;
    match from {
        Value::Object(members) => descend(members.values_mut().nth(chosen).expect("it has so many"), input),
        Value::Array(items) => descend(&mut items[chosen], input),
        _ => unreachable!("others have no members"),
    }
}

fn value(input: &mut Unstructured, depth: usize) -> Result<Value> {
    const WORDS: [&str; 24] = [
        "",
        "/",
        ".",
        "..",
        "/a/../..",
        "x",
        "a\0b",
        "a\nb",
        "é",
        "*",
        "-1",
        "0-3,7",
        "MPOL_BIND",
        "CAP_KILL",
        "RLIMIT_CORE",
        "rbind",
        "idmap=uids=0-0-1",
        "tmpfs",
        "cgroup",
        "user",
        "time",
        "rshared",
        "SCMP_ACT_NOTIFY",
        "99999999999999999999",
    ];
    Ok(match input.int_in_range(0..=8)? {
        0 => Value::Null,
        1 => json!(input.arbitrary::<bool>()?),
        2 => json!(input.arbitrary::<i64>()?),
        3 => json!(input.arbitrary::<u64>()?),
        4 => json!(*input.choose(&[
            -1,
            0,
            1,
            2,
            7,
            64,
            1 << 16,
            (1 << 32) - 1,
            1 << 32,
            i64::MIN,
            i64::MAX
        ])?),
        5 => json!(*input.choose(&WORDS)?),
        6 => json!(input.arbitrary::<&str>()?),
        7 if depth < 3 => {
            let count = input.int_in_range(0..=3)?;
            (0..count).map(|_| value(input, depth + 1)).collect::<Result<Vec<_>>>()?.into()
        }
        _ => {
            // A part of another place.
            let mut other = whole();
            descend(&mut other, input)?.take()
        }
    })
}

/// Every section that this runtime reads, all of it good.
fn whole() -> Value {
    let hooks = json!([{"path": "/bin/true", "args": ["true"], "env": ["A=b"], "timeout": 3}]);
    let capabilities = json!(["CAP_KILL", "CAP_CHOWN"]);
    let map =
        json!([{"containerID": 0, "hostID": 1000, "size": 10}, {"containerID": 10, "hostID": 0, "size": 1}]);
    let throttle = json!([{"major": 8, "minor": 0, "rate": 600}]);
    json!({
        "ociVersion": "1.3.0",
        "root": {"path": "/", "readonly": true},
        "hostname": "box", "domainname": "example.org",
        "annotations": {"org.example": "x", "run.oci.mount_context_type": "context"},
        "process": {
            "terminal": true, "consoleSize": {"height": 25, "width": 80},
            "user": {"uid": 1, "gid": 2, "umask": 18, "additionalGids": [3, 4]},
            "args": ["sh", "-c", "true"], "env": ["PATH=/bin", "A=b"], "cwd": "/tmp",
            "capabilities": {"bounding": capabilities, "effective": capabilities, "permitted": capabilities,
                "inheritable": capabilities, "ambient": capabilities},
            "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 10, "hard": 20}],
            "noNewPrivileges": true, "oomScoreAdj": 5,
            "scheduler": {"policy": "SCHED_BATCH", "nice": 1, "flags": ["SCHED_FLAG_RESET_ON_FORK"]},
            "ioPriority": {"class": "IOPRIO_CLASS_BE", "priority": 4},
            "execCPUAffinity": {"initial": "0-1", "final": "0"},
        },
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "ro"]},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["size=1k", "tmpcopyup"]},
            {"destination": "/a", "type": "bind", "source": "/b", "options": ["rbind", "rro", "rslave", "idmap"],
                "uidMappings": map, "gidMappings": map},
            {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["ro"]},
        ],
        "hooks": {"prestart": hooks, "createRuntime": hooks, "createContainer": hooks,
            "startContainer": hooks, "poststart": hooks, "poststop": hooks},
        "linux": {
            "namespaces": [{"type": "pid"}, {"type": "network"}, {"type": "ipc"}, {"type": "uts"},
                {"type": "mount"}, {"type": "cgroup"}, {"type": "user"}, {"type": "time"}],
            "uidMappings": map, "gidMappings": map,
            "timeOffsets": {"monotonic": {"secs": 1, "nanosecs": 2}, "boottime": {"secs": -1, "nanosecs": 0}},
            "devices": [{"path": "/dev/x", "type": "c", "major": 10, "minor": 200, "fileMode": 432, "uid": 1, "gid": 2},
                {"path": "/dev/pipe", "type": "p"}],
            "cgroupsPath": "/a/b",
            "resources": {
                "devices": [{"allow": false, "access": "rwm"},
                    {"allow": true, "type": "c", "major": 10, "minor": 200, "access": "rw"}],
                "memory": {"limit": 1_000_000, "reservation": 500_000, "swap": 2_000_000, "swappiness": 10,
                    "disableOOMKiller": true, "useHierarchy": false, "checkBeforeUpdate": true},
                "cpu": {"shares": 1024, "quota": 1000, "period": 10000, "burst": 10, "idle": 0,
                    "realtimeRuntime": 1, "realtimePeriod": 2, "cpus": "0-1", "mems": "0"},
                "pids": {"limit": 10},
                "blockIO": {"weight": 0, "throttleReadBpsDevice": throttle},
                "hugepageLimits": [{"pageSize": "2MB", "limit": 0}],
                "network": {"classID": 0, "priorities": [{"name": "lo", "priority": 1}]},
                "rdma": {"mlx": {"hcaHandles": 1, "hcaObjects": 2}},
                "unified": {"memory.high": "max"},
            },
            "sysctl": {"net.ipv4.ip_forward": "1", "net/ipv4/conf/eth0.1/forwarding": "1"},
            "rootfsPropagation": "rslave",
            "maskedPaths": ["/proc/kcore"], "readonlyPaths": ["/proc/sys"],
            "personality": {"domain": "LINUX32"},
            "netDevices": {"eth0": {"name": "eth1"}},
            "memoryPolicy": {"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"]},
            "intelRdt": {"closID": "a", "l3CacheSchema": "L3:0=f", "memBwSchema": "MB:0=20", "schemata": ["L3:0=f"]},
            "seccomp": {
                "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 1, "architectures": ["SCMP_ARCH_X86_64"],
                "flags": ["SECCOMP_FILTER_FLAG_LOG"],
                "syscalls": [{"names": ["read", "clone3"], "action": "SCMP_ACT_ALLOW",
                    "args": [{"index": 1, "value": 5, "valueTwo": 7, "op": "SCMP_CMP_MASKED_EQ"}]}],
            },
        },
    })
}

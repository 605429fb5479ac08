//! `linux.resources` through `create` and through `update`: read back from the cgroup's files, and felt.

mod harness;

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use harness::{Bundle, Said, wait_until};
use serde_json::{Value, json};

/// A file of one cgroup version, and what it says.
type Says = (&'static str, String);

/// True without version 1 hierarchies.
fn unified() -> bool {
    Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
}

/// Of the hierarchies that have such a file: the unified one has a `cpu.stat` wherever the controller is.
fn file(bundle: &Bundle, name: &str) -> Option<PathBuf> {
    let mut found: Vec<PathBuf> = bundle.cgroups().into_iter().map(|dir| dir.join(name)).collect();
    found.retain(|path| path.exists());
    found.sort_by_key(|path| path.starts_with("/sys/fs/cgroup/unified"));
    found.into_iter().next()
}

fn read(bundle: &Bundle, name: &str) -> String {
    let path =
        file(bundle, name).unwrap_or_else(|| panic!("{}: no {name} in {:?}", bundle.id, bundle.cgroups()));
    fs::read_to_string(path).expect("read a cgroup's file").trim().to_owned()
}

/// A running container.
fn running(resources: Value) -> Bundle {
    let bundle = Bundle::of(&["sleep", "1000"]).with(|config| config["linux"]["resources"] = resources);
    bundle.create();
    bundle.start();
    bundle
}

/// `update --resources -`
fn update(bundle: &Bundle, resources: &Value) -> Said {
    let mut child = bundle
        .command(&["update", "--resources", "-", &bundle.id])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("run update");
    child.stdin.take().expect("its input").write_all(resources.to_string().as_bytes()).expect("write");
    harness::said(child.wait_with_output().expect("wait"))
}

fn update_well(bundle: &Bundle, flags: &[&str]) {
    let mut words = vec!["update"];
    words.extend(flags);
    words.push(&bundle.id);
    let said = bundle.say(&words);
    assert_eq!((said.code, said.stdout.as_str(), said.stderr.as_str()), (0, "", ""), "{flags:?}");
}

/// A loop device of this test's own, for BFQ where the kernel has it.
struct Disk {
    path: String,
    major: u64,
    minor: u64,
    by_weight: bool,
    /// What it lies on.
    _file: TempFile,
}

struct TempFile(PathBuf);

impl Drop for TempFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

impl Disk {
    /// None, with the reason said, where there are no loop devices.
    fn new(name: &str) -> Option<Self> {
        if !Path::new("/dev/loop-control").exists() {
            eprintln!("SKIP: there are no loop devices here");
            return None;
        }
        let file = TempFile(std::env::temp_dir().join(format!("runtime-test-{}-{name}", std::process::id())));
        fs::File::create(&file.0).and_then(|file| file.set_len(16 << 20)).expect("make a file");
        let said =
            Command::new("losetup").args(["--find", "--show"]).arg(&file.0).output().expect("run losetup");
        assert!(said.status.success(), "{said:?}");
        let path = String::from_utf8(said.stdout).expect("a path").trim().to_owned();
        let device = fs::metadata(&path).expect("a loop device").rdev();
        let scheduler = path.replace("/dev", "/sys/block") + "/queue/scheduler";
        Some(Self {
            path,
            major: nix::sys::stat::major(device),
            minor: nix::sys::stat::minor(device),
            by_weight: fs::write(scheduler, "bfq").is_ok(),
            _file: file,
        })
    }

    fn number(&self) -> String {
        format!("{}:{}", self.major, self.minor)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("losetup").args(["--detach", &self.path]).status();
    }
}

/// Each property alone: what it is, and what the files of either version say then.
fn properties(disk: Option<&Disk>) -> Vec<(Value, Vec<Says>, Vec<Says>)> {
    let says =
        |list: &[(&'static str, &str)]| list.iter().map(|(file, text)| (*file, (*text).to_owned())).collect();
    let mut all: Vec<(Value, Vec<Says>, Vec<Says>)> = vec![
        (json!({"pids": {"limit": 33}}), says(&[("pids.max", "33")]), says(&[("pids.max", "33")])),
        (json!({"pids": {"limit": 0}}), says(&[("pids.max", "1")]), says(&[("pids.max", "1")])),
        (json!({"pids": {"limit": -1}}), says(&[("pids.max", "max")]), says(&[("pids.max", "max")])),
        (
            json!({"memory": {"limit": 67108864, "reservation": 33554432, "swap": 100663296}}),
            says(&[
                ("memory.limit_in_bytes", "67108864"),
                ("memory.soft_limit_in_bytes", "33554432"),
                ("memory.memsw.limit_in_bytes", "100663296"),
            ]),
            says(&[("memory.max", "67108864"), ("memory.low", "33554432"), ("memory.swap.max", "33554432")]),
        ),
        (
            json!({"memory": {"limit": 67108864, "swap": 67108864}}),
            says(&[("memory.memsw.limit_in_bytes", "67108864")]),
            says(&[("memory.swap.max", "0")]),
        ),
        (json!({"cpu": {"shares": 512}}), says(&[("cpu.shares", "512")]), says(&[("cpu.weight", "59")])),
        (
            json!({"cpu": {"quota": 50000, "period": 200000, "burst": 10000}}),
            says(&[
                ("cpu.cfs_quota_us", "50000"),
                ("cpu.cfs_period_us", "200000"),
                ("cpu.cfs_burst_us", "10000"),
            ]),
            says(&[("cpu.max", "50000 200000"), ("cpu.max.burst", "10000")]),
        ),
        (
            json!({"cpu": {"quota": 40000}}),
            says(&[("cpu.cfs_quota_us", "40000"), ("cpu.cfs_period_us", "100000")]),
            says(&[("cpu.max", "40000 100000")]),
        ),
        (
            json!({"cpu": {"period": 50000}}),
            says(&[("cpu.cfs_quota_us", "-1"), ("cpu.cfs_period_us", "50000")]),
            says(&[("cpu.max", "max 50000")]),
        ),
        (json!({"cpu": {"idle": 1}}), says(&[("cpu.idle", "1")]), says(&[("cpu.idle", "1")])),
        (
            json!({"cpu": {"cpus": "0", "mems": "0"}}),
            says(&[("cpuset.cpus", "0"), ("cpuset.mems", "0")]),
            says(&[("cpuset.cpus", "0"), ("cpuset.mems", "0")]),
        ),
        (
            json!({"hugepageLimits": [{"pageSize": "2MB", "limit": 4194304}]}),
            says(&[
                ("hugetlb.2MB.limit_in_bytes", "4194304"),
                ("hugetlb.2MB.rsvd.limit_in_bytes", "4194304"),
            ]),
            says(&[("hugetlb.2MB.max", "4194304"), ("hugetlb.2MB.rsvd.max", "4194304")]),
        ),
        (
            json!({"blockIO": {"weight": 500}}),
            says(&[("blkio.bfq.weight", "500")]),
            says(&[("io.bfq.weight", "default 500"), ("io.weight", "default 4950")]),
        ),
    ];
    if unified() {
        let unified = json!({"unified": {
            "memory.high": "50331648", "cpu.max": "5000 50000", "pids.max": "42", "cgroup.max.depth": "7",
        }});
        let files = [
            ("memory.high", "50331648"),
            ("cpu.max", "5000 50000"),
            ("pids.max", "42"),
            ("cgroup.max.depth", "7"),
        ];
        all.push((unified, vec![], says(&files)));
    } else {
        all.push((json!({"memory": {"swappiness": 30}}), says(&[("memory.swappiness", "30")]), vec![]));
        all.push((json!({"network": {"classID": 1048577}}), says(&[("net_cls.classid", "1048577")]), vec![]));
        let priorities = json!({"network": {"priorities": [{"name": "lo", "priority": 5}]}});
        all.push((priorities, says(&[("net_prio.ifpriomap", "lo 5")]), vec![]));
    }
    for device in fs::read_dir("/sys/class/infiniband").into_iter().flatten().flatten() {
        let name = device.file_name().to_string_lossy().into_owned();
        let line = vec![("rdma.max", format!("{name} hca_handle=2 hca_object=1000"))];
        all.push((json!({"rdma": {name: {"hcaHandles": 2, "hcaObjects": 1000}}}), line.clone(), line));
    }
    let Some(disk) = disk else { return all };
    let number = disk.number();
    let device = |rate: u64| json!([{"major": disk.major, "minor": disk.minor, "rate": rate}]);
    let throttled = json!({"blockIO": {
        "throttleReadBpsDevice": device(1048576), "throttleWriteBpsDevice": device(2097152),
        "throttleReadIOPSDevice": device(300), "throttleWriteIOPSDevice": device(400),
    }});
    let v1 = [
        ("blkio.throttle.read_bps_device", 1048576),
        ("blkio.throttle.write_bps_device", 2097152),
        ("blkio.throttle.read_iops_device", 300),
        ("blkio.throttle.write_iops_device", 400),
    ];
    let v1 = v1.into_iter().map(|(file, rate)| (file, format!("{number} {rate}"))).collect();
    let line = format!("{number} rbps=1048576 wbps=2097152 riops=300 wiops=400");
    all.push((throttled, v1, vec![("io.max", line)]));
    if disk.by_weight {
        let weight = json!({"blockIO": {"weightDevice": [
            {"major": disk.major, "minor": disk.minor, "weight": 300},
        ]}});
        let line = format!("{number} 300");
        all.push((weight, vec![("blkio.bfq.weight_device", line.clone())], vec![("io.bfq.weight", line)]));
    }
    all
}

/// The host has the controller, and the file for the property.
fn possible(bundle: &Bundle, expected: &[Says]) -> bool {
    !expected.is_empty() && expected.iter().any(|(name, _)| file(bundle, name).is_some())
}

/// Each file that there is says what it should; one line of it, if it has one for each device.
fn check(bundle: &Bundle, resources: &Value, expected: &[Says], how: &str) {
    for (name, text) in expected.iter().filter(|(name, _)| file(bundle, name).is_some()) {
        let found = read(bundle, name);
        // BFQ says its weight with and without a word in front.
        let good =
            found == *text || found.lines().any(|line| line == text || format!("default {line}") == *text);
        assert!(good, "{resources} by {how}: {name} says {found:?}, not {text:?}");
    }
}

#[test]
fn every_limit_can_be_set_by_create_and_by_update() {
    let plain = running(json!({}));
    let disk = Disk::new("limits");
    for (resources, v1, v2) in properties(disk.as_ref()) {
        let mut expected = if unified() { v2 } else { v1 };
        if file(&plain, "io.bfq.weight").is_some() {
            expected.retain(|(name, _)| *name != "io.weight"); // one of them is written, BFQ's first
        }
        if !possible(&plain, &expected) {
            eprintln!("SKIP: {resources}: none of its files is here");
            continue;
        }
        let made = running_or_created(&resources);
        check(&made, &resources, &expected, "create");
        let updated = running(json!({}));
        let said = update(&updated, &resources);
        assert_eq!((said.code, said.stderr.as_str()), (0, ""), "{resources}");
        check(&updated, &resources, &expected, "update");
    }
}

/// With one process allowed, the init program could not be followed by a hook; created is enough.
fn running_or_created(resources: &Value) -> Bundle {
    let bundle =
        Bundle::of(&["sleep", "1000"]).with(|config| config["linux"]["resources"] = resources.clone());
    bundle.create();
    bundle
}

#[test]
fn every_flag_of_update_sets_its_limit() {
    let bundle = running(json!({}));
    let cases: [(&[&str], &str, &str, &str, &str); 11] = [
        (&["--cpu-share", "512"], "cpu.shares", "512", "cpu.weight", "59"),
        (&["--cpu-period", "50000"], "cpu.cfs_period_us", "50000", "cpu.max", "max 50000"),
        (&["--cpu-quota=20000"], "cpu.cfs_quota_us", "20000", "cpu.max", "20000 50000"),
        (&["--cpu-burst", "1000"], "cpu.cfs_burst_us", "1000", "cpu.max.burst", "1000"),
        (&["--cpu-idle", "1"], "cpu.idle", "1", "cpu.idle", "1"),
        (&["--cpuset-cpus", "0"], "cpuset.cpus", "0", "cpuset.cpus", "0"),
        (&["--cpuset-mems", "0"], "cpuset.mems", "0", "cpuset.mems", "0"),
        (&["--memory", "64M"], "memory.limit_in_bytes", "67108864", "memory.max", "67108864"),
        (
            &["--memory-reservation", "32m"],
            "memory.soft_limit_in_bytes",
            "33554432",
            "memory.low",
            "33554432",
        ),
        (
            &["--memory-swap", "96MiB"],
            "memory.memsw.limit_in_bytes",
            "100663296",
            "memory.swap.max",
            "33554432",
        ),
        (&["--pids-limit", "20"], "pids.max", "20", "pids.max", "20"),
    ];
    for (flags, v1, text1, v2, text2) in cases {
        let (name, text) = if unified() { (v2, text2) } else { (v1, text1) };
        if file(&bundle, name).is_none() {
            eprintln!("SKIP: {flags:?}: there is no {name} here");
            continue;
        }
        update_well(&bundle, flags);
        assert_eq!(read(&bundle, name), text, "{flags:?}");
    }
    update_well(&bundle, &["--memory", "-1"]);
    let (limit, swap) = if unified() {
        ("memory.max", "memory.swap.max")
    } else {
        ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes")
    };
    let unlimited = if unified() { "max" } else { "9223372036854771712" };
    for name in [limit, swap] {
        if file(&bundle, name).is_some() {
            assert_eq!(read(&bundle, name), unlimited, "{name} after --memory -1");
        }
    }
}

/// What all limits of a container say.
fn all_limits(bundle: &Bundle) -> BTreeMap<PathBuf, String> {
    let mut all = BTreeMap::new();
    for dir in bundle.cgroups() {
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let limit = [
                "max",
                "low",
                "high",
                "weight",
                "shares",
                "_us",
                "limit_in_bytes",
                "idle",
                "cpus",
                "mems",
                "burst",
            ];
            let counts = name.contains("max_usage") || name.contains("cpu.stat");
            if limit.iter().any(|end| name.ends_with(end)) && !counts {
                all.insert(entry.path(), fs::read_to_string(entry.path()).unwrap_or_default());
            }
        }
    }
    all
}

#[test]
fn update_leaves_what_it_is_not_asked_for() {
    let bundle = running(json!({
        "pids": {"limit": 50},
        "memory": {"limit": 67108864, "reservation": 33554432},
        "cpu": {"shares": 300, "quota": 30000, "period": 60000, "burst": 500},
    }));
    let before = all_limits(&bundle);
    assert!(before.len() > 8, "{before:?}");
    update_well(&bundle, &["--pids-limit", "51"]);
    let mut after = all_limits(&bundle);
    let pids = file(&bundle, "pids.max").expect("pids.max");
    assert_eq!(after.insert(pids, "50\n".to_owned()).as_deref(), Some("51\n"));
    assert_eq!(after, before);
}

#[test]
fn an_update_that_fails_takes_everything_back() {
    let bundle = running(json!({
        "pids": {"limit": 50},
        "memory": {"limit": 67108864, "swap": 67108864},
        "cpu": {"shares": 300, "quota": 30000, "period": 60000},
    }));
    let before = all_limits(&bundle);
    let wanted = json!({
        "pids": {"limit": 51},
        "memory": {"limit": 134217728, "swap": 134217728, "reservation": 1048576},
        "cpu": {"quota": 90000, "period": 100000, "idle": 1},
        "blockIO": {"throttleReadBpsDevice": [{"major": 4000, "minor": 1, "rate": 5}]},
    });
    let said = update(&bundle, &wanted);
    assert_eq!(said.code, 1, "{said:?}");
    assert!(
        said.stderr.contains("linux.resources.blockIO.throttleReadBpsDevice[0]: write \"4000:1 "),
        "{said:?}"
    );
    assert_eq!(all_limits(&bundle), before);
    assert_eq!(bundle.status(), "running");
    // Not even begun with.
    let said =
        update(&bundle, &json!({"pids": {"limit": 52}, "hugepageLimits": [{"pageSize": "x", "limit": 1}]}));
    assert!(said.code == 1 && said.stderr.contains("linux.resources.hugepageLimits[0].pageSize"), "{said:?}");
    assert_eq!(all_limits(&bundle), before);
}

/// At no moment may memory be more than memory and swap, nor the quota more than the parent's share.
#[test]
fn limits_that_depend_on_each_other_grow_and_shrink() {
    let bundle = running(
        json!({"memory": {"limit": 33554432, "swap": 50331648}, "cpu": {"quota": 50000, "period": 100000}}),
    );
    for (memory, swap) in [("60M", "80M"), ("30M", "50M"), ("512M", "512M"), ("16M", "17M")] {
        update_well(&bundle, &["--memory", memory, "--memory-swap", swap]);
        let number = |text: &str| text.trim_end_matches('M').parse::<u64>().expect("a number") << 20;
        let (limit, both) = (number(memory), number(swap));
        if unified() {
            assert_eq!(read(&bundle, "memory.max"), limit.to_string());
            if file(&bundle, "memory.swap.max").is_some() {
                assert_eq!(read(&bundle, "memory.swap.max"), (both - limit).to_string());
            }
        } else {
            assert_eq!(read(&bundle, "memory.limit_in_bytes"), limit.to_string());
            if file(&bundle, "memory.memsw.limit_in_bytes").is_some() {
                assert_eq!(read(&bundle, "memory.memsw.limit_in_bytes"), both.to_string());
            }
        }
    }
    // Above the old quota, and back below: the burst must never be more than the quota.
    update_well(&bundle, &["--cpu-quota", "200000", "--cpu-period", "500000", "--cpu-burst", "150000"]);
    update_well(&bundle, &["--cpu-quota", "2000", "--cpu-period", "10000", "--cpu-burst", "1000"]);
    let burst = if unified() { "cpu.max.burst" } else { "cpu.cfs_burst_us" };
    assert_eq!(read(&bundle, burst), "1000");
}

#[test]
fn idle_tasks_have_no_shares() {
    let bundle = running(json!({"cpu": {"shares": 300}}));
    if file(&bundle, "cpu.idle").is_none() {
        eprintln!("SKIP: there is no cpu.idle here");
        return;
    }
    let said = bundle.say(&["update", "--cpu-share", "400", "--cpu-idle", "1", &bundle.id]);
    assert!(said.code == 0 && said.stderr.contains("cpu.shares: unable to apply both"), "{said:?}");
    assert_eq!(read(&bundle, "cpu.idle"), "1");
    let said = bundle.say(&["update", "--cpu-share", "400", &bundle.id]);
    assert!(said.code == 1 && said.stderr.contains("linux.resources.cpu.shares: "), "{said:?}");
    update_well(&bundle, &["--cpu-share", "400", "--cpu-idle", "0"]);
    assert_eq!(
        read(&bundle, if unified() { "cpu.weight" } else { "cpu.shares" }),
        if unified() { "49" } else { "400" }
    );
}

#[test]
fn real_time_is_of_version_1() {
    let bundle = Bundle::of(&["true"]).with(|config| {
        config["linux"]["resources"] = json!({"cpu": {"realtimePeriod": 500000, "realtimeRuntime": 100}})
    });
    let said = bundle.run();
    if unified() {
        assert!(
            said.stderr.contains("linux.resources.cpu.realtimePeriod: cannot be set on cgroup version 2"),
            "{said:?}"
        );
        bundle.assert_nothing_is_left();
    } else if Path::new("/sys/fs/cgroup/cpu/cpu.rt_runtime_us").exists() {
        // The parent has no time to give before somebody has set it.
        assert!(said.code == 0 || said.stderr.contains("linux.resources.cpu.realtimeRuntime: "), "{said:?}");
    } else {
        assert!(said.stderr.contains("there is no cpu.rt_period_us here"), "{said:?}");
    }
}

#[test]
fn update_refuses_what_it_cannot_do() {
    let bundle = running(json!({}));
    let refused = |flags: &[&str], words: &str| {
        let mut line = vec!["update"];
        line.extend(flags);
        line.push(&bundle.id);
        let said = bundle.say(&line);
        assert!(said.code == 1 && said.stderr.contains(words), "{flags:?}: {said:?}");
    };
    refused(&["--memory", "12x"], "invalid value for memory: \"12x\"");
    refused(&["--pids-limit", "many"], "invalid value for pids-limit: \"many\"");
    refused(&["--cpu-share", "-5"], "invalid value for cpu-share");
    refused(
        &["--cpu-idle", "2"],
        "linux.resources.cpu.idle: write \"2\" to cpu.idle: EINVAL: Invalid argument",
    );
    refused(&["--blkio-weight", "5"], "linux.resources.blockIO.weight: 5 is not between 10 and 1000");
    refused(&["--resources", "/no/such/file"], "--resources: read \"/no/such/file\": No such file");
    refused(
        &["--l3-cache-schema", "L3:0=f"],
        "updating a non-existent Intel RDT configuration is not supported",
    );
    refused(&["--mem-bw-schema", "L3:0=f"], "--mem-bw-schema: \"L3:0=f\" does not start with \"MB:\"");
    let said = update(&bundle, &json!("nonsense"));
    assert!(said.code == 1 && said.stderr.contains("--resources: \"-\""), "{said:?}");
    let said = bundle.say(&["update", "--pids-limit", "5", "nobody"]);
    assert!(said.code == 1 && said.stderr.contains("container does not exist"), "{said:?}");
    // A device rule is not touched, and no error: engines send all of the resources that they know.
    let said = update(&bundle, &json!({"devices": [{"allow": true, "access": "rwm"}], "pids": {"limit": 9}}));
    assert_eq!((said.code, read(&bundle, "pids.max").as_str()), (0, "9"), "{said:?}");
    assert_eq!(bundle.say(&["kill", &bundle.id, "KILL"]).code, 0);
    bundle.wait_for("stopped");
    refused(&["--pids-limit", "5"], "container not running");
}

#[test]
fn a_memory_limit_below_what_is_used_is_refused() {
    let swaps = fs::read_to_string("/proc/swaps").unwrap_or_default().lines().count() > 1;
    if swaps && !unified() {
        eprintln!("SKIP: with swap, version 1 makes room");
        return;
    }
    let bundle =
        Bundle::of_script("dd if=/dev/zero of=/dev/fill bs=1M count=8; echo > /ready; exec sleep 1000");
    bundle.create();
    bundle.start();
    wait_until("memory is used", || bundle.rootfs("ready").exists());
    let said = update(&bundle, &json!({"memory": {"limit": 1048576, "checkBeforeUpdate": true}}));
    assert_eq!(said.code, 1, "{said:?}");
    if unified() {
        assert!(said.stderr.contains("rejecting memory limit 1048576: "), "{said:?}");
    } else {
        assert!(said.stderr.contains("unable to set memory limit to 1048576 (current usage: "), "{said:?}");
    }
    assert_eq!(bundle.status(), "running");
}

#[test]
fn limits_are_felt() {
    let memory = Bundle::of(&["dd", "if=/dev/zero", "of=/dev/null", "bs=200M", "count=1"]).with(|config| {
        config["linux"]["resources"] = json!({"memory": {"limit": 33554432, "swap": 33554432}})
    });
    assert_eq!(memory.run().code, 137, "killed for its memory");
    let pids = Bundle::of_script("sleep 9 & sleep 9 & sleep 9 & sleep 9 & sleep 9")
        .with(|config| config["linux"]["resources"] = json!({"pids": {"limit": 4}}));
    let said = pids.run();
    assert!(said.stderr.contains("can't fork"), "{said:?}");
    let device = Bundle::of_script("cat /dev/null && head -c 1 /dev/kmsg").with(|config| {
        for set in ["bounding", "effective", "permitted"] {
            // To read the kernel's log takes this besides.
            config["process"]["capabilities"][set].as_array_mut().expect("a set").push(json!("CAP_SYSLOG"));
        }
        config["linux"]["devices"] = json!([{"path": "/dev/kmsg", "type": "c", "major": 1, "minor": 11}]);
    });
    let said = device.run();
    assert!(said.code != 0 && said.stderr.contains("Operation not permitted"), "{said:?}");
    let allowed = json!({"devices": [{"allow": true, "type": "c", "major": 1, "minor": 11, "access": "r"}]});
    let device = device.with(|config| config["linux"]["resources"] = allowed);
    let said = device.run();
    assert!(!said.stderr.contains("/dev/kmsg: Operation not permitted"), "{said:?}");
    let busy = Bundle::of_script("while :; do :; done").with(|config| {
        config["linux"]["resources"] = json!({"cpu": {"quota": 20000, "period": 100000}});
    });
    busy.create();
    busy.start();
    is_throttled(&busy);
}

fn is_throttled(bundle: &Bundle) {
    wait_until("it is throttled", || {
        let stat = read(bundle, "cpu.stat");
        stat.lines().any(|line| line.strip_prefix("nr_throttled ").is_some_and(|number| number != "0"))
    });
}

#[test]
fn a_container_stays_on_its_processors() {
    let plain = running(json!({}));
    if file(&plain, "cpuset.cpus").is_none() {
        eprintln!("SKIP: there is no cpuset controller here");
        return;
    }
    let on = |bundle: &Bundle| {
        let status = bundle.exec(&[&bundle.id, "grep", "Cpus_allowed_list", "/proc/self/status"]).stdout;
        status.trim().trim_start_matches("Cpus_allowed_list:").trim().to_owned()
    };
    assert_eq!(on(&running(json!({"cpu": {"cpus": "0"}}))), "0");
    let all = on(&plain);
    if all == "0" {
        eprintln!("SKIP: there is one processor here");
        return;
    }
    update_well(&plain, &["--cpuset-cpus", "1"]);
    assert_eq!(on(&plain), "1", "of {all}");
}

/// Throttling makes slow, and a busy machine does too: so the times are compared one way only.
#[test]
fn a_disk_is_written_to_at_the_rate_of_create_and_of_update() {
    let Some(disk) = Disk::new("rate") else { return };
    let (major, minor) = (disk.major, disk.minor);
    let rate = |rate: u64| {
        json!({
            "devices": [{"allow": true, "type": "b", "major": major, "minor": minor, "access": "rwm"}],
            "blockIO": {"throttleWriteBpsDevice": [{"major": major, "minor": minor, "rate": rate}]},
        })
    };
    let (slow, fast) = (rate(512 << 10), rate(1 << 40));
    let bundle = Bundle::of(&["sleep", "1000"]).with(|config| {
        config["linux"]["devices"] =
            json!([{"path": "/dev/disk", "type": "b", "major": major, "minor": minor}]);
        config["linux"]["resources"] = slow.clone();
    });
    bundle.create();
    bundle.start();
    // 1 MiB, which is two seconds' worth.
    let takes = || {
        let dd = "dd if=/dev/zero of=/dev/disk bs=64k count=16 oflag=direct conv=notrunc";
        let begin = Instant::now();
        let said = bundle.exec(&[&bundle.id, "sh", "-c", dd]);
        assert_eq!(said.code, 0, "{said:?}");
        begin.elapsed()
    };
    let change = |to: &Value| {
        let said = update(&bundle, to);
        assert_eq!((said.code, said.stderr.as_str()), (0, ""), "{to}");
    };
    let limited = takes();
    assert!(limited > Duration::from_millis(1200), "limited by create: {limited:?}");
    change(&fast);
    let free = takes();
    assert!(free < limited, "{free:?} without a limit, {limited:?} with");
    change(&slow);
    let limited = takes();
    assert!(limited > Duration::from_millis(1200), "limited by update: {limited:?}");
}

#[test]
fn huge_pages_end_at_the_limit() {
    let pages = fs::read_to_string("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages");
    if pages.is_err() || pages.is_ok_and(|pages| pages.trim() == "0") {
        eprintln!("SKIP: there are no huge pages here");
        return;
    }
    let bundle = Bundle::of(&["sleep", "1000"]).with(|config| {
        config["linux"]["resources"] = json!({"hugepageLimits": [{"pageSize": "2MB", "limit": 2 << 20}]});
        let mounts = config["mounts"].as_array_mut().expect("mounts");
        mounts.push(
            json!({"destination": "/mnt", "type": "hugetlbfs", "source": "x", "options": ["pagesize=2M"]}),
        );
    });
    bundle.create();
    bundle.start();
    let takes = |length: &str| {
        let script = format!("busybox fallocate -l {length} /mnt/file && busybox rm /mnt/file");
        bundle.exec(&[&bundle.id, "sh", "-c", &script])
    };
    assert_eq!(takes("2m").code, 0);
    let said = takes("4m");
    assert!(said.code != 0 && said.stderr.contains("No space left"), "{said:?}");
    let said = update(&bundle, &json!({"hugepageLimits": [{"pageSize": "2MB", "limit": 4 << 20}]}));
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(takes("4m").code, 0);
}

#[test]
fn limits_of_an_update_are_felt() {
    let bundle = Bundle::of_script("while :; do :; done");
    bundle.create();
    bundle.start();
    update_well(&bundle, &["--cpu-quota", "1000", "--cpu-period", "100000"]);
    is_throttled(&bundle);
    update_well(&bundle, &["--cpu-quota", "-1", "--pids-limit", "2"]);
    let said = bundle.exec(&[&bundle.id, "sh", "-c", "sleep 9 & sleep 9"]);
    assert!(said.code != 0 && said.stderr.contains("can't fork"), "{said:?}");
    update_well(&bundle, &["--memory", "16M", "--memory-swap", "16M", "--pids-limit", "-1"]);
    let said = bundle.exec(&[&bundle.id, "dd", "if=/dev/zero", "of=/dev/null", "bs=200M", "count=1"]);
    assert_eq!(said.code, 137, "{said:?}");
}

#[test]
fn unified_files_are_of_version_2() {
    let resources = json!({"pids": {"limit": 5}, "unified": {"memory.min": "131072"}});
    let bundle = Bundle::of(&["true"]).with(|config| config["linux"]["resources"] = resources);
    let said = bundle.run();
    if unified() {
        assert_eq!(said.code, 0, "{said:?}");
        let nowhere = json!({"unified": {"nosuchcontroller.max": "1"}});
        let bundle = Bundle::of(&["true"]).with(|config| config["linux"]["resources"] = nowhere);
        let said = bundle.run();
        assert!(said.stderr.contains("the controller nosuchcontroller is not available"), "{said:?}");
    } else {
        assert!(said.stderr.contains("invalid configuration: cannot use unified on cgroup v1"), "{said:?}");
    }
    bundle.assert_nothing_is_left();
}

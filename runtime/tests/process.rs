//! `process` of config.md and the namespaces' part of config-linux.md: what the payload finds itself with.

mod harness;

use std::fs;
use std::process::Command;

use harness::{Bundle, Said};
use serde_json::{Value, json};

/// The CPUs that we may use, if there are two: tests cannot tell one from all of one.
fn two_cpus() -> Option<(String, String, String)> {
    let status = fs::read_to_string("/proc/self/status").expect("read our status");
    let all = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:\t")).expect("our CPUs");
    let (first, rest) = all.split_once(['-', ','])?;
    let second = rest.split(['-', ',']).next()?;
    let second = if all.contains('-') { (first.parse::<u32>().ok()? + 1).to_string() } else { second.into() };
    Some((all.to_owned(), first.to_owned(), second))
}

fn running(config: impl FnOnce(&mut Value)) -> Bundle {
    let bundle = Bundle::of(&["sleep", "1000"]).with(config);
    let said = bundle.say_detached(&["run", "--detach", &bundle.id]);
    assert_eq!(said.code, 0, "{said:?}");
    bundle
}

fn exec_file(bundle: &Bundle, process: Value) -> Said {
    let mut process = process;
    process["cwd"] = json!("/");
    process["env"] = json!(["PATH=/bin"]);
    fs::write(bundle.dir.join("process.json"), process.to_string()).expect("write process.json");
    bundle.say(&["exec", "--process", "process.json", &bundle.id])
}

const ALLOWED: [&str; 3] = ["grep", "Cpus_allowed_list", "/proc/self/status"];

#[test]
fn the_callers_cpu_affinity_is_not_the_containers() {
    let Some((all, first, second)) = two_cpus() else { return eprintln!("SKIP: needs two CPUs") };
    if !harness::have("taskset") {
        return eprintln!("SKIP: needs taskset");
    }
    let bundle = Bundle::of_script("grep Cpus_allowed_list /proc/self/status; sleep 1000");
    let bound = |args: &[&str]| {
        let mut command = Command::new("taskset");
        let ours = bundle.command(args);
        command.args(["-c", &first]).arg(ours.get_program()).args(ours.get_args()).current_dir(&bundle.dir);
        command
    };
    let out = fs::File::create(bundle.dir.join("out")).expect("make a file");
    let status = bound(&["run", "--detach", &bundle.id]).stdout(out).status().expect("run");
    assert!(status.success());
    let wanted = format!("Cpus_allowed_list:\t{all}\n");
    harness::wait_until("the container tells its CPUs", || {
        fs::read_to_string(bundle.dir.join("out")).expect("read") == wanted
    });
    let exec = |args: &[&str]| {
        let said = harness::said(bound(args).output().expect("run"));
        assert_eq!(said.code, 0, "{said:?}");
        said.stdout
    };
    let mut words = vec!["exec", &bundle.id];
    words.extend(ALLOWED);
    assert_eq!(exec(&words), wanted);
    // With an initial affinity alone the kernel decides, which lets it be.
    for (affinity, wanted) in [
        (json!({"initial": first, "final": second}), &second),
        (json!({"final": second}), &second),
        (json!({"initial": "", "final": second}), &second),
    ] {
        let said = exec_file(&bundle, json!({"args": ALLOWED, "execCPUAffinity": affinity}));
        assert_eq!(said.stdout, format!("Cpus_allowed_list:\t{wanted}\n"), "{affinity}: {said:?}");
    }
}

#[test]
fn the_exec_affinity_of_the_configuration_is_for_exec() {
    let Some((all, _, second)) = two_cpus() else { return eprintln!("SKIP: needs two CPUs") };
    let bundle = running(|config| {
        config["process"]["execCPUAffinity"] = json!({"final": second});
    });
    let said = bundle.exec(&[&bundle.id, "grep", "Cpus_allowed_list", "/proc/self/status", "/proc/1/status"]);
    let wanted =
        format!("/proc/self/status:Cpus_allowed_list:\t{second}\n/proc/1/status:Cpus_allowed_list:\t{all}\n");
    assert_eq!(said.stdout, wanted, "{said:?}");
    let said = exec_file(&bundle, json!({"args": ["true"], "execCPUAffinity": {"final": "8191"}}));
    assert!(said.stderr.contains("set process.execCPUAffinity.final: EINVAL"), "{said:?}");
}

#[test]
fn memory_comes_from_the_nodes_of_the_policy() {
    if fs::read_to_string("/proc/self/numa_maps").is_err() {
        return eprintln!("SKIP: this kernel has no NUMA policies");
    }
    let bundle = running(|config| {
        config["linux"]["memoryPolicy"] =
            json!({"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"]});
    });
    for file in ["/proc/1/numa_maps", "/proc/self/numa_maps"] {
        let said = bundle.exec(&[&bundle.id, "grep", "-m1", "bind=static:0", file]);
        assert_eq!(said.code, 0, "{file}: {said:?}");
    }
    let bad = Bundle::of(&["true"]).with(|config| {
        config["linux"]["memoryPolicy"] = json!({"mode": "MPOL_BIND", "nodes": "1000"});
    });
    let said = bad.run();
    assert!(said.code == 1 && said.stderr.contains("linux.memoryPolicy: set_mempolicy"), "{said:?}");
    bad.assert_nothing_is_left();
}

#[test]
fn exec_joins_the_containers_session_keyring() {
    if fs::read_to_string("/proc/keys").is_err() {
        return eprintln!("SKIP: this kernel has no keyrings");
    }
    for user_namespace in [false, true] {
        let bundle = running(|config| {
            if user_namespace {
                in_user_namespace(config, 0);
            }
        });
        let rings = |said: Said| {
            let rings =
                said.stdout.lines().filter(|line| line.contains(&format!("_ses.{}", bundle.id))).count();
            assert_eq!(rings, 1, "{} {user_namespace} {said:?}", bundle.id);
        };
        rings(bundle.exec(&[&bundle.id, "cat", "/proc/keys"]));
        rings(bundle.exec(&[&bundle.id, "cat", "/proc/keys"]));
    }
    let without = Bundle::of(&["cat", "/proc/keys"]);
    let said = without.say(&["run", "--no-new-keyring", &without.id]);
    assert!(said.code == 0 && !said.stdout.contains(&format!("_ses.{}", without.id)), "{said:?}");
}

/// A user namespace whose ids 0 to 999 are `first` and up outside.
fn in_user_namespace(config: &mut Value, first: u32) {
    let map = json!([{"containerID": 0, "hostID": first, "size": 1000}]);
    let linux = &mut config["linux"];
    linux["namespaces"].as_array_mut().expect("namespaces").push(json!({"type": "user"}));
    linux["uidMappings"] = map.clone();
    linux["gidMappings"] = map;
}

#[test]
fn exec_takes_umask_and_oom_score_from_its_file() {
    let bundle = running(|config| config["process"]["user"]["umask"] = json!(0o077));
    let script = "umask; cat /proc/self/oom_score_adj";
    let args = json!(["sh", "-c", script]);
    let said = exec_file(
        &bundle,
        json!({"args": args, "oomScoreAdj": 1000, "user": {"uid": 0, "gid": 0, "umask": 0o027}}),
    );
    assert_eq!(said.stdout, "0027\n1000\n", "{said:?}");
    assert_eq!(bundle.exec(&[&bundle.id, "sh", "-c", "umask"]).stdout, "0077\n");
}

#[test]
fn ambient_capabilities_that_are_not_inheritable_are_left_out_with_one_warning() {
    let bundle = Bundle::of(&["grep", "CapAmb", "/proc/self/status"]).with(|config| {
        config["process"]["capabilities"]["inheritable"] = json!(["CAP_KILL"]);
        config["process"]["capabilities"]["ambient"] = json!(["CAP_KILL", "CAP_CHOWN", "CAP_SETUID"]);
    });
    let said = bundle.run();
    assert_eq!((said.code, said.stdout.as_str()), (0, "CapAmb:\t0000000000000020\n"), "{said:?}");
    assert_eq!(
        said.stderr,
        "runtime: warning: process.capabilities.ambient: can't raise ambient capability CAP_CHOWN, CAP_SETUID: \
         not both permitted and inheritable\n"
    );

    bundle.create();
    let said = bundle.say(&["start", &bundle.id]);
    assert_eq!((said.code, said.stderr.as_str()), (0, ""), "create has said it");
}

/// A process in a user namespace of its own, whose ids 0 to 9 are 5000 and up outside.
struct Other(std::process::Child);

impl Other {
    fn make() -> Self {
        let mut command = Command::new("unshare");
        command.args(["--user", "sh", "-c", "read mapped; exec sleep 1000"]);
        let mut child = command.stdin(std::process::Stdio::piped()).spawn().expect("run unshare");
        let own = fs::read_link("/proc/self/ns/user").expect("our user namespace");
        let proc = std::path::PathBuf::from(format!("/proc/{}", child.id()));
        harness::wait_until("it has a user namespace", || {
            fs::read_link(proc.join("ns/user")).is_ok_and(|other| other != own)
        });
        for file in ["uid_map", "gid_map"] {
            fs::write(proc.join(file), "0 5000 5\n5 5005 5\n").expect("write its map");
        }
        drop(child.stdin.take());
        Self(child)
    }

    fn config(&self, config: &mut Value, mappings: Value) {
        let path = format!("/proc/{}/ns/user", self.0.id());
        let linux = &mut config["linux"];
        linux["namespaces"].as_array_mut().expect("namespaces").push(json!({"type": "user", "path": path}));
        linux["uidMappings"] = mappings.clone();
        linux["gidMappings"] = mappings;
        // Not the owner of the host's network namespace, so of its sysfs either.
        linux["maskedPaths"] = json!([]);
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_user_namespace_is_joined_with_the_mappings_that_it_has() {
    if !harness::have("unshare") {
        return eprintln!("SKIP: needs unshare");
    }
    let other = Other::make();
    let range = |inside: u32, outside: u32, size: u32| json!({"containerID": inside, "hostID": outside, "size": size});
    for mappings in [json!(null), json!([range(5, 5005, 5), range(0, 5000, 5)])] {
        let bundle = Bundle::of_script("id; cat /proc/self/uid_map").with(|config| {
            other.config(config, mappings);
            config["process"]["user"] = json!({"uid": 7, "gid": 8});
        });
        let status =
            Command::new("chown").args(["-R", "5000:5000"]).arg(&bundle.dir).status().expect("run chown");
        assert!(status.success());
        let words: Vec<String> = bundle.run_well().split_whitespace().map(str::to_owned).collect();
        assert_eq!(words, ["uid=7", "gid=8", "0", "5000", "5", "5", "5005", "5"]);
    }
    for (mappings, wanted) in [
        (json!([range(0, 5000, 10)]), "linux.uidMappings: the user namespace to join has other mappings"),
        (json!([range(0, 0, 5)]), "\"0 5000 5\\n5 5005 5\" instead of \"0 0 5\""),
    ] {
        let bundle = Bundle::of(&["true"]).with(|config| other.config(config, mappings));
        let said = bundle.run();
        assert!(said.code == 1 && said.stderr.contains(wanted), "{said:?}");
        bundle.assert_nothing_is_left();
    }
    let bundle =
        Bundle::of(&["true"]).with(|config| config["linux"]["uidMappings"] = json!([range(0, 0, 1)]));
    let said = bundle.run();
    assert!(said.stderr.contains("need a user namespace in linux.namespaces"), "{said:?}");
}

#[test]
fn clocks_are_offset_in_a_time_namespace_of_the_user_namespaces() {
    if !fs::exists("/proc/self/timens_offsets").expect("look") {
        return eprintln!("SKIP: this kernel has no time namespaces");
    }
    for user_namespace in [false, true] {
        let bundle =
            Bundle::of_script("cut -c1-2 /proc/uptime; cat /proc/self/timens_offsets").with(|config| {
                if user_namespace {
                    in_user_namespace(config, 0);
                }
                config["linux"]["namespaces"]
                    .as_array_mut()
                    .expect("namespaces")
                    .push(json!({"type": "time"}));
                config["linux"]["timeOffsets"] = json!({"boottime": {"secs": 1_000_000_000, "nanosecs": 5}});
            });
        let said = bundle.run_well();
        assert!(said.starts_with("10\n"), "{said}");
        let words: Vec<&str> = said.split_whitespace().collect();
        assert_eq!(&words[words.len() - 3..], ["boottime", "1000000000", "5"]);
    }
}

/// Runs a shell script in a network namespace of its own, in which are `up0` with addresses and `down0`.
fn with_devices(bundle: &Bundle, script: &str) -> Option<Said> {
    if !["unshare", "ip"].iter().all(harness::have) {
        eprintln!("SKIP: needs unshare and ip");
        return None;
    }
    let made = "ip link set lo up && ip link add up0 type veth peer name down0 \
        || exit 77; ip link set up0 mtu 1300 address 02:00:00:00:00:07 up \
        && ip address add 192.0.2.7/24 broadcast 192.0.2.255 dev up0 \
        && ip address add 192.0.2.8 peer 192.0.2.9/32 dev up0 \
        && { ip address add 2001:db8::7/64 dev up0 nodad || echo SKIP6; } \
        && ip address add 192.0.2.10/32 scope link dev up0 \
        && ip address add 192.0.2.11/24 valid_lft 1000 preferred_lft 1000 dev up0";
    let runtime = bundle.command(&[]);
    let words: Vec<String> = std::iter::once(runtime.get_program())
        .chain(runtime.get_args())
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    let mut command = Command::new("unshare");
    command.args(["--net", "sh", "-c", &format!("{made} || exit 78; {script}")]);
    command.env("RUNTIME", words.join(" ")).env("ID", &bundle.id).current_dir(&bundle.dir);
    let said = harness::said(command.output().expect("run unshare"));
    if said.code == 77 {
        eprintln!("SKIP: this machine cannot make veth devices: {said:?}");
        return None;
    }
    Some(said)
}

fn check_moved(said: &Said, name: &str) {
    let text = &said.stdout;
    assert_eq!(said.code, 0, "{said:?}");
    let mut wanted =
        vec!["mtu 1300", "02:00:00:00:00:07", "192.0.2.7/24 brd 192.0.2.255", "192.0.2.8 peer 192.0.2.9/32"];
    if !text.contains("SKIP6") {
        wanted.push("2001:db8::7/64");
    }
    for wanted in wanted {
        assert!(text.contains(wanted), "{wanted}: {said:?}");
    }
    assert!(text.contains(&format!("{name}@")) && text.contains("UP"), "{said:?}");
    assert!(!text.contains("192.0.2.10/") && !text.contains("192.0.2.11/"), "{said:?}");
}

#[test]
fn a_network_device_moves_with_its_permanent_global_addresses() {
    for (name, inside) in [(json!(null), "up0"), (json!("ctr0"), "ctr0"), (json!("net%d"), "net0")] {
        let bundle = Bundle::of(&["ip", "address", "show", "dev", inside]).with(|config| {
            config["linux"]["netDevices"] = json!({"up0": {"name": name}});
        });
        let Some(said) = with_devices(&bundle, "$RUNTIME run $ID") else { return };
        check_moved(&said, inside);
        bundle.assert_nothing_is_left();
    }
}

#[test]
fn a_network_device_moves_to_a_namespace_that_is_joined_and_stays_there() {
    let bundle = Bundle::of(&["true"]).with(|config| {
        config["linux"]["namespaces"][1]["path"] = json!("/proc/TARGET/ns/net");
        config["linux"]["netDevices"] = json!({"up0": {"name": "ctr0"}, "down0": {}});
    });
    let script = "unshare --net sleep 1000 & target=$!; own=$(readlink /proc/self/ns/net)
        while [ \"$(readlink /proc/$target/ns/net)\" = \"$own\" ]; do sleep 0.02; done
        sed -i s/TARGET/$target/ config.json
        $RUNTIME run $ID; code=$?
        nsenter --net=/proc/$target/ns/net ip address show dev ctr0
        nsenter --net=/proc/$target/ns/net ip link show dev down0 >&2
        kill $target; exit $code";
    let Some(said) = with_devices(&bundle, script) else { return };
    check_moved(&said, "ctr0");
    assert!(said.stderr.contains("down0@") && said.stderr.contains(",UP"), "{said:?}");
}

#[test]
fn network_devices_of_a_container_that_fails_are_given_back() {
    let failing = [
        (
            json!({"up0": {}, "none0": {}}),
            json!([]),
            "linux.netDevices[\"none0\"]: there is no such network device",
        ),
        (json!({"down0": {}, "up0": {"name": "lo"}}), json!([]), "has a device \"lo\" already"),
        // Everything is made when the last step fails.
        (json!({"up0": {}, "down0": {"name": "x"}}), json!([]), "--pid-file"),
        (
            json!({"up0": {"name": "other"}}),
            json!([{"destination": "/x", "type": "nothing", "source": "x"}]),
            "nothing",
        ),
    ];
    for (devices, mounts, wanted) in failing {
        let bundle = Bundle::of(&["true"]).with(|config| {
            config["linux"]["netDevices"] = devices;
            config["mounts"]
                .as_array_mut()
                .expect("mounts")
                .extend(mounts.as_array().expect("a list").clone());
        });
        let script = "ip address show up0 > before; ip link show down0 >> before
            $RUNTIME run --pid-file none/pid $ID; code=$?
            ip address show up0; ip link show down0; exit $code";
        let Some(said) = with_devices(&bundle, script) else { return };
        assert!(said.code == 1 && said.stderr.contains(wanted), "{said:?}");
        let addresses = |text: &str| -> Vec<String> {
            let lines =
                text.lines().map(str::trim).filter(|line| line.starts_with("inet") || line.contains("mtu"));
            let kept = lines.filter(|line| !line.contains("192.0.2.1") && !line.contains("fe80"));
            kept.map(|line| line.split(": ").nth(1).unwrap_or(line).to_owned()).collect()
        };
        let before = fs::read_to_string(bundle.dir.join("before")).expect("read");
        let mut before = addresses(&before);
        let mut now = addresses(said.stdout.trim_start_matches("SKIP6\n"));
        before.sort();
        now.sort();
        assert_eq!(now, before, "{said:?}");
        bundle.assert_nothing_is_left();
    }
}

#[test]
fn network_devices_that_cannot_move_are_errors() {
    let names = |name: &str| json!({"eth0": {"name": name}});
    for (devices, wanted) in [
        (names("a b"), "linux.netDevices[\"eth0\"].name: invalid network device name \"a b\""),
        (names("a%s"), "invalid network device name \"a%s\""),
        (
            json!({"a": {"name": "x"}, "b": {"name": "x"}}),
            "linux.netDevices[\"b\"].name: \"x\" is the name of another",
        ),
        (json!({"a/b": {}}), "linux.netDevices[\"a/b\"]: invalid network device name"),
    ] {
        let bundle = Bundle::of(&["true"]).with(|config| config["linux"]["netDevices"] = devices);
        let said = bundle.run();
        assert!(said.code == 1 && said.stderr.contains(wanted), "{wanted}: {said:?}");
    }
    let bundle = Bundle::of(&["true"]).with(|config| {
        config["linux"]["netDevices"] = json!({"eth0": {}});
        config["linux"]["namespaces"].as_array_mut().expect("namespaces").remove(1);
    });
    let said = bundle.run();
    assert!(said.stderr.contains("unable to move network devices without a NET namespace"), "{said:?}");
}

#[test]
fn a_capability_may_stand_in_for_the_execute_bit_of_others() {
    use std::os::unix::fs::PermissionsExt;
    let bundle = Bundle::of(&["/bin/tool", "echo", "ran"]).with(|config| {
        config["process"]["user"] = json!({"uid": 1000, "gid": 1000});
        for set in ["inheritable", "ambient"] {
            config["process"]["capabilities"][set] = json!(["CAP_DAC_OVERRIDE"]);
        }
    });
    harness::copy("/bin/busybox", bundle.rootfs("bin/tool"));
    fs::set_permissions(bundle.rootfs("bin/tool"), fs::Permissions::from_mode(0o100)).expect("chmod");
    let said = bundle.with(|config| config["process"]["args"] = json!(["/bin/tool"])).run();
    assert!(said.stdout.contains("BusyBox") || said.stderr.contains("tool: applet not found"), "{said:?}");
}

#[test]
fn intel_rdt_without_resctrl_is_an_error() {
    if fs::read_to_string("/proc/mounts").expect("read the mounts").contains(" resctrl ") {
        return eprintln!("SKIP: resctrl is mounted here");
    }
    let bundle = Bundle::of(&["true"]).with(|config| config["linux"]["intelRdt"] = json!({"closID": "gold"}));
    let said = bundle.run();
    assert!(said.stderr.contains("linux.intelRdt: no resctrl file system is mounted here"), "{said:?}");
    bundle.assert_nothing_is_left();
}

//! Many containers created, started and deleted, one after the other and eight at a time: none fails, and
//! nothing of them is left. `make stress` makes a thousand each way, `make test` a few.

mod harness;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use harness::Bundle;
use nix::sys::prctl::set_child_subreaper;
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;

const WORKERS: usize = 8;

#[test]
fn many_containers_come_and_go_and_leave_nothing() {
    let count = std::env::var("STRESS_CONTAINERS")
        .map_or(48, |count| count.parse().expect("STRESS_CONTAINERS is a number"));
    // As engines do: a container's init, and whatever it leaves behind, becomes our child.
    set_child_subreaper(true).expect("become a subreaper");
    let ours = descriptors("self");

    let one = bundle();
    live(&one, 0..count);
    let eight: Vec<Bundle> = (0..WORKERS).map(|_| bundle()).collect();
    std::thread::scope(|scope| {
        for bundle in &eight {
            scope.spawn(move || live(bundle, 0..count.div_ceil(WORKERS)));
        }
    });

    // Every init has been waited for by its pid.
    let child = waitpid(None, Some(WaitPidFlag::WNOHANG));
    assert_eq!(child, Err(nix::errno::Errno::ECHILD), "a process is left");
    assert_eq!(descriptors("self"), ours, "descriptors of our own are left");
    for bundle in eight.iter().chain([&one]) {
        bundle.assert_nothing_is_left();
        let mut left = Vec::new();
        cgroups_below(Path::new("/sys/fs/cgroup"), &bundle.id, &mut left);
        assert!(left.is_empty(), "cgroups are left: {left:?}");
        // The kernel clears keyrings away in its own time.
        let keyring = format!("_ses.{}-", bundle.id);
        let keys = || fs::read_to_string("/proc/keys").unwrap_or_default();
        harness::wait_until("no keyring is left", || !keys().contains(&keyring));
    }
}

/// Without a cgroupsPath, so that each container has cgroups of its own.
fn bundle() -> Bundle {
    Bundle::of(&["sh", "-c", "[ -e /tmp/end ] || exec sleep 1000"])
        .with(|config| drop(config["linux"].as_object_mut().expect("object").remove("cgroupsPath")))
}

/// Creates, starts and deletes containers: every other one ends by itself, the rest is killed.
fn live(bundle: &Bundle, numbers: std::ops::Range<usize>) {
    for number in numbers {
        let id = format!("{}-{number}", bundle.id);
        let ends = number % 2 == 0;
        let mark = bundle.rootfs("tmp/end");
        if ends {
            fs::write(&mark, "").expect("write")
        } else {
            drop(fs::remove_file(&mark))
        }

        let said = bundle.say_detached(&["create", "--pid-file", "pid", &id]);
        assert_eq!((said.code, said.stderr.as_str()), (0, ""), "create {id}");
        let pid: i32 = fs::read_to_string(bundle.dir.join("pid")).expect("its pid").parse().expect("digits");
        // What waits for start has let go of all but the gate: nothing comes from the containers before.
        harness::wait_until("only the gate is open", || {
            let mut held = descriptors(&pid.to_string()).into_iter().filter(|(number, _)| *number > 2);
            held.next().is_some_and(|(_, target)| target == "socket") && held.next().is_none()
        });
        quiet(bundle, &["start", &id]);
        if !ends {
            quiet(bundle, &["kill", &id, "KILL"]);
        }
        waitpid(Pid::from_raw(pid), None).expect("its init is our child");
        quiet(bundle, &["delete", &id]);
    }
}

/// As engines need it: success, and not a word.
fn quiet(bundle: &Bundle, args: &[&str]) {
    let said = bundle.say(args);
    assert_eq!((said.code, said.stdout.as_str(), said.stderr.as_str()), (0, "", ""), "{args:?}");
}

/// What a process has open, by number, without the numbers that differ from one container to the next.
fn descriptors(pid: &str) -> BTreeMap<u32, String> {
    let folder = fs::read_dir(format!("/proc/{pid}/fd")).expect("read its descriptors");
    let links = folder.flatten().filter_map(|entry| {
        let number = entry.file_name().to_str()?.parse().ok()?;
        let target = fs::read_link(entry.path()).ok()?.to_string_lossy().into_owned();
        Some((number, target.split(":[").next().unwrap_or_default().to_owned()))
    });
    // The one that lists them.
    links.filter(|(_, target)| !target.ends_with("/fd")).collect()
}

/// Folders below `dir` whose names begin with `id`.
fn cgroups_below(dir: &Path, id: &str, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            if entry.file_name().to_string_lossy().starts_with(&format!("{id}-")) {
                found.push(entry.path());
            }
            cgroups_below(&entry.path(), id, found);
        }
    }
}

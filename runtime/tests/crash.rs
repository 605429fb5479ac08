//! kill -9 at every step: the runtime dies, or the process that it makes, or the runtime while that process
//! stands there. Then `state` and `list` answer, `delete --force` leaves no process, mount, cgroup or folder,
//! and the id can be used again. The points are those of `src/fault/points.rs`, all of them.
//!
//! Needs a runtime with the feature `fault-points`: `make test` builds one for this test.

mod harness;
#[path = "../src/fault/points.rs"]
#[allow(missing_docs)]
mod points;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use harness::{Bundle, Said};
use nix::sys::prctl::set_child_subreaper;
use nix::sys::wait::{Id, WaitPidFlag, waitid, waitpid};
use nix::unistd::Pid;
use points::Point;
use serde_json::{Value, json};

/// A container and what was made for it.
struct Scene {
    name: &'static str,
    bundle: Bundle,
    /// Has a namespace that is joined.
    _other: Option<Bundle>,
}

/// What is called when it dies.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Call {
    Create,
    Run,
    Start,
    Exec,
    Delete,
    Update,
}

impl Call {
    fn args(self) -> &'static [&'static str] {
        match self {
            Call::Create => &["create", "--pid-file", "pid", "ID"],
            Call::Run => &["run", "--pid-file", "pid", "ID"],
            Call::Start => &["start", "ID"],
            Call::Exec => &["exec", "--pid-file", "pid", "ID", "true"],
            Call::Delete => &["delete", "--force", "ID"],
            Call::Update => &["update", "--pids-limit", "30", "ID"],
        }
    }

    /// What has to be there before.
    fn before(self) -> &'static [&'static [&'static str]] {
        match self {
            Call::Create | Call::Run => &[],
            Call::Start => &[&["create", "ID"]],
            Call::Exec | Call::Delete | Call::Update => &[&["create", "ID"], &["start", "ID"]],
        }
    }

    /// The calls that may pass a point.
    fn through(point: Point) -> &'static [Self] {
        let name = format!("{point:?}");
        let begins = |word: &str| name.starts_with(word);
        match () {
            () if begins("Create") || begins("Init") || begins("Between") => &[Call::Create, Call::Run],
            () if begins("Run") => &[Call::Run],
            () if begins("Start") => &[Call::Start],
            () if begins("Exec") || begins("Join") => &[Call::Exec],
            () if begins("Delete") => &[Call::Delete, Call::Run],
            () if begins("Update") => &[Call::Update],
            () => panic!("{name}: no call is known to pass it"),
        }
    }
}

/// Who dies.
#[derive(Clone, Copy, Debug)]
enum Victim {
    /// Who comes to the point.
    Passer,
    /// The runtime, while the process that it has made stands at the point.
    Runtime,
}

#[test]
fn killed_at_any_step_it_leaves_what_delete_force_clears() {
    // As engines do: whatever a killed runtime leaves behind becomes our child.
    set_child_subreaper(true).expect("become a subreaper");
    let scenes = [plain(), in_the_hosts_namespaces(), with_a_user_namespace(), with_hooks()];
    let innocent = children();
    let mut never = Vec::new();
    for point in Point::ALL {
        let name = format!("{point:?}");
        let in_new_process = ["Init", "Join", "Between"].iter().any(|word| name.starts_with(word));
        let victims: &[Victim] =
            if in_new_process { &[Victim::Passer, Victim::Runtime] } else { &[Victim::Passer] };
        for victim in victims {
            let mut reached = false;
            for scene in &scenes {
                for call in Call::through(*point) {
                    reached |= scene.die(*call, &name, *victim, &innocent);
                }
            }
            if !reached {
                never.push((name.clone(), *victim));
            }
        }
    }
    assert!(never.is_empty(), "nobody came to {never:?}");
}

fn plain() -> Scene {
    let bundle = Bundle::of(&["sleep", "1000"]);
    Scene { name: "plain", bundle, _other: None }
}

/// Mounts are the host's, and processes do not die with the first.
fn in_the_hosts_namespaces() -> Scene {
    let bundle = Bundle::of(&["sleep", "1000"]).with(|config| {
        config["linux"]["namespaces"] = json!([{"type": "ipc"}, {"type": "uts"}]);
    });
    Scene { name: "in the host's namespaces", bundle, _other: None }
}

/// Which takes a step between, since another namespace is joined.
fn with_a_user_namespace() -> Scene {
    let other = Bundle::of(&["sleep", "1000"]);
    other.create();
    let pid = fs::read_to_string(other.dir.join("pid")).expect("its pid");
    let bundle = Bundle::of(&["sleep", "1000"]).with(|config| {
        let map = json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]);
        let namespaces = config["linux"]["namespaces"].as_array_mut().expect("namespaces");
        let ipc = namespaces.iter_mut().find(|namespace| namespace["type"] == "ipc").expect("ipc");
        ipc["path"] = json!(format!("/proc/{pid}/ns/ipc"));
        namespaces.push(json!({"type": "user"}));
        config["linux"]["uidMappings"] = map.clone();
        config["linux"]["gidMappings"] = map;
    });
    Scene { name: "with a user namespace", bundle, _other: Some(other) }
}

fn with_hooks() -> Scene {
    let bundle = Bundle::of(&["sleep", "1000"]).with(|config| {
        let hook = json!([{"path": "/bin/true"}]);
        for kind in ["createRuntime", "createContainer", "startContainer", "poststart", "poststop"] {
            config["hooks"][kind] = hook.clone();
        }
    });
    Scene { name: "with hooks", bundle, _other: None }
}

impl Scene {
    /// False if the call ended without coming to the point.
    fn die(&self, call: Call, point: &str, victim: Victim, innocent: &BTreeSet<i32>) -> bool {
        let place = format!("{}, {call:?}, {point}, {victim:?}", self.name);
        // Else `run` would wait.
        let ends = call == Call::Run;
        self.bundle.change(|config| {
            config["process"]["args"] = if ends { json!(["true"]) } else { json!(["sleep", "1000"]) }
        });
        for args in call.before() {
            let said = self.answer(args, None);
            assert_eq!((said.code, said.stderr.as_str()), (0, ""), "{place}: {args:?}");
        }
        let said = match victim {
            Victim::Passer => self.answer(call.args(), Some(point)),
            Victim::Runtime => self.answer(call.args(), Some(&format!("{point}@runtime"))),
        };
        let reached = said.code != 0;
        self.check_what_is_left(call, &place, innocent);
        reached
    }

    fn check_what_is_left(&self, call: Call, place: &str, innocent: &BTreeSet<i32>) {
        let state = self.answer(&["state", "ID"], None);
        let list = self.answer(&["list"], None);
        assert_eq!(list.code, 0, "{place}: {list:?}");
        match state.code {
            0 => {
                let state: Value = serde_json::from_str(&state.stdout).expect("state is JSON");
                let status = state["status"].as_str().unwrap_or_default();
                assert!(["created", "running", "stopped"].contains(&status), "{place}: {state}");
            }
            _ => {
                let sane = ["container does not exist", "(remove the container with delete --force)"];
                assert!(sane.iter().any(|words| state.stderr.contains(words)), "{place}: {state:?}");
            }
        }
        if matches!(call, Call::Exec | Call::Update) {
            let again = self.answer(&["exec", "ID", "true"], None);
            assert_eq!((again.code, again.stderr.as_str()), (0, ""), "{place}: the container goes on");
        }
        self.clear(place, innocent);
        let again = self.answer(&["create", "ID"], None);
        assert_eq!((again.code, again.stderr.as_str()), (0, ""), "{place}: the id is free again");
        self.clear(place, innocent);
    }

    /// `delete --force`, after which nothing is left.
    fn clear(&self, place: &str, innocent: &BTreeSet<i32>) {
        let said = self.answer(&["delete", "--force", "ID"], None);
        assert_eq!((said.code, said.stderr.as_str()), (0, ""), "{place}: delete --force");
        let mut left = children();
        let begin = Instant::now();
        loop {
            left.retain(|pid| !innocent.contains(pid));
            for pid in &left {
                let _ = waitpid(Pid::from_raw(*pid), Some(WaitPidFlag::WNOHANG)); // the next look will tell
            }
            if left.is_empty() {
                break;
            }
            assert!(
                begin.elapsed() < Duration::from_secs(20),
                "{place}: processes are left: {}",
                describe(&left)
            );
            std::thread::sleep(Duration::from_millis(1));
            left = children();
        }
        println!("{place}");
        self.bundle.assert_nothing_is_left();
    }

    /// Calls the runtime, which is to die at a point or to be killed there. Not through pipes, which a
    /// container would keep open.
    fn answer(&self, args: &[&str], fault: Option<&str>) -> Said {
        let args: Vec<&str> =
            args.iter().map(|arg| if *arg == "ID" { &*self.bundle.id } else { arg }).collect();
        let path = |name| self.bundle.dir.join(name);
        let [out, errors] = ["stdout", "stderr"].map(|name| File::create(path(name)).expect("make a file"));
        let mut command: Command = self.bundle.command(&args);
        command.stdin(Stdio::null()).stdout(out).stderr(errors);
        fault.map(|point| command.env("RUNTIME_FAULT", point));
        let mut child = command.spawn().expect("run the runtime");
        let read = |name| fs::read_to_string(path(name)).expect("read a file");
        let stands = fault.and_then(|point| Some(format!("at {}\n", point.strip_suffix("@runtime")?)));
        let begin = Instant::now();
        while child.try_wait().expect("look for its end").is_none() {
            if stands.as_ref().is_some_and(|words| read("stderr").contains(words)) {
                child.kill().expect("kill the runtime");
            }
            if begin.elapsed() > Duration::from_secs(30) {
                child.kill().expect("kill the runtime");
                panic!("{args:?} with {fault:?} hangs");
            }
            reap_all_but(child.id());
            std::thread::sleep(Duration::from_millis(1));
        }
        let status = child.wait().expect("wait for the runtime");
        Said { code: status.code().unwrap_or(-1), stdout: read("stdout"), stderr: read("stderr") }
    }
}

/// As who becomes the parent of orphans has to: a pid namespace does not end before all that were born into
/// it have been waited for.
fn reap_all_but(child: u32) {
    let look = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    if let Some(pid) = waitid(Id::All, look).ok().and_then(|ended| ended.pid())
        && pid.as_raw().cast_unsigned() != child
    {
        waitpid(pid, None).expect("wait for it");
    }
}

/// Our children, living or not.
fn children() -> BTreeSet<i32> {
    let own = std::process::id().to_string();
    let all = fs::read_dir("/proc").expect("read /proc").flatten();
    let pids = all.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid| parent(*pid).is_some_and(|parent| parent == own)).collect()
}

fn parent(pid: i32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(") ")?;
    rest.split(' ').nth(1).map(str::to_owned)
}

fn describe(pids: &BTreeSet<i32>) -> String {
    let read = |pid: &i32, file: &str| fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
    let one = |pid: &i32| format!("{pid} {:?} {:?}", read(pid, "cmdline"), read(pid, "stat"));
    pids.iter().map(one).collect::<Vec<_>>().join("; ")
}

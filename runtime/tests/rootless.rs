//! The runtime called by an ordinary user, and by root of a user namespace.

mod harness;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::{Command, Output, Stdio};

use harness::{Bundle, Said, copy, have, said};
use serde_json::{Value, json};

/// An id that nobody has.
const USER: u32 = 61_234;

/// Runs a shell script as an ordinary user, in the bundle's folder, which is then the user's. `$runtime` is
/// the runtime with a state folder of the user's own. Without a user who may make namespaces: `None`.
struct User {
    bundle: Bundle,
    /// A script that root runs before, in a mount namespace of its own.
    before: String,
}

impl User {
    fn with(args: &[&str], change: impl FnOnce(&mut Value)) -> Option<Self> {
        let may = ["setpriv", "unshare"].iter().all(have)
            && as_user("unshare --user --map-root-user true", "")
                .output()
                .expect("run a shell")
                .status
                .success();
        if !may {
            eprintln!("SKIP: needs setpriv, unshare, and user namespaces for ordinary users");
            return None;
        }
        let bundle = Bundle::of(args);
        copy(harness::runtime(), bundle.dir.join("runtime"));
        fs::remove_file(bundle.dir.join("config.json")).expect("remove config.json");
        fs::create_dir(bundle.dir.join("run")).expect("make a folder");
        let status = Command::new("chown").arg("-R").arg(format!("{USER}:{USER}")).arg(&bundle.dir).status();
        assert!(status.expect("run chown").success());
        let user = Self { bundle, before: String::new() };
        let made = user.sh("$runtime spec --rootless");
        assert_eq!(made.code, 0, "{made:?}");
        user.change(|config| {
            config["process"]["args"] = json!(args);
            config["process"]["terminal"] = json!(false);
            config["root"]["readonly"] = json!(false);
            change(config);
        });
        Some(user)
    }

    fn of_script(script: &str, change: impl FnOnce(&mut Value)) -> Option<Self> {
        Self::with(&["sh", "-c", script], change)
    }

    fn change(&self, change: impl FnOnce(&mut Value)) {
        let path = self.bundle.dir.join("config.json");
        let mut config = serde_json::from_slice(&fs::read(&path).expect("read it")).expect("parse it");
        change(&mut config);
        fs::write(path, Value::to_string(&config)).expect("write it");
    }

    fn command(&self, script: &str) -> Command {
        let dir = self.bundle.dir.display();
        let script = format!("cd {dir}; export XDG_RUNTIME_DIR={dir}/run; runtime={dir}/runtime; {script}");
        as_user(&script, &self.before)
    }

    fn sh(&self, script: &str) -> Said {
        said(self.command(script).output().expect("run a shell"))
    }

    /// For what leaves a container behind, which inherits the standard streams.
    fn sh_detached(&self, script: &str) -> Said {
        self.sh(&format!("{{ {script}; }} > out 2> err < /dev/null; code=$?; cat err >&2; exit $code"))
    }

    fn run(&self) -> Said {
        self.sh(&format!("$runtime run {}", self.bundle.id))
    }

    fn assert_nothing_is_left(&self) {
        let state = self.bundle.dir.join("run/runtime");
        let left: Vec<_> = fs::read_dir(&state).into_iter().flatten().flatten().map(|e| e.path()).collect();
        assert!(left.is_empty(), "state is left: {left:?}");
        assert!(self.bundle.cgroups().is_empty(), "cgroups are left: {:?}", self.bundle.cgroups());
    }
}

impl Drop for User {
    fn drop(&mut self) {
        let _: Option<Output> =
            self.command(&format!("$runtime delete --force {}", self.bundle.id)).output().ok();
    }
}

/// `script` as the user, after `before` as root in a mount namespace of its own.
fn as_user(script: &str, before: &str) -> Command {
    let user = format!("--reuid {USER} --regid {USER} --clear-groups");
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-ec"]);
    command.arg(format!("{before}\nexec setpriv {user} sh -c \"$SCRIPT\""));
    command
        .env_clear()
        .env("SCRIPT", script)
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .stdin(Stdio::null());
    command
}

#[test]
fn an_ordinary_user_runs_what_spec_rootless_wrote() {
    let script = "id; cat /proc/self/uid_map; ls -l /dev/null; echo gone > /dev/null; pwd";
    let Some(user) = User::of_script(script, |_| {}) else { return };
    let said = user.run();
    assert_eq!(said.code, 0, "{said:?}");
    let lines: Vec<&str> = said.stdout.lines().collect();
    assert_eq!(lines[0], "uid=0 gid=0");
    let map: Vec<&str> = lines[1].split_whitespace().collect();
    assert_eq!(map, ["0", &USER.to_string(), "1"]);
    assert!(lines[2].starts_with("crw-rw-rw-"), "{said:?}");
    assert_eq!(said.stderr, "");
    user.assert_nothing_is_left();
}

#[test]
fn a_users_container_lives_and_is_gone() {
    let clocks = fs::exists("/proc/self/timens_offsets").expect("look");
    if !clocks {
        eprintln!("SKIP: this kernel has no time namespaces; the rest is tested");
    }
    let Some(user) = User::with(&["sleep", "1000"], |config| {
        config["process"]["oomScoreAdj"] = json!(500);
        if clocks {
            config["linux"]["namespaces"].as_array_mut().expect("namespaces").push(json!({"type": "time"}));
            config["linux"]["timeOffsets"] = json!({"boottime": {"secs": 1_000_000_000}});
        }
    }) else {
        return;
    };
    let id = &user.bundle.id;
    let created = user.sh_detached(&format!("$runtime create --pid-file pid {id}"));
    assert_eq!(created.code, 0, "{created:?}");
    let said = user.sh(&format!("$runtime start {id} && $runtime state {id}"));
    assert!(said.code == 0 && said.stdout.contains("\"running\""), "{said:?}");
    let said = user.sh(&format!(
        "$runtime exec {id} sh -c 'id; cat /proc/self/oom_score_adj /proc/1/oom_score_adj; cut -c1-2 /proc/uptime; exit 7'"
    ));
    assert!(said.code == 7 && said.stdout.starts_with("uid=0 gid=0\n500\n500\n"), "{said:?}");
    assert!(!clocks || said.stdout.ends_with("\n10\n"), "{said:?}");
    let process = json!({"args": ["cat", "/proc/self/oom_score_adj"], "cwd": "/", "env": ["PATH=/bin"], "oomScoreAdj": 700});
    fs::write(user.bundle.dir.join("process.json"), process.to_string()).expect("write");
    let said = user.sh(&format!("$runtime exec --process process.json {id}"));
    assert_eq!(said.stdout, "700\n", "{said:?}");
    let said = user.sh(&format!("$runtime list --quiet; $runtime kill {id} KILL"));
    assert_eq!((said.code, said.stdout.trim()), (0, id.as_str()), "{said:?}");
    let said = user.sh(&format!("$runtime delete --force {id}"));
    assert_eq!(said.code, 0, "{said:?}");
    user.assert_nothing_is_left();
}

fn without_user_namespace(config: &mut Value) {
    let linux = &mut config["linux"];
    let namespaces = linux["namespaces"].as_array_mut().expect("namespaces");
    namespaces.retain(|namespace| namespace["type"] != "user");
    linux["uidMappings"] = json!(null);
    linux["gidMappings"] = json!(null);
}

#[test]
fn what_a_user_may_not_do_is_an_error_that_names_it() {
    let limited = |config: &mut Value| config["linux"]["resources"] = json!({"pids": {"limit": 10}});
    let grouped = |config: &mut Value| config["process"]["user"]["additionalGids"] = json!([0]);
    let placed = |config: &mut Value| config["linux"]["cgroupsPath"] = json!("/not-mine");
    type Change = fn(&mut Value);
    let cases: [(Change, &str); 4] = [
        (limited, "needs a cgroup that is delegated to you"),
        (placed, "needs a cgroup that is delegated to you"),
        (without_user_namespace, "rootless container requires user namespaces"),
        (grouped, "setgroups is denied in this user namespace"),
    ];
    for (change, wanted) in cases {
        let Some(user) = User::with(&["true"], change) else { return };
        let said = user.run();
        assert!(said.code == 1 && said.stderr.contains(wanted), "{wanted}: {said:?}");
        user.assert_nothing_is_left();
    }
}

/// Mappings of several ranges, which only newuidmap(1) and newgidmap(1) may write for a user.
fn subordinate(config: &mut Value) {
    let map = json!([
        {"containerID": 0, "hostID": USER, "size": 1},
        {"containerID": 1, "hostID": 700_000, "size": 99},
        {"containerID": 1000, "hostID": 700_500, "size": 100},
    ]);
    config["linux"]["uidMappings"] = map.clone();
    config["linux"]["gidMappings"] = map;
}

#[test]
fn subordinate_ids_are_mapped_by_newuidmap() {
    if !have("newuidmap") {
        return eprintln!("SKIP: needs newuidmap (package uidmap)");
    }
    let script = "id; touch /tmp/mine; sleep 0";
    let Some(mut user) = User::of_script(script, |config| {
        subordinate(config);
        config["process"]["user"] = json!({"uid": 1007, "gid": 1008, "additionalGids": [5]});
    }) else {
        return;
    };
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(user.bundle.rootfs("tmp"), fs::Permissions::from_mode(0o777)).expect("chmod");
    let dir = user.bundle.dir.clone();
    fs::write(dir.join("passwd"), format!("somebody:x:{USER}:{USER}::/:/bin/sh\n")).expect("write");
    fs::write(dir.join("none"), "").expect("write");
    fs::write(dir.join("subid"), format!("{USER}:700000:1000\n")).expect("write");
    let cover = |subid: &str| {
        let mut script = format!("mount --bind {}/passwd /etc/passwd\n", dir.display());
        for file in ["subuid", "subgid"] {
            script += &format!("mount --bind {}/{subid} /etc/{file}\n", dir.display());
        }
        script
    };
    for file in ["/etc/subuid", "/etc/subgid"] {
        if !fs::exists(file).expect("look") {
            return eprintln!("SKIP: {file} is not there to be covered");
        }
    }
    user.before = cover("none");
    let refused = user.run();
    assert!(refused.code == 1 && refused.stderr.contains("newuidmap: "), "{refused:?}");
    user.assert_nothing_is_left();
    user.before = cover("subid");
    let said = user.run();
    assert_eq!((said.code, &*said.stdout), (0, "uid=1007 gid=1008 groups=5\n"), "{said:?}");
    let made = fs::metadata(user.bundle.rootfs("tmp/mine")).expect("the payload's file");
    assert_eq!((made.uid(), made.gid()), (700_507, 700_508));
}

#[test]
fn a_container_whose_processes_cannot_be_found_is_warned_of() {
    let Some(user) = User::with(&["true"], |config| {
        let namespaces = config["linux"]["namespaces"].as_array_mut().expect("namespaces");
        namespaces.retain(|namespace| namespace["type"] != "pid");
        let mounts = config["mounts"].as_array_mut().expect("mounts");
        mounts.retain(|mount| mount["destination"] != "/proc");
        mounts.push(json!({"destination": "/proc", "type": "none", "source": "/proc", "options": ["rbind"]}));
    }) else {
        return;
    };
    let said = user.run();
    assert!(said.code == 0 && said.stderr.contains("Such configuration is strongly discouraged"), "{said:?}");
    user.assert_nothing_is_left();
}

#[test]
fn root_of_a_user_namespace_runs_containers() {
    let Some(user) = User::of_script("id", |config| {
        let map = json!([{"containerID": 0, "hostID": 0, "size": 1}]);
        config["linux"]["uidMappings"] = map.clone();
        config["linux"]["gidMappings"] = map;
    }) else {
        return;
    };
    let run = format!("unshare --user --map-root-user --mount $runtime run {}", user.bundle.id);
    let said = user.sh(&run);
    assert_eq!((said.code, &*said.stdout), (0, "uid=0 gid=0\n"), "{said:?}");
    user.assert_nothing_is_left();
    user.change(without_user_namespace);
    let said = user.sh(&run);
    assert_eq!((said.code, &*said.stdout), (0, "uid=0 gid=0\n"), "without a namespace of its own: {said:?}");
    user.assert_nothing_is_left();
}

/// A container of an ordinary user's pod, as Podman has it: hooks must not run in the pod's pid namespace, but
/// the runtime could not leave it again.
#[test]
fn root_of_a_user_namespace_joins_a_pid_namespace() {
    let Some(user) = User::of_script("echo $$; readlink /proc/self/ns/pid", without_user_namespace) else {
        return;
    };
    let dir = user.bundle.dir.display().to_string();
    user.change(|config| {
        let namespaces = config["linux"]["namespaces"].as_array_mut().expect("namespaces");
        namespaces.retain(|namespace| namespace["type"] != "pid");
        namespaces.push(json!({"type": "pid", "path": format!("{dir}/pid")}));
        let hook = format!("readlink /proc/self/ns/pid >{dir}/of-hook");
        config["hooks"]["createRuntime"] = json!([{"path": "/bin/sh", "args": ["sh", "-c", hook]}]);
    });
    let script = format!(
        "unshare --pid --fork --kill-child --mount-proc sh -c 'readlink /proc/self/ns/pid >{dir}/name; sleep 100' &
         until test -s {dir}/name; do sleep 0.01; done
         ln -s /proc/$!/ns/pid_for_children {dir}/pid
         $runtime run {}; code=$?; cat {dir}/name; kill -9 $!; exit $code",
        user.bundle.id
    );
    fs::write(user.bundle.dir.join("script"), script).expect("write");
    let said = user.sh(&format!("export runtime; unshare --user --map-root-user --mount sh {dir}/script"));
    let words: Vec<&str> = said.stdout.split_whitespace().collect();
    assert!(said.code == 0 && words.len() == 3, "{said:?}");
    assert_ne!(words[0], "1", "it is not the first process there");
    assert_eq!(words[1], words[2], "the namespace that was to be joined");
    let own = fs::read_link("/proc/self/ns/pid").expect("our pid namespace");
    let of_hook = fs::read_to_string(user.bundle.dir.join("of-hook")).expect("the hook has run");
    assert_eq!(of_hook.trim(), own.to_string_lossy());
    user.assert_nothing_is_left();
}

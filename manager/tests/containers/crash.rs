//! `kill -9` of the parts, at bad moments: the next command copes.

use std::process::Stdio;
use std::thread::sleep;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::host::{Host, each_runtime, one_runtime, processes_with, unique, wait_until};

/// Kills a process that `state.json` names, by `SIGKILL`.
fn kill_part(host: &Host, id: &str, part: &str) {
    let state = host.state(id, "state.json").unwrap();
    let pid = i32::try_from(state[part]["pid"].as_i64().unwrap()).unwrap();
    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    wait_until("it does not die", || {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.is_empty() || stat.contains(") Z ")
    });
}

#[test]
fn a_container_outlives_its_monitor_and_can_be_stopped() {
    each_runtime(|host, runtime| {
        let name = unique("orphan");
        let id = host.manager(runtime, &["run", "-d", "--name", &name, &host.image, "sleep", "1000"]).ok();
        kill_part(host, id.trim(), "monitor");
        let status = host.plain(&["ps", "--filter", &format!("name={name}"), "--format", "{{.Status}}"]).ok();
        assert!(status.contains("(unmonitored)"), "{status}");
        assert_eq!(host.manager(runtime, &["exec", &name, "echo", "alive"]).ok(), "alive\n");
        host.manager(runtime, &["stop", "-t", "0", &name]).ok();
        assert_eq!(host.inspect(&name)["State"]["ExitCode"], 255);
        host.manager(runtime, &["rm", &name]).ok();
        host.assert_gone(id.trim());
    });
}

#[test]
fn rm_force_removes_what_a_killed_monitor_left() {
    each_runtime(|host, runtime| {
        let name = unique("orphan");
        let id = host.manager(runtime, &["run", "-d", "--name", &name, &host.image, "sleep", "1000"]).ok();
        kill_part(host, id.trim(), "monitor");
        host.manager(runtime, &["rm", "-f", &name]).ok();
        host.assert_gone(id.trim());
    });
}

#[test]
fn a_container_that_died_unseen_can_be_started_again() {
    each_runtime(|host, runtime| {
        let name = unique("unseen");
        let id = host.manager(runtime, &["run", "-d", "--name", &name, &host.image, "sleep", "1000"]).ok();
        kill_part(host, id.trim(), "monitor");
        kill_part(host, id.trim(), "process");
        assert_eq!(host.inspect(&name)["State"]["Status"], "exited");
        host.manager(runtime, &["start", &name]).ok();
        assert_eq!(host.inspect(&name)["State"]["Status"], "running");
        host.manager(runtime, &["rm", "-f", &name]).ok();
        host.assert_gone(id.trim());
    });
}

#[test]
fn rm_happens_although_the_one_who_ran_it_is_killed() {
    one_runtime(|host, runtime| {
        let file = host.scratch().join("id");
        let words = ["run", "--rm", "--cidfile", file.to_str().unwrap(), &host.image, "sleep", "1"];
        let mut child = host.command(runtime, &words).stdout(Stdio::null()).spawn().unwrap();
        let id = || std::fs::read_to_string(&file).unwrap_or_default();
        wait_until("it does not run", || host.state(&id(), "state.json").is_some());
        child.kill().unwrap();
        child.wait().unwrap();
        wait_until("it was not removed", || !host.root().join("containers").join(id()).exists());
        host.assert_gone(&id());
    });
}

#[test]
fn whatever_moment_a_monitor_is_killed_at_rm_force_takes_the_rest() {
    each_runtime(|host, runtime| {
        for delay in [0, 1, 3, 6, 10, 15, 25, 40, 60, 90] {
            let name = unique("beheaded");
            let id = host.manager(runtime, &["create", "--name", &name, &host.image, "sleep", "1000"]).ok();
            let id = id.trim();
            let mut child = host.command(runtime, &["start", &name]).stderr(Stdio::null()).spawn().unwrap();
            let monitor = || {
                let all = processes_with(&format!("monitor {id}"));
                all.into_iter().find(|(_, line)| line.starts_with("manager ")).map(|(pid, _)| pid)
            };
            wait_until("there is no monitor", || monitor().is_some());
            sleep(Duration::from_millis(delay));
            if let Some(pid) = monitor() {
                kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
            }
            wait_until("start does not notice", || child.try_wait().unwrap().is_some());
            let printed = host.manager(runtime, &["rm", "-f", &name]);
            assert_eq!(printed.code, 0, "killed after {delay} ms: {printed:?}");
            host.assert_gone(id);
        }
    });
}

#[test]
fn whatever_moment_run_is_killed_at_rm_force_takes_the_rest() {
    one_runtime(|host, runtime| {
        for delay in [0, 2, 5, 10, 20, 35, 60, 100, 150] {
            let name = unique("cut");
            let words = ["run", "--name", &name, &host.image, "sleep", "1000"];
            let mut child = host.command(runtime, &words).stdout(Stdio::null()).spawn().unwrap();
            sleep(Duration::from_millis(delay));
            child.kill().unwrap();
            child.wait().unwrap();
            // Its monitor, if there is one, goes on and may just be making the container.
            let found = host.plain(&["inspect", "-f", "{{.Id}}", &name]);
            if found.code == 0 {
                let id = found.out.trim().to_owned();
                wait_until("it cannot be removed", || host.manager(runtime, &["rm", "-f", &name]).code == 0);
                wait_until("it is not gone", || host.plain(&["inspect", &id]).code != 0);
                host.assert_gone(&id);
            }
        }
    });
}

/// Empties a file, as a power cut may.
fn empty(path: &std::path::Path) {
    std::fs::write(path, "").unwrap();
}

#[test]
fn files_that_a_power_cut_emptied_do_not_keep_a_container_for_ever() {
    one_runtime(|host, runtime| {
        let name = unique("damaged");
        let id = host.manager(runtime, &["run", "-d", "--name", &name, &host.image, "true"]).ok();
        let id = id.trim();
        host.plain(&["wait", &name]).ok();
        let folder = host.root().join("containers").join(id);
        let inspect = || host.inspect(&name)["State"].clone();
        for file in ["exit.json", "state.json"] {
            empty(&folder.join(file));
            assert_eq!(
                (inspect()["Status"].as_str(), inspect()["ExitCode"].as_i64()),
                (Some("exited"), Some(255))
            );
            assert!(inspect()["Error"].as_str().unwrap().contains("is damaged"), "{file}");
            let listed = host.plain(&["ps", "-a", "--filter", &format!("name={name}"), "-q"]).ok();
            assert!(id.starts_with(listed.trim()) && !listed.is_empty(), "{file}: {listed:?}");
            std::fs::remove_file(folder.join("exit.json")).unwrap_or_default();
        }
        host.manager(runtime, &["start", "-a", &name]).ok();
        empty(&folder.join("container.json"));
        let listed = host.plain(&["ps", "-a"]);
        assert!(listed.code == 0 && listed.err.contains(id), "{listed:?}");
        assert_eq!(host.plain(&["rm", &name]).code, 1);
        assert_eq!(host.plain(&["rm", "-f", &name]).ok(), format!("{name}\n"));
        host.assert_gone(id);
        host.manager(runtime, &["run", "--rm", "--name", &name, &host.image, "true"]).ok();
    });
}

//! The life of a container: detached, listed, stopped, started again, removed without a trace.

use serde_json::Value;

use crate::host::{each_runtime, one_runtime, unique, wait_until};

#[test]
fn run_ps_logs_exec_stop_rm_leave_nothing() {
    each_runtime(|host, runtime| {
        let name = unique("web");
        let id = host
            .manager(runtime, &["run", "-d", "--name", &name, &host.image, "sh", "-c", "echo up; sleep 1000"])
            .ok();
        let id = id.trim();
        let filter = format!("name={name}");
        let row = host.plain(&["ps", "--filter", &filter, "--format", "{{json .}}"]).ok();
        let row: Value = serde_json::from_str(&row).unwrap();
        assert_eq!((row["Names"].as_str(), row["State"].as_str()), (Some(name.as_str()), Some("running")));
        assert!(row["Status"].as_str().unwrap().starts_with("Up "), "{row}");
        assert_eq!(row["ID"].as_str().unwrap(), &id[..12]);
        wait_until("no log", || host.plain(&["logs", &name]).out == "up\n");
        assert_eq!(host.manager(runtime, &["exec", &name, "pwd"]).ok(), "/\n");
        // The host's mount table knows nothing of it.
        assert!(!std::fs::read_to_string("/proc/self/mountinfo").unwrap().contains(id));
        assert_eq!(host.manager(runtime, &["stop", "-t", "0", &name]).ok(), format!("{name}\n"));
        assert_eq!(host.plain(&["ps", "-q", "--filter", &filter]).ok(), "");
        let status = host.plain(&["ps", "-a", "--filter", &filter, "--format", "{{.Status}}"]).ok();
        assert!(status.starts_with("Exited (137) "), "{status}");
        host.manager(runtime, &["rm", &name]).ok();
        host.assert_gone(id);
    });
}

#[test]
fn the_table_has_dockers_columns() {
    one_runtime(|host, runtime| {
        let name = unique("table");
        host.manager(runtime, &["run", "-d", "--name", &name, &host.image, "sleep", "1000"]).ok();
        let filter = format!("name={name}");
        let text = host.plain(&["ps", "--filter", &filter]).ok();
        let mut lines = text.lines();
        let header = lines.next().unwrap();
        let titles: Vec<&str> =
            header.split("   ").map(str::trim).filter(|title| !title.is_empty()).collect();
        assert_eq!(titles, ["CONTAINER ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES"]);
        let row = lines.next().unwrap();
        assert_eq!(row.find(&name), header.find("NAMES"));
        assert_eq!(row.find("\"sleep 1000\""), header.find("COMMAND"));
        host.manager(runtime, &["rm", "-f", &name]).ok();
    });
}

#[test]
fn a_name_is_given_once() {
    one_runtime(|host, runtime| {
        let name = unique("once");
        let id = host.manager(runtime, &["create", "--name", &name, &host.image]).ok();
        let printed = host.manager(runtime, &["create", "--name", &name, &host.image]);
        assert_eq!(printed.code, 1);
        let sentence =
            format!("the container name \"/{name}\" is already in use by container \"{}\"", id.trim());
        assert!(printed.err.contains(&sentence), "{printed:?}");
        host.manager(runtime, &["rm", &name]).ok();
        let again = host.manager(runtime, &["create", "--name", &name, &host.image]).ok();
        host.manager(runtime, &["rm", again.trim()]).ok();
        host.assert_gone(id.trim());
    });
}

#[test]
fn a_running_container_is_removed_with_force_only() {
    each_runtime(|host, runtime| {
        let name = unique("force");
        let id = host.manager(runtime, &["run", "-d", "--name", &name, &host.image, "sleep", "1000"]).ok();
        let printed = host.manager(runtime, &["rm", &name]);
        assert!(
            printed.code == 1 && printed.err.contains("you cannot remove a running container"),
            "{printed:?}"
        );
        host.manager(runtime, &["rm", "-f", &name]).ok();
        host.assert_gone(id.trim());
    });
}

#[test]
fn stop_sends_the_signal_and_waits() {
    each_runtime(|host, runtime| {
        let name = unique("stop");
        let script = "trap 'echo got it; exit 3' USR1; echo ready; while :; do sleep 0.1; done";
        let words = ["run", "-d", "--stop-signal", "USR1", "--name", &name, &host.image, "sh", "-c", script];
        host.manager(runtime, &words).ok();
        wait_until("it is not ready", || host.plain(&["logs", &name]).out.contains("ready"));
        host.manager(runtime, &["stop", &name]).ok();
        assert_eq!(host.inspect(&name)["State"]["ExitCode"], 3);
        assert!(host.plain(&["logs", &name]).ok().ends_with("got it\n"));
        host.manager(runtime, &["rm", &name]).ok();
    });
}

#[test]
fn start_keeps_what_was_written() {
    each_runtime(|host, runtime| {
        let name = unique("again");
        let script = "cat /file; echo was here >> /file; cat /data/file; echo too >> /data/file";
        host.manager(runtime, &["create", "--name", &name, &host.image, "sh", "-c", script]).ok();
        assert_eq!(host.plain(&["inspect", "-f", "{{.State.Status}}", &name]).ok(), "created\n");
        assert_eq!(host.manager(runtime, &["start", &name]).ok(), format!("{name}\n"));
        assert_eq!(host.manager(runtime, &["wait", &name]).ok(), "0\n");
        assert_eq!(host.manager(runtime, &["start", "-a", &name]).ok(), "was here\ntoo\n");
        host.manager(runtime, &["rm", &name]).ok();
    });
}

#[test]
fn wait_prints_the_code_of_a_container_that_removes_itself() {
    each_runtime(|host, runtime| {
        let name = unique("wait");
        let id = host
            .manager(
                runtime,
                &["run", "-d", "--rm", "--name", &name, &host.image, "sh", "-c", "sleep 1; exit 9"],
            )
            .ok();
        assert_eq!(host.manager(runtime, &["wait", &name]).ok(), "9\n");
        host.assert_gone(id.trim());
    });
}

#[test]
fn many_containers_start_at_the_same_time() {
    one_runtime(|host, runtime| {
        std::thread::scope(|scope| {
            let all: Vec<_> = (0..8)
                .map(|number| scope.spawn(move || host.run(runtime, &[], &["echo", &number.to_string()])))
                .collect();
            for (number, printed) in all.into_iter().enumerate() {
                assert_eq!(printed.join().unwrap().ok(), format!("{number}\n"));
            }
        });
    });
}

#[test]
fn exec_has_its_own_environment_user_and_input() {
    each_runtime(|host, runtime| {
        let name = unique("inside");
        host.manager(runtime, &["run", "-d", "--name", &name, "-e", "A=1", &host.image, "sleep", "1000"])
            .ok();
        let words = [
            "exec",
            "-e",
            "B=2",
            "-u",
            "web",
            "-w",
            "/tmp",
            &name,
            "sh",
            "-c",
            "echo $A$B; id -un; pwd; cat",
        ];
        assert_eq!(host.manager(runtime, &words).ok(), "12\nweb\n/tmp\n");
        let mut command = host.command(runtime, &["exec", "-i", &name, "cat"]);
        let mut child =
            command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped()).spawn().unwrap();
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), b"typed").unwrap();
        assert_eq!(child.wait_with_output().unwrap().stdout, b"typed");
        host.manager(runtime, &["exec", "-d", &name, "touch", "/detached"]).ok();
        wait_until("exec -d did nothing", || {
            host.manager(runtime, &["exec", &name, "cat", "/detached"]).code == 0
        });
        host.manager(runtime, &["stop", "-t", "0", &name]).ok();
        let printed = host.manager(runtime, &["exec", &name, "true"]);
        assert!(printed.code == 1 && printed.err.contains("is not running"), "{printed:?}");
        host.manager(runtime, &["rm", &name]).ok();
    });
}

//! Debian's containerd and its own client, `ctr run --runc-binary`.

use crate::image::{self, IMAGE};
use crate::machine::{Daemon, Said, must, on_a_machine, on_a_terminal, runtime, say, wait_until, write};

const CONFIG: &str = r#"version = 2
disabled_plugins = ["io.containerd.grpc.v1.cri"]
"#;

/// Starts containerd with the image in it.
fn start() -> Daemon {
    write("/etc/containerd/config.toml", CONFIG);
    let daemon = Daemon::start(&["containerd"], "/tmp/containerd.log", &["ctr", "version"]);
    must(&["ctr", "images", "import", &image::archive(IMAGE)]);
    daemon
}

/// `ctr run` with options of its own and a command line for the container.
fn run(options: &[&str], id: &str, words: &[&str]) -> Said {
    let runtime = runtime();
    let mut line = vec!["ctr", "run", "--runc-binary", &runtime];
    line.extend(options);
    line.extend([IMAGE, id]);
    line.extend(words);
    say(&line)
}

fn run_detached(id: &str, words: &[&str]) {
    let said = run(&["--detach"], id, words);
    assert_eq!(said.code, 0, "{said:?}");
}

/// RUNNING, PAUSED or STOPPED, as containerd sees it.
fn status(id: &str) -> String {
    let tasks = must(&["ctr", "tasks", "list"]);
    let line = tasks.lines().find(|line| line.starts_with(id)).unwrap_or_else(|| panic!("no {id}: {tasks}"));
    line.split_whitespace().last().expect("a status").to_owned()
}

#[test]
fn ctr_runs_a_command_and_gets_its_output_and_exit_code() {
    on_a_machine(&["containerd", "ctr"], || {
        let _daemon = start();
        let said = run(&["--rm"], "hello", &["echo", "hello"]);
        assert_eq!((said.code, &*said.stdout), (0, "hello\n"), "{said:?}");
        let said = run(&["--rm"], "seven", &["sh", "-c", "exit 7"]);
        assert_eq!(said.code, 7, "{said:?}");

        // The message has to come through the runtime's log, and name what is missing.
        let said = run(&["--rm"], "nothing", &["/no/such/program"]);
        assert_eq!(said.code, 1, "{said:?}");
        assert!(said.stderr.contains("/no/such/program"), "{said:?}");
        let left = must(&["ctr", "containers", "list", "--quiet"]);
        assert!(!left.contains("hello") && !left.contains("seven"), "left: {left}");
    });
}

#[test]
fn ctr_runs_a_command_on_a_terminal() {
    on_a_machine(&["containerd", "ctr"], || {
        let _daemon = start();
        let runtime = runtime();
        let said = on_a_terminal(&format!(
            "ctr run --rm --tty --runc-binary {runtime} {IMAGE} terminal sh -c 'tty; test -t 0 && test -t 1 && \
             echo a terminal; exit 3'"
        ));
        assert!(said.stdout.contains("/dev/pts/0") && said.stdout.contains("a terminal"), "{said:?}");
        assert_eq!(said.code, 3, "{said:?}");

        run_detached("long", &["sleep", "1000"]);
        let said = on_a_terminal("ctr tasks exec --tty --exec-id one long sh -c 'tty; exit 4'");
        assert!(said.stdout.contains("/dev/pts/0"), "{said:?}");
        assert_eq!(said.code, 4, "{said:?}");
    });
}

#[test]
fn ctr_execs_into_and_kills_a_detached_container() {
    on_a_machine(&["containerd", "ctr"], || {
        let _daemon = start();
        run_detached("long", &["sleep", "1000"]);
        assert_eq!(status("long"), "RUNNING");

        let said =
            say(&["ctr", "tasks", "exec", "--exec-id", "one", "long", "sh", "-c", "echo inside; exit 4"]);
        assert_eq!((said.code, &*said.stdout), (4, "inside\n"), "{said:?}");
        let said = say(&["ctr", "tasks", "exec", "--exec-id", "two", "long", "/no/such/program"]);
        assert!(said.code != 0 && said.stderr.contains("/no/such/program"), "{said:?}");
        let processes = must(&["ctr", "tasks", "ps", "long"]);
        assert_eq!(processes.lines().count(), 2, "a header and one process: {processes}");

        must(&["ctr", "tasks", "kill", "--signal", "SIGKILL", "long"]);
        wait_until("the task has stopped", || status("long") == "STOPPED");
        let said = say(&["ctr", "tasks", "kill", "--signal", "SIGKILL", "long"]);
        assert!(said.stderr.contains("process already finished"), "{said:?}");
        let said = say(&["ctr", "tasks", "delete", "long"]);
        assert!(said.code == 0 && said.stderr.contains("exit code 137"), "{said:?}");
        must(&["ctr", "containers", "delete", "long"]);
    });
}

#[test]
fn ctr_pauses_and_resumes_a_container() {
    on_a_machine(&["containerd", "ctr"], || {
        let _daemon = start();
        run_detached("long", &["sleep", "1000"]);
        must(&["ctr", "tasks", "pause", "long"]);
        assert_eq!(status("long"), "PAUSED");
        must(&["ctr", "tasks", "resume", "long"]);
        assert_eq!(status("long"), "RUNNING");
        must(&["ctr", "tasks", "exec", "--exec-id", "one", "long", "true"]);
    });
}

#[test]
fn ctr_sets_limits_and_reads_what_a_container_uses() {
    on_a_machine(&["containerd", "ctr"], || {
        let _daemon = start();
        let said = run(&["--detach", "--memory-limit", "67108864"], "long", &["sleep", "1000"]);
        assert_eq!(said.code, 0, "{said:?}");
        let metrics = must(&["ctr", "tasks", "metrics", "--format", "json", "long"]);
        let metrics: serde_json::Value = serde_json::from_str(&metrics).expect("metrics are JSON");
        let usage = &metrics["memory"]["usage"];
        assert!(metrics["pids"]["current"].as_u64() >= Some(1), "{metrics}");
        if usage.is_object() {
            assert_eq!(usage["limit"], 67108864, "{metrics}");
        } else {
            assert_eq!(metrics["memory"]["usage_limit"], 67108864, "{metrics}");
        }
    });
}

#[test]
fn a_checkpoint_is_refused_and_leaves_the_container_as_it_was() {
    on_a_machine(&["containerd", "ctr"], || {
        let _daemon = start();
        run_detached("long", &["sleep", "1000"]);
        let said = say(&["ctr", "tasks", "checkpoint", "long"]);
        assert!(said.code != 0 && said.stderr.contains("checkpoint is not supported"), "{said:?}");
        assert_eq!(status("long"), "RUNNING");
        let said = say(&["ctr", "tasks", "exec", "--exec-id", "one", "long", "echo", "inside"]);
        assert_eq!((said.code, &*said.stdout), (0, "inside\n"), "{said:?}");
    });
}

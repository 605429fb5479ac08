//! Docker: dockerd, its own containerd, and the BuildKit inside it.

use crate::image::{self, IMAGE};
use crate::machine::{
    Daemon, Said, contrib, install_runtime, must, on_a_machine, on_a_terminal, say, wait_until, write,
};

const PROGRAMS: [&str; 4] = ["dockerd", "docker", "containerd", "iptables"];

/// Starts dockerd with the runtime as its default, and loads the image.
fn start() -> Daemon {
    install_runtime();
    // BuildKit knows no runtimes by name: it takes the first `runc` on dockerd's PATH.
    must(&["ln", "-s", "runtime", "/usr/local/bin/runc"]);
    write("/etc/docker/daemon.json", &contrib("docker/daemon.json"));
    let daemon = start_daemon();
    must(&["docker", "load", "--quiet", "--input", &image::archive(IMAGE)]);
    daemon
}

fn start_daemon() -> Daemon {
    let line = ["env", "PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "dockerd", "--live-restore"];
    Daemon::start(&line, "/tmp/dockerd.log", &["docker", "version"])
}

/// `docker run` with options of its own and a command line for the container.
fn run(options: &[&str], words: &[&str]) -> Said {
    say(&[&["docker", "run"], options, &["busybox"], words].concat())
}

/// A container that runs in the background until it is killed.
fn run_detached(name: &str, options: &[&str], words: &[&str]) {
    let said = run(&[&["--detach", "--name", name], options].concat(), words);
    assert_eq!(said.code, 0, "{said:?}");
}

fn inspect(name: &str, format: &str) -> String {
    must(&["docker", "inspect", "--format", format, name]).trim().to_owned()
}

/// What the container itself reads of a limit: version 1 or 2 of cgroups.
fn limit(name: &str, v1: &str, v2: &str) -> String {
    let script = format!("cat /sys/fs/cgroup/{v1} 2>/dev/null || cat /sys/fs/cgroup/{v2}");
    must(&["docker", "exec", name, "sh", "-c", &script]).trim().to_owned()
}

#[test]
fn docker_runs_a_command_and_gets_its_output_and_exit_code() {
    on_a_machine(&PROGRAMS, || {
        let _daemon = start();
        let version = must(&["docker", "version"]);
        assert!(version.contains(&format!("Version:          {}", env!("CARGO_PKG_VERSION"))), "{version}");
        let said = run(&["--rm"], &["echo", "hello"]);
        assert_eq!((said.code, &*said.stdout, &*said.stderr), (0, "hello\n", ""), "{said:?}");
        let said = run(&["--rm"], &["sh", "-c", "exit 7"]);
        assert_eq!(said.code, 7, "{said:?}");
    });
}

/// Docker reads the reason out of the runtime's message, and makes an exit code of it.
#[test]
fn docker_knows_a_command_that_is_missing_from_one_that_may_not_be_run() {
    on_a_machine(&PROGRAMS, || {
        let _daemon = start();
        for (word, code, reason) in [
            (
                "/no/such/program",
                127,
                "\"/no/such/program\": stat /no/such/program: no such file or directory",
            ),
            ("nothing", 127, "\"nothing\": executable file not found in $PATH"),
            ("/etc/passwd", 126, "\"/etc/passwd\": permission denied"),
            ("/etc", 126, "\"/etc\": is a directory: permission denied"),
        ] {
            let said = run(&["--rm"], &[word]);
            assert_eq!(said.code, code, "{said:?}");
            assert!(said.stderr.contains(reason), "{said:?}");
        }
        run_detached("long", &[], &["sleep", "1000"]);
        let said = say(&["docker", "exec", "long", "nothing"]);
        assert!(said.code == 126 || said.code == 127, "Docker 20.10 says 126, later ones 127: {said:?}");
        assert!(format!("{said:?}").contains("executable file not found in $PATH"), "{said:?}");
    });
}

#[test]
fn docker_runs_and_execs_on_a_terminal() {
    on_a_machine(&PROGRAMS, || {
        let _daemon = start();
        let said = on_a_terminal("docker run -it --rm busybox sh -c 'tty; test -t 0 || exit 1; exit 3'");
        assert!(said.code == 3 && said.stdout.contains("/dev/pts/0"), "{said:?}");
        run_detached("long", &["--tty"], &["sleep", "1000"]);
        let said = on_a_terminal("docker exec -it long sh -c 'tty; exit 4'");
        assert!(said.code == 4 && said.stdout.contains("/dev/pts/1"), "{said:?}");
    });
}

#[test]
fn docker_execs_pauses_and_reads_the_logs_of_a_container() {
    on_a_machine(&PROGRAMS, || {
        let _daemon = start();
        run_detached("long", &[], &["sh", "-c", "echo out; echo err >&2; exec sleep 1000"]);
        assert_eq!(inspect("long", "{{.HostConfig.Runtime}} {{.State.Status}}"), "runtime running");
        let script = "id -u; echo $A; exit 4";
        let said = say(&["docker", "exec", "--user", "user", "--env", "A=b", "long", "sh", "-c", script]);
        assert_eq!((said.code, &*said.stdout), (4, "1000\nb\n"), "{said:?}");
        let said = say(&["docker", "logs", "long"]);
        assert_eq!((&*said.stdout, &*said.stderr), ("out\n", "err\n"));
        let processes = must(&["docker", "top", "long"]);
        assert!(processes.contains("sleep 1000"), "{processes}");

        must(&["docker", "pause", "long"]);
        assert_eq!(inspect("long", "{{.State.Status}}"), "paused");
        must(&["docker", "unpause", "long"]);
        must(&["docker", "exec", "long", "true"]);
    });
}

#[test]
fn docker_stops_kills_and_restarts_containers() {
    on_a_machine(&PROGRAMS, || {
        let _daemon = start();
        run_detached("kind", &[], &["sh", "-c", "trap 'exit 9' TERM; while :; do sleep 0.1; done"]);
        must(&["docker", "stop", "--time", "20", "kind"]);
        assert_eq!(inspect("kind", "{{.State.Status}} {{.State.ExitCode}}"), "exited 9");
        must(&["docker", "start", "kind"]);
        must(&["docker", "restart", "--time", "20", "kind"]);
        must(&["docker", "kill", "kind"]);
        assert_eq!(must(&["docker", "wait", "kind"]), "137\n");
        must(&["docker", "rm", "kind"]);

        run_detached("again", &["--restart", "on-failure:2"], &["sh", "-c", "exit 5"]);
        wait_until("it has been started three times", || {
            inspect("again", "{{.RestartCount}} {{.State.Status}} {{.State.ExitCode}}") == "2 exited 5"
        });
        run_detached("stubborn", &["--init"], &["sh", "-c", "trap '' TERM; while :; do sleep 1; done"]);
        must(&["docker", "rm", "--force", "stubborn"]);
    });
}

#[test]
fn docker_limits_a_container_and_updates_its_limits() {
    on_a_machine(&PROGRAMS, || {
        let _daemon = start();
        let options = ["--memory", "64m", "--pids-limit", "50", "--cpus", "0.5", "--cpuset-cpus", "0"];
        run_detached("long", &options, &["sleep", "1000"]);
        assert_eq!(limit("long", "memory/memory.limit_in_bytes", "memory.max"), "67108864");
        assert_eq!(limit("long", "pids/pids.max", "pids.max"), "50");
        assert_eq!(limit("long", "cpuset/cpuset.cpus", "cpuset.cpus"), "0");
        let quota = limit("long", "cpu/cpu.cfs_quota_us", "cpu.max");
        assert!(quota == "50000" || quota == "50000 100000", "{quota}");
        let stats = must(&["docker", "stats", "--no-stream", "--format", "{{.PIDs}} {{.MemUsage}}", "long"]);
        assert!(stats.starts_with("1 ") && stats.contains("64MiB"), "{stats}");

        must(&["docker", "update", "--memory", "32m", "--memory-swap", "64m", "--cpus", "0.25", "long"]);
        assert_eq!(limit("long", "memory/memory.limit_in_bytes", "memory.max"), "33554432");
        let quota = limit("long", "cpu/cpu.cfs_quota_us", "cpu.max");
        assert!(quota == "25000" || quota == "25000 100000", "{quota}");
        assert_eq!(limit("long", "pids/pids.max", "pids.max"), "50", "what is not named stays");

        let said =
            run(&["--memory", "20m", "--name", "large"], &["sh", "-c", "head -c 100m /dev/zero | tail"]);
        assert_eq!(said.code, 137, "{said:?}");
        assert_eq!(inspect("large", "{{.State.OOMKilled}}"), "true");
    });
}

#[test]
fn docker_sets_up_users_files_and_namespaces() {
    on_a_machine(&PROGRAMS, || {
        let _daemon = start();
        let options = [
            "--rm",
            "--read-only",
            "--hostname",
            "name",
            "--user",
            "user",
            "--workdir",
            "/tmp",
            "--cap-drop",
            "all",
            "--security-opt",
            "no-new-privileges",
            "--tmpfs",
            "/x:rw,size=1m,mode=1777",
            "--volume",
            "/etc:/y:ro",
            "--sysctl",
            "net.ipv4.ping_group_range=0 0",
            "--device",
            "/dev/null:/dev/nothing",
            "--ulimit",
            "nofile=100:100",
        ];
        let script = "hostname; id -u; pwd; ulimit -n; grep -c NoNewPrivs:.1 /proc/self/status; touch /x/a && echo x; \
                      touch /y/a 2>/dev/null || echo y; touch /a 2>/dev/null || echo root; test -c /dev/nothing && echo null";
        let said = run(&options, &["sh", "-c", script]);
        let seen = "name\n1000\n/tmp\n100\n1\nx\ny\nroot\nnull\n";
        assert_eq!((said.code, &*said.stdout), (0, seen), "{said:?}");

        run_detached("one", &["--ipc", "shareable"], &["sleep", "1000"]);
        let joined =
            ["--rm", "--pid", "container:one", "--network", "container:one", "--ipc", "container:one"];
        let said = run(&joined, &["ps"]);
        assert!(said.code == 0 && said.stdout.contains("sleep 1000"), "{said:?}");
    });
}

#[test]
fn docker_checks_the_health_of_a_container() {
    on_a_machine(&PROGRAMS, || {
        let _daemon = start();
        let options =
            ["--health-cmd", "test -e /tmp/well", "--health-interval", "500ms", "--health-retries", "1"];
        run_detached("long", &options, &["sleep", "1000"]);
        wait_until("it is unhealthy", || inspect("long", "{{.State.Health.Status}}") == "unhealthy");
        must(&["docker", "exec", "long", "touch", "/tmp/well"]);
        wait_until("it is healthy", || inspect("long", "{{.State.Health.Status}}") == "healthy");
    });
}

/// Both builders: the classic one makes containers, BuildKit calls `runc run` itself.
#[test]
fn docker_builds_images_with_and_without_buildkit() {
    on_a_machine(&PROGRAMS, || {
        let _daemon = start();
        for buildkit in ["DOCKER_BUILDKIT=0", "DOCKER_BUILDKIT=1"] {
            let step = format!("echo {buildkit} > /file && cat /proc/self/cgroup > /cgroup");
            write("/tmp/build/Dockerfile", &format!("FROM busybox\nRUN {step}\nCMD [\"cat\", \"/file\"]\n"));
            must(&["env", buildkit, "docker", "build", "--tag", "built", "/tmp/build"]);
            assert_eq!(must(&["docker", "run", "--rm", "built"]), format!("{buildkit}\n"));

            write("/tmp/build/Dockerfile", "FROM busybox\nRUN exit 7\n");
            let said = say(&["env", buildkit, "docker", "build", "/tmp/build"]);
            let told = format!("{said:?}");
            assert!(told.contains("exit code: 7") || told.contains("non-zero code: 7"), "{said:?}");
        }
    });
}

/// Containers outlive the daemon with `live-restore`: the runtime answers the next one the same.
#[test]
fn a_new_dockerd_takes_over_the_containers_of_the_last() {
    on_a_machine(&PROGRAMS, || {
        let daemon = start();
        run_detached("long", &[], &["sleep", "1000"]);
        drop(daemon);
        let _daemon = start_daemon();
        let said = say(&["docker", "exec", "long", "echo", "inside"]);
        assert_eq!((said.code, &*said.stdout), (0, "inside\n"), "{said:?}");
        must(&["docker", "rm", "--force", "long"]);
    });
}

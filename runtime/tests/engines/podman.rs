//! Podman, with conmon between it and the runtime.

use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::Duration;

use crate::image::{self, IMAGE};
use crate::machine::{
    Said, contrib, install_runtime, must, on_a_machine, on_a_terminal, say, text, wait_until, write,
};

const PROGRAMS: [&str; 3] = ["podman", "conmon", "netavark"];

/// The runtime is Podman's default; events are kept in a file, as there is no journal here.
pub(crate) const DEFAULT: &str = "runtime = \"runtime\"\nevents_logger = \"file\"\n";

/// Makes the runtime Podman's own, and loads the image.
fn start() {
    install_runtime();
    write("/etc/containers/containers.conf.d/runtime.conf", &contrib("podman/runtime.conf"));
    write("/etc/containers/containers.conf.d/zz-default.conf", &format!("[engine]\n{DEFAULT}"));
    must(&["podman", "load", "--quiet", "--input", &image::archive(IMAGE)]);
}

/// `podman run` with options of its own and a command line for the container.
fn run(options: &[&str], words: &[&str]) -> Said {
    say(&[&["podman", "run"], options, &[IMAGE], words].concat())
}

/// A container that runs in the background until it is killed.
fn run_detached(name: &str, options: &[&str], words: &[&str]) {
    let said = run(&[&["--detach", "--name", name], options].concat(), words);
    assert_eq!(said.code, 0, "{said:?}");
}

fn inspect(name: &str, format: &str) -> String {
    must(&["podman", "inspect", "--format", format, name]).trim().to_owned()
}

/// What the container itself reads of a limit: version 1 or 2 of cgroups.
fn limit(name: &str, v1: &str, v2: &str) -> String {
    let script = format!("cat /sys/fs/cgroup/{v1} 2>/dev/null || cat /sys/fs/cgroup/{v2}");
    must(&["podman", "exec", name, "sh", "-c", &script]).trim().to_owned()
}

#[test]
fn podman_runs_a_command_and_gets_its_output_and_exit_code() {
    on_a_machine(&PROGRAMS, || {
        start();
        let said = run(&["--rm"], &["echo", "hello"]);
        assert_eq!((said.code, &*said.stdout, &*said.stderr), (0, "hello\n", ""), "{said:?}");
        let said = run(&["--rm"], &["sh", "-c", "exit 7"]);
        assert_eq!(said.code, 7, "{said:?}");
        let said = say(&["podman", "run", "--rm", "--runtime", "/usr/local/bin/runtime", IMAGE, "true"]);
        assert_eq!((said.code, &*said.stderr), (0, ""), "by its path: {said:?}");
    });
}

/// Podman reads the reason out of the runtime's message, and makes an exit code of it.
#[test]
fn podman_knows_a_command_that_is_missing_from_one_that_may_not_be_run() {
    on_a_machine(&PROGRAMS, || {
        start();
        for (words, code, reason) in [
            (
                ["/no/such/program"],
                127,
                "\"/no/such/program\": stat /no/such/program: no such file or directory",
            ),
            (["nothing"], 127, "\"nothing\": executable file not found in $PATH"),
            (["/etc/passwd"], 126, "\"/etc/passwd\": permission denied"),
            (["/etc"], 126, "\"/etc\": is a directory: permission denied"),
        ] {
            let said = run(&["--rm"], &words);
            assert_eq!(said.code, code, "{said:?}");
            assert!(said.stderr.contains(reason), "{said:?}");
        }
        run_detached("long", &[], &["sleep", "1000"]);
        let said = say(&["podman", "exec", "long", "nothing"]);
        assert!(said.code == 127 && said.stderr.contains("executable file not found in $PATH"), "{said:?}");
    });
}

#[test]
fn podman_runs_and_execs_on_a_terminal() {
    on_a_machine(&PROGRAMS, || {
        start();
        let said = on_a_terminal(&format!(
            "podman run -it --name tty {IMAGE} sh -c 'tty; test -t 0 || exit 1; exit 3'"
        ));
        assert!(said.code == 3 && said.stdout.contains("/dev/pts/0"), "{said:?}");
        run_detached("long", &["--tty"], &["sleep", "1000"]);
        let said = on_a_terminal("podman exec -it long sh -c 'tty; exit 4'");
        assert!(said.code == 4 && said.stdout.contains("/dev/pts/1"), "{said:?}");
    });
}

#[test]
fn podman_execs_pauses_and_reads_the_logs_of_a_container() {
    on_a_machine(&PROGRAMS, || {
        start();
        run_detached("long", &[], &["sh", "-c", "echo out; echo err >&2; exec sleep 1000"]);
        assert_eq!(inspect("long", "{{.OCIRuntime}} {{.State.Status}}"), "runtime running");
        let said = say(&[
            "podman",
            "exec",
            "--user",
            "user",
            "--env",
            "A=b",
            "long",
            "sh",
            "-c",
            "id -u; echo $A; exit 4",
        ]);
        assert_eq!((said.code, &*said.stdout), (4, "1000\nb\n"), "{said:?}");
        let said = say(&["podman", "logs", "long"]);
        assert_eq!((&*said.stdout, &*said.stderr), ("out\n", "err\n"));
        let processes = must(&["podman", "top", "long", "comm"]);
        assert!(processes.contains("sleep"), "{processes}");

        must(&["podman", "pause", "long"]);
        assert_eq!(inspect("long", "{{.State.Status}}"), "paused");
        assert_ne!(say(&["podman", "exec", "long", "true"]).code, 0);
        must(&["podman", "unpause", "long"]);
        must(&["podman", "exec", "long", "true"]);
    });
}

#[test]
fn podman_stops_kills_and_restarts_containers() {
    on_a_machine(&PROGRAMS, || {
        start();
        run_detached("kind", &[], &["sh", "-c", "trap 'exit 9' TERM; while :; do sleep 0.1; done"]);
        must(&["podman", "stop", "--time", "20", "kind"]);
        assert_eq!(inspect("kind", "{{.State.Status}} {{.State.ExitCode}}"), "exited 9");
        must(&["podman", "start", "kind"]);
        must(&["podman", "restart", "--time", "20", "kind"]);
        must(&["podman", "kill", "kind"]);
        assert_eq!(must(&["podman", "wait", "kind"]), "137\n");
        must(&["podman", "rm", "kind"]);

        run_detached("again", &["--restart", "on-failure:2"], &["sh", "-c", "exit 5"]);
        wait_until("it has been started three times", || {
            inspect("again", "{{.RestartCount}} {{.State.Status}} {{.State.ExitCode}}") == "2 exited 5"
        });
        run_detached("stubborn", &["--init"], &["sh", "-c", "trap '' TERM; while :; do sleep 1; done"]);
        must(&["podman", "rm", "--force", "--time", "1", "stubborn"]);
    });
}

#[test]
fn podman_limits_a_container_and_updates_its_limits() {
    on_a_machine(&PROGRAMS, || {
        start();
        let options = ["--memory", "64m", "--pids-limit", "50", "--cpus", "0.5", "--cpuset-cpus", "0"];
        run_detached("long", &options, &["sleep", "1000"]);
        assert_eq!(limit("long", "memory/memory.limit_in_bytes", "memory.max"), "67108864");
        assert_eq!(limit("long", "pids/pids.max", "pids.max"), "50");
        assert_eq!(limit("long", "cpuset/cpuset.cpus", "cpuset.cpus"), "0");
        let quota = limit("long", "cpu/cpu.cfs_quota_us", "cpu.max");
        assert!(quota == "50000" || quota == "50000 100000", "{quota}");
        let stats = must(&["podman", "stats", "--no-stream", "--format", "{{.PIDS}} {{.MemUsage}}", "long"]);
        assert!(stats.starts_with("1 ") && stats.contains("67.11MB"), "{stats}");

        must(&["podman", "update", "--memory", "32m", "--cpus", "0.25", "long"]);
        assert_eq!(limit("long", "memory/memory.limit_in_bytes", "memory.max"), "33554432");
        let quota = limit("long", "cpu/cpu.cfs_quota_us", "cpu.max");
        assert!(quota == "25000" || quota == "25000 100000", "{quota}");
        assert_eq!(limit("long", "pids/pids.max", "pids.max"), "50", "what is not named stays");

        let said = run(&["--memory", "20m"], &["sh", "-c", "head -c 100m /dev/zero | tail"]);
        assert_eq!(said.code, 137, "{said:?}");
    });
}

#[test]
fn podman_places_and_leaves_out_cgroups() {
    on_a_machine(&PROGRAMS, || {
        start();
        for mode in ["enabled", "no-conmon"] {
            let said = run(&["--rm", "--cgroups", mode], &["cat", "/proc/self/cgroup"]);
            assert_eq!(said.code, 0, "{mode}: {said:?}");
        }
        let said =
            run(&["--rm", "--cgroupns", "host", "--cgroup-parent", "/parent"], &["cat", "/proc/self/cgroup"]);
        assert!(said.code == 0 && said.stdout.contains("/parent/libpod-"), "{said:?}");

        let script = "cat /proc/self/cgroup; test -e /sys/fs/cgroup";
        let said = run(&["--name", "none", "--cgroups", "disabled"], &["sh", "-c", script]);
        assert!(said.code == 0 && !said.stdout.contains("libpod-"), "{said:?}");
        run_detached("long", &["--cgroups", "disabled"], &["sleep", "1000"]);
        must(&["podman", "exec", "long", "true"]);
        must(&["podman", "kill", "long"]);
        assert_eq!(must(&["podman", "wait", "long"]), "137\n");
    });
}

#[test]
fn podman_sets_up_users_files_and_namespaces() {
    on_a_machine(&PROGRAMS, || {
        start();
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
        ];
        let script = "hostname; id -u; pwd; grep -c NoNewPrivs:.1 /proc/self/status; touch /x/a && echo x; \
                      touch /y/a 2>/dev/null || echo y; touch /a 2>/dev/null || echo root; test -c /dev/nothing && echo null";
        let said = run(&options, &["sh", "-c", script]);
        assert_eq!((said.code, &*said.stdout), (0, "name\n1000\n/tmp\n1\nx\ny\nroot\nnull\n"), "{said:?}");

        must(&["sh", "-c", "echo containers:x:999:999::/:/bin/false >>/etc/passwd"]);
        write("/etc/subuid", "containers:100000:65536\n");
        write("/etc/subgid", "containers:100000:65536\n");
        let said =
            run(&["--rm", "--userns", "auto:size=1000"], &["sh", "-c", "cat /proc/self/uid_map; id -u"]);
        let words: Vec<&str> = said.stdout.split_whitespace().collect();
        assert_eq!((said.code, &*words), (0, &["0", "100000", "1000", "0"][..]), "{said:?}");
    });
}

#[test]
fn podman_puts_containers_into_a_pod() {
    on_a_machine(&[&PROGRAMS[..], &["catatonit"]].concat(), || {
        start();
        must(&["podman", "pod", "create", "--name", "pod", "--share", "pid,net,ipc,uts"]);
        run_detached("one", &["--pod", "pod"], &["sleep", "1000"]);
        let said = run(&["--rm", "--pod", "pod"], &["ps"]);
        assert!(said.code == 0 && said.stdout.contains("sleep 1000"), "{said:?}");
        must(&["podman", "pod", "pause", "pod"]);
        assert_eq!(inspect("one", "{{.State.Status}}"), "paused");
        must(&["podman", "pod", "unpause", "pod"]);
        must(&["podman", "pod", "stop", "--time", "1", "pod"]);
        assert_eq!(inspect("one", "{{.State.Status}}"), "exited");
        must(&["podman", "pod", "rm", "pod"]);
    });
}

#[test]
fn podman_checks_the_health_of_a_container() {
    on_a_machine(&PROGRAMS, || {
        start();
        run_detached(
            "long",
            &["--health-cmd", "test -e /tmp/well", "--health-interval", "disable"],
            &["sleep", "1000"],
        );
        assert_ne!(say(&["podman", "healthcheck", "run", "long"]).code, 0);
        must(&["podman", "exec", "long", "touch", "/tmp/well"]);
        must(&["podman", "healthcheck", "run", "long"]);
    });
}

/// This machine's own systemd, on this machine's own files.
#[test]
fn podman_runs_systemd_in_a_container() {
    on_a_machine(&PROGRAMS, || {
        start();
        let systemd = "/usr/lib/systemd/systemd";
        // The first line is `systemd 252 (252.1)`.
        let version = say(&["systemctl", "--version"]).stdout;
        let version: u32 = version.split_whitespace().nth(1).and_then(|n| n.parse().ok()).unwrap_or(0);
        let unified = Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
        if version == 0 || version >= 258 && !unified {
            println!("SKIP: systemd {version} (0: none), and 258 and later know cgroup version 2 only");
            return;
        }
        must(&[
            "podman",
            "run",
            "--detach",
            "--name",
            "system",
            "--systemd",
            "always",
            "--rootfs",
            "/:O",
            systemd,
            "--unit=basic.target",
        ]);
        wait_until("systemd is up", || {
            let state = say(&["podman", "exec", "system", "systemctl", "is-system-running", "--wait"]).stdout;
            matches!(state.trim(), "running" | "degraded")
        });
        must(&["podman", "exec", "system", "systemctl", "is-active", "basic.target"]);
        must(&["podman", "exec", "system", "systemd-run", "--wait", "true"]);
        must(&["podman", "stop", "--time", "30", "system"]);
        let code = inspect("system", "{{.State.ExitCode}}");
        assert!(code == "0" || code == "130", "SIGRTMIN+3 is a clean shutdown, not a kill: {code}");
    });
}

/// As in a unit of systemd's with `Type=notify`.
#[test]
fn podman_tells_systemd_that_a_container_is_ready() {
    on_a_machine(&[&PROGRAMS[..], &["systemd-notify"]].concat(), || {
        start();
        let socket = UnixDatagram::bind("/run/notify").expect("make a socket");
        socket.set_read_timeout(Some(Duration::from_secs(20))).expect("set a timeout");
        for mode in ["conmon", "container"] {
            let name = ["--name", mode, "--sdnotify", mode, "--rootfs", "/:O"];
            let line =
                [&["env", "NOTIFY_SOCKET=/run/notify", "podman", "run", "--detach"], &name[..]].concat();
            let mut words = vec!["sleep", "1000"];
            if mode == "container" {
                words = vec!["sh", "-c", "systemd-notify --ready && exec sleep 1000"];
            }
            must(&[line, words].concat());
            let conmon = format!("MAINPID={}", inspect(mode, "{{.State.ConmonPid}}"));
            let mut told = String::new();
            while !(told.contains("READY=1") && told.contains(&conmon)) {
                let mut message = [0; 4096];
                let length =
                    socket.recv(&mut message).unwrap_or_else(|error| panic!("{mode}: {told}: {error}"));
                told += &(text(&message[..length]) + "\n");
            }
        }
    });
}

#[test]
fn podman_builds_an_image() {
    on_a_machine(&PROGRAMS, || {
        start();
        write(
            "/tmp/build/Containerfile",
            &format!("FROM {IMAGE}\nRUN echo built > /file\nCMD [\"cat\", \"/file\"]\n"),
        );
        // Podman 5 raises the limits to the kernel's, which a root without CAP_SYS_RESOURCE cannot.
        let limits = ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024"];
        must(&[&["podman", "build", "--quiet", "--tag", "built"], &limits[..], &["/tmp/build"]].concat());
        assert_eq!(must(&["podman", "run", "--rm", "built"]), "built\n");
    });
}

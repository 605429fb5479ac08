//! Podman of an ordinary user: its containers are in a user namespace that Podman has made, where that
//! user is root, and the runtime is called in there.

use crate::image::{self, IMAGE};
use crate::machine::{Said, contrib, install_runtime, must, on_a_machine, on_a_terminal, say, write};
use crate::podman::DEFAULT;

const PROGRAMS: [&str; 4] = ["podman", "conmon", "newuidmap", "setpriv"];
/// An ordinary user's environment.
const USER: [&str; 8] = [
    "setpriv",
    "--reuid=1234",
    "--regid=1234",
    "--groups=1234,5555",
    "env",
    "--chdir=/home/tester",
    "HOME=/home/tester",
    "XDG_RUNTIME_DIR=/run/user/1234",
];

/// Makes the user, and loads the image as him.
fn start() {
    install_runtime();
    for (file, line) in [
        ("passwd", "tester:x:1234:1234::/home/tester:/bin/bash"),
        ("group", "tester:x:1234:"),
        ("subuid", "tester:200000:65536"),
        ("subgid", "tester:200000:65536"),
    ] {
        must(&["sh", "-c", &format!("echo {line} >>/etc/{file}")]);
    }
    // The user's files are on a file system of their own, for an overlay cannot be made on an overlay.
    for folder in ["/home/tester", "/run/user/1234"] {
        must(&["mkdir", "-p", folder]);
        must(&["mount", "-t", "tmpfs", "-o", "mode=700,uid=1234,gid=1234", "tmpfs", folder]);
    }
    let settings = "/home/tester/.config/containers/containers.conf";
    write(settings, &contrib("podman/runtime.conf").replace("#runtime = \"runtime\"\n", DEFAULT));
    must(&["chown", "--recursive", "tester:tester", "/home/tester"]);
    must_as_user(&["podman", "load", "--quiet", "--input", &image::archive(IMAGE)]);
}

fn as_user(line: &[&str]) -> Said {
    say(&[&USER, line].concat())
}

fn must_as_user(line: &[&str]) -> String {
    must(&[&USER, line].concat())
}

/// `podman run`, without a network, which would want a program more.
fn run(options: &[&str], words: &[&str]) -> Said {
    as_user(&[&["podman", "run", "--network", "none"], options, &[IMAGE], words].concat())
}

#[test]
fn an_ordinary_user_runs_and_execs_in_containers() {
    on_a_machine(&PROGRAMS, || {
        start();
        let said = run(&["--rm"], &["sh", "-c", "id -u; cat /proc/self/uid_map; exit 7"]);
        let words: Vec<&str> = said.stdout.split_whitespace().collect();
        assert_eq!(
            (said.code, &*words),
            (7, &["0", "0", "1234", "1", "1", "200000", "65536"][..]),
            "{said:?}"
        );
        let said = run(&["--rm"], &["nothing"]);
        assert!(said.code == 127 && said.stderr.contains("executable file not found in $PATH"), "{said:?}");

        let said = run(&["--detach", "--name", "long"], &["sleep", "1000"]);
        assert_eq!(said.code, 0, "{said:?}");
        let said = as_user(&["podman", "exec", "--user", "user", "long", "sh", "-c", "id -u; exit 4"]);
        assert_eq!((said.code, &*said.stdout), (4, "1000\n"), "{said:?}");
        let said = on_a_terminal(&[&USER[..], &["podman", "exec", "-it", "long", "tty"]].concat().join(" "));
        assert!(said.code == 0 && said.stdout.contains("/dev/pts/0"), "{said:?}");
        must_as_user(&["podman", "kill", "long"]);
        assert_eq!(must_as_user(&["podman", "wait", "long"]), "137\n");
        must_as_user(&["podman", "rm", "long"]);
    });
}

#[test]
fn an_ordinary_user_keeps_id_and_groups() {
    on_a_machine(&PROGRAMS, || {
        start();
        let said = run(&["--rm", "--userns", "keep-id"], &["id", "-u"]);
        assert_eq!((said.code, &*said.stdout), (0, "1234\n"), "{said:?}");
        // The group 5555 has no name in the user namespace.
        let said = run(&["--rm", "--group-add", "keep-groups"], &["grep", "Groups", "/proc/self/status"]);
        assert!(said.code == 0 && said.stdout.contains("65534"), "{said:?}");
        let said = run(&["--rm"], &["grep", "Groups", "/proc/self/status"]);
        assert!(said.code == 0 && !said.stdout.contains("65534"), "{said:?}");
    });
}

#[test]
fn an_ordinary_user_makes_pods_and_images() {
    on_a_machine(&[&PROGRAMS[..], &["catatonit"]].concat(), || {
        start();
        must_as_user(&[
            "podman",
            "pod",
            "create",
            "--name",
            "pod",
            "--network",
            "none",
            "--share",
            "pid,ipc,uts,net",
        ]);
        must_as_user(&["podman", "run", "--detach", "--name", "one", "--pod", "pod", IMAGE, "sleep", "1000"]);
        let processes = must_as_user(&["podman", "exec", "one", "ps"]);
        assert!(processes.contains("catatonit") && processes.contains("sleep 1000"), "{processes}");
        must_as_user(&["podman", "pod", "rm", "--force", "--time", "1", "pod"]);

        write(
            "/tmp/build/Containerfile",
            &format!("FROM {IMAGE}\nRUN echo built > /file\nCMD [\"cat\", \"/file\"]\n"),
        );
        must_as_user(&[
            "podman",
            "build",
            "--network",
            "none",
            "--quiet",
            "--ulimit",
            "nofile=1024:1024",
            "--ulimit",
            "nproc=1024:1024",
            "--tag",
            "built",
            "/tmp/build",
        ]);
        assert_eq!(must_as_user(&["podman", "run", "--rm", "--network", "none", "built"]), "built\n");
    });
}

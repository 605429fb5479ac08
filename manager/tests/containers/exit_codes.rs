//! Docker's exit codes: 125 the manager, 126 cannot be executed, 127 is not there, 128+n a signal.

use std::process::Stdio;
use std::thread::sleep;
use std::time::Duration;

use crate::host::{each_runtime, one_runtime, unique};

#[test]
fn run_ends_with_the_code_of_the_program() {
    each_runtime(|host, runtime| {
        for (words, code) in [
            (&["true"][..], 0),
            (&["false"], 1),
            (&["sh", "-c", "exit 42"], 42),
            // A shell as number 1 does not die of the signals it sends itself; its child does.
            (&["sh", "-c", "sh -c 'kill -TERM $$'; exit $?"], 143),
            (&["/nosuchcmd"], 127),
            (&["nosuchcmd"], 127),
            (&["/etc/passwd"], 126),
        ] {
            let printed = host.run(runtime, &[], words);
            assert_eq!(printed.code, code, "{words:?}: {printed:?}");
        }
    });
}

#[test]
fn a_container_killed_by_a_signal_has_128_and_the_number() {
    each_runtime(|host, runtime| {
        let name = unique("killed");
        let id = host.manager(runtime, &["run", "-d", "--name", &name, &host.image, "sleep", "100"]).ok();
        host.manager(runtime, &["kill", &name]).ok();
        assert_eq!(host.manager(runtime, &["wait", &name]).ok(), "137\n");
        assert_eq!(host.inspect(&name)["State"]["ExitCode"], 137);
        host.manager(runtime, &["rm", &name]).ok();
        host.assert_gone(id.trim());
    });
}

#[test]
fn wait_never_makes_up_a_code() {
    one_runtime(|host, runtime| {
        let name = unique("brief");
        let script = "sleep 0.3; exit 7";
        let flags = ["run", "-d", "--rm", "--name", &name, &host.image, "sh", "-c", script];
        let id = host.manager(runtime, &flags).ok();
        // Some come in time, some while it ends, some too late.
        let mut waiting = Vec::new();
        for _ in 0..40 {
            let mut command = host.command(runtime, &["wait", id.trim()]);
            waiting.push(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap());
            sleep(Duration::from_millis(10));
        }
        for (number, child) in waiting.into_iter().enumerate() {
            let printed = child.wait_with_output().unwrap();
            let (out, err) =
                (String::from_utf8_lossy(&printed.stdout), String::from_utf8_lossy(&printed.stderr));
            let heard = printed.status.success() && out == "7\n";
            let late = number > 0 && !printed.status.success() && out.is_empty() && !err.is_empty();
            assert!(heard || late, "{number}: {out:?} {err:?}");
        }
        host.assert_gone(id.trim());
    });
}

#[test]
fn exec_ends_with_the_code_of_the_program() {
    each_runtime(|host, runtime| {
        let name = unique("exec");
        host.manager(runtime, &["run", "-d", "--name", &name, &host.image, "sleep", "100"]).ok();
        for (words, code) in [
            (&["true"][..], 0),
            (&["sh", "-c", "exit 7"], 7),
            (&["sh", "-c", "kill -9 $$"], 137),
            (&["nosuchcmd"], 127),
            (&["/etc/passwd"], 126),
        ] {
            let printed = host.manager(runtime, &[&["exec", &name], words].concat());
            assert_eq!(printed.code, code, "{words:?}: {printed:?}");
        }
        host.manager(runtime, &["rm", "-f", &name]).ok();
    });
}

#[test]
fn what_is_wrong_with_the_command_line_is_named_and_leaves_nothing() {
    one_runtime(|host, runtime| {
        for (flags, part) in [
            (&["--bogus"][..], "--bogus"),
            (&["--publish", "80:80"], "--publish"),
            (&["--restart", "always"], "--restart"),
            (&["--network", "bridge"], "bridge"),
            (&["-m", "1k"], "minimum memory limit allowed is 6MB"),
            (&["--cpus", "10000"], "range of CPUs"),
            (&["--cap-add", "BOGUS"], "BOGUS"),
            (&["--stop-signal", "BOGUS"], "BOGUS"),
            (&["--security-opt", "apparmor=x"], "apparmor=x"),
            (&["-v", "relative/../x:/y"], "absolute path"),
            (&["-v", "/nonexistent-source:/y"], "/nonexistent-source"),
            (&["-u", "nosuchuser"], "unable to find user nosuchuser"),
            (&["-u", "4294967296"], "4294967296"),
            (&["-w", "/etc/passwd"], "/etc/passwd"),
            (&["-w", "/proc/self/fd/7"], "in /proc"),
            (&["--runtime", "nosuchruntime"], "nosuchruntime"),
            (&["--name", "a b"], "a b"),
            (&["--env-file", "/nonexistent-file"], "/nonexistent-file"),
        ] {
            let cidfile = host.scratch().join("id");
            let flags = [flags, &["--cidfile", cidfile.to_str().unwrap()]].concat();
            let printed = host.run(runtime, &flags, &["true"]);
            assert_eq!(printed.code, 125, "{flags:?}: {printed:?}");
            assert!(printed.err.contains(part), "{flags:?}: {printed:?}");
            if let Ok(id) = std::fs::read_to_string(cidfile) {
                host.assert_gone(&id);
            }
        }
        let printed = host.manager(runtime, &["run", "--pull", "never", "nosuch/image", "true"]);
        assert!(printed.code == 125 && printed.err.contains("nosuch/image"), "{printed:?}");
    });
}

#[test]
fn commands_about_unknown_containers_say_so() {
    one_runtime(|host, runtime| {
        for words in [
            &["rm", "nosuch"][..],
            &["stop", "nosuch"],
            &["kill", "nosuch"],
            &["logs", "nosuch"],
            &["start", "nosuch"],
            &["exec", "nosuch", "true"],
            &["wait", "nosuch"],
            &["attach", "nosuch"],
            &["inspect", "nosuch"],
        ] {
            let printed = host.manager(runtime, words);
            assert_eq!(printed.code, 1, "{words:?}: {printed:?}");
            assert!(printed.err.contains("no such container: nosuch"), "{words:?}: {printed:?}");
        }
        assert_eq!(host.manager(runtime, &["rm", "-f", "nosuch"]).code, 0);
    });
}

//! `linux.seccomp` of config-linux.md as a container sees it, and as a seccomp agent does. The compiler has
//! its own tests beside it.

mod harness;

use std::io::{IoSliceMut, Read};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use harness::Bundle;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use serde_json::{Value, json};

mod ioctl {
    nix::ioctl_readwrite!(receive, b'!', 0, libc::seccomp_notif);
    nix::ioctl_readwrite!(answer, b'!', 1, libc::seccomp_notif_resp);
}

/// What the agent does with a call.
#[derive(Clone, Copy)]
enum Answer {
    /// The kernel goes on with it.
    Continue,
    /// It returns this error.
    Errno(i32),
}

/// A seccomp agent that answers every call alike.
struct Agent {
    path: PathBuf,
    /// The container process states, as they come.
    states: Receiver<Value>,
    /// The number of each call, as it comes.
    calls: Receiver<i32>,
}

/// Everything that one connection brings: the text until its end, and the descriptors.
fn receive(mut connection: UnixStream) -> (Value, OwnedFd) {
    let mut buffer = vec![0; 64 << 10];
    let mut space = nix::cmsg_space!([i32; 4]);
    let mut parts = [IoSliceMut::new(&mut buffer)];
    let message =
        recvmsg::<()>(connection.as_raw_fd(), &mut parts, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC)
            .expect("receive");
    let mut fds = vec![];
    for control in message.cmsgs().expect("control messages") {
        if let ControlMessageOwned::ScmRights(numbers) = control {
            // SAFETY: SCM_RIGHTS has just installed these descriptors for us alone.
            fds.extend(numbers.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
        }
    }
    let length = message.bytes;
    buffer.truncate(length);
    // "The connection ... MUST be closed after sending a seccomp state."
    connection.read_to_end(&mut buffer).expect("read to the end");
    assert_eq!(fds.len(), 1);
    (serde_json::from_slice(&buffer).expect("the state is JSON"), fds.remove(0))
}

/// Answers until all processes of the filter have ended.
fn serve(listener: OwnedFd, answer: Answer, calls: &Sender<i32>) {
    loop {
        let mut fds = [PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
        if poll(&mut fds, PollTimeout::NONE).is_err() || !fds[0].all().unwrap_or(false) {
            return;
        }
        // SAFETY: the structure is made of numbers, for which all zeroes is a value.
        let mut call: libc::seccomp_notif = unsafe { std::mem::zeroed() };
        // SAFETY: the kernel fills the structure, which outlives the call.
        if unsafe { ioctl::receive(listener.as_raw_fd(), &raw mut call) }.is_err() {
            continue; // the caller was killed meanwhile
        }
        let _ = calls.send(call.data.nr); // the test may be over
        let (flags, error) = match answer {
            Answer::Continue => (libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32, 0),
            Answer::Errno(errno) => (0, -errno),
        };
        let mut response = libc::seccomp_notif_resp { id: call.id, val: 0, error, flags };
        // SAFETY: the structure outlives the call.
        let _ = unsafe { ioctl::answer(listener.as_raw_fd(), &raw mut response) };
    }
}

impl Agent {
    /// Listens in the bundle's folder. Without an answer it closes what it gets, as an agent that dies.
    fn of(bundle: &Bundle, answer: Option<Answer>) -> Self {
        let path = bundle.dir.join("agent.sock");
        let socket = UnixListener::bind(&path).expect("bind");
        let (tell_state, states) = channel();
        let (tell_call, calls) = channel();
        std::thread::spawn(move || {
            for connection in socket.incoming() {
                let (state, listener) = receive(connection.expect("accept"));
                let tell_call = tell_call.clone();
                match answer {
                    Some(answer) => drop(std::thread::spawn(move || serve(listener, answer, &tell_call))),
                    None => drop(listener),
                }
                let _ = tell_state.send(state); // the test may be over
            }
        });
        Self { path, states, calls }
    }

    fn state(&self) -> Value {
        self.states.recv_timeout(Duration::from_secs(10)).expect("the agent is told of the container")
    }

    fn calls(&self) -> Vec<i32> {
        self.calls.try_iter().collect()
    }
}

/// A profile that allows all but these, which the agent decides.
fn ask(config: &mut Value, bundle_dir: &std::path::Path, names: &[&str]) {
    config["linux"]["seccomp"] = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "listenerPath": bundle_dir.join("agent.sock"),
        "listenerMetadata": "for the agent",
        "syscalls": [{"names": names, "action": "SCMP_ACT_NOTIFY"}],
    });
}

/// A container whose agent decides on `names`.
fn asking(script: &str, no_new_privileges: bool, names: &[&str]) -> Bundle {
    let bundle = Bundle::of_script(script);
    let dir = bundle.dir.clone();
    bundle.with(|config| {
        ask(config, &dir, names);
        config["process"]["noNewPrivileges"] = json!(no_new_privileges);
        config["annotations"] = json!({"org.test": "seccomp"});
    })
}

const MKDIR: [&str; 2] = ["mkdir", "mkdirat"];

#[test]
fn an_agent_decides_with_and_without_new_privileges() {
    for no_new_privileges in [false, true] {
        let bundle = asking("busybox mkdir /tmp/a 2>&1; ls /tmp; echo done", no_new_privileges, &MKDIR);
        let agent = Agent::of(&bundle, Some(Answer::Errno(libc::ENOMEDIUM)));
        let said = bundle.run_well();
        assert!(said.contains("No medium found") && said.ends_with("done\n"), "{said:?}");
        agent.state();
        assert_eq!(agent.calls().len(), 1);
        assert!(agent.states.try_recv().is_err(), "one listener");
        bundle.assert_nothing_is_left();
    }
}

/// "The container runtime MUST send the container process state": config-linux.md#containerprocessstate,
/// and when: at create, as runc does, so that an agent that is missing is known before start.
#[test]
fn the_agent_is_told_of_the_container_at_create_and_at_exec() {
    let bundle = asking("sleep 1000", true, &MKDIR);
    let agent = Agent::of(&bundle, Some(Answer::Errno(libc::ENOMEDIUM)));
    bundle.create();
    let told = agent.state();
    let pid: i32 = std::fs::read_to_string(bundle.dir.join("pid")).expect("pid").parse().expect("a number");
    let state = |status: &str| {
        json!({
            "ociVersion": "1.3.0", "id": bundle.id, "status": status, "pid": pid, "bundle": bundle.dir,
            "annotations": {"org.test": "seccomp"},
        })
    };
    let wanted = json!({
        "ociVersion": "1.3.0", "fds": ["seccompFd"], "pid": pid, "metadata": "for the agent",
        "state": state("creating"),
    });
    assert_eq!(told, wanted);
    assert_eq!(bundle.status(), "created");
    bundle.start();

    let said = bundle.exec(&[&bundle.id, "busybox", "mkdir", "/tmp/a"]);
    assert!(said.code != 0 && said.stderr.contains("No medium found"), "{said:?}");
    let told = agent.state();
    assert_eq!(told["state"], state("running"));
    assert!(told["pid"].as_i64().is_some_and(|exec| exec > 0 && exec != i64::from(pid)), "{told}");
    assert_eq!((&told["fds"], &told["metadata"]), (&wanted["fds"], &wanted["metadata"]));
}

#[test]
fn without_its_agent_nothing_is_made() {
    let refused = "failed to connect with seccomp agent specified in the seccomp profile: \
                   linux.seccomp.listenerPath";
    let bundle = asking("sleep 1000", true, &MKDIR);
    let said = bundle.say_detached(&["create", &bundle.id]);
    assert!(said.code != 0 && said.stderr.contains(refused), "{said:?}");
    assert!(said.stderr.contains("No such file or directory"), "{said:?}");
    bundle.assert_nothing_is_left();

    let agent = Agent::of(&bundle, Some(Answer::Continue));
    bundle.create();
    bundle.start();
    std::fs::remove_file(&agent.path).expect("remove the socket");
    let said = bundle.exec(&[&bundle.id, "true"]);
    assert!(said.code != 0 && said.stderr.contains(refused), "{said:?}");

    let bundle = asking("true", true, &MKDIR)
        .with(|config| config["linux"]["seccomp"]["listenerPath"] = json!("@runtime-test-nobody-listens"));
    let said = bundle.run();
    assert!(said.stderr.contains(refused) && said.stderr.contains("Connection refused"), "{said:?}");
}

/// Between the filter and the payload the container's init makes a few calls itself.
#[test]
fn calls_on_the_way_to_the_payload_may_be_asked_about() {
    let names = [
        "read",
        "close",
        "accept4",
        "execve",
        "fcntl",
        "capset",
        "prctl",
        "openat",
        "recvmsg",
        "sendmsg",
        "poll",
        "exit_group",
    ];
    for no_new_privileges in [false, true] {
        let bundle = asking("echo done", no_new_privileges, &names);
        let agent = Agent::of(&bundle, Some(Answer::Continue));
        assert_eq!(bundle.run_well(), "done\n");
        agent.state();
        assert!(agent.calls().contains(&(libc::SYS_execve as i32)));
        bundle.create();
        agent.state();
        bundle.start();
        bundle.wait_for("stopped");
        assert!(agent.calls().contains(&(libc::SYS_accept4 as i32)));
    }
}

#[test]
fn hooks_inside_the_container_have_the_payloads_listener() {
    let bundle = asking("busybox mkdir /tmp/payload 2>/dev/null; ls /tmp", false, &MKDIR);
    let bundle = bundle.with(|config| {
        let hook = "busybox mkdir /tmp/hook; test $(ls /proc/self/fd | busybox wc -l) = 4";
        config["hooks"]["startContainer"] = json!([
            {"path": "/bin/sh", "args": ["sh", "-c", hook], "env": ["PATH=/bin"]},
            {"path": "/bin/sh", "args": ["sh", "-c", hook], "env": ["PATH=/bin"]},
        ]);
    });
    let agent = Agent::of(&bundle, Some(Answer::Errno(libc::ENOMEDIUM)));
    assert_eq!(bundle.run_well(), "");
    agent.state();
    assert!(agent.states.try_recv().is_err(), "one listener for all");
    assert_eq!(agent.calls().len(), 3);

    bundle.create();
    assert_eq!(agent.state()["state"]["status"], "creating");
    assert_eq!(agent.calls().len(), 0, "no hook runs before start");
    bundle.start();
    bundle.wait_for("stopped");
    assert_eq!(agent.calls().len(), 3);
}

/// Nobody else keeps the listener: a container whose agent has died goes on, with ENOSYS.
#[test]
fn calls_do_not_wait_for_an_agent_that_has_died() {
    for hook in [false, true] {
        let bundle = asking("busybox mkdir /tmp/a 2>&1; echo done", true, &MKDIR).with(|config| {
            if hook {
                config["hooks"]["startContainer"] = json!([{"path": "/bin/true"}]);
            }
        });
        let _agent = Agent::of(&bundle, None);
        let said = bundle.run_well();
        assert!(said.contains("Function not implemented") && said.ends_with("done\n"), "{said:?}");
    }
}

/// An agent that answers nothing, a runtime that is killed while it waits: `delete --force` removes it all.
#[test]
fn a_runtime_killed_while_init_waits_for_the_agent_leaves_nothing_that_cannot_be_deleted() {
    for (hook, name) in [(false, "read"), (false, "close"), (true, "recvmsg"), (true, "close")] {
        let bundle = asking("sleep 1000", true, &[name]).with(|config| {
            if hook {
                config["hooks"]["startContainer"] = json!([{"path": "/bin/true"}]);
            }
        });
        let socket = UnixListener::bind(bundle.dir.join("agent.sock")).expect("bind");
        let null = || std::fs::File::options().write(true).open("/dev/null").expect("open");
        let mut create = bundle.command(&["create", &bundle.id]);
        let mut create = create.stdout(null()).stderr(null()).spawn().expect("run");
        // Kept open, and never answered.
        let (state, listener) = receive(socket.accept().expect("accept").0);
        let mut asked = [PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
        assert_eq!(poll(&mut asked, PollTimeout::from(10_000_u16)), Ok(1), "{name} is asked about");
        create.kill().expect("kill");
        create.wait().expect("wait");
        let said = bundle.say(&["delete", "--force", &bundle.id]);
        assert_eq!(said.code, 0, "{said:?}");
        bundle.assert_nothing_is_left();
        let pid = state["pid"].as_i64().expect("a pid");
        // Dead, even if whoever became its parent has not asked for its end yet.
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        assert!(stat.is_empty() || stat.contains(") Z "), "{stat} is left");
    }
}

#[test]
fn a_filter_that_lets_the_listener_not_be_told_is_named() {
    let bundle = asking("true", true, &MKDIR).with(|config| {
        let syscalls = config["linux"]["seccomp"]["syscalls"].as_array_mut().expect("a list");
        syscalls.push(json!({"names": ["write"], "action": "SCMP_ACT_ERRNO"}));
    });
    let _agent = Agent::of(&bundle, Some(Answer::Continue));
    let said = bundle.run();
    assert!(said.code != 0 && said.stderr.contains("linux.seccomp has to allow write"), "{said:?}");
    bundle.assert_nothing_is_left();
}

#[test]
fn a_listener_path_without_notify_is_told_and_ignored() {
    let bundle = asking("busybox mkdir /tmp/a; ls /tmp", true, &MKDIR)
        .with(|config| config["linux"]["seccomp"]["syscalls"] = json!([]));
    let said = bundle.run();
    assert_eq!((said.code, said.stdout.as_str()), (0, "a\n"), "{said:?}");
    assert!(said.stderr.contains("linux.seccomp.listenerPath is ignored"), "{said:?}");
}

#[test]
fn flags_are_those_that_the_kernel_has() {
    let said = Bundle::of(&["true"]).say(&["features"]);
    let features: Value = serde_json::from_str(&said.stdout).expect("features are JSON");
    let seccomp = &features["linux"]["seccomp"];
    let has = |list: &str, name: &str| {
        seccomp[list].as_array().is_some_and(|all| all.iter().any(|each| each == name))
    };
    assert!(has("actions", "SCMP_ACT_NOTIFY") && has("archs", "SCMP_ARCH_LOONGARCH64"), "{seccomp}");
    let flag = "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV";
    assert!(has("knownFlags", flag), "{seccomp}");

    let bundle = asking("busybox mkdir /tmp/a; ls /tmp", true, &MKDIR)
        .with(|config| config["linux"]["seccomp"]["flags"] = json!([flag]));
    let _agent = Agent::of(&bundle, Some(Answer::Continue));
    let said = bundle.say(&["--debug", "run", &bundle.id]);
    if has("supportedFlags", flag) {
        assert_eq!((said.code, said.stdout.as_str()), (0, "a\n"), "{said:?}");
        assert!(said.stderr.contains("\"seccomp filter flags: 40\""), "{said:?}");
    } else {
        let refusal = format!("linux.seccomp.flags[0]: this kernel does not know {flag}");
        assert!(said.code != 0 && said.stderr.contains(&refusal), "{said:?}");
    }
}

//! `-t`: terminals, their sizes, the detach keys, and coming back.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, poll};
use nix::pty::{OpenptyResult, Winsize, openpty};
use nix::sys::signal::{Signal, kill};
use nix::sys::termios::{LocalFlags, tcgetattr};
use nix::unistd::Pid;

use crate::host::{each_runtime, one_runtime, unique};

/// A command on a terminal of its own.
struct Terminal {
    child: Child,
    master: File,
    slave: OwnedFd,
    seen: String,
}

impl Terminal {
    fn run(mut command: Command) -> Self {
        let size = Winsize { ws_row: 33, ws_col: 77, ws_xpixel: 0, ws_ypixel: 0 };
        let OpenptyResult { master, slave } = openpty(Some(&size), None).unwrap();
        let end = || Stdio::from(slave.try_clone().unwrap());
        let child = command.stdin(end()).stdout(end()).stderr(end()).spawn().unwrap();
        Self { child, master: master.into(), slave, seen: String::new() }
    }

    /// Reads until `text` has come since the last call, and returns all up to there.
    fn expect(&mut self, text: &str) -> String {
        let end = Instant::now() + Duration::from_secs(10);
        loop {
            if let Some(at) = self.seen.find(text) {
                let rest = self.seen.split_off(at + text.len());
                return std::mem::replace(&mut self.seen, rest);
            }
            assert!(Instant::now() < end, "{text:?} did not come: {:?}", self.seen);
            let mut ready = [PollFd::new(self.master.as_fd(), PollFlags::POLLIN)];
            if poll(&mut ready, 100u16).unwrap() > 0 {
                let mut bytes = [0; 4096];
                let size = self.master.read(&mut bytes).unwrap_or(0);
                self.seen += &String::from_utf8_lossy(&bytes[..size]);
            }
        }
    }

    fn send(&mut self, text: &str) {
        self.master.write_all(text.as_bytes()).unwrap();
    }

    /// Waits for the command; its exit code. The terminal must be as it was.
    fn end(mut self) -> i32 {
        let end = Instant::now() + Duration::from_secs(10);
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            if Instant::now() > end {
                let _ = self.child.kill();
                panic!("it does not end: {:?}", self.seen);
            }
            let mut ready = [PollFd::new(self.master.as_fd(), PollFlags::POLLIN)];
            if poll(&mut ready, 20u16).unwrap() > 0 {
                let _ = self.master.read(&mut [0; 4096]);
            }
        };
        let flags = tcgetattr(&self.slave).unwrap().local_flags;
        assert!(flags.contains(LocalFlags::ICANON | LocalFlags::ECHO), "the terminal is still raw");
        status.code().unwrap_or(-1)
    }
}

#[test]
fn a_container_has_a_terminal_of_the_users_size() {
    each_runtime(|host, runtime| {
        let mut terminal = Terminal::run(host.command(runtime, &["run", "--rm", "-it", &host.image, "sh"]));
        terminal.expect("# ");
        terminal.send("stty size; tty\n");
        terminal.expect("33 77\r\n");
        terminal.expect("/dev/");
        terminal.expect("# ");
        let size = Winsize { ws_row: 20, ws_col: 50, ws_xpixel: 0, ws_ypixel: 0 };
        rustix::termios::tcsetwinsize(
            &terminal.master,
            rustix::termios::Winsize { ws_row: size.ws_row, ws_col: size.ws_col, ws_xpixel: 0, ws_ypixel: 0 },
        )
        .unwrap();
        kill(Pid::from_raw(terminal.child.id().cast_signed()), Signal::SIGWINCH).unwrap();
        // The change travels to the container beside the keys, not in front of them.
        std::thread::sleep(Duration::from_millis(100));
        terminal.send("stty size\n");
        terminal.expect("20 50\r\n");
        terminal.send("exit 5\n");
        assert_eq!(terminal.end(), 5);
    });
}

#[test]
fn the_detach_keys_leave_it_running_and_attach_comes_back() {
    each_runtime(|host, runtime| {
        let name = unique("tty");
        let mut terminal =
            Terminal::run(host.command(runtime, &["run", "-it", "--name", &name, &host.image, "sh"]));
        terminal.expect("# ");
        terminal.send("\x10\x11");
        assert_eq!(terminal.end(), 0);
        assert_eq!(host.inspect(&name)["State"]["Status"], "running");
        let mut first = Terminal::run(host.command(runtime, &["attach", &name]));
        let mut second = Terminal::run(host.command(runtime, &["attach", &name]));
        std::thread::sleep(Duration::from_millis(200));
        first.send("echo $((40+2))\n");
        first.expect("42\r\n");
        // Both see what one types.
        second.expect("42\r\n");
        first.send("exit 7\n");
        assert_eq!((first.end(), second.end()), (7, 7));
        host.manager(runtime, &["rm", &name]).ok();
    });
}

#[test]
fn exec_has_a_terminal_too() {
    each_runtime(|host, runtime| {
        let name = unique("exec-tty");
        host.manager(runtime, &["run", "-d", "--name", &name, &host.image, "sleep", "1000"]).ok();
        let mut terminal = Terminal::run(host.command(runtime, &["exec", "-it", &name, "sh"]));
        terminal.expect("# ");
        terminal.send("stty size\n");
        terminal.expect("33 77\r\n");
        terminal.send("exit 6\n");
        assert_eq!(terminal.end(), 6);
        host.manager(runtime, &["rm", "-f", &name]).ok();
    });
}

#[test]
fn a_terminal_is_refused_when_nobody_types() {
    one_runtime(|host, runtime| {
        let printed = host.run(runtime, &["-it"], &["true"]);
        assert!(printed.code == 125 && printed.err.contains("the input device is not a TTY"), "{printed:?}");
    });
}

#[test]
fn signals_are_passed_on() {
    one_runtime(|host, runtime| {
        let script = "trap 'echo caught; exit 4' INT; echo ready; while :; do sleep 0.1; done";
        let mut terminal =
            Terminal::run(host.command(runtime, &["run", "--rm", &host.image, "sh", "-c", script]));
        terminal.expect("ready");
        kill(Pid::from_raw(terminal.child.id().cast_signed()), Signal::SIGINT).unwrap();
        terminal.expect("caught");
        assert_eq!(terminal.end(), 4);
    });
}

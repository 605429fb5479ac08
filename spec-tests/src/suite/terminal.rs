//! [Terminal](https://github.com/opencontainers/runtime-spec/blob/v1.3.0/config.md#process): the runtime
//! connects to the console socket and sends the pseudo-terminal's master.

use std::fs::File;
use std::io::{ErrorKind, IoSliceMut, Read};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;

use anyhow::{Context, Result};
use rustix::fs::OFlags;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use serde_json::json;

use crate::case::{Case, Scene};
use crate::probe::Observation;
use crate::requirement::*;

pub(super) static CASES: &[Case] = &[
    Case {
        name: "terminal/is_sent_to_the_console_socket",
        proves: &[&PROCESS_TERMINAL, &PROCESS_CONSOLE_SIZE],
        needs: &[],
        run: is_sent_to_the_console_socket,
    },
    Case {
        name: "terminal/is_absent_unless_asked",
        proves: &[&PROCESS_TERMINAL, &PROCESS_CONSOLE_SIZE],
        needs: &[],
        run: is_absent_unless_asked,
    },
];

fn is_sent_to_the_console_socket(scene: &Scene<'_>) -> Result<()> {
    let mut bundle = scene.bundle()?;
    bundle.set("/process/terminal", json!(true));
    bundle.set("/process/consoleSize", json!({"height": 31, "width": 113}));
    bundle.set("/process/user", json!({"uid": 1000, "gid": 1000}));
    bundle.probe(&["report", "/dev/console", "/dev/tty"]);
    let path = bundle.directory().join("console");
    let listener = UnixListener::bind(&path).context("make the console socket")?;
    let container = scene.create_with(&bundle, &["--console-socket", &path.to_string_lossy()])?;
    let master = receive(&listener).context("the master of the terminal")?;
    container.start()?;
    let mut master = File::from(master);
    let seen = read_report(scene, &mut master)?;
    scene.expect_same(&PROCESS_TERMINAL, "standard streams as terminals", seen.terminals, [true; 3]);
    let console = seen.path("/dev/console");
    let there = console.kind.as_deref() == Some("char");
    scene.expect(&PROCESS_TERMINAL, there, format_args!("/dev/console is {:?}", console.kind));
    // Opening /dev/tty works only for a process that has a controlling terminal.
    let error = seen.path("/dev/tty").read_error;
    scene.expect(&PROCESS_TERMINAL, error.is_none(), format_args!("opening /dev/tty: {error:?}"));
    let size = rustix::termios::tcgetwinsize(&master).context("size of the terminal")?;
    scene.expect_same(&PROCESS_CONSOLE_SIZE, "rows and columns", (size.ws_row, size.ws_col), (31, 113));
    Ok(())
}

/// Takes the one descriptor that the runtime has sent; it has come when create has returned.
fn receive(listener: &UnixListener) -> Result<OwnedFd> {
    listener.set_nonblocking(true).context("console socket")?;
    let (stream, _) = listener.accept().context("the runtime did not connect to the console socket")?;
    let mut bytes = [0; 4096];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    recvmsg(&stream, &mut [IoSliceMut::new(&mut bytes)], &mut control, flags)
        .context("read the console socket")?;
    let fds = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    fds.context("the runtime sent no descriptor to the console socket")
}

/// Reads what the probe writes, while it writes: a terminal holds only 4 KiB.
fn read_report(scene: &Scene<'_>, master: &mut File) -> Result<Observation> {
    rustix::fs::fcntl_setfl(&*master, OFlags::NONBLOCK).context("master of the terminal")?;
    let mut text = Vec::new();
    let mut buffer = [0; 4096];
    let report = scene.runtime.until(|| {
        match master.read(&mut buffer) {
            Ok(length) => text.extend_from_slice(&buffer[..length]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            // Everyone has closed the other side: what came is all.
            Err(_) => return serde_json::from_slice(&text).map(Some).context("the probe's report"),
        }
        Ok(text.ends_with(b"\n").then(|| serde_json::from_slice(&text).ok()).flatten())
    })?;
    report.context("the probe reported nothing through the terminal")
}

fn is_absent_unless_asked(scene: &Scene<'_>) -> Result<()> {
    let mut bundle = scene.bundle()?;
    bundle.set("/process/consoleSize", json!({"height": 31, "width": 113}));
    let seen = scene.observe(&mut bundle, &[])?;
    scene.expect_same(&PROCESS_TERMINAL, "standard streams as terminals", seen.terminals, [false; 3]);
    Ok(())
}

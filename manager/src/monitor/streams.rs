//! The container's side of standard input, output and error: three pipes, or the master of its
//! terminal, which the runtime hands over through the console socket.

use std::fs::File;
use std::io::{ErrorKind, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::pipe2;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use rustix::termios::{Winsize, tcsetwinsize};

use super::protocol::CHUNK;
use crate::container::files;
use crate::container::oci_runtime::Streams;

/// Our ends.
#[derive(Debug, Default)]
pub(crate) struct Ends {
    /// Where standard input is written; none when it is shut.
    pub(crate) input: Option<File>,
    /// Where standard output is read; none when it has ended.
    pub(crate) output: Option<File>,
    /// Where standard error is read; none when it has ended, or is the terminal too.
    pub(crate) error: Option<File>,
    /// True when input and output are a terminal.
    pub(crate) terminal: bool,
}

/// Pipes: our ends, and what to give to the runtime. Without `stdin` there is nothing to read.
pub(crate) fn pipes(stdin: bool) -> Result<(Ends, Streams)> {
    let new = || pipe2(OFlag::O_CLOEXEC).context("make a pipe");
    let (output, stdout) = new()?;
    let (error, stderr) = new()?;
    let (stdin, input) = if stdin {
        let (stdin, input) = new()?;
        (Stdio::from(stdin), Some(ours(input)?))
    } else {
        (Stdio::null(), None)
    };
    let ends = Ends { input, output: Some(ours(output)?), error: Some(ours(error)?), terminal: false };
    Ok((ends, Streams { stdin, stdout: stdout.into(), stderr: stderr.into() }))
}

/// The socket on which the runtime hands over the terminal.
#[derive(Debug)]
pub(crate) struct ConsoleSocket {
    listener: UnixListener,
    folder: File,
    path: PathBuf,
}

impl ConsoleSocket {
    /// Listens at `folder/tty`.
    pub(crate) fn listen(folder: &Path) -> Result<Self> {
        let path = folder.join("tty");
        files::remove_file(&path)?;
        let folder = File::open(folder).with_context(|| format!("open {}", folder.display()))?;
        let listener = UnixListener::bind(by_descriptor(&folder)).context("make the console socket")?;
        Ok(Self { listener, folder, path })
    }

    /// Its path for the runtime.
    pub(crate) fn path(&self) -> PathBuf {
        by_descriptor(&self.folder)
    }

    /// Takes the terminal that the runtime has sent.
    pub(crate) fn receive(self) -> Result<Ends> {
        // The runtime has exited, so what it sent is here; a second is for one that forgot to send.
        let mut ready = [PollFd::new(self.listener.as_fd(), PollFlags::POLLIN)];
        let count = poll(&mut ready, PollTimeout::from(1000u16)).context("wait for the terminal")?;
        ensure!(count > 0, "the runtime sent no terminal");
        let (connection, _) = self.listener.accept().context("accept the terminal")?;
        let master = ours(receive_descriptor(&connection)?)?;
        let output = master.try_clone().context("duplicate the terminal")?;
        Ok(Ends { input: Some(master), output: Some(output), error: None, terminal: true })
    }
}

impl Drop for ConsoleSocket {
    fn drop(&mut self) {
        let _ = files::remove_file(&self.path);
    }
}

/// The socket's path by our descriptor of its folder: a socket's address holds 107 bytes only.
fn by_descriptor(folder: &File) -> PathBuf {
    format!("/proc/{}/fd/{}/tty", std::process::id(), folder.as_raw_fd()).into()
}

/// SCM_RIGHTS: one descriptor beside some bytes of no meaning.
fn receive_descriptor(connection: &UnixStream) -> Result<OwnedFd> {
    let mut bytes = [0u8; 4096];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut parts = [IoSliceMut::new(&mut bytes)];
    recvmsg(connection, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC).context("receive the terminal")?;
    let descriptors = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
        _ => None,
    });
    descriptors.flatten().next().context("the runtime sent no terminal")
}

fn ours(end: OwnedFd) -> Result<File> {
    // Ours alone: the other end stays blocking, as programs expect.
    fcntl(&end, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).context("make a pipe non-blocking")?;
    Ok(end.into())
}

/// What reading found.
#[derive(Debug)]
pub(crate) enum Found {
    /// Some data.
    Data(Vec<u8>),
    /// Nothing yet.
    Nothing,
    /// The end: everybody who had it open has closed it.
    End,
}

/// Reads what is there, at most one packet's worth.
pub(crate) fn read(mut end: &File) -> Found {
    let mut data = vec![0; CHUNK];
    match end.read(&mut data) {
        Ok(0) => Found::End,
        Ok(size) => {
            data.truncate(size);
            Found::Data(data)
        }
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
            Found::Nothing
        }
        // EIO is how a terminal says that its last process has gone.
        Err(_) => Found::End,
    }
}

/// Writes as much as fits; the number of bytes, or none when nobody reads any more.
pub(crate) fn write(mut end: &File, data: &[u8]) -> Option<usize> {
    match end.write(data) {
        Ok(size) => Some(size),
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Some(0),
        Err(_) => None,
    }
}

impl Ends {
    /// Sets the terminal's size.
    pub(crate) fn resize(&self, rows: u16, columns: u16) {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        if let Some(master) = self.input.as_ref().filter(|_| self.terminal) {
            // Fails only when the terminal is gone, which reading it will tell.
            let _ = tcsetwinsize(master, size);
        }
    }

    /// Ends standard input. A terminal has no end of input: its users type ^D.
    pub(crate) fn shut_input(&mut self) {
        if !self.terminal {
            self.input = None;
        }
    }
}

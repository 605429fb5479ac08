//! The seccomp agent: another program that decides on the calls for which a profile says
//! `SCMP_ACT_NOTIFY`. It gets the filter's listener, and whose it is.
//! [config-linux.md#the-container-process-state](https://github.com/opencontainers/runtime-spec/blob/main/config-linux.md#containerprocessstate)

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::Process;
use crate::container::process;
use crate::sys::process::{close_in_child, pidfd_getfd};
use crate::sys::socket;

/// A connection to it, for one listener.
#[derive(Debug)]
pub(crate) struct Agent {
    connection: OwnedFd,
    path: PathBuf,
    metadata: Option<String>,
}

impl Agent {
    /// Connects, if the process needs an agent: before anything has been made, since without the agent it
    /// could not run.
    pub(crate) fn connect(process: &process::Plan) -> Result<Option<Self>> {
        let Some(listener) = process.filter.as_ref().and_then(|filter| filter.listener.as_ref()) else {
            return Ok(None);
        };
        let path: &Path = &listener.path;
        let connection = socket::connect(path).with_context(|| {
            format!("failed to connect with seccomp agent specified in the seccomp profile: linux.seccomp.listenerPath {path:?}")
        })?;
        Ok(Some(Self { connection, path: path.to_owned(), metadata: listener.metadata.clone() }))
    }

    /// In a forked child: the connection ends when the runtime has sent what is to be sent.
    pub(super) fn close_in_child(&self) {
        close_in_child(&self.connection);
    }

    /// Takes the listener out of the new process, by its number there, and hands it over. `state` is the
    /// container's as JSON. "The connection MUST NOT be reused and it MUST be closed."
    pub(super) fn hand_over(self, process: &Process, listener: i32, state: &str) -> Result<()> {
        let path = &self.path;
        let listener = pidfd_getfd(&process.pidfd, listener)
            .context("linux.seccomp: take the listener from the new process (pidfd_getfd)")?;
        let message = json!({
            "ociVersion": "1.3.0",
            "fds": ["seccompFd"],
            "pid": process.pid.as_raw(),
            "metadata": self.metadata.unwrap_or_default(),
            "state": serde_json::from_str::<Value>(state)?,
        });
        socket::send_all(&self.connection, message.to_string().as_bytes(), &listener)
            .with_context(|| format!("linux.seccomp.listenerPath: send the listener to {path:?}"))
    }
}

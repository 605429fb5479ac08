//! `hooks.startContainer`: programs of the image, so they run as the payload will: with its ids,
//! capabilities, labels and filter. Each goes through the program in `init/` with a plan of its own.

use std::cell::RefCell;
use std::io;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use oci_spec::runtime::Spec;

use super::handshake::{self, Message, Sync};
use super::last_steps::{self, LastSteps, ProcPlace, WaitFor};
use crate::container::hooks::Output;
use crate::container::{hooks, process, rlimits};
use crate::sys::process::exec_otherwise;

/// One hook, ready to run.
#[derive(Debug)]
pub(crate) struct StartHook {
    process: Arc<process::Plan>,
    last: Arc<LastSteps>,
    ours: Sync,
    /// Handed on to the hook's process when it is made.
    theirs: RefCell<Option<Sync>>,
    has_env: bool,
    timeout: Option<Duration>,
}

/// Prepares all of them on the host's side, where memory costs the container nothing.
pub(crate) fn prepare(
    spec: &Spec,
    process: &process::Plan,
    limits: &[rlimits::Limit],
) -> Result<Vec<StartHook>> {
    let hooks = spec.hooks().as_ref().and_then(|hooks| hooks.start_container().as_ref());
    let mut prepared = Vec::new();
    for hook in hooks.into_iter().flatten() {
        let path = hook.path().to_string_lossy().into_owned();
        let args = hook.args().clone().filter(|args| !args.is_empty()).unwrap_or_else(|| vec![path.clone()]);
        let (ours, theirs) = handshake::pair()?;
        let plan = process::Plan {
            args,
            program: Some(path),
            env: hook.env().clone().unwrap_or_default(),
            labels: Default::default(),
            // A filter with a listener is loaded once, before the first hook.
            filter: process.filter.clone().filter(|_| !process.asks_an_agent()),
            ..process.clone()
        };
        let last = last_steps::prepare(&plan, &theirs, WaitFor::Go, &ProcPlace::default(), limits)?;
        prepared.push(StartHook {
            process: Arc::new(plan),
            last: Arc::new(last),
            ours,
            theirs: RefCell::new(Some(theirs)),
            has_env: hook.env().is_some(),
            timeout: hooks::timeout(hook),
        });
    }
    Ok(prepared)
}

impl StartHook {
    /// Inside the container. Without `env` it gets the payload's, as with runc.
    pub(crate) fn run(&self, n: usize, state: &str, output: &Output, payload_env: &[String]) -> Result<()> {
        let env = if self.has_env { self.process.env.clone() } else { payload_env.to_vec() };
        let mut command = Command::new("init");
        let sync = self.theirs.take().context("a hook runs once")?;
        let child = InChild { process: self.process.clone(), last: self.last.clone(), sync, env };
        exec_otherwise(&mut command, move || child.exec());
        hooks::run_command(command, state, output, self.timeout, || self.release()).with_context(|| {
            format!("error running startContainer hook #{n}: {:?}", self.process.candidates()[0])
        })
    }

    /// Lets the new process take its last step. Nobody else holds its end any more, so its death ends the
    /// stream.
    fn release(&self) -> Result<()> {
        while let Some(message) = self.ours.next(&self.process)? {
            match message {
                Message::Ready => self.ours.send_go()?,
                Message::Leaving => return Ok(()),
                _ => {}
            }
        }
        Ok(())
    }
}

/// What the forked child needs. There is one thread and the fork copies all memory, so sharing by `Arc`
/// across it is sharing with nobody.
struct InChild {
    process: Arc<process::Plan>,
    last: Arc<LastSteps>,
    sync: Sync,
    env: Vec<String>,
}

impl InChild {
    fn exec(&self) -> io::Error {
        match self.sync.keep_across_exec() {
            Ok(()) => io::Error::other(self.last.exec(&self.process, &self.env)),
            Err(error) => io::Error::other(error),
        }
    }
}

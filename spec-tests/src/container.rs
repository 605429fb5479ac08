//! A container of the runtime under test. It is deleted on drop, by force, whatever happened.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use serde::Deserialize;
use serde_json::Value;

use crate::bundle::Bundle;
use crate::probe::Observation;
use crate::runtime::{Output, Runtime, Streams};

/// How the container's process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// With an exit code.
    Code(i32),
    /// By a signal.
    Signal(Signal),
    /// Somebody else was its parent and knows.
    Unknown,
}

/// A line that the probe wrote as a hook.
#[derive(Debug, Deserialize)]
pub struct HookCall {
    /// Which hook it was.
    pub hook: String,
    /// What it read from standard input: the state, or whatever else it was as a string.
    pub state: Value,
    /// What it saw.
    pub observation: Observation,
}

/// A container that was created, or tried to.
#[derive(Debug)]
pub struct Container<'a> {
    runtime: &'a Runtime,
    /// The id it was created with.
    pub id: String,
    bundle: PathBuf,
    pid: Option<Pid>,
    ended: Option<Exit>,
}

impl<'a> Container<'a> {
    /// Writes the bundle's configuration and calls `create`. The container comes back whatever the
    /// runtime said, so that it is cleaned up in any case.
    pub(crate) fn create(
        runtime: &'a Runtime,
        bundle: &Bundle,
        id: String,
        extra: &[&str],
    ) -> Result<(Self, Output)> {
        bundle.write()?;
        Self::create_unwritten(runtime, bundle, id, extra)
    }

    /// The same with the `config.json` that is there.
    pub(crate) fn create_unwritten(
        runtime: &'a Runtime,
        bundle: &Bundle,
        id: String,
        extra: &[&str],
    ) -> Result<(Self, Output)> {
        let directory = bundle.directory();
        let stdout = directory.join("stdout");
        let pid_file = directory.join("pid");
        let streams = Streams {
            stdin: None,
            stdout: Some(open_output(&stdout)?),
            stderr: Some(open_output(&directory.join("stderr"))?),
        };
        let bundle_path = directory.to_string_lossy();
        let pid_path = pid_file.to_string_lossy();
        let mut args = vec!["create", "--bundle", &bundle_path, "--pid-file", &pid_path];
        args.extend(extra);
        args.push(&id);
        let mut container =
            Self { runtime, id: id.clone(), bundle: directory.to_owned(), pid: None, ended: None };
        let output = runtime.call_with(&args, streams)?;
        if output.ok() {
            container.pid = container.find_pid()?;
        }
        Ok((container, output))
    }

    /// The pid file, or else what `state` says.
    fn find_pid(&self) -> Result<Option<Pid>> {
        let file = fs::read_to_string(self.bundle.join("pid")).ok();
        if let Some(pid) = file.and_then(|text| text.trim().parse().ok()) {
            return Ok(Some(Pid::from_raw(pid)));
        }
        let state = self.state().ok();
        let pid = state.and_then(|state| i32::try_from(state["pid"].as_i64()?).ok());
        Ok(pid.filter(|pid| *pid > 0).map(Pid::from_raw))
    }

    /// The process as the host sees it.
    pub fn pid(&self) -> Result<i32> {
        self.pid.map(Pid::as_raw).context("neither a pid file nor a pid in the state")
    }

    /// Runs a command of the runtime for this container, as `["kill", ID, "TERM"]`.
    pub fn call(&self, verb: &str, rest: &[&str]) -> Result<Output> {
        let mut args = vec![verb, &self.id];
        args.extend(rest);
        self.runtime.call(&args)
    }

    /// A command that has to work.
    pub fn must(&self, verb: &str, rest: &[&str]) -> Result<()> {
        let output = self.call(verb, rest)?;
        if !output.ok() {
            bail!("{verb}: {}", output.complaint());
        }
        Ok(())
    }

    /// `start`, which has to work.
    pub fn start(&self) -> Result<()> {
        self.must("start", &[])
    }

    /// `state`, which has to work and print JSON.
    pub fn state(&self) -> Result<Value> {
        let output = self.call("state", &[])?;
        if !output.ok() {
            bail!("state: {}", output.complaint());
        }
        serde_json::from_str(&output.stdout).with_context(|| format!("state printed {:?}", output.stdout))
    }

    /// The status in the state; "none" when there is no such container.
    pub fn status(&self) -> Result<String> {
        let output = self.call("state", &[])?;
        if !output.ok() {
            return Ok("none".to_owned());
        }
        let state: Value = serde_json::from_str(&output.stdout).context("state")?;
        Ok(state["status"].as_str().unwrap_or("missing").to_owned())
    }

    /// Waits for the process to end; as the subreaper the suite is its parent once create returned.
    pub fn wait(&mut self) -> Result<Exit> {
        if let Some(exit) = self.ended {
            return Ok(exit);
        }
        let pid = Pid::from_raw(self.pid()?);
        let exit = self.runtime.until(|| self.ask(pid))?;
        let Some(exit) = exit else {
            bail!("the container's process did not end within {} s", self.runtime.timeout().as_secs());
        };
        self.ended = Some(exit);
        Ok(exit)
    }

    fn ask(&self, pid: Pid) -> Result<Option<Exit>> {
        match waitpid(pid, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(_, code)) => Ok(Some(Exit::Code(code))),
            Ok(WaitStatus::Signaled(_, signal, _)) => Ok(Some(Exit::Signal(signal))),
            Ok(_) | Err(Errno::EINTR) => Ok(None),
            // Not our child: only the runtime can tell.
            Err(Errno::ECHILD) if ["stopped", "none"].contains(&self.status()?.as_str()) => {
                Ok(Some(Exit::Unknown))
            }
            Err(Errno::ECHILD) => Ok(None),
            Err(error) => Err(error).context("wait for the container's process"),
        }
    }

    /// What the process wrote to standard output until now.
    pub fn stdout(&self) -> Result<String> {
        fs::read_to_string(self.bundle.join("stdout")).context("the container's output")
    }

    /// Waits until standard output has this text.
    pub fn wait_for(&self, text: &str) -> Result<()> {
        let found = self.runtime.until(|| Ok(self.stdout()?.contains(text).then_some(())))?;
        found.with_context(|| format!("the container's process did not write {text:?}: {}", self.complaint()))
    }

    /// What the probe reported.
    pub fn report(&self) -> Result<Observation> {
        let text = self.stdout()?;
        serde_json::from_str(&text)
            .with_context(|| format!("the probe reported nothing to read: {text:?}, {}", self.complaint()))
    }

    fn complaint(&self) -> String {
        fs::read_to_string(self.bundle.join("stderr")).unwrap_or_default().trim().to_owned()
    }

    /// What the probe wrote as hooks until now.
    pub fn hooks(&self) -> Result<Vec<HookCall>> {
        let text = fs::read_to_string(self.bundle.join("shared/hooks")).unwrap_or_default();
        text.lines().map(|line| serde_json::from_str(line).context("what a hook wrote")).collect()
    }
}

impl Drop for Container<'_> {
    fn drop(&mut self) {
        // An error only means that there is nothing to delete.
        let _ = self.runtime.call(&["delete", "--force", &self.id]);
        sweep_cgroups(&self.id);
        let Some(pid) = self.pid else { return };
        // Only while it is our child is the number still its own.
        while self.ended.is_none()
            && matches!(waitpid(pid, Some(WaitPidFlag::WNOHANG)), Ok(WaitStatus::StillAlive))
        {
            let _ = kill(pid, Signal::SIGKILL);
            std::thread::sleep(crate::runtime::TICK);
        }
    }
}

/// Removes the cgroups named for a container, with what is still in them: a runtime that was stopped in
/// the middle of create may no longer know of them.
fn sweep_cgroups(id: &str) {
    // Runtimes put them below their own cgroup, beside it, or at the top.
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let places =
        own.lines().filter_map(|line| line.split_once(':')?.1.split_once(':')).flat_map(|(names, path)| {
            let hierarchy = if names.is_empty() { "unified" } else { names.trim_start_matches("name=") };
            ["", path]
                .map(|path| ["", hierarchy].map(|hierarchy| format!("/sys/fs/cgroup/{hierarchy}{path}")))
        });
    for cgroup in places.flatten().map(|place| Path::new(&place).join(id)) {
        // An id that is a path must not lead to the cgroup of others.
        if !id.starts_with("spec-") || !cgroup.is_dir() {
            continue;
        }
        let processes = fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default();
        for pid in processes.lines().filter_map(|line| line.parse().ok()) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        // The kernel lets go of a cgroup a little later than of the process.
        for _ in 0..50 {
            if fs::remove_dir(&cgroup).is_ok() {
                break;
            }
            std::thread::sleep(crate::runtime::TICK);
        }
    }
}

/// Appended to by everyone who has it, so that create and the process do not write over each other.
fn open_output(path: &Path) -> Result<File> {
    File::create(path)
        .and_then(|_| File::options().read(true).append(true).open(path))
        .with_context(|| format!("make {}", path.display()))
}

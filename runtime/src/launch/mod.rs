//! From a plan to a running process.
//!
//! ```text
//!   runtime (host)                                 init (container)
//!   ──────────────                                 ────────────────
//!   cgroups with limits, sources opened,
//!   program and last steps in a sealed memfd
//!   clone3 ──────────────────────────────────────▶ born in its namespaces   (and cgroup, version 2)
//!   has systemd move it into its cgroup            only with --systemd-cgroup
//!   writes id maps ─────────────────────── go ───▶ only with a user namespace, or systemd
//!   writes `init`                                  joins version 1 cgroups, mounts, devices
//!   prestart, createRuntime hooks ◀─────── hooks ─ only if there are some
//!                                  ─────── go ───▶ createContainer hooks, pivot_root, masks
//!   passes it on                   ◀── terminal ── only with process.terminal
//!                                                  execs the tiny program in init/ from the memfd
//!                                                  ids, capabilities, executable found
//!   takes the listener to its agent ◀── listener ─ only with SCMP_ACT_NOTIFY: its filter is loaded here
//!                                  ─────── go ───▶
//!   rlimits, pid file              ◀────── ready ─
//!   create: leaves;  `start` knocks at the gate ─▶ seccomp filter, execve
//!   run, exec: ─────────────────────────── go ───▶ seccomp filter, execve
//! ```
//! At any point instead: ◀── an error, whole, as one sentence.

pub(crate) mod agent;
pub(crate) mod gate;
pub(crate) mod handshake;
mod init;
pub(crate) mod join;
mod last_steps;
pub(crate) mod live_mounts;
pub(crate) mod notify;
pub(crate) mod spawn;
mod start_hooks;
mod step_between;
pub(crate) mod supervise;

use std::os::fd::OwnedFd;

use nix::unistd::Pid;

use crate::container::net_devices::Moved;
use crate::container::scheduling;
use crate::log;

/// A process that stands at its last step: released by "go", or by `start` at the gate.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) pid: Pid,
    pub(crate) pidfd: OwnedFd,
    /// The runtime's end of its terminal.
    pub(crate) terminal: Option<OwnedFd>,
    /// Network devices to be given back if it fails: with its namespace would go what is in it.
    pub(crate) net_devices: Option<Moved>,
    sync: handshake::Sync,
}

/// In a new process, for `--debug`: where it begins. Here and at its end the stages go by the names that
/// runc's log has for them, which people look for, and runc's own tests.
fn log_birth() {
    if log::debugs() {
        log::debug(&format!("nsexec container setup: affinity: {}", scheduling::describe_affinity()));
        log::debug("child process in init()");
    }
}

//! `process.rlimits`: getrlimit(2), config.md#posix-process.

use anyhow::{Context, Result, bail};
use nix::unistd::Pid;
use oci_spec::runtime::{PosixRlimit, PosixRlimitType};

use crate::sys::process::set_limit;

/// One limit as the kernel counts it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limit {
    kind: PosixRlimitType,
    pub(crate) soft: u64,
    pub(crate) hard: u64,
}

impl Limit {
    /// `RLIMIT_*`.
    pub(crate) fn number(&self) -> u32 {
        number(self.kind)
    }
}

/// What is done with it, for errors.
impl std::fmt::Display for Limit {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "process.rlimits: set {} to soft {}, hard {}", self.kind, self.soft, self.hard)
    }
}

/// Refuses duplicates ("the runtime MUST generate an error") and soft limits above the hard one.
pub(crate) fn plan(rlimits: &[PosixRlimit]) -> Result<Vec<Limit>> {
    let mut plan: Vec<Limit> = Vec::new();
    for (n, rlimit) in rlimits.iter().enumerate() {
        let limit = Limit { kind: rlimit.typ(), soft: rlimit.soft(), hard: rlimit.hard() };
        if plan.iter().any(|other| other.kind == limit.kind) {
            bail!("process.rlimits[{n}].type: {} is there twice", limit.kind);
        }
        if limit.soft > limit.hard {
            bail!("process.rlimits[{n}]: {} soft {} is above hard {}", limit.kind, limit.soft, limit.hard);
        }
        plan.push(limit);
    }
    Ok(plan)
}

/// From outside, for a process in a user namespace: raising a hard limit asks for CAP_SYS_RESOURCE of the
/// host.
pub(crate) fn apply(limits: &[Limit], pid: Pid) -> Result<()> {
    for limit in limits {
        set_limit(pid, limit.number(), limit.soft, limit.hard).with_context(|| limit.to_string())?;
    }
    Ok(())
}

fn number(kind: PosixRlimitType) -> u32 {
    use PosixRlimitType as R;
    let number = match kind {
        R::RlimitCpu => libc::RLIMIT_CPU,
        R::RlimitFsize => libc::RLIMIT_FSIZE,
        R::RlimitData => libc::RLIMIT_DATA,
        R::RlimitStack => libc::RLIMIT_STACK,
        R::RlimitCore => libc::RLIMIT_CORE,
        R::RlimitRss => libc::RLIMIT_RSS,
        R::RlimitNproc => libc::RLIMIT_NPROC,
        R::RlimitNofile => libc::RLIMIT_NOFILE,
        R::RlimitMemlock => libc::RLIMIT_MEMLOCK,
        R::RlimitAs => libc::RLIMIT_AS,
        R::RlimitLocks => libc::RLIMIT_LOCKS,
        R::RlimitSigpending => libc::RLIMIT_SIGPENDING,
        R::RlimitMsgqueue => libc::RLIMIT_MSGQUEUE,
        R::RlimitNice => libc::RLIMIT_NICE,
        R::RlimitRtprio => libc::RLIMIT_RTPRIO,
        R::RlimitRttime => libc::RLIMIT_RTTIME,
    };
    #[allow(clippy::unnecessary_cast, reason = "its C type differs between C libraries")]
    let number = number as u32;
    number
}

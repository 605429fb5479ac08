//! Compiles `linux.seccomp` into the classic BPF program that seccomp(2) loads.
//!
//! [config-linux.md#seccomp](https://github.com/opencontainers/runtime-spec/blob/main/config-linux.md#seccomp),
//! [seccomp(2)](https://man7.org/linux/man-pages/man2/seccomp.2.html)
//!
//! ```text
//! linux.seccomp ── plan ──> rules per architecture ── rules ──> number -> verdict, as ranges
//!                                                                   │
//!   ld arch                                                      program
//!   jeq x86_64 ──> ld nr, binary search over the ranges ──> ret VERDICT
//!   jeq i386   ──> ld nr, binary search over the ranges ──> argument comparisons ──> ret VERDICT
//!   ret KILL_THREAD
//! ```
//!
//! Why not libseccomp: it needs more than 10 ms of CPU for docker's profile on three architectures, this
//! needs about 0.1, and the kernel attaches a binary search several times faster than a list. The verdicts
//! are libseccomp's for every call, architecture and argument; the tests run both filters side by side.
//! Different on purpose:
//!
//! - Calls above the highest one that the profile names return ENOSYS, see [`rules::Unknown`].
//! - Several rules for one call always mean the same, see [`rules::Node`]; libseccomp loses some.
//! - An architecture of the other byte order than the host's is compiled, not refused: it never runs.

mod architecture;
mod program;
mod rules;
mod syscall_table;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use libc::sock_filter;
use oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompFilterFlag, LinuxSeccompOperator,
    LinuxSyscall,
};

use super::annotations::Annotations;
use crate::log;
use crate::sys::seccomp::kernel_knows;
use architecture::{Architecture, Names};
use rules::{Calls, Comparison, Operator, Rule};

/// A filter that is ready to be loaded.
#[derive(Clone, Debug)]
pub(crate) struct Filter {
    /// The program; its jumps and its length are what the kernel accepts.
    pub(crate) program: Vec<sock_filter>,
    /// `SECCOMP_FILTER_FLAG_*` for seccomp(2), `NEW_LISTENER` included when `notify`.
    pub(crate) flags: u32,
    /// Who decides where a rule answers with `SCMP_ACT_NOTIFY`: loading then returns a descriptor, which is
    /// for the agent that listens there.
    pub(crate) listener: Option<Listener>,
}

/// `listenerPath` and `listenerMetadata`.
#[derive(Clone, Debug)]
pub(crate) struct Listener {
    /// Of a Unix stream socket; an abstract one begins with `@`.
    pub(crate) path: PathBuf,
    /// For the agent, passed on as it is.
    pub(crate) metadata: Option<String>,
}

/// The most instructions that the kernel takes: `BPF_MAXINSNS` in linux/bpf_common.h.
pub(crate) const MAX_INSTRUCTIONS: usize = 4096;

/// The highest error number that a system call can return, see linux/err.h: the kernel would cut a
/// higher one down to this.
const MAX_ERRNO: u32 = 4095;

/// The flags that configurations may list, each with its bits for seccomp(2).
pub(crate) const FLAGS: [(LinuxSeccompFilterFlag, u32); 4] = [
    // The process that loads the filter has one thread: there is nothing to synchronize.
    (LinuxSeccompFilterFlag::SeccompFilterFlagTsync, 0),
    (LinuxSeccompFilterFlag::SeccompFilterFlagLog, libc::SECCOMP_FILTER_FLAG_LOG as u32),
    (LinuxSeccompFilterFlag::SeccompFilterFlagSpecAllow, libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW as u32),
    (
        LinuxSeccompFilterFlag::SeccompFilterFlagWaitKillableRecv,
        libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV as u32,
    ),
];

/// A program that somebody else has compiled: `run.oci.seccomp_bpf_data`.
pub(crate) fn made_elsewhere(program: Vec<sock_filter>) -> Result<Filter> {
    Ok(Filter { program, flags: flags(None, false)?, listener: None })
}

/// Checks `linux.seccomp` and compiles it.
pub(crate) fn plan(seccomp: &LinuxSeccomp, annotations: &Annotations) -> Result<Filter> {
    let default = return_value(seccomp.default_action(), seccomp.default_errno_ret())
        .context("linux.seccomp.defaultErrnoRet")?;
    ensure!(
        seccomp.default_action() != LinuxSeccompAction::ScmpActNotify,
        "linux.seccomp.defaultAction: SCMP_ACT_NOTIFY cannot be used as default action: the calls that hand \
         the listener over would wait for the listener"
    );

    let entries = seccomp.syscalls().as_deref().unwrap_or_default();
    let rules = entries
        .iter()
        .enumerate()
        .map(|(position, entry)| rule(entry).with_context(|| format!("linux.seccomp.syscalls[{position}]")))
        .collect::<Result<Vec<Rule>>>()?;
    let notify = entries.iter().any(|entry| entry.action() == LinuxSeccompAction::ScmpActNotify);
    let listener = listener(seccomp, notify, annotations)?;
    let flags = flags(seccomp.flags().as_deref(), notify)?;
    log::debug(&format!("seccomp filter flags: {flags}"));

    let mut groups = Calls::group(&architectures(seccomp.architectures().as_deref().unwrap_or_default()));
    let mut names = Names::default();
    for (entry, rule) in entries.iter().zip(&rules) {
        for name in entry.names() {
            match names.find(name) {
                Some(syscall) => groups.iter_mut().for_each(|calls| calls.add(&syscall, rule, default)),
                None if annotations.seccomp_knows_all => {
                    bail!("linux.seccomp.syscalls: unknown system call {name:?}")
                }
                // Skipped: profiles list the calls of every kernel and architecture.
                None => {}
            }
        }
    }

    let mut program = program::Assembler::default();
    let mut dispatch = program.ret(libc::SECCOMP_RET_KILL_THREAD);
    // The program is written from its end: the first architecture, the host's own, is tested first.
    for calls in groups.into_iter().rev() {
        let audit = calls.audit;
        let verdicts = calls.verdicts(default).map_err(|conflict| {
            let position = rules.iter().position(|rule| std::ptr::eq(rule, conflict.rule)).unwrap_or_default();
            anyhow!(
                "linux.seccomp.syscalls[{position}]: an earlier rule for {} has these arguments, but another action",
                conflict.name
            )
        })?;
        dispatch = program.architecture(audit, &verdicts, dispatch);
    }
    let program = program.finish(dispatch);
    ensure!(
        program.len() <= MAX_INSTRUCTIONS,
        "linux.seccomp.syscalls: the filter has {} instructions, the kernel takes at most {MAX_INSTRUCTIONS}",
        program.len()
    );
    Ok(Filter { program, flags, listener })
}

/// The value with which a filter returns to give `action`.
fn return_value(action: LinuxSeccompAction, errno: Option<u32>) -> Result<u32> {
    use LinuxSeccompAction as Action;
    let with_data = |action: u32, max: u32| {
        let data = errno.unwrap_or(libc::EPERM as u32);
        ensure!(data <= max, "{data} is greater than {max}");
        Ok(action | data)
    };
    let plain = match action {
        Action::ScmpActErrno => return with_data(libc::SECCOMP_RET_ERRNO, MAX_ERRNO),
        Action::ScmpActTrace => return with_data(libc::SECCOMP_RET_TRACE, libc::SECCOMP_RET_DATA),
        Action::ScmpActKill | Action::ScmpActKillThread => libc::SECCOMP_RET_KILL_THREAD,
        Action::ScmpActKillProcess => libc::SECCOMP_RET_KILL_PROCESS,
        Action::ScmpActTrap => libc::SECCOMP_RET_TRAP,
        Action::ScmpActNotify => libc::SECCOMP_RET_USER_NOTIF,
        Action::ScmpActLog => libc::SECCOMP_RET_LOG,
        Action::ScmpActAllow => libc::SECCOMP_RET_ALLOW,
    };
    // "When the action doesn't support an errno, the runtime MUST print and error and fail."
    ensure!(errno.is_none(), "{action} returns no error number");
    Ok(plain)
}

/// Checks one entry of `linux.seccomp.syscalls`; its names are looked up later.
fn rule(entry: &LinuxSyscall) -> Result<Rule> {
    ensure!(!entry.names().is_empty(), "names MUST contain at least one system call");
    if let Some(position) = entry.names().iter().position(String::is_empty) {
        bail!("names[{position}] is empty");
    }
    // The container's init tells the number of the listener with write(2), after the filter is loaded.
    ensure!(
        entry.action() != LinuxSeccompAction::ScmpActNotify
            || !entry.names().iter().any(|name| name == "write"),
        "SCMP_ACT_NOTIFY cannot be used for the write syscall: the listener is handed over by it"
    );
    let action = return_value(entry.action(), entry.errno_ret()).context("errnoRet")?;
    let arguments = entry.args().as_deref().unwrap_or_default();
    let comparisons = arguments
        .iter()
        .enumerate()
        .map(|(position, argument)| comparison(argument).with_context(|| format!("args[{position}]")))
        .collect::<Result<Vec<Comparison>>>()?;

    // Comparisons of different arguments all have to hold. If one argument is compared twice, any
    // one is enough: what runc has always made of it, and what profiles have come to rely on.
    let twice = comparisons.iter().enumerate().any(|(position, this)| {
        comparisons[..position].iter().any(|earlier| earlier.argument == this.argument)
    });
    let alternatives = match (comparisons.is_empty(), twice) {
        (true, _) => vec![vec![]],
        (false, true) => comparisons.into_iter().map(|comparison| vec![comparison]).collect(),
        (false, false) => {
            let mut all = comparisons;
            all.sort_by_key(|comparison| comparison.argument);
            vec![all]
        }
    };
    Ok(Rule { action, alternatives })
}

/// Checks one entry of `args`.
fn comparison(argument: &LinuxSeccompArg) -> Result<Comparison> {
    use LinuxSeccompOperator as Op;
    ensure!(argument.index() < 6, "index {} is not one of the six arguments 0 to 5", argument.index());
    let operator = match argument.op() {
        Op::ScmpCmpNe => Operator::NotEqual,
        Op::ScmpCmpLt => Operator::Less,
        Op::ScmpCmpLe => Operator::LessOrEqual,
        Op::ScmpCmpEq => Operator::Equal,
        Op::ScmpCmpGe => Operator::GreaterOrEqual,
        Op::ScmpCmpGt => Operator::Greater,
        // (argument & value) == valueTwo; bits outside of the mask are not compared.
        Op::ScmpCmpMaskedEq => {
            let mask = argument.value();
            let value = argument.value_two().unwrap_or_default() & mask;
            return Ok(Comparison {
                argument: argument.index() as u8,
                operator: Operator::MaskedEqual,
                value,
                mask,
                wide: true,
            });
        }
    };
    Ok(Comparison {
        argument: argument.index() as u8,
        operator,
        value: argument.value(),
        mask: u64::MAX,
        wide: true,
    })
}

/// What belongs to `SCMP_ACT_NOTIFY`.
fn listener(seccomp: &LinuxSeccomp, notify: bool, annotations: &Annotations) -> Result<Option<Listener>> {
    let metadata = seccomp.listener_metadata().clone().filter(|text| !text.is_empty());
    let path = seccomp.listener_path().clone().filter(|path| !path.as_os_str().is_empty());
    let path = path.or_else(|| annotations.seccomp_receiver.clone().filter(|_| notify));
    let Some(path) = path else {
        ensure!(!notify, "linux.seccomp.listenerPath is not set, but a rule answers with SCMP_ACT_NOTIFY");
        ensure!(
            metadata.is_none(),
            "linux.seccomp.listenerMetadata MUST NOT be set without linux.seccomp.listenerPath"
        );
        return Ok(None);
    };
    if !notify {
        // "If the SCMP_ACT_NOTIFY action is not used this value is ignored."
        log::warn("linux.seccomp.listenerPath is ignored: no rule answers with SCMP_ACT_NOTIFY");
        return Ok(None);
    }
    Ok(Some(Listener { path, metadata }))
}

/// The flags for seccomp(2).
fn flags(listed: Option<&[LinuxSeccompFilterFlag]>, notify: bool) -> Result<u32> {
    use LinuxSeccompFilterFlag as Flag;
    // Absent is not the same as empty: without a list, runc keeps the kernel from switching off
    // speculation for every process that has a filter (Linux 4.17), as engines expect.
    let listed = listed.unwrap_or(&[Flag::SeccompFilterFlagSpecAllow]);
    let mut flags = if notify { libc::SECCOMP_FILTER_FLAG_NEW_LISTENER as u32 } else { 0 };
    for (position, flag) in listed.iter().enumerate() {
        // EINVAL from the kernel otherwise, without a word why.
        ensure!(
            notify || *flag != Flag::SeccompFilterFlagWaitKillableRecv,
            "linux.seccomp.flags[{position}]: {flag} needs a rule with SCMP_ACT_NOTIFY"
        );
        let bits = FLAGS.iter().filter(|(known, _)| known == flag).map(|(_, bits)| bits).sum();
        ensure!(is_supported(bits), "linux.seccomp.flags[{position}]: this kernel does not know {flag}");
        flags |= bits;
    }
    Ok(flags)
}

/// Whether this kernel knows the bits of a flag.
pub(crate) fn is_supported(bits: u32) -> bool {
    // Every kernel on which this runtime works has the others.
    let newer = libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV as u32; // Linux 5.19
    bits & newer == 0 || kernel_knows(bits)
}

/// Every architecture that filters can be compiled for, as features.md lists them.
pub(crate) fn architecture_names() -> impl Iterator<Item = Arch> {
    architecture::names()
}

/// The architectures to compile for, each once, the host's own first and always.
fn architectures(listed: &[Arch]) -> Vec<&'static Architecture> {
    let mut architectures = vec![Architecture::native()];
    for arch in listed {
        let architecture = Architecture::of(*arch);
        if !architectures.iter().any(|known| std::ptr::eq(*known, architecture)) {
            architectures.push(architecture);
        }
    }
    architectures
}

//! `process.scheduler`, `process.ioPriority`, `process.execCPUAffinity`, `linux.personality`:
//! sched_setattr(2), ioprio_set(2), sched_setaffinity(2), personality(2).

use anyhow::{Context, Result, bail};
use nix::sched::sched_getaffinity;
use nix::unistd::Pid;
use oci_spec::runtime::{
    IOPriorityClass, Linux, LinuxPersonalityDomain, LinuxSchedulerFlag, LinuxSchedulerPolicy, Process,
};

use super::cpu_list::CpuList;
use crate::sys::process::{SchedAttr, personality, set_cpu_affinity, set_io_priority, set_scheduler};

/// What the new process asks of the scheduler.
#[derive(Clone, Debug, Default)]
pub(crate) struct Scheduling {
    scheduler: Option<SchedAttr>,
    io_priority: Option<i32>,
    personality: Option<u32>,
    affinity: Option<ExecAffinity>,
    /// SCHED_DEADLINE wants all CPUs of the machine.
    cpus_are_limited: bool,
}

const DEADLINE: u32 = 6;

/// `process.execCPUAffinity`, which is for `exec` only.
#[derive(Clone, Debug)]
struct ExecAffinity {
    initial: CpuList,
    last: CpuList,
}

/// Translates and checks; touches nothing.
pub(crate) fn plan(process: &Process, linux: Option<&Linux>) -> Result<Scheduling> {
    let cpu = linux.and_then(|linux| linux.resources().as_ref()?.cpu().as_ref());
    let cpus_are_limited = cpu.is_some_and(|cpu| cpu.cpus().as_ref().is_some_and(|cpus| !cpus.is_empty()));
    let mut plan = Scheduling { affinity: affinity(process)?, cpus_are_limited, ..Scheduling::default() };
    if let Some(scheduler) = process.scheduler() {
        let policy = match scheduler.policy() {
            LinuxSchedulerPolicy::SchedOther => 0,
            LinuxSchedulerPolicy::SchedFifo => 1,
            LinuxSchedulerPolicy::SchedRr => 2,
            LinuxSchedulerPolicy::SchedBatch => 3,
            LinuxSchedulerPolicy::SchedIso => 4,
            LinuxSchedulerPolicy::SchedIdle => 5,
            LinuxSchedulerPolicy::SchedDeadline => DEADLINE,
        };
        let nice = scheduler.nice().unwrap_or(0);
        if !(-20..=19).contains(&nice) {
            bail!("process.scheduler.nice: {nice} is not between -20 and 19");
        }
        let priority = scheduler.priority().unwrap_or(0);
        if priority != 0 && policy != 1 && policy != 2 {
            bail!("process.scheduler.priority: only for SCHED_FIFO and SCHED_RR");
        }
        if policy != DEADLINE
            && [scheduler.runtime(), scheduler.deadline(), scheduler.period()]
                .iter()
                .any(|n| n.unwrap_or(0) != 0)
        {
            bail!("process.scheduler: runtime, deadline and period are only for SCHED_DEADLINE");
        }
        let mut flags = 0;
        for flag in scheduler.flags().iter().flatten() {
            flags |= match flag {
                LinuxSchedulerFlag::SchedResetOnFork => 0x01,
                LinuxSchedulerFlag::SchedFlagReclaim => 0x02,
                LinuxSchedulerFlag::SchedFlagDLOverrun => 0x04,
                LinuxSchedulerFlag::SchedFlagKeepPolicy => 0x08,
                LinuxSchedulerFlag::SchedFlagKeepParams => 0x10,
                LinuxSchedulerFlag::SchedFlagUtilClampMin => 0x20,
                LinuxSchedulerFlag::SchedFlagUtilClampMax => 0x40,
            };
        }
        plan.scheduler = Some(SchedAttr {
            size: 0,
            policy,
            flags,
            nice,
            priority: u32::try_from(priority).context("process.scheduler.priority: negative")?,
            runtime: scheduler.runtime().unwrap_or(0),
            deadline: scheduler.deadline().unwrap_or(0),
            period: scheduler.period().unwrap_or(0),
        });
    }
    if let Some(io) = process.io_priority() {
        let class = match io.class() {
            IOPriorityClass::IoprioClassRt => 1,
            IOPriorityClass::IoprioClassBe => 2,
            IOPriorityClass::IoprioClassIdle => 3,
        };
        let priority = io.priority();
        if !(0..=7).contains(&priority) {
            bail!("process.ioPriority.priority: {priority} is not between 0 and 7");
        }
        plan.io_priority = Some(class << 13 | priority as i32);
    }
    if let Some(wanted) = linux.and_then(|linux| linux.personality().as_ref()) {
        if wanted.flags().as_ref().is_some_and(|flags| !flags.is_empty()) {
            bail!("linux.personality.flags: the specification defines none");
        }
        plan.personality = Some(match wanted.domain() {
            LinuxPersonalityDomain::PerLinux => 0,
            LinuxPersonalityDomain::PerLinux32 => 8,
        });
    }
    Ok(plan)
}

fn affinity(process: &Process) -> Result<Option<ExecAffinity>> {
    let Some(affinity) = process.exec_cpu_affinity() else { return Ok(None) };
    let list = |name: &str, text: &Option<String>| {
        CpuList::parse(text.as_deref().unwrap_or_default())
            .with_context(|| format!("process.execCPUAffinity.{name}"))
    };
    Ok(Some(ExecAffinity {
        initial: list("initial", affinity.initial())?,
        last: list("final", affinity.cpu_affinity_final())?,
    }))
}

/// In the first process, once it is in its cgroup: the CPUs that the runtime was called on are not the
/// container's. The kernel cuts the mask to the cgroup's cpuset, and keeps the whole of it for a cpuset
/// that grows later.
pub(crate) fn reset_affinity() {
    let _ = set_cpu_affinity(CpuList::all().words()); // where it is forbidden, nobody has asked for it
}

/// The CPUs that the calling process may run on, as a mask of the first 64: `0x3`.
pub(crate) fn describe_affinity() -> String {
    match sched_getaffinity(Pid::from_raw(0)) {
        Ok(cpus) => {
            let first = (0..64).filter(|cpu| cpus.is_set(*cpu) == Ok(true));
            format!("{:#x}", first.fold(0_u64, |mask, cpu| mask | 1 << cpu))
        }
        Err(errno) => format!("unknown ({errno})"),
    }
}

impl Scheduling {
    /// For `exec`, in the runtime: the CPUs to be on until the process is in the container's cgroup.
    pub(crate) fn set_initial_affinity(&self) -> Result<()> {
        match &self.affinity {
            Some(affinity) if affinity.initial.count() > 0 => {
                set_cpu_affinity(affinity.initial.words()).context("set process.execCPUAffinity.initial")
            }
            _ => Ok(()),
        }
    }

    /// For `exec`, in the new process, once it is in the container's cgroup. With an initial affinity alone
    /// "the final affinity is determined by the Linux kernel".
    pub(crate) fn set_final_affinity(&self) -> Result<()> {
        match &self.affinity {
            None => reset_affinity(),
            Some(affinity) if affinity.last.count() > 0 => {
                set_cpu_affinity(affinity.last.words()).context("set process.execCPUAffinity.final")?;
            }
            Some(_) => {}
        }
        Ok(())
    }

    /// In the new process, after it has joined its cgroup.
    pub(crate) fn apply(&self) -> Result<()> {
        if let Some(attr) = self.scheduler {
            set_scheduler(attr).with_context(|| match attr.policy {
                DEADLINE if self.cpus_are_limited => {
                    "set process.scheduler: process scheduler can't be used together with AllowedCPUs \
                     (linux.resources.cpu.cpus)"
                }
                _ => "set process.scheduler",
            })?;
        }
        if let Some(priority) = self.io_priority {
            set_io_priority(priority).context("set process.ioPriority")?;
        }
        if let Some(domain) = self.personality {
            personality(domain).context("set linux.personality")?;
        }
        Ok(())
    }
}

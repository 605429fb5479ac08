//! `linux.memoryPolicy`: set_mempolicy(2), config-linux.md#memory-policy.

use anyhow::{Context, Result, bail};
use oci_spec::runtime::{LinuxMemoryPolicy, MemoryPolicyFlagType, MemoryPolicyModeType};

use super::cpu_list::CpuList;
use crate::sys::process::set_memory_policy;

/// By number, as `/usr/include/linux/mempolicy.h` counts them.
pub(crate) const MODES: [&str; 7] = [
    "MPOL_DEFAULT",
    "MPOL_PREFERRED",
    "MPOL_BIND",
    "MPOL_INTERLEAVE",
    "MPOL_LOCAL",
    "MPOL_PREFERRED_MANY",
    "MPOL_WEIGHTED_INTERLEAVE",
];

/// By bit, from 1 << 13 on.
pub(crate) const FLAGS: [&str; 3] = ["MPOL_F_NUMA_BALANCING", "MPOL_F_RELATIVE_NODES", "MPOL_F_STATIC_NODES"];

/// Where the container's memory is to come from.
#[derive(Clone, Debug)]
pub(crate) struct MemoryPolicy {
    /// Mode and flags in one word.
    mode: i32,
    nodes: CpuList,
}

/// Translates; refuses what man set_mempolicy refuses of each mode's nodes.
pub(crate) fn plan(policy: &LinuxMemoryPolicy) -> Result<MemoryPolicy> {
    use MemoryPolicyModeType as M;
    let nodes = CpuList::parse(policy.nodes().as_deref().unwrap_or_default())
        .context("linux.memoryPolicy.nodes: invalid memory policy nodes")?;
    let count = nodes.count();
    let mode = match policy.mode() {
        M::MpolDefault => 0,
        M::MpolPreferred => 1,
        M::MpolBind => 2,
        M::MpolInterleave => 3,
        M::MpolLocal => 4,
        M::MpolPreferredMany => 5,
        M::MpolWeightedInterleave => 6,
    };
    match policy.mode() {
        M::MpolDefault | M::MpolLocal if count > 0 => {
            bail!("linux.memoryPolicy.nodes: this memory policy mode requires 0 nodes but got {count}")
        }
        M::MpolBind | M::MpolInterleave | M::MpolPreferredMany | M::MpolWeightedInterleave if count == 0 => {
            bail!("linux.memoryPolicy.nodes: this memory policy mode requires at least one node")
        }
        _ => {}
    }
    let flags = policy.flags().iter().flatten().fold(0, |flags, flag| {
        flags
            | match flag {
                MemoryPolicyFlagType::MpolFNumaBalancing => 1 << 13,
                MemoryPolicyFlagType::MpolFRelativeNodes => 1 << 14,
                MemoryPolicyFlagType::MpolFStaticNodes => 1 << 15,
            }
    });
    Ok(MemoryPolicy { mode: mode | flags, nodes })
}

impl MemoryPolicy {
    /// In the new process, once it is in its cgroup, whose cpuset bounds the nodes; execve keeps it.
    pub(crate) fn apply(&self) -> Result<()> {
        set_memory_policy(self.mode, self.nodes.words()).context(
            "linux.memoryPolicy: set_mempolicy (has this machine these nodes, this kernel this mode?)",
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planned(json: &str) -> Result<MemoryPolicy> {
        plan(&serde_json::from_str(json).expect("a policy"))
    }

    #[test]
    fn modes_and_flags_have_the_kernels_numbers() {
        for (n, name) in MODES.iter().enumerate() {
            let nodes = if matches!(n, 0 | 4) { "" } else { "0" };
            let policy = planned(&format!(r#"{{"mode":"{name}","nodes":"{nodes}"}}"#)).expect(name);
            assert_eq!(policy.mode, n as i32, "{name}");
        }
        for (n, name) in FLAGS.iter().enumerate() {
            let policy = planned(&format!(r#"{{"mode":"MPOL_BIND","nodes":"1","flags":["{name}"]}}"#));
            assert_eq!(policy.expect(name).mode, 2 | 1 << (13 + n), "{name}");
        }
    }

    #[test]
    fn nodes_go_with_their_mode() {
        assert!(planned(r#"{"mode":"MPOL_DEFAULT","nodes":"0-7"}"#).is_err());
        assert!(planned(r#"{"mode":"MPOL_BIND"}"#).is_err());
        assert!(planned(r#"{"mode":"MPOL_PREFERRED"}"#).is_ok());
    }
}

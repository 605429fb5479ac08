//! `process.capabilities`: names to bit masks, capabilities(7), config.md#linux-process.

use crate::log;
use oci_spec::runtime::{Capabilities, Capability, LinuxCapabilities};

/// By bit number, as `/usr/include/linux/capability.h` counts them.
pub(crate) const NAMES: [&str; 41] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

/// The five sets as bit masks.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Sets {
    pub(crate) bounding: u64,
    pub(crate) effective: u64,
    pub(crate) permitted: u64,
    pub(crate) inheritable: u64,
    pub(crate) ambient: u64,
}

/// The bit of a capability's name, with its prefix and in capitals.
pub(crate) fn bit(name: &str) -> Option<u64> {
    NAMES.iter().position(|known| *known == name).map(|n| 1 << n)
}

/// The masks that the configuration asks for. An ambient capability that is not both permitted and
/// inheritable cannot be raised and is left out, as runc does.
pub(crate) fn plan(capabilities: &LinuxCapabilities) -> Sets {
    let permitted = mask(capabilities.permitted());
    let inheritable = mask(capabilities.inheritable());
    Sets {
        bounding: mask(capabilities.bounding()),
        effective: mask(capabilities.effective()),
        permitted,
        inheritable,
        ambient: mask(capabilities.ambient()) & permitted & inheritable,
    }
}

/// Says which ambient capabilities [`plan`] leaves out: in one line, for Podman's builds ask for a dozen.
pub(crate) fn warn_of_what_is_left_out(capabilities: Option<&LinuxCapabilities>) {
    let Some(capabilities) = capabilities else { return };
    let left_out = mask(capabilities.ambient()) & !plan(capabilities).ambient;
    let names: Vec<&str> =
        NAMES.iter().enumerate().filter(|(n, _)| left_out & 1 << n != 0).map(|(_, name)| *name).collect();
    if !names.is_empty() {
        log::warn(&format!(
            "process.capabilities.ambient: can't raise ambient capability {}: not both permitted and inheritable",
            names.join(", ")
        ));
    }
}

fn mask(set: &Option<Capabilities>) -> u64 {
    set.iter().flatten().map(|capability| 1 << number(*capability)).fold(0, |mask, bit: u64| mask | bit)
}

/// The kernel's number: oci-spec lists them by alphabet.
fn number(capability: Capability) -> u32 {
    use Capability as C;
    match capability {
        C::Chown => 0,
        C::DacOverride => 1,
        C::DacReadSearch => 2,
        C::Fowner => 3,
        C::Fsetid => 4,
        C::Kill => 5,
        C::Setgid => 6,
        C::Setuid => 7,
        C::Setpcap => 8,
        C::LinuxImmutable => 9,
        C::NetBindService => 10,
        C::NetBroadcast => 11,
        C::NetAdmin => 12,
        C::NetRaw => 13,
        C::IpcLock => 14,
        C::IpcOwner => 15,
        C::SysModule => 16,
        C::SysRawio => 17,
        C::SysChroot => 18,
        C::SysPtrace => 19,
        C::SysPacct => 20,
        C::SysAdmin => 21,
        C::SysBoot => 22,
        C::SysNice => 23,
        C::SysResource => 24,
        C::SysTime => 25,
        C::SysTtyConfig => 26,
        C::Mknod => 27,
        C::Lease => 28,
        C::AuditWrite => 29,
        C::AuditControl => 30,
        C::Setfcap => 31,
        C::MacOverride => 32,
        C::MacAdmin => 33,
        C::Syslog => 34,
        C::WakeAlarm => 35,
        C::BlockSuspend => 36,
        C::AuditRead => 37,
        C::Perfmon => 38,
        C::Bpf => 39,
        C::CheckpointRestore => 40,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_names_agree() {
        for (n, name) in NAMES.iter().enumerate() {
            let parsed: Capability = serde_json::from_str(&format!("\"{name}\"")).expect("a known name");
            assert_eq!(number(parsed), n as u32, "{name}");
        }
    }
}

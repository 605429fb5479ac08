//! Capabilities: docker's default set, `--cap-add`, `--cap-drop`.
//! [capabilities(7)](https://man7.org/linux/man-pages/man7/capabilities.7.html)

use std::fs;

use anyhow::{Context as _, Result};

/// What a container has when nothing is said.
const DEFAULT: [&str; 14] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
];

/// All there are, by number.
const ALL: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// The set that flags amount to, as `CAP_...`. ALL stands for those that this kernel knows and this
/// process may hand on.
pub(crate) fn set(add: &[String], drop: &[String], privileged: bool) -> Result<Vec<String>> {
    let (add, drop) = (names(add, "--cap-add")?, names(drop, "--cap-drop")?);
    let grantable = if privileged || add.contains(&"ALL") { grantable() } else { Vec::new() };
    let mut set: Vec<&str> = if privileged || add.contains(&"ALL") {
        grantable
    } else if drop.contains(&"ALL") {
        Vec::new()
    } else {
        DEFAULT.to_vec()
    };
    set.retain(|name| !drop.contains(name));
    for name in add.into_iter().filter(|&name| name != "ALL") {
        if !set.contains(&name) {
            set.push(name);
        }
    }
    Ok(set.into_iter().map(|name| format!("CAP_{name}")).collect())
}

/// Known names without their prefix, in capitals.
fn names(given: &[String], flag: &str) -> Result<Vec<&'static str>> {
    let known = |text: &String| {
        let upper = text.to_ascii_uppercase();
        let name = upper.strip_prefix("CAP_").unwrap_or(&upper);
        let found = ALL.into_iter().chain(["ALL"]).find(|&known| known == name);
        found.with_context(|| format!("invalid {flag}: unknown capability {text:?}"))
    };
    given.iter().map(known).collect()
}

/// The bounding set of this process: nobody can hand on more.
fn grantable() -> Vec<&'static str> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let bounding = status.lines().find_map(|line| line.strip_prefix("CapBnd:"));
    let mask = bounding.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    ALL.into_iter().enumerate().filter(|(number, _)| mask >> number & 1 == 1).map(|(_, name)| name).collect()
}

#[cfg(test)]
mod tests {
    use super::set;

    fn joined(add: &[&str], drop: &[&str]) -> String {
        let owned = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        set(&owned(add), &owned(drop), false).unwrap().join(" ")
    }

    #[test]
    fn flags_change_the_default_set() {
        assert_eq!(joined(&[], &[]).split(' ').count(), 14);
        assert!(joined(&["net_admin"], &[]).ends_with("CAP_NET_ADMIN"));
        assert!(!joined(&[], &["CAP_MKNOD"]).contains("MKNOD"));
        assert_eq!(joined(&["CHOWN"], &["ALL"]), "CAP_CHOWN");
        assert_eq!(joined(&[], &["ALL"]), "");
        assert!(!joined(&["ALL"], &["CHOWN"]).contains("CAP_CHOWN"));
    }

    #[test]
    fn an_unknown_name_is_an_error() {
        assert!(set(&["BOGUS".into()], &[], false).unwrap_err().to_string().contains("BOGUS"));
    }
}

//! `linux.sysctl`: config-linux.md#sysctl. Only what a namespace of the container's own holds may be
//! set, and only through a procfs that nobody can have covered (CVE-2025-52881).

use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use nix::fcntl::OFlag;
use nix::sched::CloneFlags;
use nix::unistd::write;
use oci_spec::runtime::Linux;

use super::namespaces::Namespaces;
use crate::sys::path::open_beneath;

/// One value to write.
#[derive(Debug)]
pub(crate) struct Sysctl {
    name: String,
    /// Below `/proc/sys`.
    file: PathBuf,
    value: String,
}

const OF_IPC: [&str; 8] = [
    "kernel/msgmax",
    "kernel/msgmnb",
    "kernel/msgmni",
    "kernel/sem",
    "kernel/shmall",
    "kernel/shmmax",
    "kernel/shmmni",
    "kernel/shm_rmid_forced",
];

/// Checks every name against the namespaces that the container has.
pub(crate) fn plan(linux: &Linux, namespaces: &Namespaces) -> Result<Vec<Sysctl>> {
    let mut plan = Vec::new();
    for (name, value) in linux.sysctl().iter().flatten() {
        let file = file_of(name);
        check(name, &file, value, namespaces).with_context(|| format!("linux.sysctl[{name:?}]"))?;
        plan.push(Sysctl { name: name.clone(), file: PathBuf::from(file), value: value.clone() });
    }
    Ok(plan)
}

/// sysctl(8): the first separator decides. In `net.ipv4.conf.eth0/100.forwarding` the dots separate and
/// the slash is a dot of the name; in `net/ipv4/conf/eth0.100/forwarding` all stands as in `/proc/sys`.
fn file_of(name: &str) -> String {
    match name.find(['.', '/']) {
        Some(at) if name.as_bytes()[at] == b'.' => name
            .chars()
            .map(|c| {
                if c == '.' {
                    '/'
                } else if c == '/' {
                    '.'
                } else {
                    c
                }
            })
            .collect(),
        _ => name.to_owned(),
    }
}

fn check(name: &str, file: &str, value: &str, namespaces: &Namespaces) -> Result<()> {
    if value.contains(['\0', '\n']) || name.contains('\0') {
        bail!("a value of several lines could set what it does not name");
    }
    if file.split('/').any(|part| part.is_empty() || part == "." || part == "..") {
        bail!("sysctl {name:?} is not a name");
    }
    let needs = |kind: CloneFlags, what: &str| {
        if namespaces.has(kind) {
            Ok(())
        } else {
            bail!("sysctl {name:?} is not allowed in the hosts {what} namespace")
        }
    };
    match file {
        "kernel/domainname" => needs(CloneFlags::CLONE_NEWUTS, "uts"),
        "kernel/hostname" => {
            bail!("sysctl {name:?} is not allowed as it conflicts with the OCI \"hostname\" field")
        }
        _ if OF_IPC.contains(&file) || file.starts_with("fs/mqueue/") => {
            needs(CloneFlags::CLONE_NEWIPC, "ipc")
        }
        _ if file.starts_with("net/") => {
            needs(CloneFlags::CLONE_NEWNET, "network")?;
            match namespaces.path(CloneFlags::CLONE_NEWNET) {
                Some(path) if is_our_own(path) => {
                    bail!("sysctl {name:?} is not allowed in the hosts network namespace")
                }
                _ => Ok(()),
            }
        }
        _ if file.starts_with("user/") => needs(CloneFlags::CLONE_NEWUSER, "user"),
        _ => bail!("sysctl {name:?} is not in a separate kernel namespace"),
    }
}

fn is_our_own(path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let (Ok(theirs), Ok(ours)) = (path.metadata(), Path::new("/proc/self/ns/net").metadata()) else {
        return false;
    };
    (theirs.dev(), theirs.ino()) == (ours.dev(), ours.ino())
}

/// Writes all values through `proc`, the root of a procfs of our own.
pub(crate) fn apply(sysctls: &[Sysctl], proc: BorrowedFd) -> Result<()> {
    for sysctl in sysctls {
        let path = Path::new("sys").join(&sysctl.file);
        open_beneath(proc, &path, OFlag::O_WRONLY.bits())
            .and_then(|file| write(&file, sysctl.value.as_bytes()))
            .with_context(|| {
                format!(
                    "linux.sysctl[{:?}]: write {:?} to /proc/{}",
                    sysctl.name,
                    sysctl.value,
                    path.display()
                )
            })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::namespaces;

    #[test]
    fn the_first_separator_decides() {
        assert_eq!(file_of("net.ipv4.ip_forward"), "net/ipv4/ip_forward");
        assert_eq!(file_of("net/ipv4/conf/eth0.100/forwarding"), "net/ipv4/conf/eth0.100/forwarding");
        assert_eq!(file_of("net.ipv4.conf.eth0/100.forwarding"), "net/ipv4/conf/eth0.100/forwarding");
    }

    #[test]
    fn cve_2022_0811_a_value_cannot_carry_another_setting() {
        let none =
            namespaces::plan(&serde_json::from_str(r#"{"namespaces":[{"type":"mount"}]}"#).expect("JSON"))
                .expect("a plan");
        assert!(
            check("kernel.shm_rmid_forced", "kernel/shm_rmid_forced", "1\nkernel.core_pattern=x", &none)
                .is_err()
        );
        assert!(check("kernel.core_pattern", "kernel/core_pattern", "|/x", &none).is_err());
        assert!(check("net.ipv4.ip_forward", "net/ipv4/ip_forward", "1", &none).is_err());
        assert!(check("net/../kernel/core_pattern", "net/../kernel/core_pattern", "1", &none).is_err());
    }
}

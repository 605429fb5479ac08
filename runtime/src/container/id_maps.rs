//! `linux.uidMappings`, `linux.gidMappings`: user_namespaces(7), config-linux.md#user-namespace-mappings.

use std::fmt::Write as _;
use std::io::{Read, Write as _};
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;
use std::process::Command;

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::sched::{CloneFlags, setns};
use nix::sys::wait::waitpid;
use nix::unistd::{Pid, getegid, geteuid};
use oci_spec::runtime::{LinuxIdMapping, LinuxIdMappingBuilder};

use crate::sys::process::{Fork, clone3, exit_now, set_undumpable};

/// The maps of a user namespace.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct IdMaps {
    uids: Vec<LinuxIdMapping>,
    gids: Vec<LinuxIdMapping>,
}

/// Checks that both maps are there.
pub(crate) fn plan(uids: &[LinuxIdMapping], gids: &[LinuxIdMapping]) -> Result<IdMaps> {
    for (name, maps) in [("uidMappings", uids), ("gidMappings", gids)] {
        if maps.is_empty() {
            bail!("linux.{name}: a new user namespace needs at least one mapping");
        }
        if let Some(n) = maps.iter().position(|map| map.size() == 0) {
            bail!("linux.{name}[{n}].size: must not be 0");
        }
    }
    Ok(IdMaps::new(uids, gids))
}

/// The maps that `namespace` has. Only from a process in it can one see them, so one is made.
fn of_namespace(namespace: BorrowedFd) -> Result<IdMaps> {
    let (mut ours, mut theirs) = UnixStream::pair().context("make a socket pair")?;
    match clone3(0, None, false).context("fork")? {
        Fork::Child => {
            // Who has CAP_SYS_PTRACE in there could look into us, and we are the host's.
            let closed = set_undumpable();
            let entered = closed.and_then(|()| setns(namespace, CloneFlags::CLONE_NEWUSER));
            drop(ours);
            let _ = theirs.write_all(&(entered.err().map_or(0, |errno| errno as i32)).to_ne_bytes());
            let _ = theirs.read(&mut [0]); // until the runtime has read the maps, or died
            exit_now(0)
        }
        Fork::Parent(pid, _) => {
            drop(theirs);
            let mut errno = [0; 4];
            let maps =
                ours.read_exact(&mut errno).context("hear from the process that enters it").and_then(|()| {
                    match i32::from_ne_bytes(errno) {
                        0 => Ok(IdMaps { uids: read_map(pid, "uid_map")?, gids: read_map(pid, "gid_map")? }),
                        errno => Err(Errno::from_raw(errno)).context("enter it"),
                    }
                });
            drop(ours);
            waitpid(pid, None).context("wait for the process that enters it")?;
            maps
        }
    }
}

fn read_map(pid: Pid, file: &str) -> Result<Vec<LinuxIdMapping>> {
    let path = format!("/proc/{pid}/{file}");
    let text = std::fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    text.lines()
        .map(|line| {
            let numbers: Vec<u32> =
                line.split_whitespace().map(str::parse).collect::<Result<_, _>>().context("no number")?;
            let [inside, outside, size] = numbers[..] else { bail!("{path}: cannot read {line:?}") };
            let map = LinuxIdMappingBuilder::default().container_id(inside).host_id(outside).size(size);
            Ok(map.build()?)
        })
        .collect()
}

/// For a user namespace that is joined: engines give its mappings as well, which then must be the ones it
/// has.
pub(crate) fn check_joined(
    namespace: BorrowedFd,
    uids: &[LinuxIdMapping],
    gids: &[LinuxIdMapping],
) -> Result<IdMaps> {
    let own = of_namespace(namespace).context("read the mappings of the user namespace to join")?;
    for (name, given, own) in [("uidMappings", uids, &own.uids), ("gidMappings", gids, &own.gids)] {
        if sorted(given) != sorted(own) {
            bail!(
                "linux.{name}: the user namespace to join has other mappings: {:?} instead of {:?}",
                text(own).trim_end(),
                text(given).trim_end()
            );
        }
    }
    Ok(own)
}

fn sorted(maps: &[LinuxIdMapping]) -> Vec<(u32, u32, u32)> {
    let mut maps: Vec<_> = maps.iter().map(|map| (map.container_id(), map.host_id(), map.size())).collect();
    maps.sort_unstable();
    maps
}

impl IdMaps {
    pub(crate) fn new(uids: &[LinuxIdMapping], gids: &[LinuxIdMapping]) -> Self {
        Self { uids: uids.to_vec(), gids: gids.to_vec() }
    }

    /// The id outside that `uid` inside stands for.
    pub(crate) fn host_uid(&self, uid: u32) -> Option<u32> {
        host_id(&self.uids, uid)
    }

    /// The id outside that `gid` inside stands for.
    pub(crate) fn host_gid(&self, gid: u32) -> Option<u32> {
        host_id(&self.gids, gid)
    }

    /// Writes both maps of the process that has just been born in the new namespace: by ourselves when
    /// we may, else by newuidmap(1) and newgidmap(1).
    pub(crate) fn write(&self, pid: Pid) -> Result<()> {
        if geteuid().is_root() {
            write_map(pid, "uid_map", &text(&self.uids))?;
            return write_map(pid, "gid_map", &text(&self.gids));
        }
        // The kernel lets an unprivileged process map its own id alone, and the group only once
        // setgroups(2) is denied.
        if let ([uid], [gid]) = (&self.uids[..], &self.gids[..])
            && uid.size() == 1
            && gid.size() == 1
            && uid.host_id() == geteuid().as_raw()
            && gid.host_id() == getegid().as_raw()
        {
            write_map(pid, "setgroups", "deny")?;
            write_map(pid, "uid_map", &text(&self.uids))?;
            return write_map(pid, "gid_map", &text(&self.gids));
        }
        run_helper("newuidmap", pid, &self.uids)?;
        run_helper("newgidmap", pid, &self.gids)
    }
}

fn host_id(maps: &[LinuxIdMapping], id: u32) -> Option<u32> {
    let map = maps.iter().find(|map| id >= map.container_id() && id - map.container_id() < map.size())?;
    map.host_id().checked_add(id - map.container_id())
}

fn text(maps: &[LinuxIdMapping]) -> String {
    maps.iter().fold(String::new(), |mut text, map| {
        let _ = writeln!(text, "{} {} {}", map.container_id(), map.host_id(), map.size());
        text
    })
}

fn write_map(pid: Pid, file: &str, text: &str) -> Result<()> {
    let path = format!("/proc/{pid}/{file}");
    std::fs::write(&path, text).with_context(|| format!("write {:?} to {path}", text.trim_end()))
}

fn run_helper(program: &str, pid: Pid, maps: &[LinuxIdMapping]) -> Result<()> {
    let mut command = Command::new(program);
    command.arg(pid.to_string());
    for map in maps {
        command.args([map.container_id(), map.host_id(), map.size()].map(|n| n.to_string()));
    }
    let output = command.output().with_context(|| {
        format!("run {program} (package uidmap), which maps ids for a user without privileges")
    })?;
    if !output.status.success() {
        bail!("{program}: {}", String::from_utf8_lossy(&output.stderr).trim_end());
    }
    Ok(())
}

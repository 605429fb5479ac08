//! Id-mapped mounts: the options `idmap` and `ridmap` and the properties `uidMappings` and `gidMappings`
//! of a mount, config.md#posix-platform-mounts. The kernel takes a mapping from a user namespace that
//! has it (mount_setattr(2)), and only for a mount that was never attached, so the host's side does all
//! of this.

use std::io::{PipeReader, Read};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use anyhow::{Context, Result, bail, ensure};
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sched::CloneFlags;
use nix::sys::stat::Mode;
use nix::sys::wait::waitpid;
use oci_spec::runtime::{LinuxIdMapping, LinuxIdMappingBuilder, Mount};

use super::id_maps::IdMaps;
use crate::sys::mount::{Change, attr, set_attributes};
use crate::sys::process::{Fork, clone3, exit_now};

/// The ids of the container that a mount is for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum ContainerIds<'a> {
    /// It has no user namespace of its own.
    Host,
    /// A new user namespace with these maps.
    New(&'a IdMaps),
    /// The user namespace that it joins.
    Joined(BorrowedFd<'a>),
}

/// What an id-mapped mount gets.
#[derive(Debug)]
pub(crate) struct IdMapped {
    ids: Ids,
    /// `ridmap`: what is mounted below gets it too.
    recursive: bool,
}

#[derive(Debug)]
enum Ids {
    Maps(IdMaps),
    Namespace(OwnedFd),
}

/// What the options say: `idmap` or `ridmap`, and crun's own mapping behind a `=`.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Asked {
    pub(crate) recursive: bool,
    /// `uids=0-1000-10#20-2000-1;gids=@0-1-10`
    pub(crate) mapping: String,
}

/// "If `uidMappings` or `gidMappings` are specified for the mount, the runtime MUST use those values";
/// mappings without either option count as `idmap`.
pub(crate) fn plan(
    mount: &Mount,
    asked: Option<&Asked>,
    container: ContainerIds,
) -> Result<Option<IdMapped>> {
    let own = (mount.uid_mappings().as_deref(), mount.gid_mappings().as_deref());
    let mapping = asked.map_or("", |asked| &asked.mapping);
    let ids = match (own, container) {
        ((None, None), _) if asked.is_none() => return Ok(None),
        ((None, None), _) if !mapping.is_empty() => Ids::Maps(parse(mapping, container)?),
        ((None, None), ContainerIds::New(maps)) => Ids::Maps(maps.clone()),
        ((None, None), ContainerIds::Joined(file)) => Ids::Namespace(file.try_clone_to_owned()?),
        ((None, None), ContainerIds::Host) => {
            bail!("options: idmap and ridmap need uidMappings and gidMappings, or a user namespace")
        }
        ((Some(uids), Some(gids)), _) => {
            ensure!(mapping.is_empty(), "options: a mapping {mapping:?} beside uidMappings and gidMappings");
            Ids::Maps(checked(uids, gids)?)
        }
        ((Some(_), None), _) => bail!("uidMappings: must come with gidMappings"),
        ((None, Some(_)), _) => bail!("gidMappings: must come with uidMappings"),
    };
    Ok(Some(IdMapped { ids, recursive: asked.is_some_and(|asked| asked.recursive) }))
}

fn checked(uids: &[LinuxIdMapping], gids: &[LinuxIdMapping]) -> Result<IdMaps> {
    for (name, maps) in [("uidMappings", uids), ("gidMappings", gids)] {
        ensure!(!maps.is_empty(), "{name}: an id-mapped mount needs at least one mapping");
        if let Some(n) = maps.iter().position(|map| map.size() == 0) {
            bail!("{name}[{n}].size: must not be 0");
        }
    }
    Ok(IdMaps::new(uids, gids))
}

/// crun's form: `uids=A-B-C#...;gids=A-B-C#...`, from the file system's id A on to the host's id B on, C
/// of them; with an `@` before it, B is an id of the container.
fn parse(text: &str, container: ContainerIds) -> Result<IdMaps> {
    let mut lists = [("uids", Vec::new()), ("gids", Vec::new())];
    for part in text.split(';') {
        let (name, triplets) = part.split_once('=').unwrap_or((part, ""));
        let Some((_, list)) = lists.iter_mut().find(|(known, _)| *known == name) else {
            bail!("options: idmap: {part:?} is neither uids=... nor gids=...");
        };
        for triplet in triplets.split('#') {
            let relative = triplet.strip_prefix('@');
            let numbers: Vec<u32> =
                (relative.unwrap_or(triplet).split('-').map(str::parse).collect::<Result<_, _>>())
                    .with_context(|| format!("options: idmap: {triplet:?}"))?;
            let [inside, mut host, size] = numbers[..] else {
                bail!("options: idmap: {triplet:?} is not three numbers with - between them");
            };
            if relative.is_some() {
                let ContainerIds::New(maps) = container else {
                    bail!(
                        "options: idmap: {triplet:?} is relative to a new user namespace, which is missing"
                    );
                };
                let found = if name == "uids" { maps.host_uid(host) } else { maps.host_gid(host) };
                host = found.with_context(|| {
                    format!("options: idmap: {triplet:?}: linux.*Mappings do not map {host}")
                })?;
            }
            let mapping = LinuxIdMappingBuilder::default().container_id(inside).host_id(host).size(size);
            list.push(mapping.build()?);
        }
    }
    let [(_, uids), (_, gids)] = lists;
    checked(&uids, &gids).context("options: idmap")
}

/// User namespaces that have a mapping and nobody in them; one for all mounts with equal mappings.
#[derive(Debug, Default)]
pub(crate) struct Donors(Vec<(IdMaps, OwnedFd)>);

impl IdMapped {
    /// Gives the detached `tree` its mapping.
    pub(crate) fn apply(&self, tree: &OwnedFd, donors: &mut Donors) -> Result<()> {
        let namespace = match &self.ids {
            Ids::Namespace(file) => file.as_raw_fd(),
            Ids::Maps(maps) => donors.find(maps)?.as_raw_fd(),
        };
        let change = Change { set: attr::IDMAP, user_namespace: namespace as u64, ..Change::default() };
        let why = match set_attributes(tree, &change, self.recursive) {
            Ok(()) => return Ok(()),
            Err(Errno::EINVAL) => Err(Errno::EINVAL)
                .context("this kind of file system, or one below it, cannot be id-mapped on this kernel"),
            Err(Errno::EPERM) => {
                Err(Errno::EPERM).context("only root where the file system was mounted may, and only once")
            }
            Err(errno) => Err(errno.into()),
        };
        why.context("map its ids")
    }
}

impl Donors {
    fn find(&mut self, maps: &IdMaps) -> Result<&OwnedFd> {
        let found = match self.0.iter().position(|(known, _)| known == maps) {
            Some(found) => found,
            None => {
                let made = user_namespace(maps).context("make a user namespace for its mapping")?;
                self.0.push((maps.clone(), made));
                self.0.len() - 1
            }
        };
        Ok(&self.0[found].1)
    }
}

/// A user namespace with these maps. A process has to be born in it for its maps to be written; it
/// ends as soon as the other end of the pipe is closed, whatever becomes of us.
fn user_namespace(maps: &IdMaps) -> Result<OwnedFd> {
    let (wait, hold) = std::io::pipe()?;
    let (pid, _) = match clone3(CloneFlags::CLONE_NEWUSER.bits() as u64, None, false)? {
        Fork::Child => {
            drop(hold);
            wait_for_end(wait)
        }
        Fork::Parent(pid, pidfd) => (pid, pidfd),
    };
    let namespace = maps.write(pid).and_then(|()| {
        let path = format!("/proc/{pid}/ns/user");
        open(&*path, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())
            .with_context(|| format!("open {path}"))
    });
    drop(hold);
    while waitpid(pid, None) == Err(Errno::EINTR) {}
    namespace
}

fn wait_for_end(mut wait: PipeReader) -> ! {
    let _ = wait.read(&mut [0]);
    exit_now(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(inside: u32, host: u32, size: u32) -> LinuxIdMapping {
        LinuxIdMappingBuilder::default().container_id(inside).host_id(host).size(size).build().expect("a map")
    }

    #[test]
    fn the_mapping_of_crun_has_ranges_of_three_numbers() {
        let maps = parse("uids=0-1-10#10-11-10;gids=0-100-10", ContainerIds::Host).expect("a mapping");
        assert_eq!(maps, IdMaps::new(&[map(0, 1, 10), map(10, 11, 10)], &[map(0, 100, 10)]));
    }

    #[test]
    fn a_relative_range_counts_from_the_containers_ids() {
        let container = IdMaps::new(&[map(0, 0, 1), map(1, 2, 1000)], &[map(0, 500, 10)]);
        let maps = parse("uids=@1-3-10;gids=@0-1-2", ContainerIds::New(&container)).expect("a mapping");
        assert_eq!(maps, IdMaps::new(&[map(1, 4, 10)], &[map(0, 501, 2)]));
        for (text, container) in [
            ("uids=@0-0-1;gids=0-0-1", ContainerIds::Host),
            ("uids=@0-5000-1;gids=0-0-1", ContainerIds::New(&container)),
        ] {
            assert!(parse(text, container).is_err(), "{text}");
        }
    }

    #[test]
    fn a_mapping_that_makes_no_sense_is_refused() {
        for text in [
            "uids",
            "uids=0-0-1",
            "uids=0-0-0;gids=0-0-1",
            "uids=0-0;gids=0-0-1",
            "uids=0--1-1;gids=0-0-1",
            "uids=+0-0-1-1;gids=0-0-1",
            "pids=0-0-1;uids=0-0-1;gids=0-0-1",
        ] {
            assert!(parse(text, ContainerIds::Host).is_err(), "{text}");
        }
    }
}

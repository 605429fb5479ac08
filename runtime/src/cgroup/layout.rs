//! Which cgroup hierarchies this host has, and where we stand in them: cgroups(7), `/proc/self/cgroup`.

use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, bail};
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, statfs};
use nix::unistd::Pid;

use super::{Place, v1, v2};
use crate::sys::file::read_text;

pub(super) const ROOT: &str = "/sys/fs/cgroup";

/// The folder itself, or where it is not there yet, the one above that is.
pub(super) fn deepest_there(dir: &Path) -> Option<&Path> {
    dir.ancestors().find(|dir| dir.is_dir())
}

/// See [`Place::find`]. In a unified hierarchy a relative path counts from the parent of our cgroup.
pub(super) fn find(path: Option<&Path>, id: &str) -> Result<Place> {
    let path = path.filter(|path| !path.as_os_str().is_empty());
    if let Some(path) = path
        && (path.components().any(|part| part == Component::ParentDir)
            || path.to_string_lossy().contains(['\0', '\n']))
    {
        bail!("{path:?} must not contain \"..\" or line ends");
    }
    let below = |mount: &Path, ours: &str| -> PathBuf {
        let ours = ours.trim_start_matches('/');
        match path {
            Some(path) => match path.strip_prefix("/") {
                Ok(absolute) => mount.join(absolute),
                Err(_) => mount.join(ours).join(path),
            },
            None => mount.join(ours).join(id),
        }
    };
    let own = read_text("/proc/self/cgroup").context("read /proc/self/cgroup")?;
    let unified_only = is_unified(Path::new(ROOT));
    let mut place = Place { asked: path.is_some(), ..Place::default() };
    for line in own.lines() {
        // hierarchy-ID:controller-list:cgroup-path
        let mut fields = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(ours)) = (fields.next(), fields.next(), fields.next()) else {
            bail!("/proc/self/cgroup: cannot read the line {line:?}");
        };
        let absolute = path.is_some_and(Path::is_absolute);
        if !absolute && Path::new(ours).components().any(|part| part == Component::ParentDir) {
            bail!("/proc/self/cgroup: {line:?} is outside of our cgroup namespace");
        }
        if controllers.is_empty() {
            let mount = if unified_only { PathBuf::from(ROOT) } else { Path::new(ROOT).join("unified") };
            if unified_only || is_unified(&mount) {
                // Our own cgroup holds processes, us among them, so it cannot pass controllers on to one
                // below it; one beside it can have them.
                let beside = Path::new(ours).parent().and_then(Path::to_str).unwrap_or("/");
                let dir = below(&mount, if unified_only { beside } else { ours });
                let own = mount.join(ours.trim_start_matches('/'));
                place.v2 = Some(v2::Group { dir, mount, own });
            }
        } else if !unified_only {
            let name = controllers.strip_prefix("name=").unwrap_or(controllers);
            let mount = Path::new(ROOT).join(name);
            if mount.join("tasks").exists() {
                let dir = below(&mount, ours);
                let own = mount.join(ours.trim_start_matches('/'));
                place.v1.push(v1::Group { name: name.to_owned(), dir, mount, own });
            }
        }
    }
    // Whoever joins is in the freezer's list first: one that is killed there does not get away half-way.
    place.v1.sort_by_key(|group| !group.has("freezer"));
    let dirs = place.v1.iter().map(|group| (&group.dir, &group.mount));
    for (dir, mount) in dirs.chain(place.v2.iter().map(|group| (&group.dir, &group.mount))) {
        if dir == mount {
            bail!("{path:?} is the root of the hierarchy {mount:?}, which is nobody's to give or to remove");
        }
    }
    Ok(place)
}

pub(super) fn is_unified(path: &Path) -> bool {
    statfs(path).is_ok_and(|fs| fs.filesystem_type() == CGROUP2_SUPER_MAGIC)
}

/// The path below the mount point of the cgroup in the unified hierarchy that `pid` is in.
pub(super) fn unified_path_of(pid: Pid) -> Result<Option<PathBuf>> {
    let path = format!("/proc/{pid}/cgroup");
    let text = std::fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    Ok(text.lines().find_map(|line| line.strip_prefix("0::/")).map(PathBuf::from))
}

/// Opens a cgroup's folder for `*at` calls.
pub(super) fn open_dir(dir: &Path) -> Result<OwnedFd> {
    open(dir, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())
        .with_context(|| format!("open the cgroup {dir:?}"))
}

/// The cgroups right below this one.
pub(super) fn folders_in(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect()
}

/// All pids in this cgroup and below.
pub(super) fn collect_pids(dir: &Path, pids: &mut Vec<Pid>) -> Result<()> {
    let text = match std::fs::read_to_string(dir.join("cgroup.procs")) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    pids.extend(text.lines().filter_map(|line| line.parse().ok()).map(Pid::from_raw));
    for below in folders_in(dir) {
        collect_pids(&below, pids)?;
    }
    Ok(())
}

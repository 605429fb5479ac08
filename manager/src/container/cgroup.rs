//! The container's control groups: `/manager/ID` in every hierarchy. The runtime makes and removes
//! them; this is for what it leaves, and for the one question it does not answer: was it memory?
//! [cgroups(7)](https://man7.org/linux/man-pages/man7/cgroups.7.html)

use std::fs::{self, File};
use std::io::{ErrorKind, Result};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::{Signal, kill};
use nix::sys::statfs::{CGROUP_SUPER_MAGIC, CGROUP2_SUPER_MAGIC, statfs};
use nix::unistd::Pid;

/// The folder of all our control groups, in every hierarchy.
const PARENT: &str = "manager";

/// `linux.cgroupsPath` of a container.
pub(crate) fn path(id: &str) -> String {
    format!("/{PARENT}/{id}")
}

/// True when cgroup v2 is the only hierarchy: `/sys/fs/cgroup` itself.
pub(crate) fn is_unified() -> bool {
    Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
}

/// True when the kernel can limit swap here: v2 always says so by its file, v1 by another.
pub(crate) fn limits_swap() -> bool {
    is_unified() || Path::new("/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes").exists()
}

/// Held while a runtime makes control groups, so that nobody removes the empty parent between the
/// runtime's two mkdir(2)s. Shared: any number of containers start at the same time.
pub(crate) fn keep_parent() -> Option<Flock<File>> {
    lock(FlockArg::LockShared)
}

/// True when the kernel killed a process of the container for lack of memory.
pub(crate) fn oom_killed(id: &str) -> bool {
    let counted = |file: PathBuf| {
        let text = fs::read_to_string(file).unwrap_or_default();
        text.lines().any(|line| line.strip_prefix("oom_kill ").is_some_and(|count| count != "0"))
    };
    hierarchies().iter().any(|hierarchy| {
        let group = hierarchy.join(PARENT).join(id);
        counted(group.join("memory.events")) || counted(group.join("memory.oom_control"))
    })
}

/// Kills what still runs in the container's groups, removes them, and their parent when it is
/// empty. True when nothing is left.
pub(crate) fn remove(id: &str) -> bool {
    let hierarchies = hierarchies();
    let end = Instant::now() + Duration::from_secs(2);
    let mut clean = true;
    for hierarchy in &hierarchies {
        let group = hierarchy.join(PARENT).join(id);
        while group.exists() && remove_tree(&group).is_err() {
            if Instant::now() > end {
                clean = false;
                break;
            }
            kill_all(&group);
            sleep(Duration::from_millis(5));
        }
    }
    remove_parent(&hierarchies);
    clean
}

/// Removes the folder of all our control groups if nobody else is in it.
fn remove_parent(hierarchies: &[PathBuf]) {
    let parents: Vec<PathBuf> = hierarchies.iter().map(|hierarchy| hierarchy.join(PARENT)).collect();
    // Two links are those of a folder without folders in it.
    let is_empty = |path: &PathBuf| path.metadata().is_ok_and(|data| data.nlink() == 2);
    // A container that is being made right now removes it when it goes; another one that is going
    // may just have looked, and seen us in it.
    let end = Instant::now() + Duration::from_millis(100);
    while parents.iter().any(is_empty) {
        if let Some(_lock) = lock(FlockArg::LockExclusiveNonblock) {
            for parent in &parents {
                let _ = fs::remove_dir(parent);
            }
            break;
        }
        if Instant::now() > end {
            break;
        }
        sleep(Duration::from_millis(5));
    }
}

/// Where hierarchies are mounted: on most hosts one, on v1 one a controller.
fn hierarchies() -> Vec<PathBuf> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mut points: Vec<PathBuf> = table.lines().filter_map(hierarchy).collect();
    // One that something else was mounted over is out of reach.
    points.retain(|point| {
        let kind = statfs(point).map(|found| found.filesystem_type());
        kind.is_ok_and(|kind| kind == CGROUP_SUPER_MAGIC || kind == CGROUP2_SUPER_MAGIC)
    });
    points.sort();
    points.dedup();
    points
}

/// The mount point in a line of mountinfo, when it is that of a whole hierarchy.
fn hierarchy(line: &str) -> Option<PathBuf> {
    let (mount, file_system) = line.split_once(" - ")?;
    let kind = file_system.split(' ').next()?;
    let mut fields = mount.split(' ').skip(3);
    let (root, point) = (fields.next()?, fields.next()?);
    (kind.starts_with("cgroup") && root == "/").then(|| PathBuf::from(point))
}

/// Removes groups, inner ones first.
fn remove_tree(group: &Path) -> Result<()> {
    let entries = match fs::read_dir(group) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_tree(&entry.path())?;
        }
    }
    fs::remove_dir(group)
}

fn kill_all(group: &Path) {
    // A frozen v1 group does not die before it is thawed.
    let _ = fs::write(group.join("freezer.state"), "THAWED");
    let processes = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    for pid in processes.lines().filter_map(|line| line.parse().ok()).filter(|&pid| pid > 1) {
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
    for entry in fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            kill_all(&entry.path());
        }
    }
}

/// The lock of all managers on this host, whatever their roots: they share the parent group.
fn lock(how: FlockArg) -> Option<Flock<File>> {
    Flock::lock(File::open("/sys/fs/cgroup").ok()?, how).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hierarchies_are_found_and_bind_mounts_of_parts_are_not() {
        let v1 = "31 27 0:27 / /sys/fs/cgroup/pids rw,nosuid shared:12 - cgroup cgroup rw,pids";
        let v2 = "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw";
        let part = "40 27 0:27 /a /mnt/pids rw - cgroup cgroup rw,pids";
        let other = "23 1 0:21 / /proc rw - proc proc rw";
        assert_eq!(hierarchy(v1), Some("/sys/fs/cgroup/pids".into()));
        assert_eq!(hierarchy(v2), Some("/sys/fs/cgroup".into()));
        assert_eq!((hierarchy(part), hierarchy(other)), (None, None));
    }
}

//! The walls around unpacking, and around inflating an archive ([`to_what_is_open`]). A layer's bytes come from
//! strangers, and some that read them are libraries in C: so a process of its own inflates and unpacks each layer,
//! and whatever a stream makes that process do, it can reach nothing but the layer's folder.
//!
//! | wall | what it stops |
//! |---|---|
//! | no descriptors but its own | the store's, a registry's connection |
//! | the folder is its root, on a mount where no device opens | files elsewhere; the disk, by a device node of the layer |
//! | [capabilities(7)](https://man7.org/linux/man-pages/man7/capabilities.7.html): those that owners, modes, devices and attributes need | the rest of root's power |
//! | [landlock(7)](https://man7.org/linux/man-pages/man7/landlock.7.html): the folder | files elsewhere, once more |
//! | [seccomp(2)](https://man7.org/linux/man-pages/man2/seccomp.2.html): files and memory | programs, sockets, mounts, namespaces, other processes |
//!
//! The wall before all these is `entry`, which opens everything by descriptors below the folder and follows no
//! link. A kernel that lacks one of the walls, or a place where it may not be built, has the others.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use anyhow::{Context, Result};
use landlock::{ABI, Access, AccessFs, PathBeneath, Ruleset, RulesetAttr, RulesetCreatedAttr};
use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{chroot, fchdir};
use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, apply_filter_all_threads};

use crate::sys::mounts;

/// Confines this process, which has one thread, to `folder`; returns the folder to unpack into. What is still to
/// come is [`only_files_and_memory`].
pub(crate) fn to(folder: OwnedFd) -> Result<OwnedFd> {
    own_mask_and_place()?;
    let folder = match mounts::without_devices(&folder) {
        Err(error) if is_missing(&error) => folder,
        clone => clone.context("take the layer's folder without devices (open_tree, mount_setattr)")?,
    };
    fchdir(&folder).context("go to the layer's folder")?;
    match chroot(".") {
        Err(Errno::EPERM) => {}
        other => other.context("make the layer's folder the root")?,
    }
    beneath(&folder)?;
    keep_few_capabilities()?;
    Ok(folder)
}

/// Confines this process to the descriptors that it has, and to memory.
pub(crate) fn to_what_is_open() -> Result<()> {
    restrict(None).context("confine inflating (landlock)")?;
    let none = CapabilitySets {
        effective: CapabilitySet::empty(),
        permitted: CapabilitySet::empty(),
        inheritable: CapabilitySet::empty(),
    };
    set_capabilities(None, none).context("give capabilities up")?;
    only_files_and_memory()
}

/// A mask and a working folder of this thread's own, as unpacking wants them.
pub(super) fn own_mask_and_place() -> Result<()> {
    unshare(CloneFlags::CLONE_FS).context("unshare(CLONE_FS)")?;
    umask(Mode::empty());
    Ok(())
}

/// Not here, or not for us.
fn is_missing(error: &std::io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM | libc::EINVAL))
}

fn beneath(folder: impl AsFd) -> Result<()> {
    restrict(Some(folder.as_fd())).context("confine unpacking to the layer's folder (landlock)")
}

/// No path can be opened any more but below the folder.
fn restrict(folder: Option<BorrowedFd<'_>>) -> Result<(), landlock::RulesetError> {
    // What an older kernel does not know of this, it leaves out.
    let all = AccessFs::from_all(ABI::V5);
    let rules = Ruleset::default().handle_access(all)?.create()?;
    let rules = match folder {
        Some(folder) => rules.add_rule(PathBeneath::new(folder, all))?,
        None => rules,
    };
    rules.restrict_self().map(drop)
}

/// SYS_ADMIN is for `trusted.` attributes, which is how overlayfs is told of opaque folders; all else that it
/// allows, the filter forbids.
fn keep_few_capabilities() -> Result<()> {
    let few = CapabilitySet::CHOWN
        | CapabilitySet::DAC_OVERRIDE
        | CapabilitySet::FOWNER
        | CapabilitySet::FSETID
        | CapabilitySet::MKNOD
        | CapabilitySet::SETFCAP
        | CapabilitySet::SYS_ADMIN;
    let mut sets = capabilities(None).context("read the capabilities")?;
    sets.effective &= few;
    sets.permitted &= few;
    sets.inheritable = CapabilitySet::empty();
    set_capabilities(None, sets).context("give capabilities up")
}

/// What unpacking calls once its threads run, and nothing that reaches another process, a network or a mount.
const CALLS: &[libc::c_long] = &[
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_pread64,
    libc::SYS_pwrite64,
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_lseek,
    libc::SYS_close,
    libc::SYS_fcntl,
    libc::SYS_openat,
    libc::SYS_openat2,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_getdents64,
    libc::SYS_fchdir,
    libc::SYS_mkdirat,
    libc::SYS_mknodat,
    libc::SYS_symlinkat,
    libc::SYS_linkat,
    libc::SYS_unlinkat,
    libc::SYS_fchown,
    libc::SYS_fchownat,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    libc::SYS_utimensat,
    libc::SYS_ftruncate,
    libc::SYS_fallocate,
    libc::SYS_fsetxattr,
    libc::SYS_lsetxattr,
    libc::SYS_fgetxattr,
    libc::SYS_flistxattr,
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_mprotect,
    libc::SYS_madvise,
    libc::SYS_brk,
    libc::SYS_futex,
    libc::SYS_sched_yield,
    libc::SYS_clock_gettime,
    libc::SYS_getrandom,
    libc::SYS_gettid,
    libc::SYS_getpid,
    libc::SYS_tgkill,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_restart_syscall,
    libc::SYS_sigaltstack,
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_exit,
    libc::SYS_exit_group,
];

/// From now on no thread of this process can call anything but that; no thread or process can be made. What is
/// not there is told as the kernel tells it, since a C library may know other ways.
pub(crate) fn only_files_and_memory() -> Result<()> {
    let rules = CALLS.iter().map(|call| (*call, Vec::new())).collect::<BTreeMap<i64, _>>();
    let missing = SeccompAction::Errno(libc::ENOSYS.unsigned_abs());
    let machine = std::env::consts::ARCH.try_into().context("a filter for this machine")?;
    let filter = SeccompFilter::new(rules, missing, SeccompAction::Allow, machine);
    let program: BpfProgram =
        filter.and_then(TryInto::try_into).context("make the filter of system calls")?;
    match apply_filter_all_threads(&program) {
        Err(seccompiler::Error::Seccomp(error)) if is_missing(&error) => Ok(()),
        other => other.context("filter the system calls"),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{FileTypeExt, MetadataExt, symlink};
    use std::path::Path;
    use std::process::Command;

    use nix::sys::stat::{SFlag, makedev, mknod};
    use nix::sys::wait::{WaitStatus, waitpid};
    use nix::unistd::{ForkResult, fork};

    use super::*;

    /// What a process inside the walls can do, by the bits of its exit status.
    fn tries(folder: fs::File, outside: &Path) -> i32 {
        let folder = to(folder.into()).unwrap();
        // Held by descriptor only: that alone opens nothing more.
        let outside_again = Path::new("..").join("..").join(outside.strip_prefix("/").unwrap());
        only_files_and_memory().unwrap();
        let list = [
            fs::write("/new", "x").is_ok() && fs::metadata("new").is_ok(),
            fs::write(outside, "x").is_ok() || fs::write(outside_again, "x").is_ok(),
            fs::write("/out", "x").is_ok(),
            mknod("/device", SFlag::S_IFCHR, Mode::empty(), makedev(1, 5)).is_ok(),
            fs::File::open("/device").is_ok(),
            Command::new("/bin/true").status().is_ok(),
            std::net::TcpListener::bind("127.0.0.1:0").is_ok(),
            unshare(CloneFlags::CLONE_NEWNS).is_ok(),
            nix::sys::signal::kill(nix::unistd::getppid(), None).is_ok(),
        ];
        drop(folder);
        list.iter().enumerate().map(|(bit, done)| i32::from(*done) << bit).sum()
    }

    /// Runs it in a process of its own, and expects what it returns.
    fn in_a_process(run: impl FnOnce() -> i32, expected: i32) {
        // SAFETY: the child is a copy of this thread alone. It allocates, which glibc provides for after fork,
        // takes no lock that another thread could hold, and ends with _exit.
        let child = match unsafe { fork() }.unwrap() {
            ForkResult::Parent { child } => child,
            ForkResult::Child => {
                let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).unwrap_or(-1);
                // SAFETY: _exit(2) runs nothing of this program.
                unsafe { libc::_exit(if done == expected { 0 } else { 1 }) }
            }
        };
        assert_eq!(waitpid(child, None).unwrap(), WaitStatus::Exited(child, 0));
    }

    #[test]
    fn a_process_that_inflates_has_what_is_open_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let mut file = fs::File::create(&path).unwrap();
        let new = folder.path().join("new");
        let run = || {
            to_what_is_open().unwrap();
            let list = [
                std::io::Write::write_all(&mut file, b"x").is_ok(),
                fs::read(&path).is_ok(),
                fs::write(&new, "x").is_ok(),
                Command::new("/bin/true").status().is_ok(),
                std::net::TcpListener::bind("127.0.0.1:0").is_ok(),
                nix::sys::signal::kill(nix::unistd::getppid(), None).is_ok(),
            ];
            list.iter().enumerate().map(|(bit, done)| i32::from(*done) << bit).sum()
        };
        in_a_process(run, 0b1);
        assert_eq!(fs::read(folder.path().join("file")).unwrap(), b"x");
    }

    #[test]
    fn a_confined_process_writes_to_its_folder_and_does_nothing_else() {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("SKIP: not root");
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let (inside, outside) = (folder.path().join("inside"), folder.path().join("outside"));
        fs::create_dir(&inside).unwrap();
        fs::write(&outside, "").unwrap();
        symlink(&outside, inside.join("out")).unwrap();
        let open = fs::File::open(&inside).unwrap();
        in_a_process(|| tries(open, &outside), 0b1001);
        assert_eq!(fs::read(inside.join("new")).unwrap(), b"x");
        assert_eq!(fs::read(&outside).unwrap(), b"");
        let device = fs::metadata(inside.join("device")).unwrap();
        assert!(device.file_type().is_char_device() && device.rdev() == makedev(1, 5));
    }
}

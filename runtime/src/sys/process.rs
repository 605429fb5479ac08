//! Processes by descriptor: clone3(2), pidfd_open(2), pidfd_send_signal(2), close_range(2), and the
//! few prctl(2) and keyctl(2) calls that `nix` lacks.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::Result;
use nix::errno::Errno;
use nix::unistd::Pid;

const CLONE_PIDFD: u64 = 0x1000;
const CLONE_PARENT: u64 = 0x8000;
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
const CLOSE_RANGE_CLOEXEC: u32 = 4;

/// `struct clone_args`, VER2.
#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// The two returns of clone3(2).
#[derive(Debug)]
pub(crate) enum Fork {
    /// In the new process.
    Child,
    /// In the caller: the child's pid, and a descriptor that cannot be confused by pid reuse.
    Parent(Pid, OwnedFd),
}

/// clone3(2) without shared memory: a fork into new namespaces (`CLONE_NEW*`), on cgroup v2 straight
/// into `cgroup`. `sibling` makes the child a child of our own parent (`CLONE_PARENT`).
///
/// The caller must have one thread only: then the child may go on in ordinary code, since no lock can
/// be held by a thread that the fork left behind.
pub(crate) fn clone3(namespaces: u64, cgroup: Option<BorrowedFd>, sibling: bool) -> Result<Fork> {
    let mut pidfd: RawFd = -1;
    let mut args = CloneArgs {
        flags: namespaces | CLONE_PIDFD,
        pidfd: std::ptr::from_mut(&mut pidfd) as u64,
        exit_signal: libc::SIGCHLD as u64,
        ..CloneArgs::default()
    };
    if let Some(cgroup) = cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = cgroup.as_raw_fd() as u64;
    }
    if sibling {
        args.flags |= CLONE_PARENT;
        args.exit_signal = 0; // the kernel takes ours
    }
    // SAFETY: `args` has the size given and, like `pidfd`, outlives the call; without CLONE_VM the child
    // has its own copy of the stack and needs none of its own.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, std::ptr::from_ref(&args), size_of::<CloneArgs>()) };
    match Errno::result(pid)? {
        0 => Ok(Fork::Child),
        pid => {
            // SAFETY: the kernel has just given us this descriptor, and nobody else owns it.
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
            Ok(Fork::Parent(Pid::from_raw(pid as i32), pidfd))
        }
    }
}

/// `int pidfd_open(pid_t pid, unsigned int flags)`; ESRCH when there is no such process.
pub(crate) fn pidfd_open(pid: Pid) -> Result<OwnedFd> {
    // SAFETY: no pointers.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) };
    // SAFETY: the kernel has just given us this descriptor, and nobody else owns it.
    Errno::result(fd).map(|fd| unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// `int pidfd_getfd(int pidfd, int targetfd, unsigned int flags)`: a copy of another process's descriptor.
/// Asks for the right to ptrace it.
pub(crate) fn pidfd_getfd(pidfd: impl AsFd, number: i32) -> Result<OwnedFd> {
    // SAFETY: no pointers.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_getfd, pidfd.as_fd().as_raw_fd(), number, 0) };
    // SAFETY: the kernel has just given us this descriptor, and nobody else owns it.
    Errno::result(fd).map(|fd| unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// `int pidfd_send_signal(int pidfd, int sig, siginfo_t *info, unsigned int flags)`; any signal
/// number, the real-time ones too, and 0 to ask whether the process lives.
pub(crate) fn pidfd_send_signal(pidfd: impl AsFd, signal: i32) -> Result<()> {
    // SAFETY: a null siginfo is allowed: the kernel then fills it as kill(2) does.
    let sent = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_fd().as_raw_fd(),
            signal,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    };
    Errno::result(sent).map(drop)
}

/// Marks every descriptor from `first` on as close-on-exec: what a caller leaked into us must not
/// reach the container (CVE-2024-21626).
pub(crate) fn cloexec_from(first: u32) -> Result<()> {
    // SAFETY: no pointers.
    let done = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, CLOSE_RANGE_CLOEXEC) };
    match Errno::result(done) {
        Err(Errno::EINVAL | Errno::ENOSYS) => cloexec_by_listing(first), // before Linux 5.11
        other => other.map(drop),
    }
}

fn cloexec_by_listing(first: u32) -> Result<()> {
    let entries = std::fs::read_dir("/proc/self/fd").map_err(|_| Errno::last())?;
    for fd in entries.flatten().filter_map(|e| e.file_name().to_str()?.parse::<i32>().ok()) {
        if fd >= first as i32 {
            // SAFETY: F_SETFD takes no pointer; a descriptor closed meanwhile gives EBADF, which is fine.
            unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) };
        }
    }
    Ok(())
}

/// Lets a descriptor survive the next execve.
pub(crate) fn keep_across_exec(fd: impl AsFd) -> Result<()> {
    // SAFETY: F_SETFD takes no pointer.
    let done = unsafe { libc::fcntl(fd.as_fd().as_raw_fd(), libc::F_SETFD, 0) };
    Errno::result(done).map(drop)
}

/// Makes the descriptor `place` mean what `other` means: `dup3(other, place, O_CLOEXEC)`.
pub(crate) fn replace(place: &OwnedFd, other: OwnedFd) -> Result<()> {
    // SAFETY: `place` stays the owner of its number, which only changes what it refers to.
    let done = unsafe { libc::dup3(other.as_raw_fd(), place.as_raw_fd(), libc::O_CLOEXEC) };
    Errno::result(done).map(drop)
}

/// `signal(number, SIG_DFL)`: also for one that the caller had us ignore.
pub(crate) fn default_signal(number: i32) -> Result<()> {
    // SAFETY: SIG_DFL installs no handler.
    let before = unsafe { libc::signal(number, libc::SIG_DFL) };
    if before == libc::SIG_ERR { Err(Errno::last()) } else { Ok(()) }
}

/// Has a signal end this process with the code that shells give for it, even if it is the first of a pid
/// namespace, unless the caller ignores it. What is executed next has the default action again.
pub(crate) fn exit_on_signal(number: i32) -> Result<()> {
    extern "C" fn end(number: i32) {
        exit_now(128 + number)
    }
    let end = end as extern "C" fn(i32) as libc::sighandler_t;
    // SAFETY: the handler makes one system call and does not return.
    let before = unsafe { libc::signal(number, end) };
    if before == libc::SIG_IGN {
        // SAFETY: SIG_IGN installs no handler.
        unsafe { libc::signal(number, libc::SIG_IGN) };
    }
    if before == libc::SIG_ERR { Err(Errno::last()) } else { Ok(()) }
}

/// `strsignal(number)`: "Killed".
pub(crate) fn describe_signal(number: i32) -> String {
    // SAFETY: any number may be asked for; the answer is never null.
    let text = unsafe { libc::strsignal(number) };
    // SAFETY: NUL-terminated, and ours until the next call, which this thread makes after the copy.
    let text = unsafe { CStr::from_ptr(text) };
    text.to_string_lossy().into_owned()
}

/// Standard input, output or error by its number, 0 to 2.
pub(crate) fn standard_stream(number: i32) -> BorrowedFd<'static> {
    // SAFETY: nothing in this program closes these three; one that the caller has closed gives EBADF.
    unsafe { BorrowedFd::borrow_raw(number) }
}

/// `dup2(fd, number)` for the numbers 0 to 2.
pub(crate) fn replace_standard_stream(number: i32, fd: impl AsFd) -> Result<()> {
    // SAFETY: no memory is touched; the numbers belong to no OwnedFd.
    Errno::result(unsafe { libc::dup2(fd.as_fd().as_raw_fd(), number) }).map(drop)
}

/// In a forked child: closes its copy of what belongs to the parent alone.
pub(crate) fn close_in_child(fd: impl AsFd) {
    // SAFETY: the child never returns to where the owner would be dropped, so it is closed once.
    unsafe { libc::close(fd.as_fd().as_raw_fd()) };
}

/// Has `command`'s child run `instead` in place of its own execve; it comes back only on failure.
pub(crate) fn exec_otherwise(
    command: &mut std::process::Command,
    mut instead: impl FnMut() -> std::io::Error + Send + Sync + 'static,
) {
    use std::os::unix::process::CommandExt;
    // SAFETY: the caller has one thread only, so the forked child may allocate and use any lock.
    unsafe { command.pre_exec(move || Err(instead())) };
}

/// `int execveat(int dirfd, "", argv, envp, AT_EMPTY_PATH)`: runs the file that `program` is open on.
/// Returns only on failure.
pub(crate) fn exec_fd(program: impl AsFd, args: &[CString], env: &[CString]) -> Errno {
    let pointers = |list: &[CString]| -> Vec<*const libc::c_char> {
        list.iter().map(|word| word.as_ptr()).chain([std::ptr::null()]).collect()
    };
    let (argv, envp) = (pointers(args), pointers(env));
    // SAFETY: both vectors end in NULL, and what they point to outlives the call.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            program.as_fd().as_raw_fd(),
            c"".as_ptr(),
            argv.as_ptr(),
            envp.as_ptr(),
            libc::AT_EMPTY_PATH,
        )
    };
    Errno::last()
}

/// Ends this process at once: no destructors, no buffers flushed. For a forked child.
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: _exit(2) has no preconditions.
    unsafe { libc::_exit(code) }
}

/// `prctl(PR_SET_DUMPABLE, 0)`: processes of the container that see us cannot ptrace us or open our
/// `/proc` links (CVE-2016-9962).
pub(crate) fn set_undumpable() -> Result<()> {
    prctl(libc::PR_SET_DUMPABLE, 0)
}

/// Dies with its parent: a runtime killed in the middle of `create` leaves no init behind.
pub(crate) fn set_parent_death_signal(signal: i32) -> Result<()> {
    prctl(libc::PR_SET_PDEATHSIG, signal as libc::c_ulong)
}

/// Undoes [`set_parent_death_signal`].
pub(crate) fn clear_parent_death_signal() -> Result<()> {
    prctl(libc::PR_SET_PDEATHSIG, 0)
}

/// Orphans below this process become its children.
pub(crate) fn set_child_subreaper() -> Result<()> {
    prctl(libc::PR_SET_CHILD_SUBREAPER, 1)
}

fn prctl(option: i32, value: libc::c_ulong) -> Result<()> {
    // SAFETY: the options used here take one number and no pointer.
    Errno::result(unsafe { libc::prctl(option, value, 0, 0, 0) }).map(drop)
}

/// `personality(2)`.
pub(crate) fn personality(domain: u32) -> Result<()> {
    // SAFETY: no pointers.
    Errno::result(unsafe { libc::personality(libc::c_ulong::from(domain)) }).map(drop)
}

/// `keyctl(KEYCTL_JOIN_SESSION_KEYRING, name)`: a session keyring of the container's own.
pub(crate) fn join_session_keyring(name: &CStr) -> Result<i32> {
    const KEYCTL_JOIN_SESSION_KEYRING: i32 = 1;
    // SAFETY: `name` is NUL-terminated and outlives the call.
    let key = unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, name.as_ptr()) };
    Errno::result(key).map(|key| key as i32)
}

/// `keyctl(KEYCTL_SETPERM, key, permissions)`
pub(crate) fn set_key_permissions(key: i32, permissions: u32) -> Result<()> {
    const KEYCTL_SETPERM: i32 = 5;
    // SAFETY: no pointers.
    Errno::result(unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_SETPERM, key, permissions) }).map(drop)
}

/// `prlimit(pid, resource, {soft, hard}, NULL)`.
pub(crate) fn set_limit(pid: Pid, resource: u32, soft: u64, hard: u64) -> Result<()> {
    let limit = libc::rlimit64 { rlim_cur: soft, rlim_max: hard };
    // SAFETY: `limit` outlives the call; the old limit is not asked for. The resource's C type differs
    // between C libraries, which `as _` follows.
    let done = unsafe {
        libc::prlimit64(pid.as_raw(), resource as _, std::ptr::from_ref(&limit), std::ptr::null_mut())
    };
    Errno::result(done).map(drop)
}

/// `setdomainname(2)`.
pub(crate) fn set_domain_name(name: &str) -> Result<()> {
    // SAFETY: the length is given, so no NUL is needed.
    Errno::result(unsafe { libc::setdomainname(name.as_ptr().cast(), name.len()) }).map(drop)
}

/// `ioprio_set(IOPRIO_WHO_PGRP, 0, priority)`.
pub(crate) fn set_io_priority(priority: i32) -> Result<()> {
    const IOPRIO_WHO_PGRP: i32 = 2;
    // SAFETY: no pointers.
    let done = unsafe { libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PGRP, 0, priority) };
    Errno::result(done).map(drop)
}

/// `struct sched_attr` of sched_setattr(2), its first version.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct SchedAttr {
    /// The structure's size in bytes; [`set_scheduler`] fills it.
    pub(crate) size: u32,
    /// `SCHED_*`.
    pub(crate) policy: u32,
    /// `SCHED_FLAG_*`.
    pub(crate) flags: u64,
    /// For the time-sharing policies.
    pub(crate) nice: i32,
    /// For the real-time policies.
    pub(crate) priority: u32,
    /// Nanoseconds, for `SCHED_DEADLINE`.
    pub(crate) runtime: u64,
    /// Nanoseconds, for `SCHED_DEADLINE`.
    pub(crate) deadline: u64,
    /// Nanoseconds, for `SCHED_DEADLINE`.
    pub(crate) period: u64,
}

/// `sched_setattr(0, attr, 0)`.
pub(crate) fn set_scheduler(mut attr: SchedAttr) -> Result<()> {
    attr.size = size_of::<SchedAttr>() as u32;
    // SAFETY: `attr` outlives the call and says its own size.
    let done = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, std::ptr::from_ref(&attr), 0) };
    Errno::result(done).map(drop)
}

/// `sched_setaffinity(0, mask)`: bits beyond the machine's CPUs are ignored, but one of it must be there.
pub(crate) fn set_cpu_affinity(mask: &[usize]) -> Result<()> {
    // SAFETY: `mask` has the size given and outlives the call; the C type's own size is not relied on.
    let done = unsafe { libc::sched_setaffinity(0, size_of_val(mask), mask.as_ptr().cast()) };
    Errno::result(done).map(drop)
}

/// `set_mempolicy(mode, nodemask, maxnode)`
pub(crate) fn set_memory_policy(mode: i32, nodes: &[usize]) -> Result<()> {
    // The kernel looks at one bit less than it is told of.
    let bits = if nodes.is_empty() { 0 } else { size_of_val(nodes) * 8 + 1 };
    let mask = if nodes.is_empty() { std::ptr::null() } else { nodes.as_ptr() };
    // SAFETY: the kernel reads `bits - 1` bits of `mask`, which outlives the call.
    Errno::result(unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, mask, bits) }).map(drop)
}

/// Brings up an interface of the current network namespace: SIOCSIFFLAGS of netdevice(7).
pub(crate) fn bring_up_interface(name: &str) -> Result<()> {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
    let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)
        .or_else(|_| socket(AddressFamily::Inet6, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None))?;
    // SAFETY: ifreq is plain old data, for which all zeroes is a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()).take(libc::IFNAMSIZ - 1) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as i16;
    // SAFETY: SIOCSIFFLAGS reads one ifreq, which outlives the call.
    let done = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &raw const request) };
    Errno::result(done).map(drop)
}

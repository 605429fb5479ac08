//! The system calls of the last steps, without a C library. Each returns what the kernel returns: a
//! value, or a negated errno.

use core::arch::{asm, global_asm};

#[cfg(target_arch = "x86_64")]
global_asm!(".globl _start", "_start:", "xor %ebp, %ebp", "mov %rsp, %rdi", "call begin", options(att_syntax));
#[cfg(target_arch = "aarch64")]
global_asm!(".globl _start", "_start:", "mov x29, #0", "mov x0, sp", "bl begin");

#[cfg(target_arch = "x86_64")]
mod number {
    pub const READ: usize = 0;
    pub const WRITE: usize = 1;
    pub const CLOSE: usize = 3;
    pub const MMAP: usize = 9;
    pub const RT_SIGACTION: usize = 13;
    pub const EXECVE: usize = 59;
    pub const FCNTL: usize = 72;
    pub const GETCWD: usize = 79;
    pub const CHDIR: usize = 80;
    pub const UMASK: usize = 95;
    pub const SETGROUPS: usize = 116;
    pub const SETRESUID: usize = 117;
    pub const SETRESGID: usize = 119;
    pub const CAPSET: usize = 126;
    pub const PRCTL: usize = 157;
    pub const EXIT_GROUP: usize = 231;
    pub const OPENAT: usize = 257;
    pub const FACCESSAT: usize = 269;
    pub const ACCEPT4: usize = 288;
    pub const PRLIMIT64: usize = 302;
    pub const SECCOMP: usize = 317;
    pub const STATX: usize = 332;
}
#[cfg(target_arch = "aarch64")]
mod number {
    pub const GETCWD: usize = 17;
    pub const FCNTL: usize = 25;
    pub const FACCESSAT: usize = 48;
    pub const CHDIR: usize = 49;
    pub const OPENAT: usize = 56;
    pub const CLOSE: usize = 57;
    pub const READ: usize = 63;
    pub const WRITE: usize = 64;
    pub const CAPSET: usize = 91;
    pub const EXIT_GROUP: usize = 94;
    pub const RT_SIGACTION: usize = 134;
    pub const SETRESUID: usize = 147;
    pub const SETRESGID: usize = 149;
    pub const SETGROUPS: usize = 159;
    pub const UMASK: usize = 166;
    pub const PRCTL: usize = 167;
    pub const EXECVE: usize = 221;
    pub const MMAP: usize = 222;
    pub const ACCEPT4: usize = 242;
    pub const PRLIMIT64: usize = 261;
    pub const SECCOMP: usize = 277;
    pub const STATX: usize = 291;
}

#[cfg(target_arch = "x86_64")]
unsafe fn call(n: usize, a: usize, b: usize, c: usize, d: usize, e: usize, f: usize) -> isize {
    let result: isize;
    unsafe {
        asm!("syscall", inlateout("rax") n as isize => result, in("rdi") a, in("rsi") b, in("rdx") c,
             in("r10") d, in("r8") e, in("r9") f, lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    result
}
#[cfg(target_arch = "aarch64")]
unsafe fn call(n: usize, a: usize, b: usize, c: usize, d: usize, e: usize, f: usize) -> isize {
    let result: isize;
    unsafe {
        asm!("svc 0", in("x8") n, inlateout("x0") a as isize => result, in("x1") b, in("x2") c,
             in("x3") d, in("x4") e, in("x5") f, options(nostack));
    }
    result
}

unsafe fn call3(n: usize, a: usize, b: usize, c: usize) -> i32 {
    unsafe { call(n, a, b, c, 0, 0, 0) as i32 }
}

fn prctl(option: usize, a: usize, b: usize) -> i32 {
    unsafe { call(number::PRCTL, option, a, b, 0, 0, 0) as i32 }
}

pub fn exit(code: i32) -> ! {
    loop {
        unsafe { call3(number::EXIT_GROUP, code as usize, 0, 0) };
    }
}

/// Has a signal end this process with the code that shells give for it, unless the caller ignores it. The
/// payload is born with the default action again.
pub fn exit_on(signal: i32) {
    const SA_RESTORER: usize = 0x0400_0000;
    const SIG_IGN: usize = 1;
    const SIZE_OF_MASK: usize = 8;
    extern "C" fn end(signal: i32) {
        exit(128 + signal)
    }
    let end = end as *const () as usize;
    // Handler, flags, where it returns to, mask. x86-64 wants the third, though this one never returns.
    let new = [end, SA_RESTORER, end, 0];
    let mut old = [0_usize; 4];
    unsafe {
        let old_at = old.as_mut_ptr() as usize;
        call(number::RT_SIGACTION, signal as usize, 0, old_at, SIZE_OF_MASK, 0, 0);
        if core::ptr::read_volatile(old.as_ptr()) != SIG_IGN {
            call(number::RT_SIGACTION, signal as usize, new.as_ptr() as usize, 0, SIZE_OF_MASK, 0, 0);
        }
    }
}

pub unsafe fn read(fd: i32, to: *mut u8, length: usize) -> i32 {
    unsafe { call3(number::READ, fd as usize, to as usize, length) }
}

pub unsafe fn write(fd: i32, from: *const u8, length: usize) -> i32 {
    unsafe { call3(number::WRITE, fd as usize, from as usize, length) }
}

pub unsafe fn open_for_writing(dir: i32, path: *const u8) -> i32 {
    const O_WRONLY_CLOEXEC: usize = 0o2_000_001;
    unsafe { call3(number::OPENAT, dir as usize, path as usize, O_WRONLY_CLOEXEC) }
}

/// `prlimit(0, resource, {soft, hard}, NULL)`
pub fn set_limit(limit: &super::plan::Limit) -> i32 {
    let new = &raw const limit.soft as usize;
    unsafe { call(number::PRLIMIT64, 0, limit.resource as usize, new, 0, 0, 0) as i32 }
}

pub fn close(fd: i32) {
    unsafe { call3(number::CLOSE, fd as usize, 0, 0) };
}

pub fn close_on_exec(fd: i32) {
    const F_SETFD: usize = 2;
    unsafe { call3(number::FCNTL, fd as usize, F_SETFD, 1) };
}

/// A private read-only map of the pages that hold `length` bytes from `offset`, which is page-aligned.
pub unsafe fn map_file(fd: i32, offset: usize, length: usize) -> *const u8 {
    const PROT_READ: usize = 1;
    const MAP_PRIVATE: usize = 2;
    let map = unsafe { call(number::MMAP, 0, length, PROT_READ, MAP_PRIVATE, fd as usize, offset) };
    if map < 0 { core::ptr::null() } else { map as *const u8 }
}

pub unsafe fn chdir(path: *const u8) -> i32 {
    unsafe { call3(number::CHDIR, path as usize, 0, 0) }
}

/// getcwd(2) of a folder outside the root starts with `(unreachable)`.
pub fn cwd_is_inside() -> bool {
    let mut path = [0_u8; 4096];
    let length = unsafe { call3(number::GETCWD, path.as_mut_ptr() as usize, path.len(), 0) };
    length > 0 && path[0] == b'/'
}

pub fn umask(mask: u32) {
    unsafe { call3(number::UMASK, mask as usize, 0, 0) };
}

pub unsafe fn set_groups(count: u32, groups: *const u8) -> i32 {
    unsafe { call3(number::SETGROUPS, count as usize, groups as usize, 0) }
}

pub fn set_gid(gid: u32) -> i32 {
    unsafe { call3(number::SETRESGID, gid as usize, gid as usize, gid as usize) }
}

pub fn set_uid(uid: u32) -> i32 {
    unsafe { call3(number::SETRESUID, uid as usize, uid as usize, uid as usize) }
}

pub fn set_undumpable() {
    const PR_SET_DUMPABLE: usize = 4;
    prctl(PR_SET_DUMPABLE, 0, 0);
}

pub fn keep_capabilities() {
    const PR_SET_KEEPCAPS: usize = 8;
    prctl(PR_SET_KEEPCAPS, 1, 0);
}

pub fn clear_parent_death_signal() {
    const PR_SET_PDEATHSIG: usize = 1;
    prctl(PR_SET_PDEATHSIG, 0, 0);
}

pub fn set_no_new_privileges() -> i32 {
    const PR_SET_NO_NEW_PRIVS: usize = 38;
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0)
}

pub fn drop_bounding(capability: u32) -> i32 {
    const PR_CAPBSET_DROP: usize = 24;
    prctl(PR_CAPBSET_DROP, capability as usize, 0)
}

pub fn raise_ambient(capability: u32) -> i32 {
    const PR_CAP_AMBIENT: usize = 47;
    const PR_CAP_AMBIENT_RAISE: usize = 2;
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, capability as usize)
}

/// capset(2) of version 3: each set in two words.
pub fn set_capabilities(effective: u64, permitted: u64, inheritable: u64) -> i32 {
    const VERSION_3: u32 = 0x2008_0522;
    let header = [VERSION_3, 0];
    let sets = [
        effective as u32,
        permitted as u32,
        inheritable as u32,
        (effective >> 32) as u32,
        (permitted >> 32) as u32,
        (inheritable >> 32) as u32,
    ];
    unsafe { call3(number::CAPSET, header.as_ptr() as usize, sets.as_ptr() as usize, 0) }
}

/// 0 when `path` is a file that we may execute; a folder is -EISDIR.
pub unsafe fn may_execute(path: *const u8) -> i32 {
    const AT_FDCWD: isize = -100;
    const X_OK: usize = 1;
    const STATX_TYPE: usize = 1;
    const MODE_OFFSET: usize = 28; // stx_mode in struct statx
    let mut stat = [0_u64; 32];
    let found = unsafe {
        call(number::STATX, AT_FDCWD as usize, path as usize, 0, STATX_TYPE, stat.as_mut_ptr() as usize, 0)
    } as i32;
    if found < 0 {
        return found;
    }
    let mode = unsafe { *stat.as_ptr().cast::<u8>().add(MODE_OFFSET).cast::<u16>() };
    if mode & 0o170_000 == 0o040_000 {
        return -21;
    }
    // With the capabilities that execve will look at; kernels before 5.8 only know what the real user may.
    const FACCESSAT2: usize = 439; // on every architecture
    const AT_EACCESS: usize = 0x200;
    const ENOSYS: i32 = 38;
    let may =
        unsafe { call(FACCESSAT2, AT_FDCWD as usize, path as usize, X_OK, AT_EACCESS, 0, 0) } as i32;
    if may != -ENOSYS {
        return may;
    }
    unsafe { call3(number::FACCESSAT, AT_FDCWD as usize, path as usize, X_OK) }
}

pub fn accept(socket: i32) -> i32 {
    const SOCK_CLOEXEC: usize = 0o2_000_000;
    unsafe { call(number::ACCEPT4, socket as usize, 0, 0, SOCK_CLOEXEC, 0, 0) as i32 }
}

/// `seccomp(SECCOMP_SET_MODE_FILTER, flags, {length, program})`
pub unsafe fn set_filter(flags: u32, length: u16, program: *const u8) -> i32 {
    const SECCOMP_SET_MODE_FILTER: usize = 1;
    #[repr(C)]
    struct Program {
        length: u16,
        filter: *const u8,
    }
    let program = Program { length, filter: program };
    unsafe { call3(number::SECCOMP, SECCOMP_SET_MODE_FILTER, flags as usize, &raw const program as usize) }
}

pub unsafe fn execve(path: *const u8, argv: *const *const u8, envp: *const *const u8) -> i32 {
    unsafe { call3(number::EXECVE, path as usize, argv as usize, envp as usize) }
}

pub unsafe fn length_of(text: *const u8) -> usize {
    unsafe { strlen(text) }
}

// The compiler may turn a loop or a struct copy into a call of these.
#[unsafe(no_mangle)]
unsafe extern "C" fn memset(to: *mut u8, byte: i32, length: usize) -> *mut u8 {
    for i in 0..length {
        unsafe { to.add(i).write_volatile(byte as u8) };
    }
    to
}

#[unsafe(no_mangle)]
unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, length: usize) -> *mut u8 {
    for i in 0..length {
        unsafe { to.add(i).write_volatile(from.add(i).read()) };
    }
    to
}

#[unsafe(no_mangle)]
unsafe extern "C" fn strlen(text: *const u8) -> usize {
    let mut length = 0;
    while unsafe { text.add(length).read_volatile() } != 0 {
        length += 1;
    }
    length
}

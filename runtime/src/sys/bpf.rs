//! bpf(2), for the one kind of program that a runtime needs: those that decide on a cgroup's devices.
//!
//! [bpf(2)](https://man7.org/linux/man-pages/man2/bpf.2.html), linux/bpf.h,
//! [cgroup-v2: device controller](https://docs.kernel.org/admin-guide/cgroup-v2.html#device-controller)

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::Result;
use nix::errno::Errno;

const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_PROG_ATTACH: libc::c_long = 8;
const BPF_PROG_DETACH: libc::c_long = 9;
const BPF_PROG_GET_FD_BY_ID: libc::c_long = 13;
const BPF_PROG_QUERY: libc::c_long = 16;

const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const BPF_CGROUP_DEVICE: u32 = 6;

/// Programs of ancestors and of the same cgroup are kept: every one has to allow.
const BPF_F_ALLOW_MULTI: u32 = 1 << 1;
/// The new program takes the place of an older one, with no moment without either (Linux 5.6).
const BPF_F_REPLACE: u32 = 1 << 2;

/// The most programs that a cgroup can have: `BPF_CGROUP_MAX_PROGS` in linux/bpf-cgroup.h.
const MAX_PROGRAMS: usize = 64;

/// `struct bpf_insn`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Instruction {
    /// What to do.
    pub(crate) code: u8,
    registers: u8,
    /// How far to jump, or where to load from.
    pub(crate) offset: i16,
    /// The operand, if it is not a register.
    pub(crate) immediate: i32,
}

impl Instruction {
    /// An instruction; the two registers share a byte, in the order of the host's bit fields.
    pub(crate) const fn new(code: u8, destination: u8, source: u8, offset: i16, immediate: i32) -> Self {
        let registers = if cfg!(target_endian = "little") {
            source << 4 | destination
        } else {
            destination << 4 | source
        };
        Self { code, registers, offset, immediate }
    }

    /// The destination and the source register.
    #[cfg(test)]
    pub(crate) fn registers(self) -> (usize, usize) {
        let (low, high) = (usize::from(self.registers & 0x0f), usize::from(self.registers >> 4));
        if cfg!(target_endian = "little") { (low, high) } else { (high, low) }
    }
}

/// The part of `union bpf_attr` for `BPF_PROG_LOAD`.
#[repr(C)]
struct Load {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
}

/// The part for `BPF_PROG_ATTACH` and `BPF_PROG_DETACH`.
#[repr(C)]
struct Attach {
    target: u32,
    program: u32,
    kind: u32,
    flags: u32,
    replaced: u32,
}

/// The part for `BPF_PROG_QUERY`.
#[repr(C)]
struct Query {
    target: u32,
    kind: u32,
    query_flags: u32,
    attach_flags: u32,
    ids: u64,
    count: u32,
    reserved: u32,
}

/// The part for `BPF_PROG_GET_FD_BY_ID`.
#[repr(C)]
struct ById {
    id: u32,
    next: u32,
    flags: u32,
}

/// `int bpf(int cmd, union bpf_attr *attr, unsigned int size)`; only called with the structure of the
/// command, from this file.
fn bpf<T>(command: libc::c_long, attributes: &mut T) -> Result<i32> {
    let pointer = std::ptr::from_mut(attributes);
    // SAFETY: the kernel reads and writes no more than the size given, takes what a shorter structure
    // lacks as zero, and keeps no pointer to it. What it points to is checked by the callers below.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, pointer, size_of::<T>()) };
    Errno::result(result).map(|value| value as i32)
}

/// A new descriptor that bpf(2) has returned.
fn owned(descriptor: i32) -> OwnedFd {
    // SAFETY: the kernel has just made it for us, close-on-exec, and nobody else knows it.
    unsafe { OwnedFd::from_raw_fd(descriptor) }
}

/// Loads a program that decides on access to devices.
pub(crate) fn load_device_program(instructions: &[Instruction]) -> Result<OwnedFd> {
    let mut attributes = Load {
        kind: BPF_PROG_TYPE_CGROUP_DEVICE,
        count: instructions.len() as u32,
        // The kernel copies both before it returns.
        instructions: instructions.as_ptr() as u64,
        license: c"Apache-2.0".as_ptr() as u64,
    };
    bpf(BPF_PROG_LOAD, &mut attributes).map(owned)
}

/// Attaches a program to a cgroup of version 2, after those that are attached already or instead of one.
pub(crate) fn attach_device_program(
    cgroup: BorrowedFd,
    program: BorrowedFd,
    replaced: Option<BorrowedFd>,
) -> Result<()> {
    let mut attributes = Attach {
        target: cgroup.as_raw_fd() as u32,
        program: program.as_raw_fd() as u32,
        kind: BPF_CGROUP_DEVICE,
        flags: BPF_F_ALLOW_MULTI | if replaced.is_some() { BPF_F_REPLACE } else { 0 },
        replaced: replaced.map_or(0, |replaced| replaced.as_raw_fd() as u32),
    };
    bpf(BPF_PROG_ATTACH, &mut attributes).map(drop)
}

/// Takes a program off a cgroup.
pub(crate) fn detach_device_program(cgroup: BorrowedFd, program: BorrowedFd) -> Result<()> {
    let mut attributes = Attach {
        target: cgroup.as_raw_fd() as u32,
        program: program.as_raw_fd() as u32,
        kind: BPF_CGROUP_DEVICE,
        flags: 0,
        replaced: 0,
    };
    bpf(BPF_PROG_DETACH, &mut attributes).map(drop)
}

/// The programs that are attached to a cgroup itself, not to its ancestors.
pub(crate) fn device_programs(cgroup: BorrowedFd) -> Result<Vec<OwnedFd>> {
    let mut ids = [0_u32; MAX_PROGRAMS];
    let mut attributes = Query {
        target: cgroup.as_raw_fd() as u32,
        kind: BPF_CGROUP_DEVICE,
        query_flags: 0,
        attach_flags: 0,
        // As long as the array: the kernel writes at most `count` numbers.
        ids: ids.as_mut_ptr() as u64,
        count: ids.len() as u32,
        reserved: 0,
    };
    bpf(BPF_PROG_QUERY, &mut attributes)?;
    let attached = ids.iter().take(attributes.count as usize);
    attached.map(|&id| bpf(BPF_PROG_GET_FD_BY_ID, &mut ById { id, next: 0, flags: 0 }).map(owned)).collect()
}

/// Puts a program in the place of all that are attached to the cgroup.
pub(crate) fn replace_device_programs(cgroup: impl AsFd, program: impl AsFd) -> Result<()> {
    let (cgroup, program) = (cgroup.as_fd(), program.as_fd());
    let older = device_programs(cgroup)?;
    match older.as_slice() {
        [only] => attach_device_program(cgroup, program, Some(only.as_fd())),
        _ => {
            // First the new one: for a moment both have to allow, never neither.
            attach_device_program(cgroup, program, None)?;
            older.iter().try_for_each(|older| detach_device_program(cgroup, older.as_fd()))
        }
    }
}

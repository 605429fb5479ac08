//! The architectures of libseccomp: their audit tokens, and the numbers of their system calls.
//!
//! [seccomp(2)](https://man7.org/linux/man-pages/man2/seccomp.2.html), linux/audit.h,
//! [syscalls(2)](https://man7.org/linux/man-pages/man2/syscalls.2.html)

use oci_spec::runtime::Arch;

use super::syscall_table::{Column, SYSCALLS};

/// An ABI for system calls.
#[derive(Debug)]
pub(super) struct Architecture {
    /// Its name in the configuration.
    name: Arch,
    /// `seccomp_data.arch` of its calls: `AUDIT_ARCH_*`.
    pub(super) audit: u32,
    /// Where its numbers stand in the table.
    pub(super) column: Column,
    /// Arguments have 64 bits. With 32, libseccomp compares the low word only, and so do we.
    pub(super) wide: bool,
    /// The high word of an argument stands first in `seccomp_data`.
    pub(super) big_endian: bool,
    /// The numbers of `socketcall` and `ipc`, which carry the socket and System V calls.
    pub(super) multiplexers: Option<(u32, u32)>,
}

/// The bit that tells the numbers of x32 from those of x86_64: both have one audit token.
pub(super) const X32_BIT: u32 = 0x4000_0000;

/// `SCMP_ARCH_NATIVE`.
#[cfg(target_arch = "x86_64")]
const NATIVE: Arch = Arch::ScmpArchX86_64;
#[cfg(target_arch = "x86")]
const NATIVE: Arch = Arch::ScmpArchX86;
#[cfg(target_arch = "aarch64")]
const NATIVE: Arch = Arch::ScmpArchAarch64;
#[cfg(target_arch = "arm")]
const NATIVE: Arch = Arch::ScmpArchArm;
#[cfg(target_arch = "riscv64")]
const NATIVE: Arch = Arch::ScmpArchRiscv64;
#[cfg(target_arch = "s390x")]
const NATIVE: Arch = Arch::ScmpArchS390x;
#[cfg(target_arch = "loongarch64")]
const NATIVE: Arch = Arch::ScmpArchLoongarch64;
#[cfg(all(target_arch = "powerpc64", target_endian = "little"))]
const NATIVE: Arch = Arch::ScmpArchPpc64le;
#[cfg(all(target_arch = "powerpc64", target_endian = "big"))]
const NATIVE: Arch = Arch::ScmpArchPpc64;

impl Architecture {
    /// The architecture of the configuration's name.
    pub(super) fn of(name: Arch) -> &'static Self {
        let name = if name == Arch::ScmpArchNative { NATIVE } else { name };
        let position = ARCHITECTURES.iter().position(|architecture| architecture.name == name);
        &ARCHITECTURES[position.expect("every name that the specification lists has its row")]
    }

    /// The architecture that this binary runs on.
    pub(super) fn native() -> &'static Self {
        Self::of(NATIVE)
    }

    /// Whether its numbers carry [`X32_BIT`].
    pub(super) fn is_x32(&self) -> bool {
        self.name == Arch::ScmpArchX32
    }

    /// Whether 0 stands for every call with a large number, also for those that the kernel lacks.
    pub(super) fn zero_is_unknown(&self) -> bool {
        matches!(self.name, Arch::ScmpArchS390 | Arch::ScmpArchS390x)
    }
}

/// One system call in all architectures.
#[derive(Debug, Clone, Copy)]
pub(super) struct Syscall {
    /// Its name.
    pub(super) name: &'static str,
    numbers: &'static [i32; Column::COUNT],
    multiplexed: Option<Multiplexed>,
}

/// The way of a call through `socketcall` or `ipc`: the first argument says which call it is.
#[derive(Debug, Clone, Copy)]
pub(super) enum Multiplexed {
    /// `SYS_*` of linux/net.h.
    Socket(u32),
    /// The numbers of linux/ipc.h.
    Ipc(u32),
}

/// Looks names up, fastest in alphabetical order: that is how profiles list them.
#[derive(Debug, Default)]
pub(super) struct Names {
    /// The row behind the last one found.
    next: usize,
}

impl Names {
    /// The call of a name.
    pub(super) fn find(&mut self, name: &str) -> Option<Syscall> {
        let near = SYSCALLS[self.next..].iter().take(4).position(|(known, _)| *known == name);
        let row = match near {
            Some(offset) => self.next + offset,
            None => SYSCALLS.binary_search_by_key(&name, |(known, _)| known).ok()?,
        };
        self.next = row + 1;
        let (name, numbers) = &SYSCALLS[row];
        let multiplexed = MULTIPLEXED.binary_search_by_key(name, |(known, _)| known).ok();
        Some(Syscall { name, numbers, multiplexed: multiplexed.map(|position| MULTIPLEXED[position].1) })
    }
}

impl Syscall {
    /// Its own number.
    pub(super) fn number(&self, architecture: &Architecture) -> Option<u32> {
        u32::try_from(self.numbers[architecture.column as usize]).ok()
    }

    /// The number of the call that carries it, and the value of the first argument that selects it.
    pub(super) fn multiplexed(&self, architecture: &Architecture) -> Option<(u32, u32)> {
        let (socketcall, ipc) = architecture.multiplexers?;
        Some(match self.multiplexed? {
            Multiplexed::Socket(selector) => (socketcall, selector),
            Multiplexed::Ipc(selector) => (ipc, selector),
        })
    }
}

/// Every name that has a row.
pub(super) fn names() -> impl Iterator<Item = Arch> {
    ARCHITECTURES.iter().map(|architecture| architecture.name)
}

/// One row an architecture; `None` in the last column: sockets and System V IPC have their own numbers.
#[rustfmt::skip]
static ARCHITECTURES: [Architecture; 23] = {
    const LITTLE: bool = false;
    const BIG: bool = true;
    const fn row(name: Arch, audit: u32, column: Column, bits: u8, big_endian: bool, multiplexers: Option<(u32, u32)>) -> Architecture {
        Architecture { name, audit, column, wide: bits == 64, big_endian, multiplexers }
    }
    const MUX: Option<(u32, u32)> = Some((102, 117));
    const MUX_O32: Option<(u32, u32)> = Some((4102, 4117));
    [
        row(Arch::ScmpArchX86_64,      0xc000_003e, Column::X86_64,      64, LITTLE, None),
        row(Arch::ScmpArchX86,         0x4000_0003, Column::X86,         32, LITTLE, MUX),
        row(Arch::ScmpArchX32,         0xc000_003e, Column::X32,         32, LITTLE, None),
        row(Arch::ScmpArchAarch64,     0xc000_00b7, Column::Aarch64,     64, LITTLE, None),
        row(Arch::ScmpArchArm,         0x4000_0028, Column::Arm,         32, LITTLE, None),
        row(Arch::ScmpArchLoongarch64, 0xc000_0102, Column::Loongarch64, 64, LITTLE, None),
        row(Arch::ScmpArchM68k,        0x0000_0004, Column::M68k,        32, BIG,    MUX),
        row(Arch::ScmpArchMips,        0x0000_0008, Column::Mips,        32, BIG,    MUX_O32),
        row(Arch::ScmpArchMipsel,      0x4000_0008, Column::Mips,        32, LITTLE, MUX_O32),
        row(Arch::ScmpArchMips64,      0x8000_0008, Column::Mips64,      64, BIG,    None),
        row(Arch::ScmpArchMipsel64,    0xc000_0008, Column::Mips64,      64, LITTLE, None),
        row(Arch::ScmpArchMips64n32,   0xa000_0008, Column::Mips64n32,   32, BIG,    None),
        row(Arch::ScmpArchMipsel64n32, 0xe000_0008, Column::Mips64n32,   32, LITTLE, None),
        row(Arch::ScmpArchParisc,      0x0000_000f, Column::Parisc,      32, BIG,    None),
        row(Arch::ScmpArchParisc64,    0x8000_000f, Column::Parisc64,    64, BIG,    None),
        row(Arch::ScmpArchPpc,         0x0000_0014, Column::Ppc,         32, BIG,    MUX),
        row(Arch::ScmpArchPpc64,       0x8000_0015, Column::Ppc64,       64, BIG,    MUX),
        row(Arch::ScmpArchPpc64le,     0xc000_0015, Column::Ppc64,       64, LITTLE, MUX),
        row(Arch::ScmpArchRiscv64,     0xc000_00f3, Column::Riscv64,     64, LITTLE, None),
        row(Arch::ScmpArchS390,        0x0000_0016, Column::S390,        32, BIG,    MUX),
        row(Arch::ScmpArchS390x,       0x8000_0016, Column::S390x,       64, BIG,    MUX),
        row(Arch::ScmpArchSh,          0x4000_002a, Column::Sh,          32, LITTLE, MUX),
        row(Arch::ScmpArchSheb,        0x0000_002a, Column::Sh,          32, BIG,    MUX),
    ]
};

/// The calls that `socketcall` (linux/net.h) and `ipc` (linux/ipc.h) carry, by name.
#[rustfmt::skip]
static MULTIPLEXED: [(&str, Multiplexed); 32] = [
    ("accept",      Multiplexed::Socket(5)),
    ("accept4",     Multiplexed::Socket(18)),
    ("bind",        Multiplexed::Socket(2)),
    ("connect",     Multiplexed::Socket(3)),
    ("getpeername", Multiplexed::Socket(7)),
    ("getsockname", Multiplexed::Socket(6)),
    ("getsockopt",  Multiplexed::Socket(15)),
    ("listen",      Multiplexed::Socket(4)),
    ("msgctl",      Multiplexed::Ipc(14)),
    ("msgget",      Multiplexed::Ipc(13)),
    ("msgrcv",      Multiplexed::Ipc(12)),
    ("msgsnd",      Multiplexed::Ipc(11)),
    ("recv",        Multiplexed::Socket(10)),
    ("recvfrom",    Multiplexed::Socket(12)),
    ("recvmmsg",    Multiplexed::Socket(19)),
    ("recvmsg",     Multiplexed::Socket(17)),
    ("semctl",      Multiplexed::Ipc(3)),
    ("semget",      Multiplexed::Ipc(2)),
    ("semop",       Multiplexed::Ipc(1)),
    ("semtimedop",  Multiplexed::Ipc(4)),
    ("send",        Multiplexed::Socket(9)),
    ("sendmmsg",    Multiplexed::Socket(20)),
    ("sendmsg",     Multiplexed::Socket(16)),
    ("sendto",      Multiplexed::Socket(11)),
    ("setsockopt",  Multiplexed::Socket(14)),
    ("shmat",       Multiplexed::Ipc(21)),
    ("shmctl",      Multiplexed::Ipc(24)),
    ("shmdt",       Multiplexed::Ipc(22)),
    ("shmget",      Multiplexed::Ipc(23)),
    ("shutdown",    Multiplexed::Socket(13)),
    ("socket",      Multiplexed::Socket(1)),
    ("socketpair",  Multiplexed::Socket(8)),
];

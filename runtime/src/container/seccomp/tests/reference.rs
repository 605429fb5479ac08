//! The same profile compiled by libseccomp, used the way runc uses it.

use std::collections::HashMap;
use std::io::{Read as _, Seek as _};
use std::sync::OnceLock;

use libc::sock_filter;
use libseccomp::{ScmpAction, ScmpArch, ScmpArgCompare, ScmpCompareOp, ScmpFilterContext, ScmpSyscall};
use nix::sys::memfd::{MFdFlags, memfd_create};
use oci_spec::runtime::{Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompOperator};

use super::interpreter::{self, Data};

/// The architectures that every libseccomp from 2.5 on knows, and whether they are big-endian.
pub(super) const ARCHITECTURES: [(Arch, u32, bool); 18] = [
    (Arch::ScmpArchX86_64, 0xc000_003e, false),
    (Arch::ScmpArchX86, 0x4000_0003, false),
    (Arch::ScmpArchX32, 0xc000_003e, false),
    (Arch::ScmpArchAarch64, 0xc000_00b7, false),
    (Arch::ScmpArchArm, 0x4000_0028, false),
    (Arch::ScmpArchMipsel, 0x4000_0008, false),
    (Arch::ScmpArchMipsel64, 0xc000_0008, false),
    (Arch::ScmpArchMipsel64n32, 0xe000_0008, false),
    (Arch::ScmpArchPpc64le, 0xc000_0015, false),
    (Arch::ScmpArchRiscv64, 0xc000_00f3, false),
    (Arch::ScmpArchMips, 0x0000_0008, true),
    (Arch::ScmpArchMips64, 0x8000_0008, true),
    (Arch::ScmpArchMips64n32, 0xa000_0008, true),
    (Arch::ScmpArchParisc, 0x0000_000f, true),
    (Arch::ScmpArchPpc, 0x0000_0014, true),
    (Arch::ScmpArchPpc64, 0x8000_0015, true),
    (Arch::ScmpArchS390, 0x0000_0016, true),
    (Arch::ScmpArchS390x, 0x8000_0016, true),
];

/// libseccomp's filter, with runc's comparisons for unknown calls beside it.
pub(super) struct Reference {
    pub(super) program: Vec<sock_filter>,
    big_endian: bool,
    /// The highest named number of each architecture; none when the profile allows by default.
    highest: Vec<(Arch, u32)>,
}

/// libseccomp's name of an architecture.
pub(super) fn scmp_arch(arch: Arch) -> ScmpArch {
    arch.to_string().parse().unwrap()
}

/// The numbers that libseccomp has for an architecture, by name.
pub(super) fn numbers(arch: Arch) -> &'static HashMap<String, u32> {
    static NUMBERS: OnceLock<HashMap<u32, HashMap<String, u32>>> = OnceLock::new();
    let all = NUMBERS.get_or_init(|| {
        ARCHITECTURES
            .iter()
            .map(|(arch, ..)| (*arch as u32, super::table::numbers_of(scmp_arch(*arch))))
            .collect()
    });
    &all[&(arch as u32)]
}

impl Reference {
    /// Compiles the listed architectures with one byte order, as libseccomp cannot mix them. `None` when
    /// libseccomp refuses, which it does for rules that contradict each other.
    pub(super) fn compile(profile: &LinuxSeccomp, big_endian: bool, optimize: u32) -> Option<Self> {
        let default = action(profile.default_action(), profile.default_errno_ret());
        let mut filter = ScmpFilterContext::new(default).unwrap();
        let listed = profile.architectures().clone().unwrap_or_default();
        let architectures: Vec<Arch> = listed
            .into_iter()
            .filter(|arch| ARCHITECTURES.iter().any(|known| known.0 == *arch && known.2 == big_endian))
            .collect();
        if architectures.is_empty() {
            let kill = sock_filter { code: 0x06, jt: 0, jf: 0, k: libc::SECCOMP_RET_KILL_THREAD };
            return Some(Self { program: vec![kill], big_endian, highest: vec![] });
        }
        filter.remove_arch(ScmpArch::Native).unwrap();
        for arch in &architectures {
            filter.add_arch(scmp_arch(*arch)).unwrap();
        }
        filter.set_ctl_optimize(optimize).unwrap();
        let mut highest = vec![];
        for entry in profile.syscalls().iter().flatten() {
            for name in entry.names() {
                for arch in &architectures {
                    highest.push((*arch, named(*arch, name)));
                }
                let Ok(number) = ScmpSyscall::from_name(name) else { continue };
                let rule_action = action(entry.action(), entry.errno_ret());
                if rule_action == default {
                    continue;
                }
                let arguments = entry.args().clone().unwrap_or_default();
                let conditions: Vec<ScmpArgCompare> = arguments.iter().map(condition).collect();
                let twice =
                    (0..6).any(|index| arguments.iter().filter(|each| each.index() == index).count() > 1);
                let added = if twice {
                    conditions.iter().try_for_each(|each| {
                        filter.add_rule_conditional(rule_action, number, &[*each]).map(drop)
                    })
                } else {
                    filter.add_rule_conditional(rule_action, number, &conditions).map(drop)
                };
                added.ok()?;
            }
        }
        let allows = matches!(default, ScmpAction::Allow | ScmpAction::Log | ScmpAction::Trace(_));
        if allows {
            highest.clear();
        }
        Some(Self { program: export(&filter, big_endian), big_endian, highest })
    }

    /// The verdict on a call.
    pub(super) fn run(&self, data: &Data) -> u32 {
        const ENOSYS: u32 = libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32;
        for (arch, audit, _) in ARCHITECTURES.iter().filter(|arch| arch.1 == data.arch) {
            let highest =
                self.highest.iter().filter(|each| each.0 == *arch).map(|each| each.1).max().unwrap_or(0);
            let x32 = data.number & 1 << 30 != 0;
            let other_abi = *audit == 0xc000_003e && x32 != (*arch == Arch::ScmpArchX32);
            if highest == 0 || other_abi {
                continue;
            }
            let multiplexed = matches!(arch, Arch::ScmpArchS390 | Arch::ScmpArchS390x) && data.number == 0;
            if data.number > highest || multiplexed {
                return ENOSYS;
            }
        }
        interpreter::run(&self.program, data, self.big_endian).0
    }
}

/// The highest number that a name stands for; 0 if none.
fn named(arch: Arch, name: &str) -> u32 {
    let direct = numbers(arch).get(name).copied();
    let carried = ScmpSyscall::from_name_by_arch_rewrite(name, scmp_arch(arch)).ok();
    let carried = carried.and_then(|number| u32::try_from(number.as_raw_syscall()).ok());
    direct.max(carried).unwrap_or(0)
}

fn action(action: LinuxSeccompAction, errno: Option<u32>) -> ScmpAction {
    let data = errno.unwrap_or(1);
    match action {
        LinuxSeccompAction::ScmpActKill | LinuxSeccompAction::ScmpActKillThread => ScmpAction::KillThread,
        LinuxSeccompAction::ScmpActKillProcess => ScmpAction::KillProcess,
        LinuxSeccompAction::ScmpActTrap => ScmpAction::Trap,
        LinuxSeccompAction::ScmpActErrno => ScmpAction::Errno(data as i32),
        LinuxSeccompAction::ScmpActNotify => ScmpAction::Notify,
        LinuxSeccompAction::ScmpActTrace => ScmpAction::Trace(data as u16),
        LinuxSeccompAction::ScmpActLog => ScmpAction::Log,
        LinuxSeccompAction::ScmpActAllow => ScmpAction::Allow,
    }
}

fn condition(argument: &LinuxSeccompArg) -> ScmpArgCompare {
    let (operator, value) = match argument.op() {
        LinuxSeccompOperator::ScmpCmpNe => (ScmpCompareOp::NotEqual, argument.value()),
        LinuxSeccompOperator::ScmpCmpLt => (ScmpCompareOp::Less, argument.value()),
        LinuxSeccompOperator::ScmpCmpLe => (ScmpCompareOp::LessOrEqual, argument.value()),
        LinuxSeccompOperator::ScmpCmpEq => (ScmpCompareOp::Equal, argument.value()),
        LinuxSeccompOperator::ScmpCmpGe => (ScmpCompareOp::GreaterEqual, argument.value()),
        LinuxSeccompOperator::ScmpCmpGt => (ScmpCompareOp::Greater, argument.value()),
        LinuxSeccompOperator::ScmpCmpMaskedEq => {
            (ScmpCompareOp::MaskedEqual(argument.value()), argument.value_two().unwrap_or(0))
        }
    };
    ScmpArgCompare::new(argument.index() as u32, operator, value)
}

fn export(filter: &ScmpFilterContext, big_endian: bool) -> Vec<sock_filter> {
    let mut file = std::fs::File::from(memfd_create("filter", MFdFlags::MFD_CLOEXEC).unwrap());
    filter.export_bpf(&file).unwrap();
    file.rewind().unwrap();
    let mut bytes = vec![];
    file.read_to_end(&mut bytes).unwrap();
    let instructions = bytes.chunks_exact(8).map(|bytes| {
        let code = u16::from_le_bytes([bytes[0], bytes[1]]);
        let k = u32::from_le_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]);
        let (code, k) = if big_endian { (code.swap_bytes(), k.swap_bytes()) } else { (code, k) };
        // A `ret` that libseccomp repeats to keep jumps short is swapped once too often.
        let action = matches!(k & 0xffff_0000, 0x8000_0000 | 0x0003_0000 | 0x0005_0000 | 0x7ff0_0000..);
        let k = if big_endian && code == 0x06 && k != 0 && !action { k.swap_bytes() } else { k };
        sock_filter { code, jt: bytes[2], jf: bytes[3], k }
    });
    instructions.collect()
}

//! Both filters in the kernel: what threads get that have loaded the one and the other. A filter binds the
//! thread that loads it and no other.
#![cfg(target_arch = "x86_64")]
#![expect(unsafe_code, reason = "calls by number in three ABIs are in no library")]

use std::arch::asm;

use libc::sock_filter;
use nix::errno::Errno;
use oci_spec::runtime::Arch;
use serde_json::json;

use super::interpreter::{self, Data};
use super::reference::{self, Reference};
use super::{Random, load, plan, profile};

/// A call of x86_64 or, with its bit, of x32: what the kernel returns.
fn call_64(number: u32, [a, b, c, ..]: [u64; 6]) -> i64 {
    let result: i64;
    // SAFETY: the kernel keeps all registers but these; the calls tried here touch no memory of ours.
    unsafe {
        asm!("syscall", inlateout("rax") u64::from(number) => result, in("rdi") a, in("rsi") b, in("rdx") c,
             lateout("rcx") _, lateout("r11") _);
    }
    result
}

/// A call of i386, which a process of 64 bits can make as well where the kernel [has them](has_i386).
fn call_32(number: u32, [a, b, c, ..]: [u64; 6]) -> i64 {
    let result: u64;
    // SAFETY: as above; rbx, which the compiler keeps for itself, gets its value back.
    unsafe {
        asm!("xchg rbx, {a}", "int 0x80", "xchg rbx, {a}", a = inout(reg) a => _,
             inlateout("rax") u64::from(number) => result, in("rcx") b, in("rdx") c, in("rsi") 0, in("rdi") 0,
             lateout("r8") _, lateout("r9") _, lateout("r10") _, lateout("r11") _);
    }
    i64::from(result as u32 as i32)
}

/// False for a kernel built without, and for User-mode Linux, which takes the number for one of its own.
fn has_i386() -> bool {
    const GETPID: u32 = 20; // writev for x86_64
    call_32(GETPID, [0; 6]) == i64::from(std::process::id())
}

/// Calls that change nothing and touch no memory, whatever their arguments; with socketcall and ipc, whose
/// arguments are no memory of ours either.
const HARMLESS: [&str; 8] = [
    "getpriority",
    "getpgid",
    "getsid",
    "sched_getscheduler",
    "sched_get_priority_max",
    "ioprio_get",
    "listen",
    "semop",
];

#[test]
fn attached_filters_decide_alike_and_as_the_interpreter_says() {
    // Numbers that no call returns: what comes from a rule can be told from what comes from the kernel.
    const MARKS: std::ops::Range<u32> = 1000..1040;
    const VALUES: [u64; 7] = [0, 1, 5, 0x1_0000_0001, 0x7fff_0000, 0x7fff_0000_0005, u64::MAX];
    let architectures = [Arch::ScmpArchX86_64, Arch::ScmpArchX86, Arch::ScmpArchX32];
    let mut random = Random(0x1234_5678_9abc_def1);
    let (mut marked, mut through) = (0, 0);
    let has_i386 = has_i386();
    for _ in 0..12 {
        let entries = MARKS.map(|mark| {
            let op = |random: &mut Random| format!("SCMP_CMP_{}", random.pick(&["EQ", "MASKED_EQ"]));
            let arguments = (0..1 + random.below(2)).map(|_| {
                let (index, op) = (random.below(3), op(&mut random));
                json!({"index": index, "op": op, "value": random.pick(&VALUES), "valueTwo": random.pick(&VALUES)})
            });
            let arguments: Vec<_> = arguments.collect();
            let name = random.pick(&HARMLESS);
            json!({"names": [name], "action": "SCMP_ACT_ERRNO", "errnoRet": mark, "args": arguments})
        });
        // One rule a call: what several mean is not libseccomp's strength, see the tests above.
        let mut entries: Vec<_> = entries.collect();
        entries.sort_by_key(|entry| entry["names"][0].to_string());
        entries.dedup_by_key(|entry| entry["names"][0].to_string());
        let profile = profile(json!({
            "defaultAction": "SCMP_ACT_ALLOW", "architectures": architectures, "flags": [], "syscalls": entries,
        }));
        let ours = plan(&profile).unwrap().program;
        let theirs = Reference::compile(&profile, false, 2).unwrap().program;

        let mut calls = vec![];
        let tried = |arch: &Arch| architectures.contains(arch) && (has_i386 || *arch != Arch::ScmpArchX86);
        for (arch, audit, _) in reference::ARCHITECTURES.iter().filter(|each| tried(&each.0)) {
            for name in HARMLESS.iter().chain(&["socketcall", "ipc"]) {
                let Some(number) = reference::numbers(*arch).get(*name) else { continue };
                for _ in 0..20 {
                    let mut arguments = [0; 6];
                    arguments[..3].fill_with(|| random.pick(&VALUES));
                    if ["socketcall", "ipc"].contains(name) {
                        arguments[0] = random.pick(&[1, 4]) // socket or listen, semop or semtimedop;
                    }
                    if *arch == Arch::ScmpArchX86 {
                        arguments = arguments.map(|value| value & 0xffff_ffff);
                    }
                    calls.push((*arch, Data { number: *number, arch: *audit, arguments }));
                }
            }
        }
        let outcomes = |program: &[sock_filter]| -> nix::Result<Vec<i64>> {
            std::thread::scope(|scope| {
                let thread = scope.spawn(|| {
                    let mut outcomes = Vec::with_capacity(calls.len());
                    load(program, 0)?;
                    outcomes.extend(calls.iter().map(|(arch, data)| match arch {
                        Arch::ScmpArchX86 => call_32(data.number, data.arguments),
                        _ => call_64(data.number, data.arguments),
                    }));
                    Ok(outcomes)
                });
                thread.join().unwrap()
            })
        };
        let outcomes = match (outcomes(&ours), outcomes(&theirs)) {
            (Err(Errno::EACCES), _) => return println!("SKIP: neither no_new_privs nor CAP_SYS_ADMIN"),
            (ours, theirs) => [ours.unwrap(), theirs.unwrap()],
        };
        for (at, (arch, data)) in calls.iter().enumerate() {
            let (verdict, _) = interpreter::run(&ours, data, false);
            let mark = verdict & libc::SECCOMP_RET_DATA;
            let outcomes = [outcomes[0][at], outcomes[1][at]];
            if verdict == libc::SECCOMP_RET_ALLOW {
                through += 1;
                let from_a_rule =
                    |outcome: &i64| MARKS.contains(&(outcome.unsigned_abs() as u32)) && *outcome < 0;
                assert!(!outcomes.iter().any(from_a_rule), "{arch} {data:x?}: {outcomes:?}");
            } else {
                marked += 1;
                assert_eq!(outcomes, [-i64::from(mark); 2], "{arch} {data:x?}");
            }
        }
    }
    assert!(marked > 500 && through > 500, "{marked} {through}");
}

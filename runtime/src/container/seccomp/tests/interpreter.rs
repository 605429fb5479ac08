//! Runs a filter as the kernel would: the check of `bpf_check_classic` and `seccomp_check_filter`, then
//! the instructions one by one.

use libc::{BPF_JEQ, BPF_JGE, BPF_JGT, BPF_JSET, sock_filter};

/// `struct seccomp_data`, without the instruction pointer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Data {
    pub(super) number: u32,
    pub(super) arch: u32,
    pub(super) arguments: [u64; 6],
}

/// The value that a filter returns, and how many instructions that took.
pub(super) fn run(program: &[sock_filter], data: &Data, big_endian: bool) -> (u32, usize) {
    let (mut accumulator, mut at, mut steps) = (0_u32, 0, 0);
    loop {
        let instruction = program[at];
        at += 1;
        steps += 1;
        let k = instruction.k;
        let mut jump = |holds: bool| at += usize::from(if holds { instruction.jt } else { instruction.jf });
        match u32::from(instruction.code) {
            0x20 => accumulator = word(data, k, big_endian), // ld [k]
            0x54 => accumulator &= k,                        // and #k
            0x05 => at += k as usize,                        // ja
            code if code == 0x05 | BPF_JEQ => jump(accumulator == k),
            code if code == 0x05 | BPF_JGT => jump(accumulator > k),
            code if code == 0x05 | BPF_JGE => jump(accumulator >= k),
            code if code == 0x05 | BPF_JSET => jump(accumulator & k != 0),
            0x06 => return (k, steps), // ret #k
            code => panic!("unknown instruction {code:#x}"),
        }
    }
}

fn word(data: &Data, offset: u32, big_endian: bool) -> u32 {
    match offset {
        0 => data.number,
        4 => data.arch,
        16..64 => {
            let value = data.arguments[(offset as usize - 16) / 8];
            if offset % 8 == if big_endian { 4 } else { 0 } { value as u32 } else { (value >> 32) as u32 }
        }
        _ => panic!("nothing to load at {offset}"),
    }
}

/// Asserts what the kernel checks before it takes a filter.
pub(super) fn check(program: &[sock_filter]) {
    assert!(!program.is_empty() && program.len() <= crate::container::seccomp::MAX_INSTRUCTIONS);
    for (at, instruction) in program.iter().enumerate() {
        let furthest = match instruction.code & 0x07 {
            0x05 if instruction.code & 0xf0 == 0 => instruction.k as usize,
            0x05 => usize::from(instruction.jt.max(instruction.jf)),
            _ => 0,
        };
        assert!(
            at + 1 + furthest < program.len() || instruction.code == 0x06,
            "{at}: {instruction:?} leaves the program"
        );
    }
    assert_eq!(program.last().map(|last| last.code), Some(0x06), "a program ends with ret");
}

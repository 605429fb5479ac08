//! Writes classic BPF: a binary search over system call numbers, comparisons of arguments.
//!
//! [Documentation/networking/filter](https://docs.kernel.org/networking/filter.html),
//! [Documentation/userspace-api/seccomp_filter](https://docs.kernel.org/userspace-api/seccomp_filter.html)
//!
//! Jumps go forward only, and conditional ones by at most 255 instructions. So the program is written from
//! its end: every target is known when the jump to it is written, and a target out of reach gets a long
//! jump in between. Only instructions that the kernel's own interpreter for its bitmap of always-allowed
//! calls understands are used on the way to a verdict that no argument decides (Linux 5.11,
//! `seccomp_is_const_allow`).

use libc::{
    BPF_ABS, BPF_ALU, BPF_AND, BPF_JA, BPF_JEQ, BPF_JGE, BPF_JGT, BPF_JMP, BPF_K, BPF_LD, BPF_RET, BPF_W,
    sock_filter,
};

use super::rules::{Comparison, Node, Operator, Outcome, Ranges, Verdict};

/// Offsets in `struct seccomp_data`.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const ARGUMENTS: u32 = 16;

/// How far a conditional jump goes.
const REACH: usize = 255;

/// Where an instruction stands, counted from the end of the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Label(usize);

/// A program in the making.
#[derive(Debug, Default)]
pub(super) struct Assembler {
    /// Last instruction first.
    reversed: Vec<sock_filter>,
    /// The nearest `ret` of each value.
    returns: Vec<(u32, Label)>,
}

impl Assembler {
    /// The program, in order; `entry` is where it has to begin.
    pub(super) fn finish(mut self, entry: Label) -> Vec<sock_filter> {
        self.load(ARCH, entry);
        self.reversed.reverse();
        self.reversed
    }

    /// Returns `value`.
    pub(super) fn ret(&mut self, value: u32) -> Label {
        let known = self.returns.iter().position(|(known, _)| *known == value);
        // Some way off the limit, so that the jump to come still reaches it.
        let near = |label: Label| self.reversed.len() - label.0 < REACH - 8;
        match known {
            Some(position) if near(self.returns[position].1) => self.returns[position].1,
            Some(position) => {
                let label = self.push(BPF_RET | BPF_K, 0, 0, value);
                self.returns[position].1 = label;
                label
            }
            None => {
                let label = self.push(BPF_RET | BPF_K, 0, 0, value);
                self.returns.push((value, label));
                label
            }
        }
    }

    /// Decides on the calls of one architecture; those of another go on to `otherwise`. The accumulator
    /// holds the architecture.
    pub(super) fn architecture(&mut self, audit: u32, ranges: &Ranges, otherwise: Label) -> Label {
        let mut arguments = vec![];
        let search = self.search(&ranges.starts, ranges, &mut arguments);
        let body = self.load(NUMBER, search);
        self.branch(BPF_JEQ, audit, body, otherwise)
    }

    /// Finds the range of the number in the accumulator. Argument blocks that are written already, for
    /// another number, stand in `arguments`.
    fn search<'a>(
        &mut self,
        starts: &'a [(u32, Verdict)],
        ranges: &Ranges,
        arguments: &mut Vec<(&'a [Node], Label)>,
    ) -> Label {
        match starts {
            [(_, verdict)] => self.verdict(verdict, ranges, arguments),
            // One number among others: equality takes one instruction where two bounds take two.
            [(_, before), (number, within), (next, after)] if before == after && *next == number + 1 => {
                let others = self.verdict(after, ranges, arguments);
                let within = self.verdict(within, ranges, arguments);
                self.branch(BPF_JEQ, *number, within, others)
            }
            _ => {
                let (lower, upper) = starts.split_at(starts.len() / 2);
                let at_least = self.search(upper, ranges, arguments);
                let below = self.search(lower, ranges, arguments);
                self.branch(BPF_JGE, upper[0].0, at_least, below)
            }
        }
    }

    fn verdict<'a>(
        &mut self,
        verdict: &'a Verdict,
        ranges: &Ranges,
        arguments: &mut Vec<(&'a [Node], Label)>,
    ) -> Label {
        let nodes = match verdict {
            Verdict::Return(value) => return self.ret(*value),
            Verdict::Arguments(nodes) => nodes.as_slice(),
        };
        if let Some((_, label)) = arguments.iter().find(|(known, _)| *known == nodes) {
            return *label;
        }
        let otherwise = self.ret(ranges.default);
        let label = self.nodes(nodes, otherwise, ranges.big_endian);
        arguments.push((nodes, label));
        label
    }

    /// Tries siblings in their order.
    fn nodes(&mut self, nodes: &[Node], otherwise: Label, big_endian: bool) -> Label {
        nodes.iter().rev().fold(otherwise, |next, node| {
            let holds = match &node.outcome {
                Outcome::Return(value) => self.ret(*value),
                Outcome::Compare(children) => self.nodes(children, next, big_endian),
            };
            self.comparison(&node.comparison, big_endian, holds, next)
        })
    }

    /// Compares 64 bits as two words, since the accumulator has 32.
    fn comparison(&mut self, comparison: &Comparison, big_endian: bool, holds: Label, fails: Label) -> Label {
        let Comparison { argument, operator, value, mask, wide } = *comparison;
        let first = ARGUMENTS + 8 * u32::from(argument);
        let (high, low) = if big_endian { (first, first + 4) } else { (first + 4, first) };
        // Half of the operators are the other half with the outcomes swapped.
        let (holds, fails) = match operator {
            Operator::NotEqual | Operator::Less | Operator::LessOrEqual => (fails, holds),
            _ => (holds, fails),
        };
        let (jump, ordered) = match operator {
            Operator::Equal | Operator::NotEqual | Operator::MaskedEqual => (BPF_JEQ, false),
            Operator::Greater | Operator::LessOrEqual => (BPF_JGT, true),
            Operator::GreaterOrEqual | Operator::Less => (BPF_JGE, true),
        };
        let low_word = |value: u64| value as u32;
        let high_word = |value: u64| (value >> 32) as u32;

        let mut entry = holds;
        if low_word(mask) != 0 {
            entry = self.word(jump, low, low_word(mask), low_word(value), holds, fails);
        }
        if !wide || high_word(mask) == 0 {
            return entry;
        }
        if ordered {
            entry = self.branch(BPF_JEQ, high_word(value), entry, fails);
            entry = self.branch(BPF_JGT, high_word(value), holds, entry);
            return self.load(high, entry);
        }
        self.word(BPF_JEQ, high, high_word(mask), high_word(value), entry, fails)
    }

    /// Loads a word and compares the bits of a mask.
    fn word(&mut self, jump: u32, offset: u32, mask: u32, value: u32, holds: Label, fails: Label) -> Label {
        let mut entry = self.branch(jump, value, holds, fails);
        if mask != u32::MAX {
            self.before(entry);
            entry = self.push(BPF_ALU | BPF_AND | BPF_K, 0, 0, mask);
        }
        self.load(offset, entry)
    }

    /// Loads a word of `seccomp_data` and goes on to `next`.
    fn load(&mut self, offset: u32, next: Label) -> Label {
        self.before(next);
        self.push(BPF_LD | BPF_W | BPF_ABS, 0, 0, offset)
    }

    /// A conditional jump.
    fn branch(&mut self, condition: u32, value: u32, holds: Label, fails: Label) -> Label {
        if holds == fails {
            return holds;
        }
        // Two more instructions may come between a target and the jump: the long jumps themselves.
        let holds = self.within_reach(holds, 2);
        let fails = self.within_reach(fails, 1);
        let distance = |target: Label| (self.reversed.len() - target.0 - 1) as u8;
        self.push(BPF_JMP | condition | BPF_K, distance(holds), distance(fails), value)
    }

    /// A stand-in for a target that would be too far away.
    fn within_reach(&mut self, target: Label, more: usize) -> Label {
        if self.reversed.len() + more - target.0 - 1 <= REACH {
            return target;
        }
        let instruction = self.reversed[target.0];
        if u32::from(instruction.code) == BPF_RET | BPF_K {
            return self.ret(instruction.k);
        }
        self.jump(target)
    }

    /// A jump of any length.
    fn jump(&mut self, target: Label) -> Label {
        let distance = self.reversed.len() - target.0 - 1;
        self.push(BPF_JMP | BPF_JA, 0, 0, distance as u32)
    }

    /// Makes sure that the next instruction written runs into `next`.
    fn before(&mut self, next: Label) -> Label {
        if next.0 + 1 == self.reversed.len() { next } else { self.jump(next) }
    }

    fn push(&mut self, code: u32, jt: u8, jf: u8, k: u32) -> Label {
        self.reversed.push(sock_filter { code: code as u16, jt, jf, k });
        Label(self.reversed.len() - 1)
    }
}

//! `linux.resources.devices`: which devices a container may make, read and write.
//!
//! [config-linux.md#device-allowed-list](https://github.com/opencontainers/runtime-spec/blob/main/config-linux.md#allowed-device-list),
//! [cgroup v1: devices](https://docs.kernel.org/admin-guide/cgroup-v1/devices.html),
//! [cgroup v2: device controller](https://docs.kernel.org/admin-guide/cgroup-v2.html#device-controller)
//!
//! ```text
//! listed rules ── plan ──> default + exceptions ──┬── v1_lines ──> devices.allow, devices.deny
//! default set  ──┘                                └── program  ──> eBPF, attached to the cgroup
//! ```
//!
//! The last rule that matches an access decides. Version 1 cannot say that of a single device within an
//! allowed range ("everything but"), so a rule that takes back a part of an earlier one is refused, on both
//! versions: the same configuration shall mean the same everywhere, or fail.

use std::os::fd::AsFd;

use anyhow::{Context as _, Result, bail, ensure};
use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType};

use crate::log;
use crate::sys::bpf::{self, Instruction};

/// What the rules come to.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct DeviceRules {
    /// The answer for devices without an exception.
    allow: bool,
    /// The access for which the answer is the other one: as listed, then the default set.
    exceptions: Vec<(Devices, u8)>,
}

/// A device, or all with a major or minor number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Devices {
    kind: Kind,
    major: Option<u32>,
    minor: Option<u32>,
}

/// The kinds of device nodes, with `BPF_DEVCG_DEV_*` as their values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Block = 1,
    Character = 2,
}

/// A line for a file of the version 1 controller.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Line {
    /// For `devices.allow`, else for `devices.deny`.
    pub(crate) allow: bool,
    /// The line.
    pub(crate) text: String,
}

/// Access to a device: `BPF_DEVCG_ACC_*`, in the order in which they are written.
const ACCESS: [(char, u8); 3] = [('r', 2), ('w', 4), ('m', 1)];
const READ_WRITE_MAKE: u8 = 7;
const MAKE: u8 = 1;

/// What every container may use: it may make any node, but open only those that the specification puts
/// into every container, and terminals. (runc adds these after all rules, where nothing can take them back,
/// and /dev/net/tun, 10:200.)
const DEFAULTS: [(Kind, Option<u32>, Option<u32>, u8); 11] = [
    (Kind::Character, None, None, MAKE),
    (Kind::Block, None, None, MAKE),
    (Kind::Character, Some(1), Some(3), READ_WRITE_MAKE), // null
    (Kind::Character, Some(1), Some(5), READ_WRITE_MAKE), // zero
    (Kind::Character, Some(1), Some(7), READ_WRITE_MAKE), // full
    (Kind::Character, Some(1), Some(8), READ_WRITE_MAKE), // random
    (Kind::Character, Some(1), Some(9), READ_WRITE_MAKE), // urandom
    (Kind::Character, Some(5), Some(0), READ_WRITE_MAKE), // tty
    (Kind::Character, Some(5), Some(1), READ_WRITE_MAKE), // console
    (Kind::Character, Some(5), Some(2), READ_WRITE_MAKE), // ptmx
    (Kind::Character, Some(136), None, READ_WRITE_MAKE),  // pts/*
];

/// Checks the rules; without any, a container gets the default devices and no others.
pub(crate) fn plan(listed: &[LinuxDeviceCgroup]) -> Result<DeviceRules> {
    let at = |position: usize| format!("linux.resources.devices[{position}]");
    let parsed = listed
        .iter()
        .enumerate()
        .map(|(position, rule)| Rule::parse(rule).with_context(|| at(position)))
        .collect::<Result<Vec<Rule>>>()?;
    // A rule for everything undoes all before it, the default set too. So that set comes right after
    // the last one, and rules behind that can take single devices of the set back.
    let reset = parsed.iter().rposition(Rule::is_everything);
    let mut rules =
        DeviceRules { allow: reset.is_some_and(|position| parsed[position].allow), ..Default::default() };
    if !rules.allow {
        for (kind, major, minor, access) in DEFAULTS {
            rules.exceptions.push((Devices { kind, major, minor }, access));
        }
    }
    for (position, rule) in parsed.iter().enumerate().skip(reset.map_or(0, |reset| reset + 1)) {
        for &kind in rule.kinds {
            let devices = Devices { kind, major: rule.major, minor: rule.minor };
            rules.apply(rule.allow, devices, rule.access).with_context(|| at(position))?;
        }
    }
    // Who reads devices.list finds the listed ones first and in their order; the order decides nothing.
    let is_default = |devices: &Devices| {
        DEFAULTS.iter().any(|(kind, major, minor, _)| {
            (devices.kind, devices.major, devices.minor) == (*kind, *major, *minor)
        })
    };
    rules.exceptions.sort_by_key(|(devices, _)| is_default(devices));
    Ok(rules)
}

/// A checked rule.
struct Rule {
    allow: bool,
    kinds: &'static [Kind],
    major: Option<u32>,
    minor: Option<u32>,
    access: u8,
}

impl Rule {
    fn parse(rule: &LinuxDeviceCgroup) -> Result<Self> {
        // What is not given is not restricted.
        let kinds: &[Kind] = match rule.typ().unwrap_or_default() {
            LinuxDeviceType::A => &[Kind::Block, Kind::Character],
            LinuxDeviceType::B => &[Kind::Block],
            LinuxDeviceType::C => &[Kind::Character],
            other => bail!("type {:?} is not one of a, b and c", other.as_str()),
        };
        // Engines write "*" as -1.
        let number = |name: &str, value: Option<i64>| match value {
            None | Some(-1) => Ok(None),
            Some(value) => u32::try_from(value).map(Some).with_context(|| format!("{name} {value}")),
        };
        let mut access = 0;
        for letter in rule.access().as_deref().unwrap_or("rwm").chars() {
            match ACCESS.iter().find(|(known, _)| *known == letter) {
                Some((_, bit)) => access |= bit,
                // Ignored by every other runtime, so that there are configurations with such letters.
                None => {
                    log::warn(&format!("linux.resources.devices: ignoring access {letter:?}: not r, w or m"))
                }
            }
        }
        ensure!(access != 0, "access is empty");
        let (major, minor) = (number("major", rule.major())?, number("minor", rule.minor())?);
        Ok(Self { allow: rule.allow(), kinds, major, minor, access })
    }

    fn is_everything(&self) -> bool {
        self.kinds.len() == 2
            && self.major.is_none()
            && self.minor.is_none()
            && self.access == READ_WRITE_MAKE
    }
}

impl DeviceRules {
    /// Applies one more rule.
    fn apply(&mut self, allow: bool, devices: Devices, access: u8) -> Result<()> {
        if allow != self.allow {
            match self.exceptions.iter_mut().find(|(there, _)| *there == devices) {
                Some((_, excepted)) => *excepted |= access,
                None => self.exceptions.push((devices, access)),
            }
            return Ok(());
        }
        // Back to the default: of all exceptions within the rule, and impossible for a part of one. That
        // a node of all kinds may be made stays so for the parts: what counts is that it cannot be opened,
        // and docker denies 10:229 "rwm".
        let tolerated = if allow { 0 } else { MAKE };
        for (exception, excepted) in &mut self.exceptions {
            if devices.cover(exception) {
                *excepted &= !access;
            } else if devices.overlap(exception) && *excepted & access & !tolerated != 0 {
                let verb = if self.allow { "denied" } else { "allowed" };
                bail!(
                    "{devices} {} is a part of {exception} {}, which is {verb} already: cgroups cannot make \
                     exceptions from exceptions",
                    letters(access),
                    letters(*excepted)
                );
            }
        }
        self.exceptions.retain(|(_, access)| *access != 0);
        Ok(())
    }

    /// The lines for version 1, to be written in this order.
    pub(crate) fn v1_lines(&self) -> Vec<Line> {
        let everything = Line { allow: self.allow, text: "a".to_owned() };
        let exceptions = self.exceptions.iter().map(|(devices, access)| Line {
            allow: !self.allow,
            text: format!("{devices} {}", letters(*access)),
        });
        std::iter::once(everything).chain(exceptions).collect()
    }

    /// The program for version 2.
    ///
    /// ```text
    /// r2 = kind, r3 = access asked for, r4 = major, r5 = minor
    /// for every exception, if kind and numbers match:
    ///     by default deny:  r3 &= ~access; if r3 == 0, allow
    ///     by default allow: if r3 & access, deny
    /// ```
    pub(crate) fn program(&self) -> Vec<Instruction> {
        let mut program = vec![
            instruction::load(R3, 0),
            instruction::copy(R2, R3),
            instruction::and(R2, 0xffff),
            instruction::shift_right(R3, 16),
            instruction::load(R4, 4),
            instruction::load(R5, 8),
        ];
        for (devices, access) in &self.exceptions {
            let mut tests = vec![(R2, devices.kind as u32)];
            tests.extend(devices.major.map(|major| (R4, major)));
            tests.extend(devices.minor.map(|minor| (R5, minor)));
            let mut body = match (self.allow, i32::from(*access)) {
                (false, 7) => vec![],
                (false, access) => {
                    vec![instruction::and(R3, !access), instruction::jump_unless_equal(R3, 0, 2)]
                }
                (true, access) => vec![
                    instruction::copy(R0, R3),
                    instruction::and(R0, access),
                    instruction::jump_if_equal(R0, 0, 2),
                ],
            };
            body.extend([instruction::set(R0, i32::from(!self.allow)), instruction::EXIT]);
            let count = tests.len();
            for (index, (register, value)) in tests.into_iter().enumerate() {
                let skipped = (count - index - 1 + body.len()) as i16;
                program.push(instruction::jump_unless_equal(register, value, skipped));
            }
            program.extend(body);
        }
        program.extend([instruction::set(R0, i32::from(self.allow)), instruction::EXIT]);
        program
    }

    /// Loads the program and attaches it to a cgroup of version 2, instead of an older one.
    pub(crate) fn attach(&self, cgroup: impl AsFd) -> Result<()> {
        let program = bpf::load_device_program(&self.program()).context("load the program (bpf)")?;
        bpf::replace_device_programs(cgroup, program).context("attach the program (bpf)")
    }
}

impl Devices {
    /// Whether all of the others are among these.
    fn cover(&self, others: &Self) -> bool {
        let covers = |this: Option<u32>, other| this.is_none() || this == other;
        self.kind == others.kind && covers(self.major, others.major) && covers(self.minor, others.minor)
    }

    /// Whether some are among both.
    fn overlap(&self, others: &Self) -> bool {
        let meets =
            |this: Option<u32>, other: Option<u32>| this.is_none() || other.is_none() || this == other;
        self.kind == others.kind && meets(self.major, others.major) && meets(self.minor, others.minor)
    }
}

/// As in `devices.list`.
impl std::fmt::Display for Devices {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = match self.kind {
            Kind::Block => 'b',
            Kind::Character => 'c',
        };
        let number = |number: Option<u32>| number.map_or("*".to_owned(), |number| number.to_string());
        write!(out, "{kind} {}:{}", number(self.major), number(self.minor))
    }
}

/// The letters of an access.
fn letters(access: u8) -> String {
    ACCESS.iter().filter(|(_, bit)| access & bit != 0).map(|(letter, _)| letter).collect()
}

const R0: u8 = 0;
const R1: u8 = 1;
const R2: u8 = 2;
const R3: u8 = 3;
const R4: u8 = 4;
const R5: u8 = 5;

/// The few instructions that the program needs; all compare 32 bits (Linux 5.1), since major numbers
/// are unsigned.
mod instruction {
    use super::{Instruction, R1};

    pub(super) const EXIT: Instruction = Instruction::new(0x95, 0, 0, 0, 0);

    /// A word of `struct bpf_cgroup_dev_ctx`, to which register 1 points.
    pub(super) fn load(register: u8, offset: i16) -> Instruction {
        Instruction::new(0x61, register, R1, offset, 0)
    }

    pub(super) fn copy(register: u8, from: u8) -> Instruction {
        Instruction::new(0xbc, register, from, 0, 0)
    }

    pub(super) fn set(register: u8, value: i32) -> Instruction {
        Instruction::new(0xb4, register, 0, 0, value)
    }

    pub(super) fn and(register: u8, value: i32) -> Instruction {
        Instruction::new(0x54, register, 0, 0, value)
    }

    pub(super) fn shift_right(register: u8, bits: i32) -> Instruction {
        Instruction::new(0x74, register, 0, 0, bits)
    }

    pub(super) fn jump_if_equal(register: u8, value: u32, offset: i16) -> Instruction {
        Instruction::new(0x16, register, 0, offset, value as i32)
    }

    pub(super) fn jump_unless_equal(register: u8, value: u32, offset: i16) -> Instruction {
        Instruction::new(0x56, register, 0, offset, value as i32)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;
    use std::process::Command;

    use serde_json::{Value, json};

    use super::*;

    fn rules(rules: Value) -> Result<DeviceRules> {
        plan(&serde_json::from_value::<Vec<LinuxDeviceCgroup>>(rules).unwrap())
    }

    fn lines(listed: Value) -> Vec<String> {
        let lines = rules(listed).unwrap().v1_lines();
        lines.iter().map(|line| format!("{} {}", if line.allow { "+" } else { "-" }, line.text)).collect()
    }

    /// Runs the program on one access, as the kernel does.
    fn allows(rules: &DeviceRules, kind: Kind, major: u32, minor: u32, access: u8) -> bool {
        let context = [u32::from(access) << 16 | kind as u32, major, minor];
        let program = rules.program();
        let (mut registers, mut at) = ([0_u32; 10], 0_usize);
        loop {
            let instruction = program[at];
            let (to, from) = instruction.registers();
            let immediate = instruction.immediate as u32;
            at += 1;
            match instruction.code {
                0x61 => registers[to] = context[instruction.offset as usize / 4],
                0xbc => registers[to] = registers[from],
                0xb4 => registers[to] = immediate,
                0x54 => registers[to] &= immediate,
                0x74 => registers[to] >>= immediate,
                0x16 if registers[to] == immediate => at += instruction.offset as usize,
                0x56 if registers[to] != immediate => at += instruction.offset as usize,
                0x16 | 0x56 => {}
                0x95 => return registers[0] == 1,
                code => panic!("{code:#x}"),
            }
        }
    }

    const DENY_ALL: &str = r#"{"allow": false, "access": "rwm"}"#;

    fn deny_all() -> Value {
        serde_json::from_str(DENY_ALL).unwrap()
    }

    #[test]
    fn without_rules_there_are_the_default_devices() {
        let expected = [
            "- a",
            "+ c *:* m",
            "+ b *:* m",
            "+ c 1:3 rwm",
            "+ c 1:5 rwm",
            "+ c 1:7 rwm",
            "+ c 1:8 rwm",
            "+ c 1:9 rwm",
            "+ c 5:0 rwm",
            "+ c 5:1 rwm",
            "+ c 5:2 rwm",
            "+ c 136:* rwm",
        ];
        assert_eq!(lines(json!([])), expected);
        assert_eq!(lines(json!([deny_all()])), expected);
        assert_eq!(lines(json!([{"allow": false}])), expected);
    }

    #[test]
    fn default_devices_can_be_taken_back() {
        let lines =
            lines(json!([deny_all(), {"allow": false, "type": "c", "major": 1, "minor": 7, "access": "w"},
            {"allow": false, "type": "c", "major": 136, "access": "rwm"}]));
        assert!(lines.contains(&"+ c 1:7 rm".to_owned()), "{lines:?}");
        assert!(!lines.iter().any(|line| line.contains("136")), "{lines:?}");
    }

    #[test]
    fn everything_allowed_but_one() {
        let listed = json!([deny_all(), {"allow": true, "access": "rwm"},
            {"allow": false, "type": "b", "major": 8, "access": "w"}]);
        assert_eq!(lines(listed.clone()), ["+ a", "- b 8:* w"]);
        let rules = rules(listed).unwrap();
        assert!(allows(&rules, Kind::Character, 8, 0, 7));
        assert!(allows(&rules, Kind::Block, 8, 0, 2));
        // Opening for both is refused as well, as in version 1.
        assert!(!allows(&rules, Kind::Block, 8, 1, 6));
        assert!(allows(&rules, Kind::Block, 9, 1, 6));
    }

    #[test]
    fn the_program_answers_like_the_rules() {
        let rules = rules(json!([deny_all(),
            {"allow": true, "type": "c", "major": 10, "minor": 200, "access": "rw"},
            {"allow": true, "type": "b", "major": 4_294_967_295u32, "access": "r"},
            {"allow": true, "type": "a", "minor": 42, "access": "r"},
        ]))
        .unwrap();
        let cases = [
            ((Kind::Character, 1, 3, 6), true),
            ((Kind::Character, 1, 4, 2), false),
            ((Kind::Character, 1, 4, MAKE), true),
            ((Kind::Block, 1, 3, 2), false),
            ((Kind::Block, 8, 0, MAKE), true),
            ((Kind::Character, 136, 77, 6), true),
            ((Kind::Character, 10, 200, 6), true),
            // The bits may come from several rules.
            ((Kind::Character, 10, 200, 7), true),
            ((Kind::Character, 10, 201, 2), false),
            ((Kind::Block, u32::MAX, 5, 2), true),
            ((Kind::Block, u32::MAX, 5, 4), false),
            ((Kind::Block, 7, 42, 2), true),
            ((Kind::Character, 7, 42, 2), true),
            ((Kind::Character, 7, 42, 4), false),
        ];
        for ((kind, major, minor, access), expected) in cases {
            let answer = allows(&rules, kind, major, minor, access);
            assert_eq!(answer, expected, "{kind:?} {major}:{minor} {}", letters(access));
        }
    }

    #[test]
    fn the_last_rule_wins() {
        let listed = json!([deny_all(), {"allow": true, "type": "c", "major": 10, "minor": 200, "access": "rw"},
            {"allow": false, "type": "c", "major": 10, "access": "w"}]);
        assert!(lines(listed).contains(&"+ c 10:200 r".to_owned()));
        // "a" with a number is not everything, whatever version 1 would make of such a line.
        let listed = json!([deny_all(), {"allow": true, "major": 10, "access": "r"}]);
        assert_eq!(lines(listed)[..3], ["- a", "+ b 10:* r", "+ c 10:* r"]);
    }

    #[test]
    fn refusals_name_the_rule() {
        let refused = |rule: Value| format!("{:#}", rules(json!([deny_all(), rule])).unwrap_err());
        let cases = [
            (json!({"allow": true, "access": "x"}), "access is empty"),
            (json!({"allow": true, "access": ""}), "access is empty"),
            (json!({"allow": true, "type": "p", "access": "r"}), "type \"p\" is not one of a, b and c"),
            (
                json!({"allow": true, "major": -2, "access": "r"}),
                "major -2: out of range integral type conversion attempted",
            ),
            (
                json!({"allow": false, "type": "c", "major": 136, "minor": 3, "access": "rw"}),
                "c 136:3 rw is a part of c 136:* rwm, which is allowed already: cgroups cannot make exceptions \
                 from exceptions",
            ),
        ];
        for (rule, expected) in cases {
            assert_eq!(refused(rule), format!("linux.resources.devices[1]: {expected}"));
        }
    }

    /// A cgroup below `root`, removed at the end.
    struct Cgroup(PathBuf);

    impl Cgroup {
        /// None, with the reason printed, where it cannot be made.
        fn new(root: &str) -> Option<Self> {
            let path = PathBuf::from(root).join(format!("runtime-devices-test-{}", std::process::id()));
            match fs::metadata(format!("{root}/cgroup.procs")).and_then(|_| fs::create_dir(&path)) {
                Ok(()) => Some(Self(path)),
                Err(error) => {
                    println!("SKIP: no cgroup in {root}: {error}");
                    None
                }
            }
        }

        /// What a shell in the cgroup prints.
        fn run(&self, script: &str) -> String {
            let join = format!("echo 0 > {}/cgroup.procs || exit; {script}", self.0.display());
            let output = Command::new("sh").arg("-c").arg(join).output().unwrap();
            format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
        }
    }

    impl Drop for Cgroup {
        fn drop(&mut self) {
            fs::remove_dir(&self.0).unwrap();
        }
    }

    /// /dev/full can be read and /dev/zero cannot.
    const PROBE: &str =
        "for name in full zero; do head -c 1 < /dev/$name > /dev/null && echo $name; done 2> /dev/null";

    fn without(minor: u32) -> DeviceRules {
        rules(json!([deny_all(), {"allow": false, "type": "c", "major": 1, "minor": minor, "access": "rwm"}]))
            .unwrap()
    }

    #[test]
    fn the_kernel_runs_the_program_of_version_2() {
        let roots = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"];
        let version2 = |root: &&str| fs::metadata(format!("{root}/cgroup.controllers")).is_ok();
        let Some(cgroup) = roots.iter().find(|root| version2(root)).and_then(|root| Cgroup::new(root)) else {
            println!("SKIP: no cgroup2 here");
            return;
        };
        let folder = fs::File::open(&cgroup.0).unwrap();
        match without(5).attach(&folder) {
            Err(error) if format!("{error:#}").contains("EPERM") => return println!("SKIP: {error:#}"),
            result => result.unwrap(),
        }
        assert_eq!(cgroup.run(PROBE), "full\n");
        // Another program takes its place, and does not have to agree with it.
        without(7).attach(&folder).unwrap();
        assert_eq!(cgroup.run(PROBE), "zero\n");
        assert_eq!(bpf::device_programs(folder.as_fd()).unwrap().len(), 1);
    }

    #[test]
    fn the_kernel_takes_the_lines_of_version_1() {
        let Some(cgroup) = Cgroup::new("/sys/fs/cgroup/devices") else { return };
        for line in without(5).v1_lines() {
            let name = if line.allow { "devices.allow" } else { "devices.deny" };
            fs::write(cgroup.0.join(name), &line.text).unwrap();
        }
        let listed = fs::read_to_string(cgroup.0.join("devices.list")).unwrap();
        let expected: Vec<String> = without(5).v1_lines().into_iter().skip(1).map(|line| line.text).collect();
        let mut listed: Vec<&str> = listed.lines().collect();
        listed.sort_unstable();
        let mut expected: Vec<&str> = expected.iter().map(String::as_str).collect();
        expected.sort_unstable();
        assert_eq!(listed, expected);
        assert_eq!(cgroup.run(PROBE), "full\n");
    }
}

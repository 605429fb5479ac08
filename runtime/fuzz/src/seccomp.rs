//! The filter compiler: whatever a profile says, the program is one that the kernel takes, or an error; and
//! each of its verdicts is one that the profile, or this compiler by design, has.

use std::sync::OnceLock;

use libc::{SECCOMP_RET_ERRNO, SECCOMP_RET_KILL_PROCESS, SECCOMP_RET_KILL_THREAD, SECCOMP_RET_TRACE};
use libfuzzer_sys::arbitrary::{Result, Unstructured};
use oci_spec::runtime::LinuxSeccomp;
use serde_json::{Value, json};

use crate::container::annotations::Annotations;
use crate::container::seccomp;

#[path = "../../src/container/seccomp/tests/interpreter.rs"]
mod interpreter;

/// The names of actions and the values that filters return for them.
const ACTIONS: [(&str, u32); 9] = [
    ("SCMP_ACT_ALLOW", libc::SECCOMP_RET_ALLOW),
    ("SCMP_ACT_ERRNO", SECCOMP_RET_ERRNO),
    ("SCMP_ACT_KILL", SECCOMP_RET_KILL_THREAD),
    ("SCMP_ACT_KILL_THREAD", SECCOMP_RET_KILL_THREAD),
    ("SCMP_ACT_KILL_PROCESS", SECCOMP_RET_KILL_PROCESS),
    ("SCMP_ACT_TRAP", libc::SECCOMP_RET_TRAP),
    ("SCMP_ACT_TRACE", SECCOMP_RET_TRACE),
    ("SCMP_ACT_LOG", libc::SECCOMP_RET_LOG),
    ("SCMP_ACT_NOTIFY", libc::SECCOMP_RET_USER_NOTIF),
];
const OPERATORS: [&str; 7] = ["NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ"];
const FLAGS: [&str; 4] = ["TSYNC", "LOG", "SPEC_ALLOW", "WAIT_KILLABLE_RECV"];
/// Each with its `AUDIT_ARCH_*`.
const ARCHITECTURES: [(&str, u32, bool); 8] = [
    ("X86_64", 0xc000_003e, false),
    ("X86", 0x4000_0003, false),
    ("X32", 0xc000_003e, false),
    ("ARM", 0x4000_0028, false),
    ("MIPS64N32", 0xa000_0008, true),
    ("S390", 0x16, true),
    ("S390X", 0x8000_0016, true),
    ("PPC64LE", 0xc000_0015, false),
];

/// Makes a profile of the input, compiles it, and runs the program on what is left of the input.
pub fn run(input: &[u8]) {
    let mut input = Unstructured::new(input);
    let Ok((profile, mut verdicts)) = profile(&mut input) else { return };
    let profile: LinuxSeccomp = serde_json::from_value(profile).expect("made of valid parts");
    let Ok(filter) = seccomp::plan(&profile, &Annotations::default()) else { return };
    interpreter::check(&filter.program);
    // Other architectures, and calls that are newer than the profile.
    verdicts.extend([SECCOMP_RET_KILL_THREAD, SECCOMP_RET_ERRNO | libc::ENOSYS as u32]);
    for (_, arch, big_endian) in ARCHITECTURES {
        let Ok((number, arguments)) = call(&mut input) else { return };
        let data = interpreter::Data { number, arch, arguments };
        let (verdict, steps) = interpreter::run(&filter.program, &data, big_endian);
        assert!(verdicts.contains(&verdict), "{verdict:#x} for {data:x?}");
        assert!(steps <= filter.program.len(), "{steps} steps");
    }
}

/// A call: mostly a number that exists.
fn call(input: &mut Unstructured) -> Result<(u32, [u64; 6])> {
    let number = if input.ratio(1, 8)? { input.arbitrary()? } else { input.int_in_range(0..=470)? };
    Ok((number, input.arbitrary()?))
}

/// Every name in docker's profile.
fn names() -> &'static [String] {
    static NAMES: OnceLock<Vec<String>> = OnceLock::new();
    NAMES.get_or_init(|| {
        let profile: Value =
            serde_json::from_str(include_str!("../../tests/data/seccomp-docker.json")).expect("JSON");
        let entries = profile["syscalls"].as_array().into_iter().flatten();
        let names = entries.flat_map(|entry| entry["names"].as_array().into_iter().flatten());
        names.filter_map(Value::as_str).map(str::to_owned).collect()
    })
}

/// An action, as an entry's or the profile's properties, and its value.
fn action(input: &mut Unstructured) -> Result<(&'static str, Option<u32>, u32)> {
    let (name, value) = *input.choose(&ACTIONS)?;
    let takes_number = [SECCOMP_RET_ERRNO, SECCOMP_RET_TRACE].contains(&value);
    // Where there is none to take it, a number is an error to be told.
    let number = match input.ratio(1, if takes_number { 2 } else { 32 })? {
        true => Some(input.int_in_range(0..=4097)?),
        false => None,
    };
    let value = if takes_number { value | number.unwrap_or(libc::EPERM as u32) } else { value };
    Ok((name, number, value))
}

/// A profile and the values that it may return.
fn profile(input: &mut Unstructured) -> Result<(Value, Vec<u32>)> {
    let (default, default_number, value) = action(input)?;
    let mut values = vec![value];
    let mut architectures = vec![];
    for _ in 0..input.int_in_range(0..=4)? {
        architectures.push(format!("SCMP_ARCH_{}", input.choose(&ARCHITECTURES)?.0));
    }
    let mut flags = vec![];
    for _ in 0..input.int_in_range(0..=2)? {
        flags.push(format!("SECCOMP_FILTER_FLAG_{}", input.choose(&FLAGS)?));
    }
    let mut entries = vec![];
    for _ in 0..input.int_in_range(0..=12)? {
        let (action, number, value) = action(input)?;
        values.push(value);
        let first = input.choose_index(names().len())?;
        let many = if input.ratio(1, 4)? { names().len() } else { input.int_in_range(1..=4)? };
        let names: Vec<&String> = names()[first..].iter().take(many).collect();
        let mut arguments = vec![];
        for _ in 0..input.int_in_range(0..=3)? {
            arguments.push(json!({
                "index": input.int_in_range(0..=6)?,
                "op": format!("SCMP_CMP_{}", input.choose(&OPERATORS)?),
                "value": word(input)?,
                "valueTwo": word(input)?,
            }));
        }
        entries.push(json!({"names": names, "action": action, "errnoRet": number, "args": arguments}));
    }
    let profile = json!({
        "defaultAction": default, "defaultErrnoRet": default_number, "architectures": architectures,
        "flags": flags, "listenerPath": "/agent", "syscalls": entries,
    });
    Ok((profile, values))
}

/// Something to compare with: mostly with few bits, so that rules meet.
fn word(input: &mut Unstructured) -> Result<u64> {
    if input.ratio(1, 4)? {
        input.arbitrary()
    } else {
        Ok(input.int_in_range(0..=3)? << input.int_in_range(0..=40)?)
    }
}

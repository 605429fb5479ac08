//! Both filters, ours and libseccomp's, side by side; and everything that is refused.

mod attached;
mod interpreter;
mod reference;
mod table;

use std::time::Instant;

use nix::errno::Errno;
use oci_spec::runtime::{Arch, LinuxSeccomp, LinuxSeccompArg, LinuxSyscall};
use serde_json::{Value, json};

use super::architecture::{Architecture, Names};
use super::{Annotations, Filter, architectures, return_value, rules};
use interpreter::Data;
use reference::Reference;

/// Compiles a profile to which no annotation adds anything.
fn plan(profile: &LinuxSeccomp) -> anyhow::Result<Filter> {
    super::plan(profile, &Annotations::default())
}

/// Parses a profile.
fn profile(json: Value) -> LinuxSeccomp {
    serde_json::from_value(json).unwrap()
}

/// The profile of an engine for a container with the default capabilities on x86_64, without the names
/// that the linked libseccomp is too old for.
fn packaged(engine: &str) -> LinuxSeccomp {
    let path = format!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/seccomp-{}.json"), engine);
    let mut profile: LinuxSeccomp = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let mut entries = profile.syscalls().clone().unwrap();
    for entry in &mut entries {
        let number = |name: &str, arch| Names::default().find(name)?.number(Architecture::of(arch));
        let known = |name: &String| {
            let archs = reference::ARCHITECTURES.map(|arch| arch.0);
            archs
                .into_iter()
                .all(|arch| number(name, arch) == reference::numbers(arch).get(name.as_str()).copied())
        };
        entry.set_names(entry.names().iter().filter(|name| known(name)).cloned().collect());
    }
    entries.retain(|entry| !entry.names().is_empty());
    profile.set_syscalls(Some(entries));
    profile
}

/// The profile for one architecture, if it lists that, with the other ABI of its audit token.
fn only(profile: &LinuxSeccomp, arch: Arch) -> LinuxSeccomp {
    let audit = Architecture::of(arch).audit;
    let listed = architectures(profile.architectures().as_deref().unwrap_or_default());
    let alone = reference::ARCHITECTURES.map(|each| each.0).into_iter().filter(|each| {
        let each = Architecture::of(*each);
        each.audit == audit && listed.iter().any(|listed| std::ptr::eq(*listed, each))
    });
    let mut profile = profile.clone();
    profile.set_architectures(Some(alone.collect()));
    profile
}

/// A few arguments around every value that the profile compares with, for each of the six.
fn edges(profile: &LinuxSeccomp) -> [Vec<u64>; 6] {
    let mut edges: [Vec<u64>; 6] = std::array::from_fn(|_| vec![0, u64::MAX]);
    for argument in profile.syscalls().iter().flatten().filter_map(|entry| entry.args().as_ref()).flatten() {
        for value in [argument.value(), argument.value_two().unwrap_or(0)] {
            let low = u64::from(value as u32);
            let around = [
                value.wrapping_sub(1),
                value,
                value.wrapping_add(1),
                value ^ 1 << 32,
                value ^ 1 << 63,
                !value,
                low,
            ];
            edges[argument.index()].extend(around);
        }
    }
    edges.iter_mut().for_each(|edges| {
        edges.sort_unstable();
        edges.dedup();
    });
    edges
}

/// A small generator of numbers (xorshift): the same on every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    fn pick<T: Clone>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())].clone()
    }
}

/// Runs both filters on one call; false if they differ.
fn agree(ours: &[libc::sock_filter], reference: &Reference, data: &Data, big_endian: bool) -> bool {
    let (ours, theirs) = (interpreter::run(ours, data, big_endian).0, reference.run(data));
    if ours != theirs {
        println!("{data:x?}: ours {ours:#x}, libseccomp {theirs:#x}");
    }
    ours == theirs
}

/// Compares both filters: on every number, and where the profile looks at arguments on every edge of them.
fn assert_same(profile: &LinuxSeccomp, optimize: u32) {
    let ours = plan(profile).unwrap().program;
    interpreter::check(&ours);
    let edges = edges(profile);
    let entries = profile.syscalls().iter().flatten().filter(|entry| entry.args().is_some());
    let compared: Vec<&str> = entries.flat_map(|entry| entry.names()).map(String::as_str).collect();
    let mut random = Random(1);
    let together = Reference::compile(profile, false, optimize).unwrap();
    for (arch, audit, big_endian) in reference::ARCHITECTURES {
        // For the byte order of other hosts one at a time: long filters come out of libseccomp swapped twice.
        let alone = big_endian.then(|| Reference::compile(&only(profile, arch), true, optimize).unwrap());
        let reference = alone.as_ref().unwrap_or(&together);
        let agree = |data| agree(&ours, reference, &data, big_endian);

        let base = if arch == Arch::ScmpArchX32 { 0x4000_0000 } else { 0 };
        let bases = [4000, 5000, 6000, 0xf_0000, 0x8000_0000, 0xc000_0000]
            .into_iter()
            .flat_map(|base| base..base + 2);
        let last = [0x3fff_ffff, 0x7fff_ffff, 0xbfff_ffff, u32::MAX - 1, u32::MAX];
        for number in (base..base + 600).chain(bases).chain(last) {
            let data = Data { number, arch: audit, arguments: [u64::MAX / 3; 6] };
            assert!(agree(data));
            assert!(agree(Data { arch: audit ^ 0x100, ..data }));
        }
        let numbers = reference::numbers(arch);
        let compared = compared.iter().chain(&["socketcall", "ipc"]).filter_map(|name| numbers.get(*name));
        for (number, argument) in compared.flat_map(|number| (0..3).map(move |argument| (*number, argument)))
        {
            for value in edges[argument].iter().copied().chain(0..26) {
                let mut arguments = std::array::from_fn(|index| random.pick(&edges[index]));
                arguments[argument] = value;
                assert!(agree(Data { number, arch: audit, arguments }));
            }
        }
    }
}

#[test]
fn packaged_profiles_give_the_verdicts_of_libseccomp() {
    for name in ["docker", "podman"] {
        assert_same(&packaged(name), 2);
    }
}

#[test]
fn dockers_profile_gives_the_verdicts_of_libseccomp_on_all_architectures() {
    let mut profile = packaged("docker");
    profile.set_architectures(Some(reference::ARCHITECTURES.map(|arch| arch.0).to_vec()));
    assert_same(&profile, 2);
}

const CALLS: [&str; 14] = [
    "read",
    "write",
    "clone",
    "socket",
    "accept4",
    "send",
    "semop",
    "shmat",
    "mmap2",
    "personality",
    "openat2",
    "breakpoint",
    "clock_gettime64",
    "no_such_call",
];

/// Every action, with its property for the error number where it takes one.
const ACTIONS: [(&str, Option<u32>); 11] = [
    ("SCMP_ACT_KILL", None),
    ("SCMP_ACT_KILL_THREAD", None),
    ("SCMP_ACT_KILL_PROCESS", None),
    ("SCMP_ACT_TRAP", None),
    ("SCMP_ACT_ERRNO", None),
    ("SCMP_ACT_ERRNO", Some(38)),
    ("SCMP_ACT_ERRNO", Some(0)),
    ("SCMP_ACT_TRACE", None),
    ("SCMP_ACT_TRACE", Some(4095)),
    ("SCMP_ACT_LOG", None),
    ("SCMP_ACT_ALLOW", None),
];

/// What a random profile may hold.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    /// One rule a call, with any operators on different arguments.
    OneRule,
    /// Several rules a call, comparing for equality.
    Equality,
    /// Anything.
    Any,
}

/// A profile of a few rules.
fn random_profile(random: &mut Random, mut names: Vec<&str>, kind: Kind) -> LinuxSeccomp {
    const OPERATORS: [&str; 7] = ["EQ", "MASKED_EQ", "NE", "LT", "LE", "GE", "GT"];
    const VALUES: [u64; 10] =
        [0, 1, 5, 7, 0xffff_ffff, 0x1_0000_0000, 0x1_0000_0005, 0x2_0000_0007, 1 << 63, u64::MAX];
    let operators = if kind == Kind::Equality { &OPERATORS[..2] } else { &OPERATORS };
    let once = kind == Kind::OneRule;
    let (default, errno) = random.pick(&ACTIONS);
    let mut entries = vec![];
    for _ in 0..1 + random.below(5) {
        let (action, errno) = random.pick(&ACTIONS);
        let mut arguments = vec![];
        for index in 0..random.below(4) {
            let op = format!("SCMP_CMP_{}", random.pick(operators));
            let index = if once { index } else { random.below(3) };
            let (value, two) = (random.pick(&VALUES), random.pick(&VALUES));
            arguments.push(json!({"index": index, "value": value, "valueTwo": two, "op": op}));
        }
        let chosen = random.below(names.len());
        let name = if once { names.swap_remove(chosen) } else { names[chosen] };
        entries.push(json!({"names": [name], "action": action, "errnoRet": errno, "args": arguments}));
    }
    let mut architectures = reference::ARCHITECTURES.map(|arch| arch.0).to_vec();
    architectures.retain(|arch| *arch == Arch::ScmpArchX86_64 || random.below(3) > 0);
    profile(json!({
        "defaultAction": default, "defaultErrnoRet": errno, "architectures": architectures, "syscalls": entries,
    }))
}

/// Random calls to which a profile has something to say.
fn random_calls(random: &mut Random, profile: &LinuxSeccomp) -> Vec<(Arch, bool, &'static str, Data)> {
    let edges = edges(profile);
    let mut calls = vec![];
    for (arch, audit, big_endian) in reference::ARCHITECTURES {
        for name in CALLS.into_iter().chain(["socketcall", "ipc"]) {
            let Some(number) = reference::numbers(arch).get(name) else { continue };
            for _ in 0..6 {
                let mut arguments: [u64; 6] = std::array::from_fn(|index| random.pick(&edges[index]));
                if ["socketcall", "ipc"].contains(&name) {
                    arguments[0] = random.below(26) as u64;
                }
                calls.push((arch, big_endian, name, Data { number: *number, arch: audit, arguments }));
            }
        }
    }
    calls
}

/// Where libseccomp can be relied on: one rule a call, or several that compare for equality. Elsewhere it
/// loses rules now and then: of `semop` with "a2 > 1" or "a2 < 1 << 63", it finds that 1 << 63 matches none.
/// [`random_rules_mean_what_they_say`] covers those.
///
/// Always with its binary tree: without, libseccomp 2.5.4 forgets to load the number on an architecture
/// that lacks the call with the most complex rule.
#[test]
fn random_rules_give_the_verdicts_of_libseccomp() {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut refused = 0;
    for round in 0..120 {
        let (kind, names) = if round % 2 == 0 {
            // Those that go through socketcall or ipc are one call: one each of them.
            let mut names = CALLS.to_vec();
            names.retain(|name| !["socket", "accept4", "send", "semop", "shmat"].contains(name));
            names.extend([random.pick(&["socket", "accept4", "send"]), random.pick(&["semop", "shmat"])]);
            (Kind::OneRule, names)
        } else {
            (Kind::Equality, CALLS[random.below(7)..][..7].to_vec())
        };
        let profile = random_profile(&mut random, names, kind);
        let references = [false, true].map(|big_endian| Reference::compile(&profile, big_endian, 2));
        let Ok(Filter { program, .. }) = plan(&profile) else {
            assert!(references.iter().any(Option::is_none), "refused, but not by libseccomp: {profile:?}");
            refused += 1;
            continue;
        };
        interpreter::check(&program);
        let references = references.map(|reference| reference.expect("libseccomp takes it as well"));
        for (arch, big_endian, name, data) in random_calls(&mut random, &profile) {
            let same = agree(&program, &references[usize::from(big_endian)], &data, big_endian);
            assert!(same, "{name} on {arch} with {profile:?}");
        }
    }
    assert!((1..40).contains(&refused), "{refused}");
}

/// What the documentation says of several rules: any that matches gives its action, else the default does.
/// Which one, if several match, is for [`rules::Node`] to say, but never the default.
#[test]
fn random_rules_mean_what_they_say() {
    let mut random = Random(0x2545_f491_4f6c_dd1d);
    let mut compared = 0;
    for _ in 0..200 {
        let names = CALLS[random.below(7)..][..7].to_vec();
        let profile = random_profile(&mut random, names, Kind::Any);
        // Contradictions are refused, as by libseccomp.
        let Ok(Filter { program, .. }) = plan(&profile) else { continue };
        interpreter::check(&program);
        let default = return_value(profile.default_action(), profile.default_errno_ret()).unwrap();
        for (arch, big_endian, name, data) in random_calls(&mut random, &profile) {
            let listed = profile.architectures().as_ref().is_some_and(|archs| archs.contains(&arch));
            if !listed || ["socketcall", "ipc"].contains(&name) {
                continue;
            }
            let entries = profile.syscalls().iter().flatten().filter(|entry| entry.names()[0] == name);
            let matching: Vec<u32> = entries
                .filter(|entry| matches(entry, &data, Architecture::of(arch).wide))
                .map(|entry| return_value(entry.action(), entry.errno_ret()).unwrap())
                .filter(|value| *value != default)
                .collect();
            let (value, _) = interpreter::run(&program, &data, big_endian);
            let unknown = rules::Unknown::applies(default) && value == rules::Unknown::RETURN;
            let right =
                if matching.is_empty() { value == default || unknown } else { matching.contains(&value) };
            assert!(right, "{name} on {arch}: {value:#x}, not of {matching:x?}, {data:x?} with {profile:?}");
            compared += 1;
        }
    }
    assert!(compared > 30_000, "{compared}");
}

/// Whether a rule matches, read from the profile itself.
fn matches(entry: &LinuxSyscall, data: &Data, wide: bool) -> bool {
    use oci_spec::runtime::LinuxSeccompOperator as Op;
    let arguments = entry.args().clone().unwrap_or_default();
    let holds = |argument: &LinuxSeccompArg| {
        let cut = |value: u64| if wide { value } else { u64::from(value as u32) };
        let (actual, value) = (cut(data.arguments[argument.index()]), cut(argument.value()));
        match argument.op() {
            Op::ScmpCmpNe => actual != value,
            Op::ScmpCmpLt => actual < value,
            Op::ScmpCmpLe => actual <= value,
            Op::ScmpCmpEq => actual == value,
            Op::ScmpCmpGe => actual >= value,
            Op::ScmpCmpGt => actual > value,
            Op::ScmpCmpMaskedEq => actual & value == argument.value_two().unwrap_or(0) & value,
        }
    };
    let twice = (0..6).any(|index| arguments.iter().filter(|argument| argument.index() == index).count() > 1);
    if twice { arguments.iter().any(holds) } else { arguments.iter().all(holds) }
}

#[test]
fn calls_newer_than_the_profile_do_not_exist() {
    let verdict = |default: &str, architectures: &[&str], arch: u32, number: u32| {
        let profile = profile(json!({
            "defaultAction": default, "architectures": architectures,
            "syscalls": [{"names": ["read", "openat2"], "action": "SCMP_ACT_TRAP"}],
        }));
        interpreter::run(&plan(&profile).unwrap().program, &Data { number, arch, arguments: [0; 6] }, false).0
    };
    const ENOSYS: u32 = libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32;
    const EPERM: u32 = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;
    let (amd64, i386, x32) = (0xc000_003e, 0x4000_0003, 0x4000_0000);
    assert_eq!(verdict("SCMP_ACT_ERRNO", &[], amd64, 437), libc::SECCOMP_RET_TRAP);
    assert_eq!(verdict("SCMP_ACT_ERRNO", &[], amd64, 436), EPERM);
    assert_eq!(verdict("SCMP_ACT_ERRNO", &[], amd64, 438), ENOSYS);
    assert_eq!(verdict("SCMP_ACT_KILL", &[], amd64, 438), ENOSYS);
    assert_eq!(verdict("SCMP_ACT_ALLOW", &[], amd64, 438), libc::SECCOMP_RET_ALLOW);
    assert_eq!(verdict("SCMP_ACT_LOG", &[], amd64, 438), libc::SECCOMP_RET_LOG);
    assert_eq!(verdict("SCMP_ACT_TRACE", &[], amd64, 438), libc::SECCOMP_RET_TRACE | libc::EPERM as u32);
    // An architecture that is not listed gets nothing but the end, with x32 one of its own.
    assert_eq!(verdict("SCMP_ACT_ERRNO", &[], i386, 3), libc::SECCOMP_RET_KILL_THREAD);
    assert_eq!(verdict("SCMP_ACT_ERRNO", &[], amd64, x32 | 438), libc::SECCOMP_RET_KILL_THREAD);
    assert_eq!(verdict("SCMP_ACT_ERRNO", &["SCMP_ARCH_X86"], i386, 438), ENOSYS);
    assert_eq!(verdict("SCMP_ACT_ERRNO", &["SCMP_ARCH_X32"], amd64, x32 | 437), libc::SECCOMP_RET_TRAP);
    assert_eq!(verdict("SCMP_ACT_ERRNO", &["SCMP_ARCH_X32"], amd64, x32 | 438), ENOSYS);
}

#[test]
fn refusals_name_the_property() {
    let refused = |default: &str, rest: Value| {
        let mut json = json!({"defaultAction": default});
        json.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
        format!("{:#}", plan(&profile(json)).unwrap_err())
    };
    let rule = |rule: Value| {
        let good = json!({"names": ["read"], "action": "SCMP_ACT_ALLOW"});
        refused("SCMP_ACT_ERRNO", json!({"syscalls": [good, rule]}))
    };
    let cases = [
        (
            refused("SCMP_ACT_ALLOW", json!({"defaultErrnoRet": 1})),
            "linux.seccomp.defaultErrnoRet: SCMP_ACT_ALLOW returns no error number",
        ),
        (
            refused("SCMP_ACT_NOTIFY", json!({"listenerPath": "/run/agent"})),
            "linux.seccomp.defaultAction: SCMP_ACT_NOTIFY cannot be used as default action: the calls that hand \
             the listener over would wait for the listener",
        ),
        (
            refused("SCMP_ACT_ALLOW", json!({"flags": ["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]})),
            "linux.seccomp.flags[0]: SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV needs a rule with SCMP_ACT_NOTIFY",
        ),
        (
            refused("SCMP_ACT_ALLOW", json!({"listenerMetadata": "m"})),
            "linux.seccomp.listenerMetadata MUST NOT be set without linux.seccomp.listenerPath",
        ),
        (
            rule(json!({"names": ["mount"], "action": "SCMP_ACT_NOTIFY"})),
            "linux.seccomp.listenerPath is not set, but a rule answers with SCMP_ACT_NOTIFY",
        ),
        (
            rule(json!({"names": ["close", "write"], "action": "SCMP_ACT_NOTIFY"})),
            "linux.seccomp.syscalls[1]: SCMP_ACT_NOTIFY cannot be used for the write syscall: the listener is \
             handed over by it",
        ),
        (
            rule(json!({"names": ["mount"], "action": "SCMP_ACT_KILL", "errnoRet": 1})),
            "linux.seccomp.syscalls[1]: errnoRet: SCMP_ACT_KILL returns no error number",
        ),
        (
            rule(json!({"names": ["mount"], "action": "SCMP_ACT_ERRNO", "errnoRet": 4096})),
            "linux.seccomp.syscalls[1]: errnoRet: 4096 is greater than 4095",
        ),
        (
            rule(json!({"names": [], "action": "SCMP_ACT_ALLOW"})),
            "linux.seccomp.syscalls[1]: names MUST contain at least one system call",
        ),
        (
            rule(json!({"names": ["read", ""], "action": "SCMP_ACT_ALLOW"})),
            "linux.seccomp.syscalls[1]: names[1] is empty",
        ),
        (
            rule(json!({"names": ["mount"], "action": "SCMP_ACT_ALLOW",
                "args": [{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}, {"index": 6, "value": 1, "op": "SCMP_CMP_EQ"}]})),
            "linux.seccomp.syscalls[1]: args[1]: index 6 is not one of the six arguments 0 to 5",
        ),
        (
            refused(
                "SCMP_ACT_ERRNO",
                json!({"syscalls": [
                    {"names": ["socket"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}]},
                    {"names": ["socket"], "action": "SCMP_ACT_KILL", "args": [{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}]},
                ]}),
            ),
            "linux.seccomp.syscalls[1]: an earlier rule for socket has these arguments, but another action",
        ),
    ];
    for (actual, expected) in cases {
        assert_eq!(actual, expected);
    }
}

#[test]
fn flags_absent_are_not_flags_empty() {
    let flags = |flags: Value| {
        plan(&profile(json!({"defaultAction": "SCMP_ACT_ALLOW", "flags": flags}))).unwrap().flags
    };
    assert_eq!(flags(Value::Null), 4);
    assert_eq!(flags(json!([])), 0);
    assert_eq!(flags(json!(["SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_LOG"])), 2);
}

#[test]
fn notify_asks_for_a_listener() {
    let filter = plan(&profile(json!({
        "defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/run/agent", "listenerMetadata": "m",
        "flags": ["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"],
        "syscalls": [{"names": ["mount"], "action": "SCMP_ACT_NOTIFY"}],
    })))
    .unwrap();
    let listener = filter.listener.unwrap();
    assert_eq!(listener.path, std::path::Path::new("/run/agent"));
    assert_eq!(listener.metadata.as_deref(), Some("m"));
    assert_eq!(filter.flags, 8 | 32);
}

/// Loads a filter for this thread and no other; EACCES with neither no_new_privs nor CAP_SYS_ADMIN.
#[expect(unsafe_code, reason = "seccomp(2) is in no library")]
fn load(program: &[libc::sock_filter], flags: u32) -> nix::Result<()> {
    let program = libc::sock_fprog { len: program.len() as u16, filter: program.as_ptr().cast_mut() };
    // SAFETY: `program` and what it points to outlive the call; the kernel copies both and writes to neither.
    let loaded =
        unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const program) };
    Errno::result(loaded).map(drop)
}

/// A filter binds the thread that loads it and no other, so the test's own process can try one.
#[test]
#[expect(unsafe_code, reason = "calls that do not exist are in no library")]
fn the_kernel_takes_the_filter() {
    let call = |number: libc::c_long, argument: libc::c_long| {
        // SAFETY: of the calls tried here none exists, or none does a thing with these arguments.
        Errno::result(unsafe { libc::syscall(number, argument, 0, 0, 0, 0) }).map(drop)
    };
    let filter = plan(&packaged("docker")).unwrap();
    let tried = std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            load(&filter.program, filter.flags)?;
            Ok([
                call(libc::SYS_personality, 0xffff_ffff),
                call(libc::SYS_personality, 0x0040_0000),
                call(libc::SYS_mount, 0),
                call(libc::SYS_clone3, 0),
                call(1000, 0),
                call(libc::SYS_close, -1),
            ])
        });
        thread.join().unwrap()
    });
    match tried {
        Err(Errno::EACCES) => println!("SKIP: neither no_new_privs nor CAP_SYS_ADMIN"),
        tried => assert_eq!(
            tried.unwrap(),
            [
                Ok(()),
                Err(Errno::EPERM),
                Err(Errno::EPERM),
                Err(Errno::ENOSYS),
                Err(Errno::ENOSYS),
                Err(Errno::EBADF)
            ]
        ),
    }
}

/// `cargo test -p runtime --release seccomp_compile_time -- --ignored --nocapture`
#[test]
#[ignore = "a measurement, not a check"]
fn seccomp_compile_time() {
    let profile = packaged("docker");
    let best = |rounds, compile: &dyn Fn() -> usize| {
        let times = (0..rounds).map(|_| {
            let start = Instant::now();
            let length = compile();
            (start.elapsed(), length)
        });
        times.min().unwrap()
    };
    let (ours, _) = best(300, &|| plan(&profile).unwrap().program.len());
    let mut programs = vec![("ours".to_owned(), ours, plan(&profile).unwrap().program)];
    for optimize in [1, 2] {
        let (theirs, _) = best(5, &|| Reference::compile(&profile, false, optimize).unwrap().program.len());
        let program = Reference::compile(&profile, false, optimize).unwrap().program;
        programs.push((format!("libseccomp, optimize={optimize}"), theirs, program));
    }
    for (name, compiling, program) in &programs {
        let attaching = (0..50).map(|_| {
            let thread = std::thread::scope(|scope| {
                let thread = scope.spawn(|| {
                    let start = Instant::now();
                    load(program, 0).map(|()| start.elapsed())
                });
                thread.join()
            });
            thread.unwrap().unwrap()
        });
        let attaching = attaching.min().unwrap();
        println!(
            "{name}: compiled in {compiling:?}, attached in {attaching:?}, {} instructions",
            program.len()
        );
        let steps = |number| {
            let data = Data { number, arch: 0xc000_003e, arguments: [1; 6] };
            interpreter::run(program, &data, false).1
        };
        let all: Vec<usize> = reference::numbers(Arch::ScmpArchX86_64).values().copied().map(steps).collect();
        let (sum, most) = (all.iter().sum::<usize>(), all.iter().max().unwrap());
        println!("  {} steps a call on average, {most} at most", sum / all.len());
        for (name, number) in [("read", 0), ("openat", 257), ("futex", 202), ("clone", 56), ("socket", 41)] {
            println!("  {name}: {} steps", steps(number));
        }
    }
}

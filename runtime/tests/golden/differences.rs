//! What is meant to differ from runc, and why.

use std::collections::BTreeSet;

/// One reason, and all that differs for it.
#[derive(Debug)]
pub(crate) struct Difference {
    pub(crate) why: &'static str,
    /// Messages, on standard error and in the log: runc's and ours, without the beginning that they share.
    pub(crate) says: &'static [(&'static str, &'static str)],
    /// Of single calls: "SCENE: CALL: PART", runc's and ours.
    pub(crate) shows: &'static [(&'static str, &'static str, &'static str)],
}

/// Which of the rows were needed: the reason's place in the table, and the row's.
pub(crate) type Used = BTreeSet<(usize, usize)>;

/// The row for a difference, if it is meant to be.
pub(crate) fn row(part: &str, runc: &str, ours: &str) -> Option<(usize, usize)> {
    let message = without_shared(runc, ours);
    DIFFERENCES.iter().enumerate().find_map(|(place, reason)| {
        let says = reason
            .says
            .iter()
            .position(|row| *row == message && part.ends_with(": stderr") | part.ends_with(": log"));
        let shows = || reason.shows.iter().position(|row| *row == (part, runc, ours));
        says.or_else(|| Some(reason.says.len() + shows()?)).map(|row| (place, row))
    })
}

/// Rows that were not needed.
pub(crate) fn unused(used: &Used) -> Vec<String> {
    let mut rows = Vec::new();
    for (place, reason) in DIFFERENCES.iter().enumerate() {
        let says = reason.says.iter().map(|row| format!("{row:?}"));
        let all = says.chain(reason.shows.iter().map(|row| format!("{row:?}")));
        rows.extend(
            all.enumerate()
                .filter(|(row, _)| !used.contains(&(place, *row)))
                .map(|(_, text)| format!("{text} ({})", reason.why)),
        );
    }
    rows
}

fn without_shared<'a>(mut one: &'a str, mut other: &'a str) -> (&'a str, &'a str) {
    for beginning in
        ["create failed: ", "run failed: ", "exec failed: ", "unable to start container process: "]
    {
        if let (Some(a), Some(b)) = (one.strip_prefix(beginning), other.strip_prefix(beginning)) {
            (one, other) = (a, b);
        }
    }
    (one, other)
}

const DIFFERENCES: &[Difference] = &[
    Difference {
        why: "an error names what it is about; callers look for the words before",
        says: &[
            ("container does not exist", "container does not exist: ID"),
            ("container does not exist", "container does not exist: other"),
            (
                "load container other: container does not exist",
                "load container other: container does not exist: other",
            ),
            ("container with given ID already exists", "container with given ID already exists: ID"),
            (
                "JSON specification file config.json not found",
                "JSON specification file config.json not found in \"BUNDLE\"",
            ),
            (
                "JSON specification file config.json not found",
                "JSON specification file config.json not found in \"BUNDLE/rootfs\"",
            ),
            (
                "process args cannot be empty",
                "process args cannot be empty: give a command, or --process FILE",
            ),
            ("container not running", "container not running: it is paused already"),
            ("invalid format option", "invalid format option \"json-less\" (table and json are known)"),
            ("invalid format option", "invalid format option \"xml\" (table and json are known)"),
            ("invalid format option", "invalid format option \"\" (table and json are known)"),
            (
                "invalid container ID format",
                "invalid container ID format: \"..\" (letters, digits and _ + . - are allowed, 200 at most)",
            ),
            (
                "invalid container ID format",
                "invalid container ID format: \"a/b\" (letters, digits and _ + . - are allowed, 200 at most)",
            ),
            (
                "invalid container ID format",
                "invalid container ID format: \"a b\" (letters, digits and _ + . - are allowed, 200 at most)",
            ),
            (
                "invalid container ID format",
                "invalid container ID format: \"é\" (letters, digits and _ + . - are allowed, 200 at most)",
            ),
            ("No help topic for 'frobnicate'", "unknown command \"frobnicate\" (see runtime --help)"),
        ],
        shows: &[
            ("global options: help frobnicate: exit code", "3", "1"),
            ("global options: frobnicate: exit code", "3", "1"),
        ],
    },
    Difference {
        why: "an error names the property of the configuration",
        says: &[
            ("process property must not be empty", "process: process property must not be empty"),
            ("args must not be empty", "process.args: args must not be empty"),
            ("Cwd property must not be empty", "process.cwd: \"\": Cwd must be an absolute path"),
            ("Cwd property must not be empty", "--process \"process.json\": process: missing field `cwd`"),
            ("Cwd must be an absolute path", "process.cwd: \"tmp\": Cwd must be an absolute path"),
            ("Cwd must be an absolute path", "process.cwd: \"x\": Cwd must be an absolute path"),
            ("root must be specified", "root: missing, and Linux needs one"),
            (
                "unable to set hostname without a private UTS namespace",
                "hostname: unable to set hostname without a private UTS namespace",
            ),
            (
                "malformed spec file: duplicated ns {\"pid\" \"\"}",
                "linux.namespaces[1]: malformed spec file: duplicated ns Pid",
            ),
            (
                "sysctl \"kernel.none\" is not in a separate kernel namespace",
                "linux.sysctl[\"kernel.none\"]: sysctl \"kernel.none\" is not in a separate kernel namespace",
            ),
            (
                "sysctl \"vm.swappiness\" is not in a separate kernel namespace",
                "linux.sysctl[\"vm.swappiness\"]: sysctl \"vm.swappiness\" is not in a separate kernel namespace",
            ),
            ("rootfsPropagation=foo is not supported", "linux.rootfsPropagation: unknown value \"foo\""),
            (
                "wrong rlimit value: RLIMIT_FOO",
                "\"BUNDLE/config.json\": process.rlimits[0].type: wrong rlimit value: \"RLIMIT_FOO\"",
            ),
            (
                "namespace {\"foo\" \"\"} does not exist",
                "\"BUNDLE/config.json\": linux.namespaces[0].type: unknown variant `foo`, expected one of `mount`, `cgroup`, `uts`, `ipc`, `user`, `pid`, `network`, `time`",
            ),
            (
                "string SCMP_ACT_FOO is not a valid action for seccomp",
                "\"BUNDLE/config.json\": linux.seccomp.defaultAction: unknown variant `SCMP_ACT_FOO`, expected one of `SCMP_ACT_KILL`, `SCMP_ACT_KILL_THREAD`, `SCMP_ACT_KILL_PROCESS`, `SCMP_ACT_TRAP`, `SCMP_ACT_ERRNO`, `SCMP_ACT_NOTIFY`, `SCMP_ACT_TRACE`, `SCMP_ACT_LOG`, `SCMP_ACT_ALLOW`",
            ),
            (
                "unable to create new parent process: namespace path: lstat /none: no such file or directory",
                "linux.namespaces[0].path: open \"/none\": No such file or directory (os error 2)",
            ),
            (
                "error during container init: error mounting \"/none\" to rootfs at \"/mnt\": stat /none: no such file or directory",
                "mounts[0]: mount \"/none\" on \"/mnt\": ENOENT: No such file or directory",
            ),
            (
                "error during container init: error mounting \"x\" to rootfs at \"/mnt\": mount x:/mnt (via /proc/self/fd/6): no such device",
                "mounts[0]: mount \"none such\" on \"/mnt\": open file system type \"none such\": ENODEV: No such device",
            ),
            (
                "invalid rootfs: stat BUNDLE/none: no such file or directory",
                "root.path \"none\": rootfs \"BUNDLE/none\": No such file or directory (os error 2)",
            ),
            (
                "unable to start container process: invalid environment variable: \"FOO\"",
                "process.env[1]: \"FOO\" has no \"=\"",
            ),
            (
                "failed to write \"none\": write /sys/fs/cgroup/cpuset/ID/cpuset.cpus: invalid argument",
                "update: linux.resources.cpu.cpus: write \"none\" to cpuset.cpus: EINVAL: Invalid argument",
            ),
            (
                "failed to write \"1\": write /sys/fs/cgroup/cpu/ID/cpu.cfs_quota_us: invalid argument",
                "update: linux.resources.cpu.quota: write \"1\" to cpu.cfs_quota_us: EINVAL: Invalid argument",
            ),
        ],
        shows: &[(
            "update: update --kernel-memory 64m ID: warnings",
            "warning: Kernel memory settings are ignored and will be removed",
            "warning: linux.resources.memory.kernel: deprecated, and without effect on this kernel",
        )],
    },
    Difference {
        why: "a hook's error names its kind and its program",
        says: &[
            (
                "error during container init: error running hook #0: error running hook: exit status 3, stdout: out\n, stderr: err",
                "error running createRuntime hook #0: \"/bin/sh\": exit status: 3, output: out\nerr",
            ),
            (
                "error during container init: error running hook #0: fork/exec /none/such: no such file or directory",
                "error running prestart hook #0: \"/none/such\": start it: No such file or directory (os error 2)",
            ),
        ],
        shows: &[],
    },
    Difference {
        why: "an error names the file, the flag or the argument; Go's libraries and its type names say little to people",
        says: &[
            ("EOF", "\"BUNDLE/config.json\": EOF while parsing a value at line 1 column 0"),
            ("unexpected EOF", "\"BUNDLE/config.json\": EOF while parsing an object at line 1 column 1"),
            (
                "json: cannot unmarshal array into Go value of type specs.Spec",
                "\"BUNDLE/config.json\": a list, where an object is expected",
            ),
            (
                "json: cannot unmarshal number into Go struct field Spec.process of type specs.Process",
                "\"BUNDLE/config.json\": process: invalid type: integer `1`, expected struct Process",
            ),
            ("read config.json: is a directory", "read \"BUNDLE/config.json\": Is a directory (os error 21)"),
            (
                "chdir none: no such file or directory",
                "bundle \"none\": No such file or directory (os error 2)",
            ),
            (
                "chdir none: no such file or directory",
                "write \"none/config.json\": No such file or directory (os error 2)",
            ),
            (
                "chdir config.json: not a directory",
                "open \"BUNDLE/config.json/config.json\": Not a directory (os error 20)",
            ),
            (
                "open no/such/folder: no such file or directory",
                "open the log file \"no/such/folder\": No such file or directory (os error 2)",
            ),
            (
                "open BUNDLE/none/.pid: no such file or directory",
                "--pid-file: write \"none/pid\": No such file or directory (os error 2)",
            ),
            (
                "open BUNDLE/state/file/state.json: not a directory",
                "read \"BUNDLE/state/file/state.json\": Not a directory (os error 20)",
            ),
            (
                "dial unix none: connect: no such file or directory",
                "--console-socket: connect to \"none\": No such file or directory (os error 2)",
            ),
            (
                "dial unix config.json: connect: connection refused",
                "--console-socket: connect to \"config.json\": Connection refused (os error 111)",
            ),
            (
                "open none.json: no such file or directory",
                "read --process \"none.json\": No such file or directory (os error 2)",
            ),
            ("EOF", "--process \"process.json\": EOF while parsing a value at line 1 column 0"),
            ("unexpected EOF", "--process \"process.json\": EOF while parsing an object at line 1 column 1"),
            (
                "open none.json: no such file or directory",
                "--resources: read \"none.json\": No such file or directory (os error 2)",
            ),
            ("EOF", "--resources: \"-\": EOF while parsing a value at line 1 column 0"),
            ("unexpected EOF", "--resources: \"-\": EOF while parsing an object at line 1 column 1"),
            (
                "json: cannot unmarshal array into Go value of type specs.LinuxResources",
                "--resources: \"-\": a list, where an object is expected",
            ),
            (
                "json: cannot unmarshal string into Go struct field LinuxMemory.memory.limit of type int64",
                "--resources: \"-\": invalid type: string \"64m\", expected i64 at line 1 column 26",
            ),
            ("invalid value for memory: invalid size: 'lots'", "invalid value for memory: \"lots\""),
            (
                "invalid value for memory-reservation: invalid size: 'lots'",
                "invalid value for memory-reservation: \"lots\"",
            ),
            (
                "invalid value for memory-swap: invalid size: 'lots'",
                "invalid value for memory-swap: \"lots\"",
            ),
            (
                "invalid value for cpu-share: strconv.ParseUint: parsing \"many\": invalid syntax",
                "invalid value for cpu-share: \"many\"",
            ),
            (
                "invalid value for cpu-share: strconv.ParseUint: parsing \"-1\": invalid syntax",
                "invalid value for cpu-share: \"-1\"",
            ),
            (
                "invalid value for cpu-quota: strconv.ParseInt: parsing \"many\": invalid syntax",
                "invalid value for cpu-quota: \"many\"",
            ),
            (
                "invalid value \"many\" for flag -pids-limit: parse error",
                "invalid value for pids-limit: \"many\"",
            ),
            (
                "invalid value \"many\" for flag -blkio-weight: parse error",
                "invalid value for blkio-weight: \"many\"",
            ),
            (
                "invalid value \"many\" for flag -preserve-fds: parse error",
                "invalid value \"many\" for flag -preserve-fds: invalid digit found in string",
            ),
            (
                "invalid value \"often\" for flag -interval: parse error",
                "--interval: \"often\" is not a time",
            ),
            (
                "parsing root as int for uid failed: strconv.Atoi: parsing \"root\": invalid syntax",
                "--user: \"root\" is not an id",
            ),
            (
                "parsing root as int for gid failed: strconv.Atoi: parsing \"root\": invalid syntax",
                "--user: \"root\" is not an id",
            ),
            (
                "parsing  as int for gid failed: strconv.Atoi: parsing \"\": invalid syntax",
                "--user: \"\" is not an id",
            ),
            (
                "invalid value \"x\" for flag -additional-gids: strconv.ParseInt: parsing \"x\": invalid syntax",
                "exec failed: --additional-gids: \"x\" is not an id",
            ),
            (
                "exit status 1: error: unknown gnu long option\n\nUsage:\n ps [options]\n\n Try 'ps --help <simple|list|output|threads|misc|all>'\n  or 'ps --help <s|l|o|t|m|a>'\n for additional help text.\n\nFor more details see ps(1).",
                "ps: error: unknown gnu long option\n\nUsage:\n ps [options]\n\n Try 'ps --help <simple|list|output|threads|misc|all>'\n  or 'ps --help <s|l|o|t|m|a>'\n for additional help text.\n\nFor more details see ps(1).",
            ),
            (
                "chdir to cwd (\"/bin/busybox\") set in config.json failed: not a directory",
                "chdir to cwd (\"/bin/busybox\") set in config.json failed: ENOTDIR: Not a directory",
            ),
            (
                "error during container init: mkdir /bin/busybox: not a directory",
                "chdir to cwd (\"/bin/busybox\") set in config.json failed: ENOTDIR: Not a directory",
            ),
        ],
        shows: &[
            ("flags: events --interval often ID: stdout", "HELP", ""),
            ("exec fails: exec --additional-gids x ID true: stdout", "HELP", ""),
            ("exec fails: exec --additional-gids x ID true: exit code", "1", "255"),
            ("update: update --pids-limit many ID: stdout", "HELP", ""),
            ("update: update --blkio-weight many ID: stdout", "HELP", ""),
        ],
    },
    Difference {
        why: "arguments are checked before the container is looked for",
        says: &[
            ("container does not exist", "duration interval must be greater than 0"),
            ("container does not exist", "unknown signal \"FOO\""),
            ("container does not exist", "invalid value for memory: \"lots\""),
            (
                "container does not exist",
                "--resources: read \"none.json\": No such file or directory (os error 2)",
            ),
        ],
        shows: &[],
    },
    Difference {
        why: "a value that cannot be right is refused before anything is made of it",
        says: &[
            (
                "lstat BUNDLE/state/LONG: file name too long",
                "invalid container ID format: \"LONG\" (letters, digits and _ + . - are allowed, 200 at most)",
            ),
            (
                "process property must not be empty",
                "\"BUNDLE/config.json\": ociVersion: \"\" is not a version (SemVer 2.0.0)",
            ),
            (
                "unable to start container process: error during container init: error setting cgroup config for procHooks process: failed to write \"10000000\": write /sys/fs/cgroup/memory/ID/memory.memsw.limit_in_bytes: invalid argument",
                "linux.resources.memory.swap: memory+swap limit should be >= memory limit",
            ),
            (
                "unable to start container process: error during container init: error mounting \"devpts\" to rootfs at \"/dev/pts\": mount devpts:/dev/pts (via /proc/self/fd/6), flags: 0xa, data: newinstance,ptmxmode=0666,mode=0620,gid=5: invalid argument",
                "process.user.uid: cannot setuid to unmapped uid 5 in user namespace",
            ),
            (
                "unable to start container process: error during container init: unable to apply apparmor profile: apparmor failed to apply profile: write /proc/self/attr/exec: invalid argument",
                "process.apparmorProfile: apparmor failed to apply profile: apparmor is not supported or not enabled on this host",
            ),
            (
                "unable to start container process: apparmor failed to apply profile: write /proc/self/attr/exec: invalid argument",
                "process.apparmorProfile: apparmor failed to apply profile: apparmor is not supported or not enabled on this host",
            ),
            ("unable to signal init: invalid argument", "unknown signal \"65\""),
            ("unable to signal init: invalid argument", "unknown signal \"-1\""),
            ("unable to signal init: invalid argument", "unknown signal \"-5\""),
            ("unable to signal init: invalid argument", "unknown signal \"999\""),
            (
                "unable to start container process: unable to setup user: uids and gids must be in range 0-2147483647",
                "--user: \"-1\" is not an id",
            ),
            (
                "Intel RDT/CAT: l3 cache schema is not enabled",
                "updating a non-existent Intel RDT configuration is not supported",
            ),
        ],
        shows: &[
            (
                "configurations: run ID: warnings",
                "warning: openat2 /sys/fs/cgroup/freezer/ID/freezer.state: no such file or directory\nwarning: openat2 /sys/fs/cgroup/freezer/ID/freezer.state: no such file or directory\nwarning: lstat /sys/fs/cgroup/devices/ID: no such file or directory",
                "",
            ),
            ("exec fails: exec --user 99999999999 ID true: exit code", "0", "255"),
            (
                "exec fails: exec --user 99999999999 ID true: stderr",
                "",
                "exec failed: --user: \"99999999999\" is not an id",
            ),
            (
                "exec fails: exec --user 99999999999 ID true: log",
                "",
                "exec failed: --user: \"99999999999\" is not an id",
            ),
            ("update: update --blkio-weight 5 ID: exit code", "0", "1"),
            (
                "update: update --blkio-weight 5 ID: stderr",
                "",
                "linux.resources.blockIO.weight: 5 is not between 10 and 1000",
            ),
            (
                "update: update --blkio-weight 5 ID: log",
                "",
                "linux.resources.blockIO.weight: 5 is not between 10 and 1000",
            ),
        ],
    },
    Difference {
        why: "nothing that was asked for is silently ignored",
        says: &[],
        shows: &[
            ("exec fails: exec --cap CAP_FOO ID true: exit code", "0", "255"),
            (
                "exec fails: exec --cap CAP_FOO ID true: stderr",
                "",
                "exec failed: --cap: unknown capability \"CAP_FOO\"",
            ),
            (
                "exec fails: exec --cap CAP_FOO ID true: log",
                "",
                "exec failed: --cap: unknown capability \"CAP_FOO\"",
            ),
            (
                "exec fails: exec --cap CAP_FOO ID true: warnings",
                "warning: ignoring unknown or unavailable capabilities: [CAP_FOO]",
                "",
            ),
            ("exec: exec -p process.json ID echo ignored: exit code", "0", "255"),
            (
                "exec: exec -p process.json ID echo ignored: stdout",
                "/tmp\n3\nSHLVL=1\nHOME=/\nX=y\nPATH=/bin\nPWD=/tmp\n",
                "",
            ),
            (
                "exec: exec -p process.json ID echo ignored: stderr",
                "",
                "exec failed: --process and a command cannot be given both",
            ),
            (
                "exec: exec -p process.json ID echo ignored: log",
                "",
                "exec failed: --process and a command cannot be given both",
            ),
        ],
    },
    Difference {
        why: "warnings do not go to a log that engines read as the answer",
        says: &[],
        shows: &[(
            "update: update --kernel-memory 64m ID: warnings",
            "warning: Kernel memory settings are ignored and will be removed",
            "",
        )],
    },
    Difference {
        why: "an update that fails leaves all limits as they were, so there is nothing to warn of",
        says: &[],
        shows: &[
            (
                "update: update --cpuset-cpus none ID: warnings",
                "warning: Setting back cgroup configs failed due to error: failed to write \"none\": write /sys/fs/cgroup/cpuset/ID/cpuset.cpus: invalid argument, your state.json and actual configs might be inconsistent.",
                "",
            ),
            (
                "update: update --cpu-quota 1 ID: warnings",
                "warning: Setting back cgroup configs failed due to error: failed to write \"1\": write /sys/fs/cgroup/cpu/ID/cpu.cfs_quota_us: invalid argument, your state.json and actual configs might be inconsistent.",
                "",
            ),
        ],
    },
    Difference {
        why: "a program that cannot be executed is the runtime's error as well, in the log and with its exit code; runc's last process writes to the container's own standard error, and its parent has gone",
        says: &[
            (
                "exec /bin/program: exec format error",
                "run failed: unable to start container process: exec /bin/program: exec format error",
            ),
            (
                "exec /bin/program: exec format error",
                "exec failed: unable to start container process: exec /bin/program: exec format error",
            ),
        ],
        shows: &[
            (
                "programs: run ID: log",
                "",
                "run failed: unable to start container process: exec /bin/program: exec format error",
            ),
            (
                "programs: exec ID /bin/program: log",
                "",
                "exec failed: unable to start container process: exec /bin/program: exec format error",
            ),
            ("programs: exec ID /bin/program: exit code", "1", "255"),
        ],
    },
    Difference {
        why: "of a program the kernel's reason is told, as execvp(3) tells it: runc built with a newer Go says the first too",
        says: &[
            ("exec: \"/etc\": permission denied", "exec: \"/etc\": is a directory: permission denied"),
            ("exec: \"data\": executable file not found in $PATH", "exec: \"data\": permission denied"),
        ],
        shows: &[],
    },
    Difference {
        why: "flags may follow the arguments, as with runc since 1.2",
        says: &[("\"create\" requires exactly 1 argument(s)", "flag needs an argument: -bundle")],
        shows: &[],
    },
    Difference {
        why: "a root that is not there is a mistake, as for newer runc",
        says: &[],
        shows: &[
            ("global options: --root none list -q: exit code", "0", "1"),
            (
                "global options: --root none list -q: stderr",
                "",
                "--root \"BUNDLE/none\": No such file or directory (os error 2)",
            ),
            (
                "global options: --root none list -q: log",
                "",
                "--root \"BUNDLE/none\": No such file or directory (os error 2)",
            ),
        ],
    },
    Difference {
        why: "`--` ends the options, as with every program but runc 1.1",
        says: &[],
        shows: &[
            ("exec: exec ID -- true: exit code", "255", "0"),
            (
                "exec: exec ID -- true: stderr",
                "exec failed: unable to start container process: exec: \"--\": executable file not found in $PATH",
                "",
            ),
            (
                "exec: exec ID -- true: log",
                "exec failed: unable to start container process: exec: \"--\": executable file not found in $PATH",
                "",
            ),
        ],
    },
    Difference {
        why: "SIGIOT is SIGABRT, by signal(7)",
        says: &[],
        shows: &[
            ("kill: kill ID IOT: exit code", "1", "0"),
            ("kill: kill ID IOT: stderr", "unknown signal \"IOT\"", ""),
            ("kill: kill ID IOT: log", "unknown signal \"IOT\"", ""),
        ],
    },
    Difference {
        why: "a working folder that is not there is made for exec too, as it is for the container's own process",
        says: &[],
        shows: &[
            ("exec: exec --cwd /tmp/new ID pwd: exit code", "255", "0"),
            ("exec: exec --cwd /tmp/new ID pwd: stdout", "", "/tmp/new\n"),
            (
                "exec: exec --cwd /tmp/new ID pwd: stderr",
                "exec failed: unable to start container process: chdir to cwd (\"/tmp/new\") set in config.json failed: no such file or directory",
                "",
            ),
            (
                "exec: exec --cwd /tmp/new ID pwd: log",
                "exec failed: unable to start container process: chdir to cwd (\"/tmp/new\") set in config.json failed: no such file or directory",
                "",
            ),
        ],
    },
    Difference {
        why: "no process is an empty list",
        says: &[],
        shows: &[("stopped: ps --format json ID: stdout", "null\n", "JSON in line: []\n")],
    },
    Difference {
        why: "a container that could not be made is not kept",
        says: &[(
            "container with given ID already exists",
            "unable to start container process: exec: \"nonexist\": executable file not found in $PATH",
        )],
        shows: &[
            ("run: state ID: exit code", "0", "1"),
            (
                "run: state ID: stdout",
                "JSON in lines: {\n  \"bundle\": \"BUNDLE\",\n  \"created\": \"TIME\",\n  \"id\": \"ID\",\n  \"ociVersion\": \"VERSION\",\n  \"owner\": \"\",\n  \"pid\": 0,\n  \"rootfs\": \"BUNDLE/rootfs\",\n  \"status\": \"stopped\"\n}",
                "",
            ),
            ("run: state ID: stderr", "", "container does not exist: ID"),
            ("run: state ID: log", "", "container does not exist: ID"),
        ],
    },
    Difference {
        why: "ambient capabilities are in no default since runc 1.2",
        says: &[],
        shows: &[("spec: ambient capabilities", "true", "false")],
    },
    Difference {
        why: "features say what there is: no libseccomp, no runc; file systems that know acl have it as an option of their own",
        says: &[],
        shows: &[
            ("features: annotations.org.opencontainers.runc.commit", "true", "false"),
            ("features: annotations.org.opencontainers.runc.version", "true", "false"),
            ("features: annotations.io.github.seccomp.libseccomp.version", "true", "false"),
            ("features: missing in /mountOptions", "", "acl noacl"),
        ],
    },
];

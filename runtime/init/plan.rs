// What the runtime tells the first process of a container to do last. Compiled into both the runtime
// (which writes it) and the static program in `main.rs` (which reads it from the sealed memfd it was
// started from, after its own ELF image).
//
//   +--------+----------------+--------+---------+----------------------------------------+
//   | Header | groups, limits | filter | labels  | cwd \0 candidate \0 candidate \0 ...  |
//   |        | u32, 24 bytes  | 8 each | 2 of \0 | the executable's possible paths, in     |
//   |        | each           |        |         | order                                  |
//   +--------+----------------+--------+---------+----------------------------------------+

/// The fixed part. All offsets are counted in bytes from its own start.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Header {
    /// Keeps what follows at a multiple of eight.
    pub padding: u32,
    /// `flag::*`.
    pub flags: u32,
    /// The socket to the runtime: "ready", errors; with `flag::WAIT_FOR_GO` its "go" comes back on it.
    pub sync: i32,
    /// The listening socket that `start` connects to, or -1.
    pub gate: i32,
    /// The root of a procfs that only we have, to write the labels through, or -1.
    pub proc: i32,
    /// The payload's user, group and file mode creation mask.
    pub uid: u32,
    pub gid: u32,
    pub umask: u32,
    /// Where the supplementary groups are, and how many.
    pub groups: u32,
    pub group_count: u32,
    /// Where the resource limits are (`Limit`), and how many.
    pub limits: u32,
    pub limit_count: u32,
    /// Where the seccomp program is, how many instructions, flags for seccomp(2).
    pub filter: u32,
    pub filter_length: u32,
    pub filter_flags: u32,
    /// Where the label strings are (both NUL-terminated, empty when absent).
    pub labels: u32,
    /// Where the working directory is; the candidates for the executable follow it.
    pub cwd: u32,
    pub candidate_count: u32,
    /// Capability sets as bit masks.
    pub bounding: u64,
    pub effective: u64,
    pub permitted: u64,
    pub inheritable: u64,
    pub ambient: u64,
}

/// One resource limit, as prlimit(2) takes it behind its number.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Limit {
    pub resource: u64,
    pub soft: u64,
    pub hard: u64,
}

/// Bits of [`Header::flags`].
pub mod flag {
    /// Set `PR_SET_NO_NEW_PRIVS`.
    pub const NO_NEW_PRIVILEGES: u32 = 1;
    /// The capability sets are given; otherwise they stay as they are.
    pub const CAPABILITIES: u32 = 2;
    /// The groups may stay as they are if setgroups(2) is not permitted.
    pub const GROUPS_MAY_STAY: u32 = 4;
    /// After "ready", wait for one message on the sync socket.
    pub const WAIT_FOR_GO: u32 = 8;
    /// The groups stay as they are: setgroups(2) is not called.
    pub const KEEP_GROUPS: u32 = 16;
    /// There is nothing to execute: wait at the gate, which `start` will not open.
    pub const NO_PROGRAM: u32 = 32;
}

/// Which step failed: the first number of an error report, the errno being the second.
pub mod step {
    pub const LABEL: u32 = 2;
    pub const CWD: u32 = 3;
    pub const CWD_OUTSIDE: u32 = 4;
    pub const NO_NEW_PRIVILEGES: u32 = 5;
    pub const BOUNDING: u32 = 6;
    pub const GROUPS: u32 = 7;
    pub const GID: u32 = 8;
    pub const UID: u32 = 9;
    pub const CAPABILITIES: u32 = 10;
    pub const AMBIENT: u32 = 11;
    pub const LOOKUP: u32 = 12;
    pub const FILTER: u32 = 14;
    pub const EXEC: u32 = 15;
    /// With the limit's place in the list added.
    pub const LIMIT: u32 = 1 << 16;
}

/// First byte of every message on the sync and gate sockets.
pub mod word {
    /// init -> runtime: all is done but what `start` (or "go") releases.
    pub const READY: u8 = b'R';
    /// init -> `start`: nothing but capabilities, the filter and execve is left; after it the end of the
    /// stream means that the payload runs.
    pub const LEAVING: u8 = b'L';
    /// init -> runtime: the filter is loaded, and this is the number (four bytes) of the listener's
    /// descriptor; waits for "go".
    pub const LISTENER: u8 = b'N';
    /// init -> runtime or `start`: a `step` and an errno follow, four bytes each, in native order.
    pub const FAILED: u8 = b'F';
}

/// What ends a container that waits for `start`: SIGHUP, SIGINT, SIGQUIT and SIGTERM. The kernel spares the
/// first process of a pid namespace their default actions; runc's reacts to these.
pub const ENDING_SIGNALS: [i32; 4] = [1, 2, 3, 15];

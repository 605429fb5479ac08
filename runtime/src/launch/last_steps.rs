//! What the program in `init/` is to do, written for it: header, groups, filter, labels, strings, behind
//! its own image in one sealed memfd. Written by the runtime before the fork, so that it is charged to
//! nobody's container; sealed, so that nobody can change what runs (CVE-2019-5736).

use std::ffi::CString;
use std::fs::{File, Permissions};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{FileExt, PermissionsExt};

use anyhow::{Context, Error, Result, anyhow};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};

use super::gate::Gate;
use super::handshake::Sync;
use crate::container::lsm::Labels;
use crate::container::process;
use crate::container::rlimits::Limit;
use crate::sys::process::{exec_fd, keep_across_exec, replace};

#[path = "../../init/plan.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared with the program in init/, which uses the rest")]
pub(super) mod plan;

use plan::{Header, flag, step};

/// The program of `init/`, built by build.rs.
static PROGRAM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/init"));

/// The plan is mapped from a page's start, whatever size pages have.
const PAGE: u64 = 64 << 10;

/// The memfd, ready to be executed.
#[derive(Debug)]
pub(crate) struct LastSteps {
    memfd: OwnedFd,
    /// `init FD OFFSET LENGTH`: the program's own first argument.
    name: CString,
}

/// What the program waits for between "ready" and the filter.
#[derive(Clone, Copy, Debug)]
pub(crate) enum WaitFor<'a> {
    /// `start`, at the gate.
    Start(&'a Gate),
    /// "go" on the sync socket.
    Go,
    /// Nothing: the runtime's process has waited already.
    Nothing,
}

/// A descriptor kept free for the procfs that labels are written through: only the new process can
/// make that, when the plan with its number is long sealed.
#[derive(Debug, Default)]
pub(crate) struct ProcPlace(Option<OwnedFd>);

impl ProcPlace {
    /// Reserves a number if there is a label.
    pub(crate) fn reserve(labels: &Labels) -> Result<Self> {
        let place = || -> Result<OwnedFd> { Ok(File::open("/dev/null").context("open /dev/null")?.into()) };
        labels.any().then(place).transpose().map(Self)
    }

    /// In the new process: puts the procfs in its place, to live through the next exec.
    pub(crate) fn put(&self, proc: Option<OwnedFd>) -> Result<()> {
        let (Some(place), Some(proc)) = (&self.0, proc) else { return Ok(()) };
        replace(place, proc).and_then(|()| keep_across_exec(place)).context("keep a procfs for the labels")
    }
}

/// Writes program and plan into a memfd and seals it; `limits` are those that the process can set for
/// itself.
pub(crate) fn prepare(
    process: &process::Plan,
    sync: &Sync,
    wait: WaitFor,
    proc: &ProcPlace,
    limits: &[Limit],
) -> Result<LastSteps> {
    let plan = encode(process, sync, wait, proc, limits)?;
    // Kernels before 6.3 do not know MFD_EXEC; on newer ones vm.memfd_noexec may ask for it.
    const MFD_EXEC: MFdFlags = MFdFlags::from_bits_retain(0x10);
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let memfd = memfd_create(c"runtime-init", flags | MFD_EXEC)
        .or_else(|_| memfd_create(c"runtime-init", flags))
        .context("memfd_create")?;
    let file = File::from(memfd);
    let offset = (PROGRAM.len() as u64).next_multiple_of(PAGE);
    file.write_all_at(PROGRAM, 0)
        .and_then(|()| file.write_all_at(&plan, offset))
        .context("write the last steps to a memfd")?;
    // What may not be read is undumpable from its first instruction on, for all without
    // CAP_DAC_OVERRIDE: a user namespace's processes cannot look into it.
    file.set_permissions(Permissions::from_mode(0o111)).context("chmod the memfd")?;
    let memfd = OwnedFd::from(file);
    let seals =
        SealFlag::F_SEAL_SEAL | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_WRITE;
    fcntl(&memfd, FcntlArg::F_ADD_SEALS(seals)).context("seal the memfd")?;
    let name = CString::new(format!("init {} {offset} {}", memfd.as_raw_fd(), plan.len()))?;
    Ok(LastSteps { memfd, name })
}

fn encode(
    process: &process::Plan,
    sync: &Sync,
    wait: WaitFor,
    proc: &ProcPlace,
    limits: &[Limit],
) -> Result<Vec<u8>> {
    let sets = process.capabilities.unwrap_or_default();
    let candidates = process.candidates();
    let mut tail: Vec<u8> = Vec::with_capacity(8 << 10);
    let start = size_of::<Header>();
    let groups_at = start;
    for group in &process.additional_gids {
        tail.extend_from_slice(&group.to_ne_bytes());
    }
    tail.resize(tail.len().next_multiple_of(8), 0);
    let limits_at = start + tail.len();
    for limit in limits {
        for number in [u64::from(limit.number()), limit.soft, limit.hard] {
            tail.extend_from_slice(&number.to_ne_bytes());
        }
    }
    let filter_at = start + tail.len();
    // With startContainer hooks and an agent, the filter is loaded by now.
    let loaded = matches!(wait, WaitFor::Nothing) && process.asks_an_agent();
    let filter = process.filter.as_ref().filter(|_| !loaded);
    for instruction in filter.iter().flat_map(|filter| &filter.program) {
        tail.extend_from_slice(&instruction.code.to_ne_bytes());
        tail.extend_from_slice(&[instruction.jt, instruction.jf]);
        tail.extend_from_slice(&instruction.k.to_ne_bytes());
    }
    let labels_at = start + tail.len();
    let strings = [&process.labels.apparmor, &process.labels.selinux, &process.cwd];
    let mut cwd_at = 0;
    for text in strings.into_iter().chain(&candidates) {
        if std::ptr::eq(text, &raw const process.cwd) {
            cwd_at = start + tail.len();
        }
        tail.extend_from_slice(text.as_bytes());
        tail.push(0);
    }
    let mut flags = 0;
    let mut set = |on: bool, bit: u32| flags |= if on { bit } else { 0 };
    set(process.no_new_privileges, flag::NO_NEW_PRIVILEGES);
    set(process.capabilities.is_some(), flag::CAPABILITIES);
    set(process.args.is_empty(), flag::NO_PROGRAM);
    set(process.groups_may_stay, flag::GROUPS_MAY_STAY);
    set(process.keeps_groups, flag::KEEP_GROUPS);
    set(matches!(wait, WaitFor::Go), flag::WAIT_FOR_GO);
    let number = |n: usize| u32::try_from(n).context("the plan is too long");
    let header = Header {
        padding: 0,
        flags,
        sync: sync.number(),
        gate: if let WaitFor::Start(gate) = wait { gate.number() } else { -1 },
        proc: proc.0.as_ref().map_or(-1, AsRawFd::as_raw_fd),
        uid: process.uid,
        gid: process.gid,
        umask: process.umask,
        groups: number(groups_at)?,
        group_count: number(process.additional_gids.len())?,
        limits: number(limits_at)?,
        limit_count: number(limits.len())?,
        filter: number(filter_at)?,
        filter_length: number(filter.map_or(0, |filter| filter.program.len()))?,
        filter_flags: filter.map_or(0, |filter| filter.flags),
        labels: number(labels_at)?,
        cwd: number(cwd_at)?,
        candidate_count: number(candidates.len())?,
        bounding: sets.bounding,
        effective: sets.effective,
        permitted: sets.permitted,
        inheritable: sets.inheritable,
        ambient: sets.ambient,
    };
    let mut plan = header_bytes(&header).to_vec();
    plan.extend_from_slice(&tail);
    Ok(plan)
}

#[expect(unsafe_code, reason = "a struct of integers without padding, seen as bytes")]
fn header_bytes(header: &Header) -> &[u8] {
    // SAFETY: Header is repr(C), made of integers only, its padding is a field; it lives as long as the
    // slice.
    unsafe { std::slice::from_raw_parts(std::ptr::from_ref(header).cast(), size_of::<Header>()) }
}

impl LastSteps {
    /// Becomes the program. Returns only on failure.
    pub(crate) fn exec(&self, process: &process::Plan, env: &[String]) -> Error {
        let strings = |list: &[String]| {
            list.iter().map(|text| CString::new(text.as_str())).collect::<Result<Vec<_>, _>>()
        };
        let (Ok(args), Ok(env)) = (strings(&process.args), strings(env)) else {
            return anyhow!("process.args or process.env contains a NUL byte");
        };
        if let Err(errno) = keep_across_exec(&self.memfd) {
            return Error::from(errno).context("keep the memfd of the last steps");
        }
        let args: Vec<CString> = std::iter::once(self.name.clone()).chain(args).collect();
        Error::from(exec_fd(&self.memfd, &args, &env)).context("execute the last steps from a memfd")
    }
}

/// The sentence for a report of the program: which step, which errno.
pub(crate) fn error(at: u32, errno: i32, process: &process::Plan) -> Error {
    let errno = Errno::from_raw(errno);
    let reason = errno.desc().to_lowercase();
    let name = process.args.first().map_or("", String::as_str);
    let why = |what: String| Error::from(errno).context(what);
    match at {
        step::LOOKUP if errno == Errno::ENOENT && !name.contains('/') => {
            anyhow!("exec: {name:?}: executable file not found in $PATH")
        }
        step::LOOKUP if matches!(errno, Errno::ENOENT | Errno::ENOTDIR) => {
            anyhow!("exec: {name:?}: stat {name}: {reason}")
        }
        // execve(2) calls that EACCES, and engines make their exit code 126 of those words.
        step::LOOKUP | step::EXEC if errno == Errno::EISDIR => {
            anyhow!("exec: {name:?}: {reason}: {}", Errno::EACCES.desc().to_lowercase())
        }
        step::LOOKUP => anyhow!("exec: {name:?}: {reason}"),
        step::EXEC => anyhow!("exec {name}: {reason}"), // as runc says it
        step::CWD => why(format!("chdir to cwd ({:?}) set in config.json failed", process.cwd)),
        step::CWD_OUTSIDE => anyhow!(
            "process.cwd: current working directory {:?} is outside of container mount namespace root -- possible container breakout detected",
            process.cwd
        ),
        step::LABEL if errno == Errno::ENOENT && process.labels.selinux.is_empty() => anyhow!(
            "process.apparmorProfile: apparmor failed to apply profile: no profile {:?} is loaded",
            process.labels.apparmor.trim_start_matches("exec ")
        ),
        step::LABEL => why(format!(
            "process: unable to apply label {:?} {:?}",
            process.labels.apparmor, process.labels.selinux
        )),
        step::NO_NEW_PRIVILEGES => why("process.noNewPrivileges: set no_new_privs".to_owned()),
        step::BOUNDING => why("process.capabilities.bounding: drop a capability".to_owned()),
        step::GROUPS if errno == Errno::EPERM => why(format!(
            "process.user.additionalGids: cannot set groups {:?}: setgroups is denied in this user namespace",
            process.additional_gids
        )),
        step::GROUPS => why(format!("process.user.additionalGids: set groups {:?}", process.additional_gids)),
        step::GID => why(format!("process.user.gid: set gid {}", process.gid)),
        step::UID => why(format!("process.user.uid: set uid {}", process.uid)),
        step::CAPABILITIES => {
            why("process.capabilities: set them (does the runtime have them all itself?)".to_owned())
        }
        step::AMBIENT => why("process.capabilities.ambient: raise a capability".to_owned()),
        step::FILTER => why("linux.seccomp: load the filter".to_owned()),
        at if at & step::LIMIT != 0 => match process.limits.get((at - step::LIMIT) as usize) {
            Some(limit) => why(format!("{limit} (raising a hard limit needs CAP_SYS_RESOURCE)")),
            None => why("process.rlimits: set a limit".to_owned()),
        },
        _ => why(format!("step {at} of starting the process")),
    }
}

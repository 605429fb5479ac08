//! `process`: config.md#process. The same plan serves `create` and `exec`.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::os::fd::BorrowedFd;
use std::path::Path;

use anyhow::{Context, Result, bail};
use nix::fcntl::OFlag;
use nix::pty::Winsize;
use nix::unistd::Pid;
use oci_spec::runtime::{Linux, Process};

use super::annotations::Annotations;
use super::id_maps::IdMaps;
use super::lsm::{self, Labels};
use super::memory_policy::{self, MemoryPolicy};
use super::rlimits::{self, Limit};
use super::scheduling::{self, Scheduling};
use super::{capabilities, rootless, seccomp};
use crate::log;
use crate::sys::path::open_in_root;

/// A process, checked and in the kernel's terms.
#[derive(Clone, Debug, Default)]
pub(crate) struct Plan {
    /// Empty only in a container that was created without `process`, which cannot be started.
    pub(crate) args: Vec<String>,
    /// The executable, if it is not to be looked for by `args[0]`.
    pub(crate) program: Option<String>,
    /// `NAME=value`, each name once.
    pub(crate) env: Vec<String>,
    pub(crate) cwd: String,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) additional_gids: Vec<u32>,
    /// True where setgroups(2) may be denied by the user namespace, and nobody wants groups.
    pub(crate) groups_may_stay: bool,
    /// The groups of the runtime's caller stay: nobody calls setgroups(2).
    pub(crate) keeps_groups: bool,
    pub(crate) umask: u32,
    /// None: all capabilities stay as they are.
    pub(crate) capabilities: Option<capabilities::Sets>,
    pub(crate) limits: Vec<Limit>,
    pub(crate) no_new_privileges: bool,
    pub(crate) labels: Labels,
    pub(crate) scheduling: Scheduling,
    pub(crate) memory_policy: Option<MemoryPolicy>,
    pub(crate) oom_score_adj: Option<i32>,
    pub(crate) terminal: bool,
    pub(crate) console_size: Option<Winsize>,
    pub(crate) filter: Option<seccomp::Filter>,
}

/// Checks and translates; touches nothing.
pub(crate) fn plan(process: &Process, linux: Option<&Linux>, annotations: &Annotations) -> Result<Plan> {
    let args = process.args().clone().unwrap_or_default();
    if args.is_empty() {
        bail!("process.args: args must not be empty");
    }
    if args[0].is_empty() {
        bail!("unable to start container process: exec: \"\": executable file not found in $PATH");
    }
    if let Some(n) = args.iter().position(|arg| arg.contains('\0')) {
        bail!("process.args[{n}]: contains a NUL byte");
    }
    let cwd = process.cwd().to_str().context("process.cwd: is not UTF-8")?.to_owned();
    if !cwd.starts_with('/') {
        bail!("process.cwd: {cwd:?}: Cwd must be an absolute path");
    }
    if cwd.contains('\0') {
        bail!("process.cwd: {cwd:?} contains a NUL byte");
    }
    let user = process.user();
    for id in [user.uid(), user.gid()] {
        if id == u32::MAX {
            bail!("process.user: the id {id} means \"no change\" to the kernel and cannot be taken");
        }
    }
    let terminal = process.terminal().unwrap_or(false);
    let size = |n: u64| u16::try_from(n).context("process.consoleSize: above 65535");
    let console_size = match process.console_size() {
        Some(console) if terminal => Some(Winsize {
            ws_row: size(console.height())?,
            ws_col: size(console.width())?,
            ws_xpixel: 0,
            ws_ypixel: 0,
        }),
        _ => None,
    };
    if let Some(score) = process.oom_score_adj()
        && !(-1000..=1000).contains(&score)
    {
        bail!("process.oomScoreAdj: {score} is not between -1000 and 1000");
    }
    let filter = match (&annotations.seccomp_program, linux.and_then(|linux| linux.seccomp().as_ref())) {
        (Some(program), _) => Some(seccomp::made_elsewhere(program.clone())?),
        (None, profile) => profile.map(|profile| seccomp::plan(profile, annotations)).transpose()?,
    };
    Ok(Plan {
        args,
        program: None,
        env: environment(process.env().as_deref().unwrap_or_default())?,
        cwd,
        uid: user.uid(),
        gid: user.gid(),
        additional_gids: user.additional_gids().clone().unwrap_or_default(),
        groups_may_stay: false,
        keeps_groups: annotations.keep_original_groups,
        umask: user.umask().unwrap_or(0o022),
        capabilities: process.capabilities().as_ref().map(capabilities::plan),
        limits: rlimits::plan(process.rlimits().as_deref().unwrap_or_default())?,
        no_new_privileges: process.no_new_privileges().unwrap_or(false),
        labels: lsm::plan(process.apparmor_profile().as_deref(), process.selinux_label().as_deref())?,
        scheduling: scheduling::plan(process, linux)?,
        memory_policy: linux
            .and_then(|linux| linux.memory_policy().as_ref())
            .map(memory_policy::plan)
            .transpose()?,
        oom_score_adj: process.oom_score_adj(),
        terminal,
        console_size,
        filter,
    })
}

/// "process is REQUIRED when start is called": until then a container may be without.
pub(crate) fn nothing() -> Plan {
    Plan { cwd: "/".to_owned(), umask: 0o022, ..Plan::default() }
}

/// Each name once, the last value winning, in the order of first appearance.
fn environment(env: &[String]) -> Result<Vec<String>> {
    let mut places: HashMap<&str, usize> = HashMap::with_capacity(env.len());
    let mut result: Vec<String> = Vec::with_capacity(env.len() + 1);
    for (n, entry) in env.iter().enumerate() {
        let Some((name, _)) = entry.split_once('=') else {
            bail!("process.env[{n}]: {entry:?} has no \"=\"");
        };
        if name.is_empty() {
            bail!("process.env[{n}]: {entry:?} has no name before \"=\"");
        }
        if entry.contains('\0') {
            bail!("process.env[{n}]: environment variable can't contain null(\\x00): {entry:?}");
        }
        match places.get(name) {
            Some(place) => result[*place].clone_from(entry),
            None => {
                places.insert(name, result.len());
                result.push(entry.clone());
            }
        }
    }
    Ok(result)
}

impl Plan {
    /// "setgroups" in a user namespace of an ordinary user's making is denied; its own groups then stay,
    /// which nobody can get rid of.
    pub(crate) fn let_groups_stay(&mut self, user_namespace: bool) {
        let denied = || user_namespace || (rootless::in_user_namespace() && rootless::setgroups_is_denied());
        self.groups_may_stay = self.additional_gids.is_empty() && denied();
    }

    /// In the new process, once it is in its cgroup.
    pub(crate) fn apply_policies(&self) -> Result<()> {
        self.scheduling.apply()?;
        self.memory_policy.as_ref().map_or(Ok(()), MemoryPolicy::apply)
    }

    /// `process.oomScoreAdj`: proc_pid_oom_score_adj(5). Without CAP_SYS_RESOURCE it cannot be lowered, which
    /// without the host's root is nothing that the configuration could know.
    pub(crate) fn set_oom_score(&self, pid: Pid) -> Result<()> {
        let Some(score) = self.oom_score_adj else { return Ok(()) };
        let path = format!("/proc/{pid}/oom_score_adj");
        let now = || std::fs::read_to_string(&path).ok()?.trim().parse().ok();
        match std::fs::write(&path, score.to_string()) {
            Err(error) if error.raw_os_error() == Some(libc::EACCES) && now() == Some(score) => Ok(()),
            Err(error) if error.raw_os_error() == Some(libc::EACCES) && rootless::is_rootless() => {
                log::warn(&format!("process.oomScoreAdj: {score} cannot be set without the host's root"));
                Ok(())
            }
            other => other.with_context(|| format!("process.oomScoreAdj: write {score} to {path}")),
        }
    }

    /// Whether some rule of the filter answers with `SCMP_ACT_NOTIFY`.
    pub(crate) fn asks_an_agent(&self) -> bool {
        self.filter.as_ref().is_some_and(|filter| filter.listener.is_some())
    }

    /// Refuses ids that the user namespace does not know: setuid(2) would say no more than EINVAL.
    pub(crate) fn check_mapped(&self, maps: &IdMaps) -> Result<()> {
        if maps.host_uid(self.uid).is_none() {
            bail!("process.user.uid: cannot setuid to unmapped uid {} in user namespace", self.uid);
        }
        if maps.host_gid(self.gid).is_none() {
            bail!("process.user.gid: cannot setgid to unmapped gid {} in user namespace", self.gid);
        }
        Ok(())
    }

    /// Where the executable may be, in order: `args[0]` itself if it has a slash, else in each folder
    /// of the *container's* PATH.
    pub(crate) fn candidates(&self) -> Vec<String> {
        let Some(name) = self.program.as_ref().or(self.args.first()) else { return Vec::new() };
        if name.contains('/') {
            return vec![name.clone()];
        }
        let path = self.env.iter().find_map(|entry| entry.strip_prefix("PATH=")).unwrap_or_default();
        path.split(':')
            .filter(|_| !path.is_empty())
            .map(|dir| format!("{}/{name}", if dir.is_empty() { "." } else { dir }))
            .collect()
    }

    /// The environment with HOME from the container's passwd(5), if it has none.
    pub(crate) fn env_with_home(&self, root: Option<BorrowedFd>) -> Vec<String> {
        let mut env = self.env.clone();
        if !env.iter().any(|entry| entry.starts_with("HOME=") && entry.len() > "HOME=".len()) {
            env.retain(|entry| !entry.starts_with("HOME="));
            let home = root.and_then(|root| home_of(root, self.uid)).unwrap_or_else(|| "/".to_owned());
            env.push(format!("HOME={home}"));
        }
        env
    }
}

/// The home folder of `uid`. Never an error: a strange file just has no answer. It belongs to the
/// image, so it is read with care: a regular file, not more than a mebibyte of it.
fn home_of(root: BorrowedFd, uid: u32) -> Option<String> {
    const MOST: u64 = 1 << 20;
    let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    let file = File::from(open_in_root(root, Path::new("etc/passwd"), flags.bits(), 0).ok()?);
    if !file.metadata().ok()?.is_file() {
        return None;
    }
    let mut text = Vec::new();
    file.take(MOST).read_to_end(&mut text).ok()?;
    let text = String::from_utf8_lossy(&text);
    let home = text.lines().find_map(|line| {
        let mut fields = line.split(':');
        let found: u32 = fields.nth(2)?.parse().ok()?;
        (found == uid).then(|| fields.nth(2)).flatten()
    })?;
    (home.starts_with('/') && !home.contains('\0')).then(|| home.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(list: &[&str]) -> Vec<String> {
        list.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn the_last_value_of_a_variable_wins() {
        let env = environment(&words(&["A=1", "B=2", "A=3"])).expect("a good environment");
        assert_eq!(env, ["A=3", "B=2"]);
    }

    #[test]
    fn an_entry_without_a_name_or_a_value_is_refused() {
        assert!(environment(&words(&["A"])).is_err());
        assert!(environment(&words(&["=A"])).is_err());
        assert!(environment(&words(&["A=\0"])).is_err());
    }
}

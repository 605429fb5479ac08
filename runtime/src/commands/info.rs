//! `info`: what this host has of what containers need, for a person who wonders why one does not run.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use clap::{ArgMatches, Command};
use nix::sys::utsname::uname;

use crate::cgroup;
use crate::cli::{self, Context};
use crate::container::lsm;
use crate::sys::file::read_text;

pub(super) fn flags(command: Command) -> Command {
    command
        .about("Show what this host has for containers")
        .arg(cli::value("format", "FORMAT", "text or json").short('f').default_value("text"))
}

pub(super) fn run(context: &Context, matches: &ArgMatches) -> Result<u8> {
    let facts = facts(context)?;
    match cli::text(matches, "format") {
        "json" => {
            let facts: BTreeMap<_, _> = facts.into_iter().collect();
            println!("{}", serde_json::to_string_pretty(&facts)?);
        }
        "text" => facts.iter().for_each(|(name, value)| println!("{:<18}{value}", format!("{name}:"))),
        other => bail!("invalid format option {other:?} (text and json are known)"),
    }
    Ok(0)
}

fn facts(context: &Context) -> Result<Vec<(&'static str, String)>> {
    let host = uname()?;
    let text = |part: &std::ffi::OsStr| part.to_string_lossy().into_owned();
    let yes_no = |yes: bool| if yes { "yes" } else { "no" }.to_owned();
    let namespaces = ["cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"];
    let namespaces = namespaces.into_iter().filter(|name| Path::new("/proc/self/ns").join(name).exists());
    let most_users = read_text("/proc/sys/user/max_user_namespaces").unwrap_or_default();
    let helper = on_path("newuidmap").map_or_else(|| "no".to_owned(), |path| path.display().to_string());
    Ok(vec![
        ("runtime", format!("{} (runtime-spec 1.3.0)", env!("CARGO_PKG_VERSION"))),
        ("state", context.root.display().to_string()),
        ("kernel", format!("{} {} {}", text(host.sysname()), text(host.release()), text(host.machine()))),
        ("cgroups", cgroup::describe()?),
        ("systemd", yes_no(Path::new("/run/systemd/system").is_dir())),
        ("namespaces", namespaces.collect::<Vec<_>>().join(" ")),
        ("user namespaces", format!("{} at most", most_users.trim())),
        ("newuidmap", helper),
        ("seccomp", yes_no(Path::new("/proc/sys/kernel/seccomp").exists())),
        ("apparmor", yes_no(lsm::apparmor_is_on())),
        ("selinux", yes_no(lsm::selinux_is_on())),
        ("intel rdt", yes_no(Path::new("/sys/fs/resctrl/schemata").exists())),
        ("checkpoint", "no".to_owned()),
    ])
}

fn on_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(program)).find(|file| file.exists())
}

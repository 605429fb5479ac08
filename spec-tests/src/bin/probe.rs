//! The probe: runs inside a container, or as one of its hooks, and writes down what it sees as JSON.
//! It judges nothing. It needs no other file when built with `crt-static`.
//!
//! ```text
//! probe report [PATH...]             one Observation on standard output
//! probe wait                         "ready", then waits until it is killed; all signals as usual
//! probe catch                        "ready", then one line `signal N` for the first signal; exits 0
//! probe exit CODE                    exits with this code
//! probe hook NAME FILE [CODE [SECONDS]]   appends a line for the hook to FILE, sleeps, exits with CODE
//! probe call NAME                    makes a system call, prints its errno's name or `ok`
//! probe libraries                    the files that the loader mapped for this program
//! ```

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{IsTerminal, Read, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit};
use nix::sys::signal::SigSet;
use serde_json::{Value, json};
use spec_tests::probe::{Mount, Observation, Seen};

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args_os().map(|arg| arg.to_string_lossy().into_owned()).collect();
    match run(&args) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("probe: {error:#}");
            ExitCode::from(99)
        }
    }
}

fn run(args: &[String]) -> Result<u8> {
    let words: Vec<&str> = args.iter().skip(1).map(String::as_str).collect();
    match words.as_slice() {
        ["report", paths @ ..] => say(&serde_json::to_string(&observe(args, paths))?)?,
        ["wait"] => {
            say("ready")?;
            loop {
                std::thread::park();
            }
        }
        ["catch"] => {
            let signals = SigSet::all();
            signals.thread_block().context("block signals")?;
            say("ready")?;
            let signal = signals.wait().context("wait for a signal")?;
            say(&format!("signal {}", signal as i32))?;
        }
        ["exit", code] => return code.parse().context("exit code"),
        ["hook", name, file, rest @ ..] => return hook(args, name, file, rest),
        ["call", name] => say(call(name)?)?,
        ["libraries"] => say(&libraries()?)?,
        _ => bail!("arguments: {words:?}"),
    }
    Ok(0)
}

/// One line to standard output; an error when nobody can have got it.
fn say(line: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    if !line.is_empty() {
        writeln!(out, "{line}").context("write")?;
    }
    out.flush().context("write")
}

fn observe(args: &[String], paths: &[&str]) -> Observation {
    // Before anything else is opened.
    let fds = open_descriptors();
    let uname = rustix::system::uname();
    let uid = nix::unistd::getresuid();
    let gid = nix::unistd::getresgid();
    let mut groups: Vec<u32> =
        nix::unistd::getgroups().unwrap_or_default().iter().map(|group| group.as_raw()).collect();
    groups.sort_unstable();
    Observation {
        pid: nix::unistd::getpid().as_raw(),
        args: args.to_vec(),
        env: std::env::vars_os()
            .map(|(name, value)| format!("{}={}", name.to_string_lossy(), value.to_string_lossy()))
            .collect(),
        cwd: std::env::current_dir().map(|path| path.to_string_lossy().into_owned()).unwrap_or_default(),
        uids: uid
            .map(|ids| [ids.real.as_raw(), ids.effective.as_raw(), ids.saved.as_raw()])
            .unwrap_or_default(),
        gids: gid
            .map(|ids| [ids.real.as_raw(), ids.effective.as_raw(), ids.saved.as_raw()])
            .unwrap_or_default(),
        groups,
        status: status(),
        rlimits: rlimits(),
        namespaces: links("/proc/self/ns"),
        hostname: uname.nodename().to_string_lossy().into_owned(),
        domainname: uname.domainname().to_string_lossy().into_owned(),
        mounts: mounts(),
        fds,
        terminals: [
            std::io::stdin().is_terminal(),
            std::io::stdout().is_terminal(),
            std::io::stderr().is_terminal(),
        ],
        files: [
            "cgroup",
            "gid_map",
            "oom_score_adj",
            "personality",
            "setgroups",
            "timens_offsets",
            "uid_map",
        ]
        .into_iter()
        .filter_map(|name| Some((name.to_owned(), fs::read_to_string(format!("/proc/self/{name}")).ok()?)))
        .collect(),
        paths: paths.iter().map(|path| ((*path).to_owned(), look(path))).collect(),
    }
}

fn status() -> BTreeMap<String, String> {
    let text = fs::read_to_string("/proc/self/status").unwrap_or_default();
    text.lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
        .collect()
}

fn rlimits() -> BTreeMap<String, (u64, u64)> {
    use Resource::*;
    [
        RLIMIT_AS,
        RLIMIT_CORE,
        RLIMIT_CPU,
        RLIMIT_DATA,
        RLIMIT_FSIZE,
        RLIMIT_LOCKS,
        RLIMIT_MEMLOCK,
        RLIMIT_MSGQUEUE,
        RLIMIT_NICE,
        RLIMIT_NOFILE,
        RLIMIT_NPROC,
        RLIMIT_RSS,
        RLIMIT_RTPRIO,
        RLIMIT_RTTIME,
        RLIMIT_SIGPENDING,
        RLIMIT_STACK,
    ]
    .into_iter()
    .filter_map(|resource| Some((format!("{resource:?}"), getrlimit(resource).ok()?)))
    .collect()
}

/// The symbolic links in a folder and where they point.
fn links(folder: &str) -> BTreeMap<String, String> {
    let Ok(entries) = fs::read_dir(folder) else { return BTreeMap::new() };
    entries
        .flatten()
        .filter_map(|entry| {
            let target = fs::read_link(entry.path()).ok()?;
            Some((entry.file_name().to_string_lossy().into_owned(), target.to_string_lossy().into_owned()))
        })
        .collect()
}

fn open_descriptors() -> BTreeMap<i32, String> {
    links("/proc/self/fd")
        .into_iter()
        .filter_map(|(number, target)| Some((number.parse().ok()?, target)))
        // The folder being read has a descriptor as well.
        .filter(|(_, target)| !target.starts_with("/proc/"))
        .collect()
}

fn mounts() -> Vec<Mount> {
    let text = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    text.lines().filter_map(mount_line).collect()
}

fn mount_line(line: &str) -> Option<Mount> {
    let words = |text: &str| text.split(',').map(str::to_owned).collect();
    let (left, right) = line.split_once(" - ")?;
    let left: Vec<&str> = left.split(' ').collect();
    let right: Vec<&str> = right.split(' ').collect();
    Some(Mount {
        target: (*left.get(4)?).to_owned(),
        root: (*left.get(3)?).to_owned(),
        options: words(left.get(5)?),
        propagation: left.get(6..)?.iter().map(|word| (*word).to_owned()).collect(),
        kind: (*right.first()?).to_owned(),
        super_options: words(right.get(2)?),
    })
}

fn look(path: &str) -> Seen {
    let Ok(metadata) = fs::symlink_metadata(path) else { return Seen::default() };
    let kind = metadata.file_type();
    let kind = match () {
        () if kind.is_symlink() => "symlink",
        () if kind.is_dir() => "directory",
        () if kind.is_char_device() => "char",
        () if kind.is_block_device() => "block",
        () if kind.is_fifo() => "fifo",
        () if kind.is_socket() => "socket",
        () => "file",
    };
    let mut seen = Seen {
        kind: Some(kind.to_owned()),
        mode: metadata.mode() & 0o7777,
        uid: metadata.uid(),
        gid: metadata.gid(),
        device: (nix::sys::stat::major(metadata.rdev()), nix::sys::stat::minor(metadata.rdev())),
        ..Seen::default()
    };
    match kind {
        "symlink" => {
            seen.link = fs::read_link(path).ok().map(|target| target.to_string_lossy().into_owned());
        }
        "directory" => {
            seen.read_error = error_name(entries(path, &mut seen.entries));
            seen.write_error = error_name(write_in(path));
        }
        _ => {
            seen.read_error = error_name(read(path, kind, &mut seen.content));
            seen.write_error =
                error_name(OpenOptions::new().write(true).custom_flags(NOT_WAITING).open(path).map(drop));
        }
    }
    seen
}

/// Opening a terminal or a fifo must neither wait nor make it ours.
const NOT_WAITING: i32 = nix::fcntl::OFlag::O_NONBLOCK.union(nix::fcntl::OFlag::O_NOCTTY).bits();

fn entries(path: &str, names: &mut Option<Vec<String>>) -> std::io::Result<()> {
    let mut found = Vec::new();
    for entry in fs::read_dir(path)? {
        found.push(entry?.file_name().to_string_lossy().into_owned());
    }
    found.sort();
    *names = Some(found);
    Ok(())
}

fn write_in(path: &str) -> std::io::Result<()> {
    let file = Path::new(path).join(".probe-was-here");
    File::create(&file)?;
    fs::remove_file(file)
}

fn read(path: &str, kind: &str, content: &mut Option<String>) -> std::io::Result<()> {
    let file = OpenOptions::new().read(true).custom_flags(NOT_WAITING).open(path)?;
    if kind == "file" {
        let mut bytes = Vec::new();
        file.take(4096).read_to_end(&mut bytes)?;
        *content = Some(String::from_utf8_lossy(&bytes).into_owned());
    }
    Ok(())
}

fn error_name<T>(result: std::io::Result<T>) -> Option<String> {
    let error = result.err()?;
    Some(match error.raw_os_error() {
        Some(number) => format!("{:?}", Errno::from_raw(number)),
        None => error.to_string(),
    })
}

fn hook(args: &[String], name: &str, file: &str, rest: &[&str]) -> Result<u8> {
    let mut input = String::new();
    std::io::stdin().read_to_string(&mut input).context("read standard input")?;
    let state: Value = serde_json::from_str(&input).unwrap_or(Value::String(input));
    let line = json!({"hook": name, "state": state, "observation": observe(args, &[])});
    let mut out = OpenOptions::new().create(true).append(true).open(file).context(file.to_owned())?;
    // In one call: other hooks and the program append to the same file.
    out.write_all(format!("{line}\n").as_bytes()).context(file.to_owned())?;
    if let Some(seconds) = rest.get(1) {
        std::thread::sleep(std::time::Duration::from_secs(seconds.parse().context("seconds")?));
    }
    rest.first().map_or(Ok(0), |code| code.parse().context("exit code"))
}

fn call(name: &str) -> Result<&'static str> {
    let result = match name {
        "mkdir" => nix::unistd::mkdir("/made-by-probe", nix::sys::stat::Mode::S_IRWXU),
        "getcwd" => nix::unistd::getcwd().map(drop),
        "sethostname" => nix::unistd::sethostname("made-by-probe"),
        _ => bail!("system call {name}"),
    };
    Ok(match result {
        Ok(()) => "ok",
        Err(Errno::EPERM) => "EPERM",
        Err(Errno::ENOSYS) => "ENOSYS",
        Err(Errno::EXDEV) => "EXDEV",
        Err(_) => "another error",
    })
}

fn libraries() -> Result<String> {
    let own = fs::read_link("/proc/self/exe").context("own program")?;
    let maps = fs::read_to_string("/proc/self/maps").context("own mappings")?;
    let mut files: Vec<&str> = maps
        .lines()
        .filter_map(|line| line.find('/').map(|start| &line[start..]))
        .filter(|file| Path::new(file) != own)
        .collect();
    files.sort_unstable();
    files.dedup();
    Ok(files.join("\n"))
}

//! `kill`: runtime.md#kill.

use anyhow::{Context as _, Result, bail};
use clap::{Arg, ArgMatches, Command};
use nix::sys::signal::Signal;

use crate::cli::{self, Context};
use crate::state_dir;
use crate::sys::process::pidfd_send_signal;

pub(super) fn flags(command: Command) -> Command {
    command
        .about("Send a signal to a container's init")
        .arg(cli::flag("all", "No error if init has ended; its left-over processes are killed").short('a'))
        .arg(super::regex_flag())
        .arg(cli::id())
        .arg(
            Arg::new("signal")
                .value_name("SIGNAL")
                .default_value("SIGTERM")
                .allow_negative_numbers(true)
                .help("Name or number"),
        )
}

pub(super) fn run(context: &Context, matches: &ArgMatches) -> Result<u8> {
    let signal = parse_signal(cli::text(matches, "signal"))?;
    super::each(&super::ids(context, matches)?, |id| kill(context, id, signal, matches.get_flag("all")))
}

fn kill(context: &Context, id: &str, signal: i32, all: bool) -> Result<()> {
    let state = state_dir::load(&context.root, id)?;
    let Some(init) = state_dir::init(&context.root, id)? else {
        // Without a pid namespace of its own, a container's processes outlive its init.
        let rest = signal == libc::SIGKILL && state.shares_pids && !state.cgroups.processes()?.is_empty();
        if rest || all {
            state.cgroups.kill_all()?;
            return Ok(());
        }
        bail!("container not running");
    };
    if signal == libc::SIGKILL {
        if state.shares_pids {
            state.cgroups.kill_all()?;
            return Ok(());
        }
        pidfd_send_signal(&init.pidfd, signal).with_context(|| format!("kill {}", init.pid))?;
        state.cgroups.thaw_if(state.cgroups.is_frozen()); // or it could not die
        return Ok(());
    }
    match pidfd_send_signal(&init.pidfd, signal) {
        Err(nix::errno::Errno::ESRCH) => bail!("container not running"),
        other => other.with_context(|| format!("send signal {signal} to {}", init.pid))?,
    }
    Ok(())
}

/// `9`, `KILL`, `SIGKILL`, `sigkill`, `RTMIN+3`, `RTMAX-1`.
fn parse_signal(text: &str) -> Result<i32> {
    let unknown = || format!("unknown signal {text:?}");
    if text.is_empty() {
        return Ok(libc::SIGTERM);
    }
    if let Ok(number) = text.parse::<i32>() {
        return if (0..=64).contains(&number) { Ok(number) } else { bail!(unknown()) };
    }
    let upper = text.to_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    for (base, sign, rest) in [
        (libc::SIGRTMIN(), 1, name.strip_prefix("RTMIN")),
        (libc::SIGRTMAX(), -1, name.strip_prefix("RTMAX")),
    ] {
        let Some(rest) = rest else { continue };
        let offset = match rest.strip_prefix(if sign > 0 { '+' } else { '-' }) {
            Some(digits) => {
                digits.parse::<i32>().ok().filter(|n| (0..=libc::SIGRTMAX() - libc::SIGRTMIN()).contains(n))
            }
            None => rest.is_empty().then_some(0),
        };
        return offset.map(|offset| base + sign * offset).with_context(unknown);
    }
    if name == "IOT" {
        return Ok(libc::SIGABRT);
    }
    format!("SIG{name}").parse::<Signal>().map(|signal| signal as i32).ok().with_context(unknown)
}

#[cfg(test)]
mod tests {
    use super::parse_signal;

    #[test]
    fn signals_have_names_and_numbers() {
        let good = [
            ("9", 9),
            ("KILL", 9),
            ("SIGKILL", 9),
            ("sigterm", 15),
            ("SIGBUS", 7),
            ("TRAP", 5),
            ("0", 0),
            ("64", 64),
            ("", 15),
        ];
        for (text, number) in good {
            assert_eq!(parse_signal(text).ok(), Some(number), "{text}");
        }
        assert_eq!(parse_signal("RTMIN+3").ok(), Some(libc::SIGRTMIN() + 3));
        for bad in ["SIGFOO", "65", "-1", "RTMIN+99", "9x"] {
            assert!(parse_signal(bad).is_err(), "{bad}");
        }
    }
}

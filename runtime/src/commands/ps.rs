//! `ps`: the processes in the container's cgroups.

use anyhow::{Context as _, Result, bail};
use clap::{Arg, ArgMatches, Command};

use crate::cli::{self, Context};
use crate::state_dir;

pub(super) fn flags(command: Command) -> Command {
    command
        .about("List a container's processes")
        .arg(cli::value("format", "FORMAT", "table or json").short('f').default_value("table"))
        .arg(cli::id())
        .arg(
            Arg::new("options")
                .value_name("PS-OPTIONS")
                .num_args(0..)
                .trailing_var_arg(true)
                .allow_hyphen_values(true)
                .help("Options for ps(1) [default: -ef]"),
        )
}

pub(super) fn run(context: &Context, matches: &ArgMatches) -> Result<u8> {
    let state = state_dir::load(&context.root, cli::text(matches, "id"))?;
    let pids: Vec<i32> = state.cgroups.processes()?.into_iter().map(|pid| pid.as_raw()).collect();
    match cli::text(matches, "format") {
        "json" => println!("{}", serde_json::to_string(&pids)?),
        "table" => {
            let options: Vec<&String> = matches.get_many("options").into_iter().flatten().collect();
            print_table(&pids, &options)?;
        }
        other => bail!("invalid format option {other:?} (table and json are known)"),
    }
    Ok(0)
}

/// ps(1) knows all processes; the container's are those whose PID column says so.
fn print_table(pids: &[i32], options: &[&String]) -> Result<()> {
    let mut ps = std::process::Command::new("ps");
    if options.is_empty() {
        ps.arg("-ef")
    } else {
        ps.args(options)
    };
    let output = ps.output().context("run ps (package procps)")?;
    if !output.status.success() {
        bail!("ps: {}", String::from_utf8_lossy(&output.stderr).trim_end());
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let mut lines = text.lines();
    let header = lines.next().unwrap_or_default();
    let Some(column) = header.split_whitespace().position(|name| name == "PID") else {
        bail!("couldn't find PID field in ps output");
    };
    println!("{header}");
    for line in lines {
        let pid = line.split_whitespace().nth(column).and_then(|pid| pid.parse().ok());
        if pid.is_some_and(|pid| pids.contains(&pid)) {
            println!("{line}");
        }
    }
    Ok(())
}

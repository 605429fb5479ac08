//! `completion`: what a shell needs to complete our command line, from the same flags as the help.

use std::io::Write;

use anyhow::{Context as _, Result};
use clap::{Arg, ArgMatches, Command};
use clap_complete::{Shell, generate};

use crate::cli::{self, Context};

pub(super) fn flags(command: Command) -> Command {
    command.about("Print the completion script for a shell").arg(
        Arg::new("shell")
            .value_name("SHELL")
            .required(true)
            .value_parser(clap::value_parser!(Shell))
            .help("bash, zsh, fish, elvish or powershell"),
    )
}

pub(super) fn run(_: &Context, matches: &ArgMatches) -> Result<u8> {
    let shell = *matches.get_one::<Shell>("shell").context("a shell")?;
    let mut script = Vec::new();
    generate(shell, &mut cli::whole_tree(), "runtime", &mut script);
    std::io::stdout().write_all(&script).context("write the script")?;
    Ok(0)
}

//! `man`: the man pages, from the same flags as the help. `make install` puts them into share/man.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use clap::{Arg, ArgMatches, Command};
use clap_mangen::Man;

use crate::cli::{self, Context};

/// What the flags do not say: exit codes, files, variables, annotations.
const MORE: &[u8] = include_bytes!("man.roff");

pub(super) fn flags(command: Command) -> Command {
    command.about("Write the man pages").hide(true).arg(
        Arg::new("folder")
            .value_name("FOLDER")
            .required(true)
            .value_parser(clap::value_parser!(PathBuf))
            .help("Where to"),
    )
}

pub(super) fn run(_: &Context, matches: &ArgMatches) -> Result<u8> {
    let folder = matches.get_one::<PathBuf>("folder").context("a folder")?;
    let mut tree = cli::whole_tree().disable_help_subcommand(true);
    tree.build();
    write(folder, "runtime", tree.clone(), MORE)?;
    for command in tree.get_subcommands().filter(|command| !command.is_hide_set()) {
        let name = format!("runtime-{}", command.get_name());
        let command = command.clone().display_name(name.clone());
        write(folder, &name, command, b".SH \"SEE ALSO\"\n.BR runtime (8)\n")?;
    }
    Ok(0)
}

/// Section 8: commands of an administrator's.
fn write(folder: &Path, name: &str, command: Command, more: &[u8]) -> Result<()> {
    let man = Man::new(command).title(name.to_uppercase()).section("8").manual("runtime");
    let mut page = Vec::new();
    man.render(&mut page)?;
    page.extend_from_slice(more);
    let path = folder.join(format!("{name}.8"));
    std::fs::write(&path, page).with_context(|| format!("write {path:?}"))
}

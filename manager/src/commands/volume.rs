//! `volume`: named volumes, which outlive the containers that made them.

use std::fs;
use std::io::ErrorKind;

use anyhow::{Context as _, Result, bail, ensure};

use crate::cli::Context;
use crate::container::record::Source;
use crate::container::{Container, check_name, files, lock, volume};
use crate::{output, table};

/// Manage named volumes
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// List volumes
    Ls {
        /// Print names only
        #[arg(short, long)]
        quiet: bool,
    },
    /// Remove volumes that no container uses
    Rm {
        /// Names
        #[arg(required = true)]
        volumes: Vec<String>,
    },
}

/// Lists or removes.
pub(crate) fn run(args: Args, context: &Context) -> Result<u8> {
    match args.command {
        Command::Ls { quiet } => list(context, quiet).map(|()| 0),
        Command::Rm { volumes } => super::each(&volumes, |name| {
            remove(context, name)?;
            output::print(&format!("{name}\n"))?;
            Ok(0)
        }),
    }
}

fn list(context: &Context, quiet: bool) -> Result<()> {
    let folder = context.root.join("volumes");
    let mut names = Vec::new();
    match fs::read_dir(&folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        other => {
            let entries = other.with_context(|| format!("read {}", folder.display()))?;
            let found = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
            names.extend(found.filter(|name| check_name(name, "volume").is_ok()));
        }
    }
    names.sort();
    if quiet {
        return output::print(&names.iter().map(|name| format!("{name}\n")).collect::<String>());
    }
    let mut rows = vec![vec!["DRIVER".to_owned(), "VOLUME NAME".to_owned()]];
    rows.extend(names.into_iter().map(|name| vec!["local".to_owned(), name]));
    output::print(&table::render(&rows))
}

fn remove(context: &Context, name: &str) -> Result<()> {
    check_name(name, "volume")?;
    let folder = volume::folder(&context.root, name);
    ensure!(folder.exists(), "no such volume: {name}");
    // Not while a container that starts is filling it.
    let _lock = lock(&folder)?;
    for container in Container::all(context)? {
        let uses = container
            .record
            .mounts
            .iter()
            .any(|mount| matches!(&mount.source, Source::Volume { name: other, .. } if other == name));
        if uses {
            bail!("volume {name} is in use by container {}", container.record.id);
        }
    }
    files::remove_folder(&folder)
}

//! `list`: every container below `--root`.

use anyhow::{Context as _, Result, bail};
use clap::{ArgMatches, Command};

use super::state::{self, Shown};
use crate::cli::{self, Context};
use crate::state_dir;

pub(super) fn flags(command: Command) -> Command {
    command
        .about("List the containers")
        .arg(cli::value("format", "FORMAT", "table or json").short('f').default_value("table"))
        .arg(cli::flag("quiet", "Print ids only").short('q'))
}

pub(super) fn run(context: &Context, matches: &ArgMatches) -> Result<u8> {
    // The default one appears with the first container; another that is missing is a slip of the pen.
    if context.root_given {
        std::fs::metadata(&context.root).with_context(|| format!("--root {:?}", context.root))?;
    }
    let mut all = Vec::new();
    for (id, owner) in state_dir::list(&context.root)? {
        match state::look(&context.root, &id, Some(owner)) {
            Ok(shown) => all.push(shown),
            // One that is being made or removed just now must not hide the others.
            Err(error) => eprintln!("{}: load container {id}: {error:#}", cli::name()),
        }
    }
    if matches.get_flag("quiet") {
        all.iter().for_each(|shown| println!("{}", shown.id));
        return Ok(0);
    }
    match cli::text(matches, "format") {
        "table" => print!("{}", table(&all)),
        "json" if all.is_empty() => println!("null"),
        "json" => println!("{}", serde_json::to_string(&all)?),
        other => bail!("invalid format option {other:?} (table and json are known)"),
    }
    Ok(0)
}

fn table(all: &[Shown]) -> String {
    let header = ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"].map(str::to_owned);
    let mut rows = vec![header];
    rows.extend(all.iter().map(|shown| {
        [
            shown.id.clone(),
            shown.pid.to_string(),
            shown.status.to_string(),
            shown.bundle.clone(),
            shown.created.clone(),
            shown.owner.clone(),
        ]
    }));
    let mut text = String::new();
    for row in &rows {
        for (n, cell) in row.iter().enumerate() {
            let widest = rows.iter().map(|row| row[n].len()).max().unwrap_or(0);
            let width = if n + 1 == row.len() { 0 } else { (widest + 3).max(12) };
            text += &format!("{cell:width$}");
        }
        text.push('\n');
    }
    text
}

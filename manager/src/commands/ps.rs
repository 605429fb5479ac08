//! `ps`: the containers, in docker's table. Reads small files and asks the kernel, takes no lock.

use anyhow::{Context as _, Result, bail};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::create::is_volume;
use crate::cli::Context;
use crate::container::record::{Root, Source};
use crate::container::state::State;
use crate::container::{Container, short_id};
use crate::{output, table, template};

/// List containers
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Show all containers, not only those that run
    #[arg(short, long)]
    all: bool,
    /// Print ids only
    #[arg(short, long)]
    quiet: bool,
    /// Do not shorten ids and commands
    #[arg(long)]
    no_trunc: bool,
    /// Print with a template: 'json', '{{json .}}', '{{.ID}} {{.Names}}', 'table {{.ID}}\t{{.Status}}'
    #[arg(long, value_name = "TEMPLATE")]
    format: Option<String>,
    /// Show those that match: name=, id=, status=, label=, exited=, ancestor=
    #[arg(short, long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// Show the one created last, in any state
    #[arg(short, long)]
    latest: bool,
    /// Show the NUMBER created last, in any state
    #[arg(short = 'n', long, value_name = "NUMBER")]
    last: Option<usize>,
}

/// The columns: names of fields and their headers.
const HEADERS: [(&str, &str); 7] = [
    ("ID", "CONTAINER ID"),
    ("Image", "IMAGE"),
    ("Command", "COMMAND"),
    ("RunningFor", "CREATED"),
    ("Status", "STATUS"),
    ("Ports", "PORTS"),
    ("Names", "NAMES"),
];

/// Prints the table.
pub(crate) fn run(args: Args, context: &Context) -> Result<u8> {
    let filters: Vec<(&str, &str)> = args
        .filter
        .iter()
        .map(|filter| {
            filter.split_once('=').with_context(|| format!("invalid filter {filter:?}: KEY=VALUE is wanted"))
        })
        .collect::<Result<_>>()?;
    let limit = if args.latest { Some(1) } else { args.last };
    let asks_state = filters.iter().any(|(key, _)| matches!(*key, "status" | "exited"));
    let mut rows = Vec::new();
    for container in Container::all(context)? {
        let state = match container.state() {
            Ok(state) => state,
            Err(error) => {
                eprintln!("manager: container {} is left out: {error:#}", container.record.id);
                continue;
            }
        };
        let shown = args.all || limit.is_some() || asks_state || state.running().is_some();
        if shown && matches(&filters, &container, &state)? {
            rows.push(fields(&container, &state, args.no_trunc));
        }
    }
    rows.truncate(limit.unwrap_or(usize::MAX));
    print(&rows, &args)?;
    Ok(0)
}

fn print(rows: &[Value], args: &Args) -> Result<()> {
    let format = args.format.as_deref().unwrap_or("table");
    let mut text = String::new();
    if args.quiet {
        rows.iter().for_each(|row| text += &format!("{}\n", row["ID"].as_str().unwrap_or_default()));
        return output::print(&text);
    }
    let Some(columns) = format.strip_prefix("table") else {
        let template = if format == "json" { "{{json .}}" } else { format };
        for row in rows {
            text += &(template::render(template, row)? + "\n");
        }
        return output::print(&text);
    };
    let usual = HEADERS.map(|(name, _)| format!("{{{{.{name}}}}}")).join("\t");
    let columns = if columns.trim().is_empty() { usual.as_str() } else { columns.trim() };
    let mut lines = vec![template::header(columns, &HEADERS)];
    for row in rows {
        lines.push(template::render(columns, row)?);
    }
    let cells: Vec<Vec<String>> =
        lines.iter().map(|line| line.split('\t').map(str::to_owned).collect()).collect();
    output::print(&table::render(&cells))
}

/// Filters of one key are alternatives, those of different keys must all hold.
fn matches(filters: &[(&str, &str)], container: &Container, state: &State) -> Result<bool> {
    let record = &container.record;
    for &(key, _) in filters {
        let mut any = false;
        for &(_, value) in filters.iter().filter(|(other, _)| *other == key) {
            any |= match key {
                "name" => record.name.contains(value.trim_start_matches('/')),
                "id" => record.id.starts_with(value),
                "status" => state.name() == value,
                "label" => match value.split_once('=') {
                    Some((name, value)) => record.labels.get(name).is_some_and(|own| own == value),
                    None => record.labels.contains_key(value),
                },
                "exited" => matches!(state, State::Exited(exit) if exit.code.to_string() == value),
                "ancestor" => image_name(container) == value,
                _ => bail!("invalid filter {key:?}"),
            };
        }
        if !any {
            return Ok(false);
        }
    }
    Ok(true)
}

/// What a template can ask for: docker's names.
fn fields(container: &Container, state: &State, whole: bool) -> Value {
    let record = &container.record;
    let command = record.process.args.join(" ");
    let command = if whole { command } else { table::ellipsis(&command, 20) };
    let labels: Vec<String> = record.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let mounts = record.mounts.iter().map(|mount| match &mount.source {
        Source::Bind(path) => path.display().to_string(),
        Source::Volume { name, .. } => name.clone(),
        Source::Anonymous => mount.destination.clone(),
        Source::Tmpfs => String::new(),
    });
    let mounts: Vec<String> = mounts.filter(|mount| !mount.is_empty()).collect();
    json!({
        "Command": format!("{command:?}"),
        "CreatedAt": created_at(&record.created),
        "ID": if whole { &record.id } else { short_id(&record.id) },
        "Image": image_name(container),
        "Labels": labels.join(","),
        "LocalVolumes": record.mounts.iter().filter(|mount| is_volume(mount)).count().to_string(),
        "Mounts": mounts.join(","),
        "Names": record.name,
        "Networks": record.network.name(),
        "Ports": "",
        "RunningFor": format!("{} ago", table::age(&record.created)),
        "State": state.name(),
        "Status": status(state),
    })
}

/// The image as it was asked for, or the folder.
fn image_name(container: &Container) -> String {
    match &container.record.root {
        Root::Image { name, .. } => name.clone(),
        Root::Folder(path) => path.display().to_string(),
    }
}

/// `Up 4 seconds`, `Exited (0) 3 seconds ago`, `Created`.
fn status(state: &State) -> String {
    match state {
        State::Created(_) => "Created".into(),
        State::Running { started, monitored } => {
            let note = if *monitored { "" } else { " (unmonitored)" };
            format!("Up {}{note}", table::age(&started.at))
        }
        State::Exited(exit) => format!("Exited ({}) {} ago", exit.code, table::age(&exit.finished_at)),
    }
}

/// `2026-11-21 23:16:47 +0000 UTC`.
fn created_at(time: &str) -> String {
    let time = time.parse::<Timestamp>().unwrap_or_default();
    format!("{} +0000 UTC", time.strftime("%Y-%m-%d %H:%M:%S"))
}

//! `history`: what made an image's layers, the newest first. Docker's table.

use anyhow::{Result, bail};
use serde_json::{Value, json};

use crate::cli::Context;
use crate::digest::Digest;
use crate::human;
use crate::image::config;
use crate::output;
use crate::store::Store;
use crate::table;
use crate::template;

/// Show what made an image
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// `table`, `json`, or a template as '{{.CreatedBy}}'
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Sizes and times for people
    #[arg(short = 'H', long, value_name = "BOOL", default_value_t = true, default_missing_value = "true",
        num_args = 0..=1, require_equals = true, action = clap::ArgAction::Set)]
    human: bool,
    /// Show whole ids and commands
    #[arg(long)]
    no_trunc: bool,
    /// Show ids only
    #[arg(short, long)]
    quiet: bool,
    /// NAME, NAME:TAG, NAME@DIGEST, or an image id
    #[arg(value_name = "IMAGE")]
    image: String,
}

const HEADINGS: &[(&str, &str)] =
    &[("ID", "IMAGE"), ("CreatedSince", "CREATED"), ("CreatedAt", "CREATED AT"), ("CreatedBy", "CREATED BY")];

/// Shows it.
pub(crate) fn run(args: Args, context: &Context) -> Result<u8> {
    let store = Store::open(&context.root)?;
    let Some((record, _)) = store.find_record(&args.image)? else { bail!("no such image: {}", args.image) };
    let rows = rows(&store, &record.config, &args)?;
    let field = |row: &Value, name: &str| row[name].as_str().unwrap_or_default().to_owned();
    if args.quiet {
        let ids: String = rows.iter().map(|row| field(row, "ID") + "\n").collect();
        return output::print(&ids).map(|()| 0);
    }
    let text = match args.format.as_deref() {
        None | Some("table" | "") => {
            let columns =
                ["ID", if args.human { "CreatedSince" } else { "CreatedAt" }, "CreatedBy", "Size", "Comment"];
            let created = if args.human { "CREATED" } else { "CREATED AT" };
            let mut table =
                vec![["IMAGE", created, "CREATED BY", "SIZE", "COMMENT"].map(str::to_owned).to_vec()];
            table.extend(rows.iter().map(|row| columns.iter().map(|name| field(row, name)).collect()));
            table::render(&table)
        }
        Some(format) => {
            let format = if format == "json" { "{{json .}}" } else { format };
            let (template, heading) = match format.strip_prefix("table ") {
                Some(template) => (template, true),
                None => (format, false),
            };
            let lines = rows.iter().map(|row| template::render(template, row));
            let mut lines = lines.collect::<Result<Vec<_>>>()?;
            if heading {
                lines.insert(0, template::header(template, HEADINGS));
                let cells = |line: &String| line.split('\t').map(str::to_owned).collect();
                table::render(&lines.iter().map(cells).collect::<Vec<_>>())
            } else {
                lines.iter().map(|line| format!("{line}\n")).collect()
            }
        }
    };
    output::print(&text)?;
    Ok(0)
}

fn rows(store: &Store, id: &Digest, args: &Args) -> Result<Vec<Value>> {
    let config = config::read(&store.read_blob(id)?)?;
    let mut layers = config::diff_ids(&config)?.into_iter();
    let mut rows = Vec::new();
    for entry in config.history().iter().flatten() {
        let empty = entry.empty_layer().unwrap_or(false);
        let layer = if empty { None } else { layers.next() };
        let size = match layer {
            Some(diff_id) => store.layer(&diff_id)?.map_or(0, |meta| meta.size),
            None => 0,
        };
        let created = entry.created().clone().unwrap_or_default();
        let by = entry.created_by().clone().unwrap_or_default().replace('\t', " ");
        let ago = table::age(&created);
        let since = if ago == "unknown" { "N/A".to_owned() } else { format!("{ago} ago") };
        rows.push(json!({
            "ID": "<missing>",
            "CreatedSince": since,
            "CreatedAt": created,
            "CreatedBy": if args.no_trunc { by } else { cut(&by, 45) },
            "Size": if args.human { human::size(size, 3) } else { size.to_string() },
            "Comment": entry.comment().clone().unwrap_or_default(),
        }));
    }
    rows.reverse();
    if let Some(first) = rows.first_mut() {
        first["ID"] = if args.no_trunc { id.to_string() } else { id.short().to_owned() }.into();
    }
    Ok(rows)
}

fn cut(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    text.chars().take(most - 1).chain(['…']).collect()
}

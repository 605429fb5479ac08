//! `images`: the list of what is here, in docker's table.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, bail};
use oci_spec::image::ImageConfiguration;
use serde_json::{Value, json};

use crate::cli::Context;
use crate::digest::Digest;
use crate::human;
use crate::image::config;
use crate::output;
use crate::reference::Reference;
use crate::registry::registries::Registries;
use crate::store::Store;
use crate::store::names::Record;
use crate::table;
use crate::template;

/// List images
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Show all images (there are no hidden ones here; for scripts)
    #[arg(short, long)]
    all: bool,
    /// Show digests
    #[arg(long)]
    digests: bool,
    /// Only what matches: dangling=true|false, reference=PATTERN
    #[arg(short, long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// `table`, `json`, or a template as '{{.Repository}}:{{.Tag}}'
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Show whole ids
    #[arg(long)]
    no_trunc: bool,
    /// Show ids only
    #[arg(short, long)]
    quiet: bool,
    /// Only REPOSITORY, or REPOSITORY:TAG
    #[arg(value_name = "NAME")]
    name: Option<String>,
}

/// Lists.
pub(crate) fn run(args: Args, context: &Context) -> Result<u8> {
    let store = Store::open(&context.root)?;
    let filters = args.filter.iter().map(|text| Filter::parse(text)).collect::<Result<Vec<_>>>()?;
    let mut rows = Vec::new();
    let mut damaged = Vec::new();
    for record in store.records()? {
        let row = match Row::read(&store, record) {
            Ok(row) => row,
            // One bad image does not hide the others.
            Err(error) => {
                damaged.push(format!("{error:#}"));
                continue;
            }
        };
        if filters.iter().all(|filter| filter.takes(&row)) && takes_name(args.name.as_deref(), &row)? {
            rows.push(row);
        }
    }
    // The newest first; names keep their order among images of one time.
    rows.sort_by_key(|row| std::cmp::Reverse(row.created));
    output::print(&text(&args, &rows)?)?;
    if damaged.is_empty() { Ok(0) } else { bail!(damaged.join("; ")) }
}

fn text(args: &Args, rows: &[Row]) -> Result<String> {
    if args.quiet {
        return Ok(rows.iter().map(|row| row.id(args.no_trunc) + "\n").collect());
    }
    match args.format.as_deref() {
        None | Some("table" | "") => {
            let mut heading = vec!["REPOSITORY", "TAG"];
            heading.extend(args.digests.then_some("DIGEST"));
            heading.extend(["IMAGE ID", "CREATED", "SIZE"]);
            let mut table = vec![heading.into_iter().map(str::to_owned).collect::<Vec<_>>()];
            table.extend(rows.iter().map(|row| row.cells(args)));
            Ok(table::render(&table))
        }
        Some(format) => {
            let format = if format == "json" { "{{json .}}" } else { format };
            let (template, heading) = match format.strip_prefix("table ") {
                Some(template) => (template, true),
                None => (format, false),
            };
            let lines = rows.iter().map(|row| template::render(template, &row.json(args.no_trunc)));
            let mut lines = lines.collect::<Result<Vec<_>>>()?;
            if !heading {
                return Ok(lines.iter().map(|line| format!("{line}\n")).collect());
            }
            lines.insert(0, template::header(template, HEADINGS));
            let cells = |line: &String| line.split('\t').map(str::to_owned).collect();
            Ok(table::render(&lines.iter().map(cells).collect::<Vec<_>>()))
        }
    }
}

/// Docker's words for fields, where they are not the field's name.
const HEADINGS: &[(&str, &str)] =
    &[("ID", "IMAGE ID"), ("CreatedSince", "CREATED"), ("CreatedAt", "CREATED AT")];

/// An image under one name.
struct Row {
    reference: Reference,
    record: Record,
    created: Option<jiff::Timestamp>,
    size: u64,
}

impl Row {
    fn read(store: &Store, record: Record) -> Result<Self> {
        let read = || -> Result<Self> {
            let config = config::read(&store.read_blob(&record.config)?)?;
            Ok(Self {
                reference: record.reference()?,
                created: config.created().as_ref().and_then(|text| text.parse().ok()),
                size: size(store, &config)?,
                record: record.clone(),
            })
        };
        read().with_context(|| format!("image {}", record.familiar()))
    }

    fn id(&self, whole: bool) -> String {
        if whole { self.record.config.to_string() } else { self.record.config.short().to_owned() }
    }

    fn tag(&self) -> String {
        self.reference.tag().unwrap_or("<none>").to_owned()
    }

    fn created_since(&self) -> String {
        self.created
            .map_or_else(|| "N/A".to_owned(), |created| format!("{} ago", table::age(&created.to_string())))
    }

    fn cells(&self, args: &Args) -> Vec<String> {
        let mut cells = vec![self.reference.familiar_repository(), self.tag()];
        cells.extend(args.digests.then(|| self.record.target.to_string()));
        cells.extend([self.id(args.no_trunc), self.created_since(), human::size(self.size, 3)]);
        cells
    }

    fn json(&self, whole: bool) -> Value {
        let created = self.created.map(|time| time.strftime("%Y-%m-%d %H:%M:%S +0000 UTC").to_string());
        json!({
            "Containers": "N/A",
            "CreatedAt": created.unwrap_or_else(|| "N/A".to_owned()),
            "CreatedSince": self.created_since(),
            "Digest": self.record.target,
            "ID": self.id(whole),
            "Repository": self.reference.familiar_repository(),
            "SharedSize": "N/A",
            "Size": human::size(self.size, 3),
            "Tag": self.tag(),
            "UniqueSize": "N/A",
            "VirtualSize": human::size(self.size, 4),
        })
    }
}

/// The bytes of all layers, unpacked.
pub(crate) fn size(store: &Store, config: &ImageConfiguration) -> Result<u64> {
    let mut sizes: BTreeMap<Digest, u64> = BTreeMap::new();
    for diff_id in config::diff_ids(config)? {
        let size = store.layer(&diff_id)?.map_or(0, |meta| meta.size);
        sizes.insert(diff_id, size);
    }
    Ok(sizes.values().sum())
}

enum Filter {
    Dangling(bool),
    Reference(String),
}

impl Filter {
    fn parse(text: &str) -> Result<Self> {
        match text.split_once('=') {
            Some(("dangling", "true" | "1")) => Ok(Self::Dangling(true)),
            Some(("dangling", "false" | "0")) => Ok(Self::Dangling(false)),
            Some(("reference", pattern)) => Ok(Self::Reference(pattern.to_owned())),
            _ => bail!("filter {text:?} is not supported: dangling=true|false and reference=PATTERN are"),
        }
    }

    fn takes(&self, row: &Row) -> bool {
        match self {
            Self::Dangling(wanted) => row.reference.tag().is_none() == *wanted,
            Self::Reference(pattern) => has_name(pattern, &row.reference),
        }
    }
}

fn has_name(pattern: &str, reference: &Reference) -> bool {
    let repository = reference.familiar_repository();
    let tag = reference.tag().unwrap_or("<none>");
    like(pattern, &repository) || like(pattern, &format!("{repository}:{tag}"))
}

/// Whether a record is meant by the filter `reference=`.
pub(super) fn matches(pattern: &str, record: &Record) -> Result<bool> {
    Ok(has_name(pattern, &record.reference()?))
}

/// Shell patterns with `*` and `?`, neither of which crosses a slash.
fn like(pattern: &str, text: &str) -> bool {
    match (pattern.chars().next(), text.chars().next()) {
        (None, None) => true,
        (Some('*'), letter) => {
            like(&pattern[1..], text)
                || letter.is_some_and(|letter| letter != '/' && like(pattern, &text[letter.len_utf8()..]))
        }
        (Some('?'), Some(letter)) => letter != '/' && like(&pattern[1..], &text[letter.len_utf8()..]),
        (Some(wanted), Some(letter)) => {
            wanted == letter && like(&pattern[wanted.len_utf8()..], &text[letter.len_utf8()..])
        }
        _ => false,
    }
}

fn takes_name(name: Option<&str>, row: &Row) -> Result<bool> {
    let Some(name) = name else { return Ok(true) };
    if name.contains(['*', '?']) {
        return Ok(Filter::Reference(name.to_owned()).takes(row));
    }
    let tagged = name.rsplit('/').next().is_some_and(|last| last.contains(':'));
    let is = |wanted: Reference| {
        wanted.repository() == row.reference.repository() && (!tagged || wanted.tag() == row.reference.tag())
    };
    // A short name may have been pulled as another one's than docker's.
    Ok(is(Reference::parse(name)?) || Registries::load()?.candidates(name)?.into_iter().any(is))
}

#[cfg(test)]
mod tests {
    use super::like;

    #[test]
    fn patterns_do_not_cross_slashes() {
        for (pattern, text) in [("busy*", "busybox"), ("*", "a"), ("b?x:*", "box:latest"), ("*/*", "a/b")] {
            assert!(like(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in [("busy*", "a/busybox"), ("*", "a/b"), ("b?x", "bx")] {
            assert!(!like(pattern, text), "{pattern} {text}");
        }
    }
}

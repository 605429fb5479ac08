//! `search`: looks for repositories by a word, in docker's table.

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use crate::cli::Context;
use crate::output;
use crate::reference::is_short;
use crate::registry::RegistryArgs;
use crate::registry::registries::Registries;
use crate::registry::search::{Found, search};
use crate::table;
use crate::template;

/// Search a registry for repositories
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only what matches: stars=NUMBER, is-official=true|false, is-automated=true|false
    #[arg(short, long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// `table`, `json`, or a template as '{{.Name}} {{.StarCount}}'
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Show so many of a registry at most
    #[arg(long, value_name = "NUMBER", default_value_t = 25, value_parser = clap::value_parser!(u32).range(1..=100))]
    limit: u32,
    /// Show whole descriptions
    #[arg(long)]
    no_trunc: bool,
    #[command(flatten)]
    registry: RegistryArgs,
    /// A word, HOST/WORD or HOST:PORT/WORD; without a host docker.io is searched, or what registries.conf says
    #[arg(value_name = "TERM")]
    term: String,
}

/// Searches.
pub(crate) fn run(args: Args, _: &Context) -> Result<u8> {
    let filters = args.filter.iter().map(|text| Filter::parse(text)).collect::<Result<Vec<_>>>()?;
    let (registries, word) = match args.term.split_once('/') {
        Some((host, word)) if !is_short(&args.term) => (vec![host.to_owned()], word),
        _ => (Registries::load()?.searched(), args.term.as_str()),
    };
    let mut found = Vec::new();
    for registry in &registries {
        let matching = search(registry, word, args.limit as usize, &args.registry);
        found.extend(matching.with_context(|| format!("search {registry}"))?);
    }
    found.retain(|one| filters.iter().all(|filter| filter.takes(one)));
    output::print(&text(&args, &found)?)?;
    Ok(0)
}

fn text(args: &Args, found: &[Found]) -> Result<String> {
    if let Some(format) = args.format.as_deref().filter(|format| !matches!(*format, "table" | "")) {
        let rows: Vec<Value> = found.iter().map(|one| fields(one, args.no_trunc)).collect();
        return template::rows(
            format,
            &rows,
            &[("StarCount", "STARS"), ("IsOfficial", "OFFICIAL"), ("IsAutomated", "AUTOMATED")],
        );
    }
    let mut rows = vec![["NAME", "DESCRIPTION", "STARS", "OFFICIAL"].map(str::to_owned).to_vec()];
    for one in found {
        let official = if one.is_official { "[OK]" } else { "" };
        let cells = [
            one.name.clone(),
            described(one, args.no_trunc),
            one.star_count.to_string(),
            official.to_owned(),
        ];
        rows.push(cells.to_vec());
    }
    Ok(table::render(&rows))
}

fn described(found: &Found, whole: bool) -> String {
    if whole { found.description.clone() } else { table::ellipsis(&found.description, 45) }
}

fn fields(found: &Found, whole: bool) -> Value {
    json!({
        "Name": found.name,
        "Description": described(found, whole),
        "StarCount": found.star_count.to_string(),
        "IsOfficial": found.is_official.to_string(),
        "IsAutomated": found.is_automated.to_string(),
    })
}

/// One `--filter`.
enum Filter {
    Stars(u64),
    Official(bool),
    Automated(bool),
}

impl Filter {
    fn parse(text: &str) -> Result<Self> {
        let about = || format!("--filter {text:?}");
        match text.split_once('=') {
            Some(("stars", number)) => Ok(Self::Stars(number.parse().with_context(about)?)),
            Some(("is-official", value)) => Ok(Self::Official(value.parse().with_context(about)?)),
            Some(("is-automated", value)) => Ok(Self::Automated(value.parse().with_context(about)?)),
            _ => bail!("{}: it is not stars=, is-official= or is-automated=", about()),
        }
    }

    fn takes(&self, found: &Found) -> bool {
        match self {
            Self::Stars(least) => found.star_count >= *least,
            Self::Official(wanted) => found.is_official == *wanted,
            Self::Automated(wanted) => found.is_automated == *wanted,
        }
    }
}

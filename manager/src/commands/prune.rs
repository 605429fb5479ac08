//! `image prune` and `system prune`: images that nobody needs. Docker's words.

use anyhow::{Context as _, Result, bail};

use super::system::confirm;
use crate::cli::Context;
use crate::container::state::State;
use crate::container::{Container, remove};
use crate::human;
use crate::image::config;
use crate::output;
use crate::store::Store;
use crate::store::names::Record;
use crate::store::usage::on_disk;

/// Remove images that have no tag, or no container
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Every image that no container uses, not only those without a tag
    #[arg(short, long)]
    all: bool,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
    /// Only what matches: until=24h (made before that), label=KEY[=VALUE], reference=PATTERN
    #[arg(long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
}

/// Prunes images.
pub(crate) fn run(args: Args, context: &Context) -> Result<u8> {
    prune(&args, context, false)
}

/// Prunes containers that have ended, too.
pub(crate) fn run_system(args: Args, context: &Context) -> Result<u8> {
    prune(&args, context, true)
}

fn prune(args: &Args, context: &Context, containers: bool) -> Result<u8> {
    let filters = args.filter.iter().map(|text| Filter::parse(text)).collect::<Result<Vec<_>>>()?;
    let images = if args.all { "all images without a container" } else { "all dangling images" };
    let what = if containers { format!("all stopped containers and {images}") } else { images.to_owned() };
    if !args.force && !confirm(&format!("This will remove {what}."))? {
        return Ok(0);
    }
    let store = Store::open(&context.root)?;
    let room = |store: &Store| store.size() + on_disk(&store.path("containers"));
    let before = room(&store);
    if containers {
        prune_containers(context)?;
    }
    let used = store.images_in_use()?;
    let mut deleted = Vec::new();
    for record in store.records()? {
        let dangling = record.reference()?.tag().is_none();
        let is_used =
            used.iter().any(|(image, _)| image.as_ref().is_none_or(|image| *image == record.config));
        if is_used || !(dangling || args.all) {
            continue;
        }
        if filters
            .iter()
            .map(|filter| filter.takes(&store, &record))
            .collect::<Result<Vec<_>>>()?
            .contains(&false)
        {
            continue;
        }
        store.remove_record(&record.name)?;
        deleted.push(format!("untagged: {}\n", record.familiar()));
    }
    store.sweep()?;
    if !deleted.is_empty() {
        output::print(&format!("Deleted Images:\n{}\n", deleted.concat()))?;
    }
    let gained = before.saturating_sub(room(&store));
    output::print(&format!("Total reclaimed space: {}\n", human::size(gained, 4)))?;
    Ok(0)
}

fn prune_containers(context: &Context) -> Result<()> {
    let mut deleted = String::new();
    for container in Container::all(context)? {
        // One that is being started or removed just now is no fault of ours.
        if !matches!(container.state()?, State::Running { .. })
            && remove::remove(context, &container, false).is_ok()
        {
            deleted += &format!("{}\n", container.record.id);
        }
    }
    if deleted.is_empty() { Ok(()) } else { output::print(&format!("Deleted Containers:\n{deleted}\n")) }
}

enum Filter {
    Until(jiff::Timestamp),
    Label(String, Option<String>),
    Reference(String),
}

impl Filter {
    fn parse(text: &str) -> Result<Self> {
        match text.split_once('=') {
            Some(("until", time)) => until(time).map(Self::Until),
            Some(("label", label)) => Ok(match label.split_once('=') {
                Some((key, value)) => Self::Label(key.to_owned(), Some(value.to_owned())),
                None => Self::Label(label.to_owned(), None),
            }),
            Some(("reference", pattern)) => Ok(Self::Reference(pattern.to_owned())),
            _ => bail!(
                "filter {text:?} is not supported: until=TIME, label=KEY[=VALUE] and reference=PATTERN are"
            ),
        }
    }

    fn takes(&self, store: &Store, record: &Record) -> Result<bool> {
        let config = || config::read(&store.read_blob(&record.config)?);
        Ok(match self {
            Self::Until(time) => {
                let created =
                    config()?.created().as_ref().and_then(|text| text.parse::<jiff::Timestamp>().ok());
                created.is_none_or(|created| created < *time)
            }
            Self::Label(key, value) => {
                let config = config()?;
                let labels = config.config().as_ref().and_then(|config| config.labels().as_ref());
                let found = labels.and_then(|labels| labels.get(key));
                found.is_some_and(|found| value.as_ref().is_none_or(|value| value == found))
            }
            Self::Reference(pattern) => super::images::matches(pattern, record)?,
        })
    }
}

/// `24h`, `1h30m`: so long ago; or a time.
fn until(text: &str) -> Result<jiff::Timestamp> {
    if let Ok(time) = text.parse() {
        return Ok(time);
    }
    let span: jiff::SignedDuration = text.parse().with_context(|| format!("filter until={text}: no time"))?;
    jiff::Timestamp::now().checked_sub(span).with_context(|| format!("filter until={text}"))
}

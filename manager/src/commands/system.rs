//! `system`: the store as a whole.

use std::io::{BufRead, IsTerminal, Write};

use anyhow::{Context as _, Result, bail};
use serde_json::json;

use crate::cli::Context;
use crate::container::Container;
use crate::copy::{self, Source};
use crate::digest::Digest;
use crate::human;
use crate::image::config;
use crate::output;
use crate::platform;
use crate::reference::Reference;
use crate::registry::{Access, RegistryArgs, Repository};
use crate::store::Store;
use crate::store::check::Faults;
use crate::store::names::Record;
use crate::store::usage::on_disk;
use crate::sys::descriptors;
use crate::table;

/// Look at the store, check it, clean it
#[derive(Debug, clap::Args)]
#[command(subcommand_required = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Show what takes how much room
    Df {
        /// `json`, or docker's table
        #[arg(long, value_name = "FORMAT")]
        format: Option<String>,
    },
    /// Check everything that is here against its digest, and unpacked layers against their blobs
    Check {
        /// Do not unpack the layers once more to compare them
        #[arg(short, long)]
        quick: bool,
        /// Make anew what is missing or damaged, from what is here or from where it came
        #[arg(long)]
        repair: bool,
        #[command(flatten)]
        registry: RegistryArgs,
    },
    /// Wait until everything that was pulled, loaded or imported is on the disk
    Settle {
        /// Do not wait for commands that still run
        #[arg(long, hide = true)]
        behind: bool,
    },
    /// Remove stopped containers, images that nobody needs, and what nothing reaches
    Prune(super::prune::Args),
}

impl Args {
    /// Run behind another command: nobody reads what it says.
    pub(super) fn is_behind(&self) -> bool {
        matches!(self.verb, Verb::Settle { behind: true })
    }
}

/// Hands on to the verb.
pub(crate) fn run(args: Args, context: &Context) -> Result<u8> {
    match args.verb {
        Verb::Df { format } => df(context, format.as_deref()),
        Verb::Check { quick, repair, registry } => check(context, quick, repair, &registry),
        Verb::Settle { behind } => settle(context, behind),
        Verb::Prune(args) => super::prune::run_system(args, context),
    }
}

fn df(context: &Context, format: Option<&str>) -> Result<u8> {
    let store = Store::open(&context.root)?;
    let records = store.records()?;
    let mut images: Vec<_> = records.iter().map(|record| &record.config).collect();
    images.sort();
    images.dedup();
    let in_use = store.images_in_use()?;
    let active =
        images.iter().filter(|image| in_use.iter().any(|(used, _)| used.as_ref() == Some(**image))).count();
    let (size, used) = store.layers_in_use()?;
    let containers = Container::all(context)?;
    let running =
        containers.iter().filter(|one| one.state().is_ok_and(|state| state.running().is_some())).count();
    let container_size = on_disk(&store.path("containers"));
    let volumes = std::fs::read_dir(store.path("volumes")).into_iter().flatten().count();
    let volume_size = on_disk(&store.path("volumes"));
    let rows = [
        ("Images", images.len(), active, size, size - used),
        (
            "Containers",
            containers.len(),
            running,
            container_size,
            if running == 0 { container_size } else { 0 },
        ),
        ("Local Volumes", volumes, 0, volume_size, 0),
    ];
    let text = match format {
        Some("json") => rows
            .iter()
            .map(|(kind, total, active, size, reclaimable)| {
                let line = json!({
                    "Type": kind, "TotalCount": total, "Active": active,
                    "Size": human::size(*size, 4), "Reclaimable": human::size(*reclaimable, 4),
                });
                format!("{line}\n")
            })
            .collect(),
        Some(other) => bail!("format {other:?} is not supported: json is"),
        None => {
            let mut lines =
                vec![["TYPE", "TOTAL", "ACTIVE", "SIZE", "RECLAIMABLE"].map(str::to_owned).to_vec()];
            lines.extend(rows.iter().map(|(kind, total, active, size, reclaimable)| {
                let share =
                    if *size > 0 { format!(" ({}%)", reclaimable * 100 / size) } else { String::new() };
                vec![
                    (*kind).to_owned(),
                    total.to_string(),
                    active.to_string(),
                    human::size(*size, 4),
                    human::size(*reclaimable, 4) + &share,
                ]
            }));
            table::render(&lines)
        }
    };
    output::print(&text)?;
    Ok(0)
}

fn check(context: &Context, quick: bool, repair: bool, registry: &RegistryArgs) -> Result<u8> {
    let store = Store::open(&context.root)?;
    // What cannot be brought to the disk is told here.
    store.settle(false)?;
    let _hold = store.hold()?;
    let faults = copy::check(&store, quick)?;
    for path in &faults.blobs {
        output::print(&format!("damaged blob: {}\n", path.display()))?;
    }
    for (path, what) in &faults.layers {
        output::print(&format!("damaged layer: {}: {what}\n", path.display()))?;
    }
    for (record, what) in &faults.images {
        output::print(&format!("damaged image: {}: {what}\n", record.familiar()))?;
    }
    if faults.index {
        output::print("index.json does not list the images that are here\n")?;
    }
    if faults.is_empty() {
        output::print("no faults\n")?;
        return Ok(0);
    }
    if !repair {
        bail!("the store has faults: system check --repair brings again what is missing");
    }
    refuse_in_use(context, &store, &faults)?;
    store.discard_faults(&faults)?;
    let mut lost = Vec::new();
    for (record, _) in &faults.images {
        let repaired = fetch(&store, record, registry)
            .and_then(|()| store.complete(record))
            .and_then(|()| store.check_image(record, &Faults::default()));
        match repaired {
            Ok(()) => output::print(&format!("repaired: {}\n", record.familiar()))?,
            Err(error) => lost.push(format!("{}: {error:#}", record.familiar())),
        }
    }
    if lost.is_empty() { Ok(0) } else { bail!("not repaired: {} (rmi removes it)", lost.join("; ")) }
}

/// A container that runs would lose its files.
fn refuse_in_use(context: &Context, store: &Store, faults: &Faults) -> Result<()> {
    let used = store.images_in_use()?;
    for container in Container::all(context)? {
        if !container.state().is_ok_and(|state| state.running().is_some()) {
            continue;
        }
        let image =
            used.iter().find(|(_, id)| id == &container.record.id).and_then(|(image, _)| image.as_ref());
        let layers = |image: &Digest| config::diff_ids(&config::read(&store.read_blob(image)?)?);
        let folders = image
            .and_then(|image| layers(image).ok())
            .map(|layers| store.folders_of(&layers))
            .unwrap_or_default();
        if let Some(folder) = folders.iter().find(|folder| faults.layers.contains_key(*folder)) {
            bail!(
                "{} is damaged, and container {} runs on it: stop that first",
                folder.display(),
                &container.record.id
            );
        }
    }
    Ok(())
}

fn settle(context: &Context, behind: bool) -> Result<u8> {
    if behind {
        descriptors::close_inherited().context("close what the caller left open")?;
        // It was executed as /proc/self/exe, which `ps` and `pgrep` would call `exe`.
        nix::sys::prctl::set_name(c"manager").context("set the process name")?;
    }
    Store::open(&context.root)?.settle(!behind)?;
    Ok(0)
}

/// Brings again what is missing of an image: from the store itself if just its layers have to be unpacked once
/// more, else from its registry.
fn fetch(store: &Store, record: &Record, registry: &RegistryArgs) -> Result<()> {
    if copy::unpack_anew(store, record).is_ok() {
        return Ok(());
    }
    let described = store.read_blob(&record.config).and_then(|bytes| config::read(&bytes));
    let platform = described.map_or_else(|_| platform::host(), |config| platform::of(&config));
    let reference = Reference::parse(&record.name)?.with_digest(&record.target);
    let source = Source::Registry(Repository::open(&reference, Access::Pull, registry)?);
    let top = source.named(&reference).context("it cannot be had from its registry any more")?;
    copy::restore(store, &source, top, &platform, record.whole)
}

/// Asks whether to go on; nobody to ask means no.
pub(super) fn confirm(warning: &str) -> Result<bool> {
    if !std::io::stdin().is_terminal() {
        bail!("{warning} Say --force if that is meant");
    }
    print!("WARNING! {warning}\nAre you sure you want to continue? [y/N] ");
    std::io::stdout().flush().context("ask")?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer).context("read the answer")?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

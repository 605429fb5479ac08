//! `push`: an image of the store to its registry, as it came from one. Docker's output.

use std::collections::HashMap;

use anyhow::{Context as _, Result, bail};

use crate::cli::Context;
use crate::copy::{self, CompressArgs, Format, Options, Source, Take};
use crate::digest::Digest;
use crate::image::layout::Layout;
use crate::location::Location;
use crate::output;
use crate::platform;
use crate::progress::{Output, Progress, Style};
use crate::reference::Reference;
use crate::registry::registries::Registries;
use crate::registry::{Access, RegistryArgs, Repository};
use crate::store::Store;
use crate::store::names::Record;

/// Push an image to a registry
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Print the image's name only
    #[arg(short, long)]
    quiet: bool,
    /// Push the image of this platform only, if the name stands for several
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    platform: Option<String>,
    /// Push every tag of the repository
    #[arg(short, long, conflicts_with = "destination")]
    all_tags: bool,
    /// Push layers too that only their makers may hand out
    #[arg(long)]
    allow_nondistributable: bool,
    /// How progress is told
    #[arg(long, value_name = "STYLE", default_value = "auto")]
    progress: Style,
    #[command(flatten)]
    compress: CompressArgs,
    #[command(flatten)]
    registry: RegistryArgs,
    /// NAME or NAME:TAG
    #[arg(value_name = "NAME")]
    name: String,
    /// Another name to push it to
    #[arg(value_name = "DESTINATION")]
    destination: Option<String>,
}

/// Pushes.
pub(crate) fn run(args: Args, context: &Context) -> Result<u8> {
    let store = Store::open(&context.root)?;
    let _hold = store.hold()?;
    let progress = Progress::styled(if args.quiet { Output::Nowhere } else { Output::Stdout }, args.progress);
    if args.all_tags {
        return push_all(&args, &store, &progress);
    }
    let Some((record, _)) = store.find_record(&args.name)? else {
        bail!("an image does not exist locally with the tag: {}", args.name);
    };
    let to = match &args.destination {
        Some(destination) => match Location::parse(destination)? {
            Location::Plain(reference) | Location::Registry(reference) => reference,
            _ => bail!("{destination}: push is for registries: use save or copy"),
        },
        // A short name goes to where it was found to come from.
        None => {
            let repository = record.reference()?.repository();
            let candidates = Registries::load()?.candidates(&args.name)?;
            let found = candidates.into_iter().find(|one| one.repository() == repository);
            found.map_or_else(|| Reference::parse(&args.name), Ok)?
        }
    };
    push_one(&args, &store, &record, &to, &progress)?;
    output::print(&format!("{}\n", to.familiar()))?;
    Ok(0)
}

fn push_all(args: &Args, store: &Store, progress: &Progress) -> Result<u8> {
    let wanted = Reference::parse(&args.name)?.repository();
    let mut any = false;
    for record in store.records()? {
        let reference = record.reference()?;
        if reference.repository() == wanted && reference.tag().is_some() {
            push_one(args, store, &record, &reference, progress)?;
            any = true;
        }
    }
    if !any {
        bail!("an image does not exist locally with the repository: {}", args.name);
    }
    Ok(0)
}

fn push_one(args: &Args, store: &Store, record: &Record, to: &Reference, progress: &Progress) -> Result<()> {
    let source = Source::Layout(Layout::unnamed(&store.path("oci")));
    let wanted = args.platform.as_deref().map(platform::parse).transpose()?;
    // An index goes as a whole if all of it was pulled; else the one image of it that is here.
    let whole = store.descriptor(&record.target)?.filter(|target| source.has(target));
    let (top, take) = match (&wanted, whole) {
        (Some(platform), Some(target)) => (target, Take::Platform(platform)),
        (None, Some(target)) => (target, Take::All),
        (_, None) => (record.manifest.clone(), Take::All),
    };
    let name = to.familiar_repository();
    progress.line(&format!("The push refers to repository [{}]", to.repository()));
    let repository = Repository::open(to, Access::Push, &args.registry)?;
    let mounts = mounts(store, to)?;
    let by_default = if record.is_from_here() { Format::Gzip } else { Format::None };
    let compress = args.compress.how(by_default)?.map(|how| (how, store.path("tmp")));
    let foreign = args.allow_nondistributable;
    let options = Options { selector: to.selector(), foreign, compress, mounts: &mounts };
    let pushed = copy::push(&source, source.described(&top)?, take, &repository, &options, progress)
        .with_context(|| format!("push {name}"))?;
    progress.line(&format!("{}: digest: {} size: {}", to.selector(), pushed.digest, pushed.size));
    Ok(())
}

/// Which repositories of the same registry have which blobs, as far as is known from what was pulled there.
fn mounts(store: &Store, to: &Reference) -> Result<HashMap<String, String>> {
    let mut mounts = HashMap::new();
    for record in store.records()? {
        let reference = record.reference()?;
        // A tag made here tells nothing of what the registry has.
        let from_there =
            record.source.as_ref().is_some_and(|source| source.ends_with(&format!("/{}", reference.path())));
        if !from_there || reference.domain() != to.domain() || reference.path() == to.path() {
            continue;
        }
        let Ok(manifest) = store.manifest(&record) else { continue };
        for blob in std::iter::once(manifest.config()).chain(manifest.layers()) {
            mounts.insert(Digest::of_descriptor(blob)?.to_string(), reference.path().to_owned());
        }
    }
    Ok(mounts)
}

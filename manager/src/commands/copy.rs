//! `copy`: an image from one place to another, through no store unless it is one of the places. As skopeo's.

use std::collections::HashMap;
use std::fs::File;

use anyhow::{Context as _, Result, bail};

use crate::cli::Context;
use crate::copy::{self, CompressArgs, Export, Format, Options, Source, Take, Target, Wanted};
use crate::image::archive;
use crate::image::layout::Layout;
use crate::location::Location;
use crate::platform;
use crate::progress::{Output, Progress, Style};
use crate::reference::Reference;
use crate::registry::{Access, Fetched, RegistryArgs, Repository};
use crate::store::Store;

/// Copy an image between registries, the store, image layouts and archives
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Tell nothing
    #[arg(short, long)]
    quiet: bool,
    /// All platforms of an index, and what else it names
    #[arg(short, long, visible_alias = "all")]
    all_platforms: bool,
    /// The image of this platform instead of this machine's
    #[arg(long, value_name = "OS/ARCH[/VARIANT]", conflicts_with = "all_platforms")]
    platform: Option<String>,
    /// How progress is told
    #[arg(long, value_name = "STYLE", default_value = "auto")]
    progress: Style,
    #[command(flatten)]
    compress: CompressArgs,
    #[command(flatten)]
    registry: RegistryArgs,
    /// docker://NAME, store:NAME, or a path after oci:, oci-archive: or docker-archive:, then maybe :NAME
    #[arg(value_name = "SOURCE")]
    source: String,
    /// The same
    #[arg(value_name = "DESTINATION")]
    destination: String,
}

/// Copies.
pub(crate) fn run(args: Args, context: &Context) -> Result<u8> {
    let platform = args.platform.as_deref().map_or_else(|| Ok(platform::host()), platform::parse)?;
    let take = if args.all_platforms { Take::All } else { Take::Platform(&platform) };
    let progress = Progress::styled(if args.quiet { Output::Nowhere } else { Output::Stdout }, args.progress);
    let destination = Location::parse(&args.destination)?;
    if args.compress.is_given() && !matches!(destination, Location::Registry(_)) {
        bail!(
            "--compression-format and --compression-level are for registries, which {} is not",
            args.destination
        );
    }
    let (source, top, name) = open(context, &args.source, &args.registry)?;
    match destination {
        Location::Plain(_) => bail!("{}: say where to: docker://NAME, store:NAME ...", args.destination),
        Location::Registry(to) => {
            let repository = Repository::open(&to, Access::Push, &args.registry)?;
            let none = HashMap::new();
            let loaded = matches!(Location::parse(&args.source)?, Location::Archive { docker: true, .. });
            let by_default = if loaded { Format::Gzip } else { Format::None };
            let compress = match args.compress.how(by_default)? {
                Some(how) => Some((how, Store::open(&context.root)?.path("tmp"))),
                None => None,
            };
            let options = Options { selector: to.selector(), foreign: false, compress, mounts: &none };
            let pushed = copy::push(&source, top, take, &repository, &options, &progress)?;
            progress.line(&format!("Digest: {}", pushed.digest));
        }
        Location::Store(name) => {
            let store = Store::open(&context.root)?;
            let name = Reference::parse(&name)?.to_string();
            let wanted = Wanted { top, name, platform: &platform, all_platforms: args.all_platforms };
            let kept = copy::keep(&store, &source, wanted, &progress)?;
            progress.line(&format!("Digest: {}", kept.record.target));
        }
        Location::Layout { folder, name: wanted } => {
            let names = wanted.or(name).into_iter().collect();
            let images = vec![Export { names, top }];
            copy::write_layout(&source, images, Target::<File>::Folder(folder), take, &platform)?;
        }
        Location::Archive { file, name: wanted, docker } => {
            let names = wanted.or(name).map(|name| whole(&name)).into_iter().collect();
            let create = || File::options().write(true).create_new(true).open(&file);
            let archive = create().with_context(|| format!("make {}", file.display()))?;
            let target = Target::Archive { file: archive, docker };
            let written = copy::write_layout(&source, vec![Export { names, top }], target, take, &platform);
            // Half an archive is worse than none.
            written.inspect_err(|_| drop(std::fs::remove_file(&file)))?;
        }
    }
    Ok(0)
}

/// The whole reference that a name stands for; other words stay as they are.
pub(super) fn whole(name: &str) -> String {
    Reference::parse(name).map_or_else(|_| name.to_owned(), |reference| reference.to_string())
}

/// Opens the source: what is there, and what it is called.
pub(super) fn open(
    context: &Context,
    text: &str,
    registry: &RegistryArgs,
) -> Result<(Source, Fetched, Option<String>)> {
    match Location::parse(text)? {
        Location::Plain(_) => bail!("{text}: say where it is: docker://NAME, store:NAME ..."),
        Location::Registry(reference) => {
            let source = Source::Registry(Repository::open(&reference, Access::Pull, registry)?);
            let top = source.named(&reference).with_context(|| text.to_owned())?;
            Ok((source, top, Some(reference.to_string())))
        }
        Location::Store(name) => {
            let store = Store::open(&context.root)?;
            let Some((record, _)) = store.find_record(&name)? else { bail!("no such image: {name}") };
            let source = Source::Layout(Layout::unnamed(&store.path("oci")));
            let target = store.descriptor(&record.target)?.filter(|target| source.has(target));
            let top = source.described(target.as_ref().unwrap_or(&record.manifest))?;
            Ok((source, top, Some(record.name)))
        }
        Location::Layout { folder, name } => {
            let layout = Layout::open(&folder)?;
            let descriptor = layout.find(name.as_deref())?;
            let source = Source::Layout(layout);
            let top = source.described(&descriptor)?;
            Ok((source, top, name))
        }
        Location::Archive { file, name, .. } => {
            let store = Store::open(&context.root)?;
            let open = || archive::plain(File::open(&file)?, &store.path("tmp"));
            let plain = open().with_context(|| format!("archive {}", file.display()))?;
            let layout = Layout::open_archive(&file, plain)?;
            let descriptor = layout.find_loosely(name.as_deref())?;
            let source = Source::Layout(layout);
            let top = source.described(&descriptor)?;
            Ok((source, top, name))
        }
    }
}

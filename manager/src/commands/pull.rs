//! `pull`: brings an image from its registry. Docker's output, to the letter where scripts read it.

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum;

use super::{at_registry, with_first};
use crate::cli::Context;
use crate::copy::{self, Source, Wanted};
use crate::digest::Digest;
use crate::output;
use crate::platform;
use crate::progress::{Output, Progress, Style};
use crate::reference::Reference;
use crate::registry::registries::Registries;
use crate::registry::{Access, RegistryArgs, Repository};
use crate::store::{LocalImage, Store};

/// Pull an image from a registry
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Print the image's name only
    #[arg(short, long)]
    quiet: bool,
    /// Pull for this platform instead of this machine's
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    platform: Option<String>,
    /// Keep the images of all platforms, so that they can be pushed or saved together
    #[arg(long, conflicts_with = "platform")]
    all_platforms: bool,
    /// How progress is told
    #[arg(long, value_name = "STYLE", default_value = "auto")]
    progress: Style,
    #[command(flatten)]
    registry: RegistryArgs,
    /// NAME, NAME:TAG or NAME@DIGEST
    #[arg(value_name = "NAME")]
    name: String,
}

/// Pulls.
pub(crate) fn run(args: Args, context: &Context) -> Result<u8> {
    let told = if args.quiet { Output::Nowhere } else { Output::Stdout };
    let progress = Progress::styled(told, args.progress);
    let platform = args.platform.as_deref();
    let name = fetch(context, &args.name, platform, args.all_platforms, &args.registry, &progress)?;
    output::print(&format!("{name}\n"))?;
    Ok(0)
}

/// When `run` and `create` pull.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum PullPolicy {
    /// Only if the image is not here
    #[default]
    Missing,
    /// Every time
    Always,
    /// Not at all
    Never,
}

/// The image for a container: found here, or pulled, as `policy` says. What the pull tells goes to
/// standard error, unless `quiet`. Hold the store (`Store::hold`) around this and the writing of
/// `containers/<id>/image`, so that no sweep comes between.
pub(crate) fn ensure(
    context: &Context,
    reference: &str,
    policy: PullPolicy,
    platform: Option<&str>,
    registry: &RegistryArgs,
    quiet: bool,
) -> Result<LocalImage> {
    let store = Store::open(&context.root)?;
    if policy != PullPolicy::Always
        && let Some(image) = store.find(reference)?
        && fits(&image, platform)?
    {
        return Ok(image);
    }
    let name = Reference::parse(reference)?;
    if policy == PullPolicy::Never {
        bail!("no such image: {}", name.familiar());
    }
    if policy == PullPolicy::Missing && !quiet {
        eprintln!("Unable to find image '{}' locally", name.familiar());
    }
    let output = if quiet { Output::Nowhere } else { Output::Stderr };
    let pulled = fetch(context, reference, platform, false, registry, &Progress::new(output))?;
    match store.find(&pulled)? {
        Some(image) => Ok(image),
        None => bail!("image {} was removed while it was pulled", name.familiar()),
    }
}

fn fits(image: &LocalImage, platform: Option<&str>) -> Result<bool> {
    let Some(platform) = platform else { return Ok(true) };
    let wanted = platform::parse(platform)?;
    Ok(image.config.os() == wanted.os() && image.config.architecture() == wanted.architecture())
}

fn fetch(
    context: &Context,
    name: &str,
    platform: Option<&str>,
    all_platforms: bool,
    registry: &RegistryArgs,
    progress: &Progress,
) -> Result<String> {
    let candidates = at_registry(name)?;
    let platform = platform.map_or_else(|| Ok(platform::host()), platform::parse)?;
    let store = Store::open(&context.root)?;
    let named_tag = name.contains('@') || name.rsplit('/').next().is_some_and(|last| last.contains(':'));
    if !named_tag {
        progress.line("Using default tag: latest");
    }
    if let (Some(file), [whole]) = (Registries::load()?.alias_file(name), &candidates[..])
        && Reference::parse(name)? != *whole
    {
        progress.line(&format!("Resolved {name:?} as an alias ({})", file.display()));
    }
    let (reference, kept) = with_first(&candidates, |reference| {
        let pull = || {
            let source = Source::Registry(Repository::open(reference, Access::Pull, registry)?);
            let top = source.named(reference)?;
            progress.line(&format!("{}: Pulling from {}", reference.selector(), reference.path()));
            // A digest says which image, and nothing of what the tag beside it names here or there.
            let name = match reference.digest() {
                Some(digest) => reference.with_digest(digest).to_string(),
                None => reference.to_string(),
            };
            copy::keep(&store, &source, Wanted { top, name, platform: &platform, all_platforms }, progress)
        };
        pull().with_context(|| format!("pull {}", reference.familiar()))
    })?;
    let target: &Digest = &kept.record.target;
    progress.line(&format!("Digest: {target}"));
    let familiar = reference.familiar();
    progress.line(&if kept.up_to_date {
        format!("Status: Image is up to date for {familiar}")
    } else {
        format!("Status: Downloaded newer image for {familiar}")
    });
    Ok(reference.to_string())
}

//! `load`: images out of an archive, as `docker save`, `podman save`, skopeo or `save` here have written it.

use std::fs::File;
use std::io::{self, IsTerminal};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use super::copy::whole;
use crate::cli::Context;
use crate::copy::{self, Source, Wanted};
use crate::image::archive;
use crate::image::layout::{Layout, Named};
use crate::output;
use crate::platform;
use crate::progress::{Output, Progress, Style};
use crate::store::Store;

/// Load images from an archive or an image layout
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Read this file or folder instead of standard input
    #[arg(short, long, value_name = "PATH")]
    input: Option<PathBuf>,
    /// Let names of the archive take over names that stand for other images here
    #[arg(long)]
    replace: bool,
    /// The image of this platform, if a name stands for several
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    platform: Option<String>,
    /// Tell no progress
    #[arg(short, long)]
    quiet: bool,
    /// How progress is told
    #[arg(long, value_name = "STYLE", default_value = "auto")]
    progress: Style,
}

/// Loads.
pub(crate) fn run(args: Args, context: &Context) -> Result<u8> {
    let store = Store::open(&context.root)?;
    let layout = open(&store, args.input.as_deref())?;
    let images = layout.images().to_vec();
    if images.is_empty() {
        bail!("{}: it has no image", layout.address());
    }
    let source = Source::Layout(layout);
    let platform = args.platform.as_deref().map_or_else(|| Ok(platform::host()), platform::parse)?;
    let progress = Progress::styled(if args.quiet { Output::Nowhere } else { Output::Stderr }, args.progress);
    for image in &images {
        let top = source.described(&image.descriptor)?;
        let name = name_of(image);
        if let Some(old) = store.record(&name)?
            && old.target != top.digest
            && !args.replace
        {
            // The archive's maker decides what it is called, and everybody else trusts names (CVE-2026-50195).
            bail!(
                "{} is another image here: let it be replaced with --replace, or rename it",
                old.familiar()
            );
        }
        let all_platforms = args.platform.is_none() && source.has(&image.descriptor);
        let wanted = Wanted { top, name: name.clone(), platform: &platform, all_platforms };
        let kept = copy::keep(&store, &source, wanted, &progress).with_context(|| format!("load {name}"))?;
        output::print(&match &image.name {
            Some(_) => format!("Loaded image: {}\n", kept.record.familiar()),
            None => format!("Loaded image ID: {}\n", kept.record.config),
        })?;
    }
    Ok(0)
}

/// An image without a name is listed by its digest, as one that has lost its tag.
fn name_of(image: &Named) -> String {
    match &image.name {
        Some(name) => whole(name),
        None => format!("localhost/untagged@{}", image.descriptor.digest()),
    }
}

fn open(store: &Store, input: Option<&Path>) -> Result<Layout> {
    let spool = store.path("tmp");
    match input {
        Some(path) if path.is_dir() => Layout::open(path),
        Some(path) => {
            let plain = || archive::plain(File::open(path)?, &spool);
            Layout::open_archive(path, plain().with_context(|| format!("archive {}", path.display()))?)
        }
        None if io::stdin().is_terminal() => {
            bail!("refusing to read from a terminal: use --input, or redirect")
        }
        None => {
            let path = Path::new("standard input");
            let stdin = io::stdin().as_fd().try_clone_to_owned().context("standard input")?;
            Layout::open_archive(path, archive::plain(stdin.into(), &spool).context("standard input")?)
        }
    }
}

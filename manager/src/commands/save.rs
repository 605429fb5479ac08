//! `save`: images as an archive that docker, podman and every tool for image layouts can load.

use std::fs::File;
use std::io::{self, IsTerminal};
use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::ValueEnum;

use crate::cli::Context;
use crate::copy::{self, Export, Source, Take, Target};
use crate::image::layout::Layout;
use crate::output;
use crate::platform;
use crate::store::Store;

/// Save images to an archive
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Write to this file (or folder, with --format oci-dir) instead of standard output
    #[arg(short, long, value_name = "PATH")]
    output: Option<PathBuf>,
    /// docker-archive is an image layout too, so that every tool can read it
    #[arg(long, value_name = "FORMAT", default_value = "docker-archive")]
    format: Format,
    /// The image of this platform only, if a name stands for several
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    platform: Option<String>,
    /// Tell nothing (for scripts: nothing is told anyway)
    #[arg(short, long)]
    quiet: bool,
    /// NAME, NAME:TAG, NAME@DIGEST, or an image id
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    DockerArchive,
    OciArchive,
    OciDir,
}

/// Saves.
pub(crate) fn run(args: Args, context: &Context) -> Result<u8> {
    if args.output.is_none() && args.format == Format::OciDir {
        bail!("--format oci-dir needs a folder: --output PATH");
    }
    if args.output.is_none() && io::stdout().is_terminal() {
        bail!("refusing to save to a terminal: use --output, or redirect");
    }
    let store = Store::open(&context.root)?;
    let _hold = store.hold()?;
    let source = Source::Layout(Layout::unnamed(&store.path("oci")));
    let images = images(&store, &source, &args.images)?;
    let host = args.platform.as_deref().map_or_else(|| Ok(platform::host()), platform::parse)?;
    let take = if args.platform.is_some() { Take::Platform(&host) } else { Take::All };
    let docker = args.format == Format::DockerArchive;
    match args.output {
        None => {
            let file = io::stdout().lock();
            copy::write_layout(&source, images, Target::Archive { file, docker }, take, &host)?;
        }
        Some(path) if args.format == Format::OciDir => {
            copy::write_layout(&source, images, Target::<File>::Folder(path), take, &host)?;
        }
        Some(path) => {
            output::write_file(&path, |file| {
                copy::write_layout(&source, images, Target::Archive { file, docker }, take, &host)
            })?;
        }
    }
    Ok(0)
}

/// Several names of one image are one image with several names; an id takes none along.
fn images(store: &Store, source: &Source, wanted: &[String]) -> Result<Vec<Export>> {
    let mut images: Vec<Export> = Vec::new();
    for text in wanted {
        let Some((record, by_name)) = store.find_record(text)? else { bail!("no such image: {text}") };
        let target = store.descriptor(&record.target)?.filter(|target| source.has(target));
        let top = source.described(target.as_ref().unwrap_or(&record.manifest))?;
        let name = (by_name && record.reference()?.tag().is_some()).then_some(record.name);
        match images.iter_mut().find(|other| other.top.digest == top.digest) {
            Some(other) => other.names.extend(name),
            None => images.push(Export { names: name.into_iter().collect(), top }),
        }
    }
    Ok(images)
}

//! `export`: a container's root filesystem as a tar.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, IsTerminal, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use crate::cli::Context;
use crate::container::Container;
use crate::container::record::Root;
use crate::output;
use crate::rootfs::{overlay, pack};

/// Write a container's root filesystem as a tar; volumes and other mounts are left out
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Write to this file instead of standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Name, id, or the beginning of an id
    #[arg(value_name = "CONTAINER")]
    container: String,
}

/// Exports.
pub(crate) fn run(args: Args, context: &Context) -> Result<u8> {
    if args.output.is_none() && io::stdout().is_terminal() {
        bail!("refusing to export to a terminal: use --output, or redirect");
    }
    let container = Container::find(context, &args.container)?;
    match args.output {
        None => export(&container, io::stdout().lock()),
        Some(path) => output::write_file(&path, |file| export(&container, file)),
    }
    .with_context(|| format!("export {}", args.container))?;
    Ok(0)
}

fn export(container: &Container, out: impl Write) -> Result<()> {
    let mut warn = |text: &str| eprintln!("manager: {text}");
    let rootfs = rootfs(container).context("open its root filesystem")?;
    let mut out = BufWriter::with_capacity(1 << 18, out);
    pack::pack(rootfs, &mut out, &mut warn)
}

/// The root filesystem as the container sees it, without what is mounted in it.
fn rootfs(container: &Container) -> Result<OwnedFd> {
    match (&container.record.root, container.state()?.running()) {
        (Root::Folder(folder), _) => open(folder),
        // Mounted where only the monitor, and whoever goes through it, can see it.
        (Root::Image { .. }, Some(started)) if started.monitor.is_alive() => {
            let root = PathBuf::from(format!("/proc/{}/root", started.monitor.pid));
            let inside = container.folder.strip_prefix("/").context("its folder is not absolute")?;
            let rootfs = open(&root.join(inside).join("rootfs"))?;
            // The number may be another process's by now.
            if !started.monitor.is_alive() {
                bail!("its monitor ended just now: try again");
            }
            Ok(rootfs)
        }
        (Root::Image { layers, .. }, _) => {
            overlay::view(layers, &container.folder.join("upper"), &container.folder.join("rootfs"))
        }
    }
}

fn open(folder: &Path) -> Result<OwnedFd> {
    let mut options = OpenOptions::new();
    let file: File = options
        .read(true)
        .custom_flags(libc::O_DIRECTORY)
        .open(folder)
        .with_context(|| format!("open {}", folder.display()))?;
    Ok(file.into())
}

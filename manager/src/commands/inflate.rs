//! `inflate`: not for people. The process that inflates an archive.

use anyhow::Result;

use crate::image::inflate::inflate_here;

/// The process that inflates an archive
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

/// Inflates its standard input to its standard output.
pub(crate) fn run(_args: &Args) -> Result<u8> {
    match inflate_here() {
        Ok(()) => Ok(0),
        // Whoever started this says of what.
        Err(error) => {
            eprintln!("{error:#}");
            Ok(1)
        }
    }
}

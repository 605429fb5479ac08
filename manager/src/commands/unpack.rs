//! `unpack`: not for people. The process that unpacks one layer.

use anyhow::Result;

/// The process that unpacks a layer
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

/// Unpacks what it is told on its standard input.
pub(crate) fn run(_args: &Args) -> Result<u8> {
    crate::rootfs::unpacker::unpack()?;
    Ok(0)
}

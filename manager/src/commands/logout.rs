//! `logout`: forgets what `login` kept.

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};

use super::login::account;
use crate::cli::Context;
use crate::output;
use crate::registry::login::AuthFile;

/// Log out from a registry
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Forget the credentials for all registries
    #[arg(short, long, conflicts_with = "server")]
    all: bool,
    /// Forget them in this file only
    #[arg(long, value_name = "FILE", env = "REGISTRY_AUTH_FILE", hide_env_values = true)]
    authfile: Option<PathBuf>,
    /// Forget them in this file, which is written in docker's way
    #[arg(long, value_name = "FILE")]
    compat_auth_file: Option<PathBuf>,
    /// HOST, HOST:PORT, or either with /PATH for a part of a registry; docker.io if not given
    #[arg(value_name = "REGISTRY")]
    server: Option<String>,
}

/// Logs out.
pub(crate) fn run(mut args: Args, _: &Context) -> Result<u8> {
    if args.compat_auth_file.is_some() && std::env::var_os("REGISTRY_AUTH_FILE").is_some() {
        args.authfile = None;
    }
    let file = AuthFile::choose(args.authfile.as_deref(), args.compat_auth_file.as_deref())?;
    if args.all {
        file.erase_all().context("log out")?;
        output::print("Removing login credentials for all registries\n")?;
        return Ok(0);
    }
    let account = account(args.server.as_deref())?;
    let about = || format!("log out from {}", account.key);
    if file.erase(&account).with_context(about)? {
        output::print(&format!("Removing login credentials for {}\n", account.key))?;
    } else {
        output::print(&format!("Not logged in to {}\n", account.key))?;
    }
    let only = args.authfile.as_deref().or(args.compat_auth_file.as_deref());
    if let Some(keeper) = account.keeper(only).with_context(about)? {
        bail!("{} still has credentials for {}", keeper.display(), account.key);
    }
    Ok(0)
}

//! `checkpoint` and `restore` are not supported. Engines call them all the same, with any of runc's and
//! crun's flags, so both take everything and refuse it: containers go on unharmed, and Podman, which asks
//! by `checkpoint --help` whether a runtime can do it, gets its answer from the exit code.

use anyhow::{Result, bail};
use clap::{Arg, ArgMatches, Command};

use crate::cli::Context;

pub(super) fn flags(command: Command) -> Command {
    command
        .about("Not supported: always an error")
        .hide(true)
        .disable_help_flag(true)
        .arg(Arg::new("anything").num_args(0..).trailing_var_arg(true).allow_hyphen_values(true))
}

pub(super) fn checkpoint(_: &Context, _: &ArgMatches) -> Result<u8> {
    bail!("checkpoint is not supported: this runtime cannot save a container's processes (runc and crun can)")
}

pub(super) fn restore(_: &Context, _: &ArgMatches) -> Result<u8> {
    bail!("restore is not supported: this runtime cannot load saved processes (runc and crun can)")
}

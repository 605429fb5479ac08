//! One file a verb: runtime.md#operations and runc's command line.

mod create;
mod delete;
mod events;
mod exec;
mod features;
mod kill;
mod list;
mod pause;
mod ps;
mod resume;
mod run;
mod spec;
mod start;
mod state;
mod update;

use clap::{ArgMatches, Command};

use crate::cli::Context;

/// A verb: its flags, what it does (returning the exit code), and the exit code when it fails.
#[derive(Debug)]
pub(crate) struct Verb {
    pub(crate) name: &'static str,
    pub(crate) flags: fn(Command) -> Command,
    pub(crate) run: fn(&Context, &ArgMatches) -> anyhow::Result<u8>,
    pub(crate) failure: u8,
}

const fn verb(
    name: &'static str,
    flags: fn(Command) -> Command,
    run: fn(&Context, &ArgMatches) -> anyhow::Result<u8>,
) -> Verb {
    Verb { name, flags, run, failure: 1 }
}

/// All verbs, in the order of `--help`.
pub(crate) const ALL: [Verb; 15] = [
    verb("create", create::flags, create::run),
    verb("start", start::flags, start::run),
    verb("run", run::flags, run::run),
    verb("state", state::flags, state::run),
    verb("kill", kill::flags, kill::run),
    verb("delete", delete::flags, delete::run),
    // The payload's exit code is exec's own, so a failure of the runtime gets one of its own.
    Verb { name: "exec", flags: exec::flags, run: exec::run, failure: 255 },
    verb("list", list::flags, list::run),
    verb("ps", ps::flags, ps::run),
    verb("pause", pause::flags, pause::run),
    verb("resume", resume::flags, resume::run),
    verb("update", update::flags, update::run),
    verb("events", events::flags, events::run),
    verb("spec", spec::flags, spec::run),
    verb("features", features::flags, features::run),
];

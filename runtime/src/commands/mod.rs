//! One file a verb: runtime.md#operations and runc's command line.

mod checkpoint;
mod completion;
mod create;
mod delete;
mod events;
mod exec;
mod features;
mod info;
mod kill;
mod list;
mod man;
mod mounts;
mod pause;
mod ps;
mod resume;
mod run;
mod spec;
mod start;
mod state;
mod update;

use anyhow::Context as _;
use clap::{Arg, ArgMatches, Command};
use regex_lite::Regex;

use crate::cli::{self, Context};
use crate::state_dir;

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

/// `--regex`, as crun has it.
fn regex_flag() -> Arg {
    cli::flag("regex", "CONTAINER-ID is a regular expression: all containers that it matches").short('r')
}

/// The ids that are meant: the one given, or those that match it.
fn ids(context: &Context, matches: &ArgMatches) -> anyhow::Result<Vec<String>> {
    let id = cli::text(matches, "id");
    if !matches.get_flag("regex") {
        return Ok(vec![id.to_owned()]);
    }
    let pattern = Regex::new(id).with_context(|| format!("--regex: {id:?}"))?;
    let all = state_dir::list(&context.root)?.into_iter().map(|(id, _)| id);
    Ok(all.filter(|id| pattern.is_match(id)).collect())
}

/// Does it for each, whatever becomes of the others. The first failure is the error, and warnings the rest.
fn each(ids: &[String], act: impl Fn(&str) -> anyhow::Result<()>) -> anyhow::Result<u8> {
    let mut failures = ids.iter().filter_map(|id| act(id).err());
    let first = failures.next();
    failures.for_each(|error| crate::log::warn(&format!("{error:#}")));
    first.map_or(Ok(0), Err)
}

/// All verbs, in the order of `--help`.
pub(crate) const ALL: [Verb; 21] = [
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
    verb("mounts", mounts::flags, mounts::run),
    verb("events", events::flags, events::run),
    verb("spec", spec::flags, spec::run),
    verb("features", features::flags, features::run),
    verb("info", info::flags, info::run),
    verb("completion", completion::flags, completion::run),
    verb("man", man::flags, man::run),
    verb("checkpoint", checkpoint::flags, checkpoint::checkpoint),
    verb("restore", checkpoint::flags, checkpoint::restore),
];

//! `state`: runtime.md#state, with the fields that runc adds.

use std::path::Path;

use anyhow::Result;
use clap::{ArgMatches, Command};
use serde::Serialize;

use crate::cli::{self, Context};
use crate::state_dir::{self, Status};

/// What `state` and `list` print.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Shown {
    oci_version: String,
    pub(super) id: String,
    pub(super) pid: i32,
    pub(super) status: Status,
    pub(super) bundle: String,
    rootfs: String,
    pub(super) created: String,
    #[serde(skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    annotations: std::collections::BTreeMap<String, String>,
    pub(super) owner: String,
}

pub(super) fn flags(command: Command) -> Command {
    command.about("Print a container's state as JSON").arg(cli::id())
}

pub(super) fn run(context: &Context, matches: &ArgMatches) -> Result<u8> {
    let shown = look(&context.root, cli::text(matches, "id"), None)?;
    // Without a line end, as with runc.
    print!("{}", serde_json::to_string_pretty(&shown)?);
    Ok(0)
}

/// Asks the living process where the container stands.
pub(super) fn look(root: &Path, id: &str, owner: Option<u32>) -> Result<Shown> {
    let state = state_dir::load(root, id)?;
    let init = state_dir::init(root, id)?;
    let status = state_dir::status(root, &state, init.as_ref());
    Ok(Shown {
        oci_version: state.oci_version,
        id: state.id,
        pid: init.map_or(0, |init| init.pid.as_raw()),
        status,
        bundle: state.bundle.to_string_lossy().into_owned(),
        rootfs: state.rootfs.to_string_lossy().into_owned(),
        created: state.created,
        annotations: state.annotations,
        owner: owner.map_or_else(String::new, name_of),
    })
}

/// By passwd(5) alone: getpwuid(3) would load the host's name service modules into a static program, which
/// crashes it.
fn name_of(uid: u32) -> String {
    let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then_some(name)
    });
    name.map_or_else(|| uid.to_string(), str::to_owned)
}

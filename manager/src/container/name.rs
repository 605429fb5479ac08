//! Names: one symlink each, whose making is the reservation, because symlink(2) fails when the
//! name is taken.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};

use crate::cli::Context;

/// Words for names of containers that were given none.
const FIRST: [&str; 32] = [
    "amber", "brave", "brisk", "calm", "clear", "coral", "crisp", "eager", "early", "fair", "fleet",
    "gentle", "golden", "hardy", "honest", "jolly", "keen", "kind", "lively", "lucid", "mellow", "merry",
    "nimble", "noble", "patient", "quick", "quiet", "silver", "steady", "sunny", "swift", "witty",
];
const SECOND: [&str; 32] = [
    "anchor", "barge", "beacon", "canoe", "capstan", "clipper", "compass", "crane", "current", "cutter",
    "dinghy", "estuary", "ferry", "fjord", "galley", "harbour", "islet", "jetty", "kayak", "keel", "lagoon",
    "lantern", "mast", "oar", "pilot", "quay", "rudder", "sail", "schooner", "sextant", "tide", "wharf",
];

/// Reserves a name for an id.
pub(crate) fn reserve(context: &Context, name: &str, id: &str) -> Result<()> {
    let folder = folder(context);
    super::make_folder(&folder)?;
    let link = folder.join(name);
    match symlink(id, &link) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
        other => return other.with_context(|| format!("reserve the name {name:?}")),
    }
    // Taken, unless a killed command left the link of a container that is no more. The lock keeps
    // two that come to the same conclusion from removing each other's new link.
    let _lock = super::lock(&folder)?;
    let holder = lookup(context, name).unwrap_or_default();
    if !holder.is_empty() && super::containers(context).join(&holder).exists() {
        bail!(
            "conflict: the container name \"/{name}\" is already in use by container \"{holder}\": \
             remove (or rename) that container to be able to reuse that name"
        );
    }
    fs::remove_file(&link).with_context(|| format!("remove the stale name {name:?}"))?;
    symlink(id, &link).with_context(|| format!("reserve the name {name:?}"))
}

/// Frees a name, if it is this id's.
pub(crate) fn release(context: &Context, name: &str, id: &str) {
    if lookup(context, name).is_some_and(|holder| holder == id) {
        let _ = fs::remove_file(folder(context).join(name));
    }
}

/// Frees every name of an id.
pub(crate) fn release_all(context: &Context, id: &str) -> Result<()> {
    let folder = folder(context);
    let entries = match fs::read_dir(&folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        other => other.with_context(|| format!("read {}", folder.display()))?,
    };
    for entry in entries.flatten() {
        if let Some(name) = entry.file_name().to_str() {
            release(context, name, id);
        }
    }
    Ok(())
}

/// The id behind a name.
pub(crate) fn lookup(context: &Context, name: &str) -> Option<String> {
    if name.contains('/') {
        return None;
    }
    let target = fs::read_link(folder(context).join(name)).ok()?;
    target.into_os_string().into_string().ok()
}

/// Two words that fit the id and are free right now.
pub(crate) fn invent(context: &Context, id: &str) -> String {
    let number = |at: usize| usize::from_str_radix(id.get(at..at + 4).unwrap_or("0"), 16).unwrap_or(0);
    for attempt in 0.. {
        let at = attempt * 8;
        if at + 8 > id.len() {
            break;
        }
        let name = format!("{}_{}", FIRST[number(at) % FIRST.len()], SECOND[number(at + 4) % SECOND.len()]);
        if lookup(context, &name).is_none() {
            return name;
        }
    }
    // Hundreds of containers: the words ran out, the id never does.
    format!("{}_{}", FIRST[number(0) % FIRST.len()], super::short_id(id))
}

fn folder(context: &Context) -> PathBuf {
    context.root.join("container-names")
}

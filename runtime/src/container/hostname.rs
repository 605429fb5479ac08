//! `hostname`, `domainname`: uts_namespaces(7), config.md#hostname.

use anyhow::{Context, Result, bail};
use nix::sched::CloneFlags;
use oci_spec::runtime::Spec;

use super::namespaces::Namespaces;
use crate::sys::process::set_domain_name;

/// Refuses names that would be the host's own.
pub(crate) fn check(spec: &Spec, namespaces: &Namespaces) -> Result<()> {
    for (property, name) in [("hostname", spec.hostname()), ("domainname", spec.domainname())] {
        let Some(name) = name.as_ref().filter(|name| !name.is_empty()) else { continue };
        if !namespaces.has(CloneFlags::CLONE_NEWUTS) {
            bail!("{property}: unable to set {property} without a private UTS namespace");
        }
        if name.len() > 64 || name.contains(['\0', '\n']) {
            bail!("{property}: {name:?} is not a name of at most 64 bytes");
        }
    }
    Ok(())
}

/// Sets both in the container's UTS namespace.
pub(crate) fn apply(spec: &Spec) -> Result<()> {
    if let Some(name) = spec.hostname().as_ref().filter(|name| !name.is_empty()) {
        nix::unistd::sethostname(name).with_context(|| format!("set hostname {name:?}"))?;
    }
    if let Some(name) = spec.domainname().as_ref().filter(|name| !name.is_empty()) {
        set_domain_name(name).with_context(|| format!("set domainname {name:?}"))?;
    }
    Ok(())
}

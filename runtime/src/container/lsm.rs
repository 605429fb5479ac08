//! `process.apparmorProfile`, `process.selinuxLabel`: the label of the payload, written to
//! `/proc/self/attr` (apparmor(7)) as the last thing before its execve.

use std::ffi::{CStr, CString};
use std::path::Path;

use anyhow::{Result, bail};

/// The labels asked for; empty when there is none.
#[derive(Clone, Debug, Default)]
pub(crate) struct Labels {
    /// As it is written: `exec NAME`.
    pub(crate) apparmor: String,
    pub(crate) selinux: String,
}

/// Refuses a profile on a host without AppArmor, and a label on a host without SELinux is nothing to
/// do, as with runc.
pub(crate) fn plan(apparmor: Option<&str>, selinux: Option<&str>) -> Result<Labels> {
    let mut labels = Labels::default();
    if let Some(profile) = apparmor.filter(|profile| !profile.is_empty()) {
        if profile.contains(['\0', '\n']) {
            bail!("process.apparmorProfile: {profile:?} is not a name");
        }
        if !apparmor_is_on() {
            bail!(
                "process.apparmorProfile: apparmor failed to apply profile: apparmor is not supported or not enabled on this host"
            );
        }
        labels.apparmor = format!("exec {profile}");
    }
    if let Some(label) = selinux.filter(|label| !label.is_empty()) {
        if label.contains(['\0', '\n']) {
            bail!("process.selinuxLabel: {label:?} is not a label");
        }
        if selinux_is_on() {
            labels.selinux = label.to_owned();
        }
    }
    Ok(labels)
}

/// `linux.mountLabel`, and the mount option that carries it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct MountLabel {
    pub(crate) option: &'static CStr,
    pub(crate) label: CString,
}

/// Nothing to do on a host without SELinux. The annotation, which crun and its callers know, chooses
/// among the four options of mount(8).
pub(crate) fn plan_mount_label(label: Option<&str>, option: Option<&str>) -> Result<Option<MountLabel>> {
    const ANNOTATION: &str = "run.oci.mount_context_type";
    let option = match option {
        None | Some("context") => c"context",
        Some("fscontext") => c"fscontext",
        Some("defcontext") => c"defcontext",
        Some("rootcontext") => c"rootcontext",
        Some(other) => bail!("annotations: {ANNOTATION}: unknown option {other:?}"),
    };
    let Some(label) = label.filter(|label| !label.is_empty()) else { return Ok(None) };
    if label.contains(['\0', '\n']) {
        bail!("linux.mountLabel: {label:?} is not a label");
    }
    Ok(selinux_is_on().then_some(MountLabel { option, label: CString::new(label)? }))
}

/// True if the kernel has AppArmor and it is enabled.
pub(crate) fn apparmor_is_on() -> bool {
    std::fs::read("/sys/module/apparmor/parameters/enabled").is_ok_and(|text| text.starts_with(b"Y"))
}

/// True if SELinux is there: its file system is mounted.
pub(crate) fn selinux_is_on() -> bool {
    Path::new("/sys/fs/selinux/enforce").exists()
}

impl Labels {
    /// True if something is to be written.
    pub(crate) fn any(&self) -> bool {
        !self.apparmor.is_empty() || !self.selinux.is_empty()
    }
}

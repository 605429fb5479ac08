//! `annotations`: config.md#annotations. Those of crun's that change how a container is made, which Podman
//! and others set. All have to stand in `potentiallyUnsafeConfigAnnotations` of `features`: engines let
//! only whom they trust set them.

use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use libc::sock_filter;

use super::hooks::Output;
use super::seccomp::MAX_INSTRUCTIONS;
use crate::log;

/// What they ask for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Annotations {
    /// setgroups(2) is not called: the groups of the caller stay.
    pub(crate) keep_original_groups: bool,
    /// A seccomp agent's socket, if `linux.seccomp.listenerPath` has none.
    pub(crate) seccomp_receiver: Option<PathBuf>,
    /// Unknown names in `linux.seccomp` are errors.
    pub(crate) seccomp_knows_all: bool,
    /// A filter in the kernel's form, in place of `linux.seccomp`.
    pub(crate) seccomp_program: Option<Vec<sock_filter>>,
    /// As `--pidfd-socket`.
    pub(crate) pidfd_receiver: Option<PathBuf>,
    /// Which option of a mount carries `linux.mountLabel`.
    pub(crate) mount_context_type: Option<String>,
    /// Names below `run.oci.` that mean nothing here.
    unknown: Vec<String>,
    hooks_stdout: Option<PathBuf>,
    hooks_stderr: Option<PathBuf>,
}

/// For `features`; those with a dot at the end are the beginnings of names.
pub(crate) const UNSAFE: [&str; 3] = ["bundle", "org.systemd.property.", "run.oci."];

/// Reads them. One that is not known must not be an error - config.md#annotations.
pub(crate) fn plan<'a>(all: impl Iterator<Item = (&'a str, &'a str)>) -> Result<Annotations> {
    let mut plan = Annotations::default();
    for (key, value) in all {
        ensure!(!key.is_empty(), "annotations: a key must not be empty");
        let Some(name) = key.strip_prefix("run.oci.") else { continue };
        plan.take(name, value).with_context(|| format!("annotations: {key}"))?;
    }
    if plan.seccomp_receiver.is_none() {
        plan.seccomp_receiver = std::env::var_os("RUN_OCI_SECCOMP_RECEIVER").map(PathBuf::from);
    }
    Ok(plan)
}

impl Annotations {
    fn take(&mut self, name: &str, value: &str) -> Result<()> {
        match name {
            "keep_original_groups" => self.keep_original_groups = value == "1",
            "seccomp.receiver" => self.seccomp_receiver = Some(absolute(value)?),
            "seccomp_fail_unknown_syscall" => self.seccomp_knows_all = true,
            "seccomp_bpf_data" => self.seccomp_program = Some(program(value)?),
            "pidfd_receiver" => self.pidfd_receiver = Some(absolute(value)?),
            "mount_context_type" => self.mount_context_type = Some(value.to_owned()),
            "hooks.stdout" => self.hooks_stdout = Some(absolute(value)?),
            "hooks.stderr" => self.hooks_stderr = Some(absolute(value)?),
            _ => self.unknown.push(name.to_owned()),
        }
        Ok(())
    }

    /// To be told when the container is made, and not by each later command again.
    pub(crate) fn warn_of_unknown(&self) {
        for name in &self.unknown {
            log::warn(&format!("annotations: run.oci.{name} is not known here and has no effect"));
        }
    }

    /// Opens the files that get what hooks print. A link in a file's place could lead anywhere.
    pub(crate) fn hook_output(&self) -> Result<Output> {
        let open = |path: &PathBuf| {
            std::fs::OpenOptions::new()
                .create(true)
                .append(true)
                .mode(0o600)
                .custom_flags(libc::O_NOFOLLOW)
                .open(path)
                .with_context(|| format!("annotations: run.oci.hooks: open {path:?}"))
        };
        Ok(Output {
            stdout: self.hooks_stdout.as_ref().map(open).transpose()?,
            stderr: self.hooks_stderr.as_ref().map(open).transpose()?,
        })
    }
}

fn absolute(path: &str) -> Result<PathBuf> {
    let path = PathBuf::from(path);
    ensure!(path.is_absolute(), "{path:?} is not an absolute path");
    Ok(path)
}

/// `struct sock_filter[]` in base64, as bpf(4) has it: the kernel checks the rest.
fn program(text: &str) -> Result<Vec<sock_filter>> {
    let bytes = BASE64_STANDARD.decode(text.trim()).context("not base64")?;
    let (instructions, rest) = bytes.as_chunks::<8>();
    if instructions.is_empty() || instructions.len() > MAX_INSTRUCTIONS || !rest.is_empty() {
        bail!("{} bytes are not 1 to {MAX_INSTRUCTIONS} instructions of 8 bytes", bytes.len());
    }
    let instruction = |&[a, b, jt, jf, c, d, e, f]: &[u8; 8]| sock_filter {
        code: u16::from_ne_bytes([a, b]),
        jt,
        jf,
        k: u32::from_ne_bytes([c, d, e, f]),
    };
    Ok(instructions.iter().map(instruction).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_whole_instructions() {
        // RET ALLOW
        let allow = program("BgAAAAAA/38=").expect("a program");
        assert_eq!((allow.len(), allow[0].code, allow[0].k), (1, 6, 0x7fff_0000));
        for bad in ["", "BgAA", "?", "BgAAAAAA/38A"] {
            assert!(program(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn paths_are_absolute_and_unknown_names_are_no_errors() {
        assert!(plan([("run.oci.hooks.stdout", "file")].into_iter()).is_err());
        assert!(plan([("run.oci.handler", "krun"), ("any", "thing")].into_iter()).is_ok());
        assert!(plan([("", "thing")].into_iter()).is_err());
    }
}

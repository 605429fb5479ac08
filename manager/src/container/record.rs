//! `container.json`: what was asked for, settled once at `create` and never changed. Everything a
//! bundle is made of stands here, so that `start` needs neither the command line nor the store.

use std::collections::BTreeMap;
use std::path::PathBuf;

use oci_spec::image::Descriptor;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A container as it was asked for.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Record {
    /// 64 hexadecimal digits.
    pub(crate) id: String,
    /// Its name, unique below this root.
    pub(crate) name: String,
    /// RFC 3339.
    pub(crate) created: String,
    /// Where the root filesystem comes from.
    pub(crate) root: Root,
    /// The process, defaults of the image included.
    pub(crate) process: Process,
    /// The image's labels and `--label`. Never read as anything but text (CVE-2026-53488).
    pub(crate) labels: BTreeMap<String, String>,
    /// The name inside, and `/etc/hostname`.
    pub(crate) hostname: String,
    /// `--network`.
    pub(crate) network: Network,
    /// `--read-only`.
    pub(crate) read_only: bool,
    /// `-v`, `--tmpfs`, and the image's VOLUMEs, outer ones first.
    pub(crate) mounts: Vec<Mount>,
    /// Limits.
    pub(crate) resources: Resources,
    /// Capabilities, seccomp, no_new_privs.
    pub(crate) security: Security,
    /// `--stop-signal`, or the image's, or SIGTERM: its number.
    pub(crate) stop_signal: i32,
    /// `--stop-timeout`, in seconds.
    pub(crate) stop_timeout: u64,
    /// `--rm`.
    pub(crate) auto_remove: bool,
    /// The OCI runtime's executable.
    pub(crate) runtime: PathBuf,
    /// `--cidfile`, for `inspect`; the file stays when the container goes, as with docker.
    pub(crate) cidfile: Option<PathBuf>,
}

/// Where a root filesystem comes from.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Root {
    /// The layers of an image below a layer of the container's own.
    Image {
        /// The reference as it was typed.
        name: String,
        /// The whole reference that it was found by; none when it was found by its id.
        reference: Option<String>,
        /// Its manifest.
        manifest: Box<Descriptor>,
        /// The digest of the image's configuration.
        id: String,
        /// Lowest first.
        layers: Vec<PathBuf>,
    },
    /// `--rootfs`: a folder, used as it is and written to.
    Folder(PathBuf),
}

/// The container's first process.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Process {
    /// Entrypoint, then command.
    pub(crate) args: Vec<String>,
    /// `--entrypoint` or the image's, for `inspect`.
    pub(crate) entrypoint: Vec<String>,
    /// The command line's words or the image's Cmd, for `inspect`.
    pub(crate) command: Vec<String>,
    /// `NAME=value`.
    pub(crate) env: Vec<String>,
    /// `user[:group]` by name or number; empty is root.
    pub(crate) user: String,
    /// The working directory.
    pub(crate) cwd: String,
    /// `-t`.
    pub(crate) terminal: bool,
    /// `-i`.
    pub(crate) open_stdin: bool,
    /// Standard input ends with the one who ran the container in the foreground.
    pub(crate) stdin_once: bool,
}

/// `--network`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Network {
    /// A network namespace of its own with loopback only
    None,
    /// The host's network
    Host,
}

impl Network {
    /// Docker's word for it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Host => "host",
        }
    }
}

/// Something mounted into the root filesystem.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Mount {
    /// What is mounted.
    pub(crate) source: Source,
    /// Where, absolute.
    pub(crate) destination: String,
    /// `ro`.
    pub(crate) read_only: bool,
    /// The rest of its options: propagation of a bind, `size=` and others of a tmpfs.
    pub(crate) options: Vec<String>,
}

/// What is mounted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Source {
    /// A file or folder of the host.
    Bind(PathBuf),
    /// A volume with a name, which outlives the container; filled from the image at first use.
    Volume {
        /// Its name.
        name: String,
        /// False with `nocopy`.
        copy: bool,
    },
    /// A VOLUME of the image or a `-v DESTINATION`: a folder that lives and dies with the
    /// container, filled from the image.
    Anonymous,
    /// `--tmpfs`.
    Tmpfs,
}

/// Limits; none means no limit.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Resources {
    /// Bytes.
    pub(crate) memory: Option<i64>,
    /// Memory and swap together in bytes; -1 is unlimited.
    pub(crate) memory_swap: Option<i64>,
    /// Billionths of a processor.
    pub(crate) nano_cpus: Option<i64>,
    /// Processes and threads.
    pub(crate) pids: Option<i64>,
}

/// What the processes may do.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Security {
    /// `--privileged`.
    pub(crate) privileged: bool,
    /// `--cap-add`, as given.
    pub(crate) cap_add: Vec<String>,
    /// `--cap-drop`, as given.
    pub(crate) cap_drop: Vec<String>,
    /// What they amount to: `CAP_...` names.
    pub(crate) capabilities: Vec<String>,
    /// `--security-opt no-new-privileges`.
    pub(crate) no_new_privileges: bool,
    /// `--security-opt seccomp=...`.
    pub(crate) seccomp: Seccomp,
    /// `--security-opt` as given, for `inspect`.
    pub(crate) options: Vec<String>,
}

/// The seccomp profile.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Seccomp {
    /// The one in `bundle/seccomp.json`.
    Default,
    /// None at all.
    Unconfined,
    /// The content of a file of the user's, in the same format.
    Profile(Value),
}

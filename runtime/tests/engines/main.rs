//! A drop-in for runc: Debian's engines run containers through the runtime, each with its daemon on a
//! machine of its own ([`machine`]), with the very settings that `contrib/` ships.
//!
//! `RUNTIME_BIN` names the runtime; without it the one that cargo built is tested. `ENGINES_ROOT` names
//! the root of another Debian, whose engines are tested then.

mod containerd;
mod cri;
mod docker;
mod image;
mod machine;
mod podman;
mod podman_rootless;

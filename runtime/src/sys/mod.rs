//! System calls that neither `std` nor `nix` wraps: the crate's only unsafe code. Every wrapper names
//! its man page and turns `-1` into [`nix::Error`], so callers add the path and the purpose.
#![allow(unsafe_code)]

#[cfg(target_os = "linux")]
pub(crate) mod bpf;
#[cfg(not(any(test, fuzzing)))]
mod entry;
pub(crate) mod file;
pub(crate) mod mount;
pub(crate) mod netlink;
pub(crate) mod path;
pub(crate) mod process;
pub(crate) mod seccomp;
pub(crate) mod socket;
pub(crate) mod terminal;

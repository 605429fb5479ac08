//! System calls that no crate here wraps: the only unsafe code of the manager.

pub(crate) mod command;
pub(crate) mod descriptors;
#[cfg(isal)]
pub(crate) mod isal;
pub(crate) mod mounts;
pub(crate) mod pidfd;
pub(crate) mod signals;

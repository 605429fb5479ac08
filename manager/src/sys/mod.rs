//! System calls that no crate here wraps: the only unsafe code of the manager.

pub(crate) mod xattr;

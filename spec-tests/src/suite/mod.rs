//! The cases, one file a section of the specification. A case is a sentence.

mod capabilities;
mod cgroup;
mod create;
mod delete;
mod devices;
mod hooks;
mod hostname;
mod kill;
mod masked_paths;
mod mounts;
mod namespaces;
mod process;
mod rlimits;
mod rootfs;
mod seccomp;
mod start;
mod state;
mod sysctl;
mod terminal;
mod user;

use crate::case::Case;

/// Every case, in the order of the specification.
pub fn cases() -> impl Iterator<Item = &'static Case> {
    [
        state::CASES,
        create::CASES,
        start::CASES,
        kill::CASES,
        delete::CASES,
        hooks::CASES,
        rootfs::CASES,
        mounts::CASES,
        process::CASES,
        user::CASES,
        rlimits::CASES,
        capabilities::CASES,
        terminal::CASES,
        hostname::CASES,
        namespaces::CASES,
        devices::CASES,
        cgroup::CASES,
        sysctl::CASES,
        seccomp::CASES,
        masked_paths::CASES,
    ]
    .into_iter()
    .flatten()
}

//! What the fuzz targets call. The runtime is a program without a library, so its modules are compiled
//! into this crate as they are; each target is a function here, and three lines in `fuzz_targets/`.
//!
//! A finding gets a test beside the code that it was found in.
#![allow(dead_code, reason = "a target needs a part of the runtime")]

#[path = "../../src/bundle.rs"]
mod bundle;
#[path = "../../src/cgroup/mod.rs"]
mod cgroup;
#[path = "../../src/cli.rs"]
mod cli;
#[path = "../../src/commands/mod.rs"]
mod commands;
#[path = "../../src/container/mod.rs"]
mod container;
#[path = "../../src/fault/mod.rs"]
mod fault;
#[path = "../../src/launch/mod.rs"]
mod launch;
#[path = "../../src/log.rs"]
mod log;
#[path = "../../src/property.rs"]
mod property;
#[path = "../../src/state_dir.rs"]
mod state_dir;
#[path = "../../src/sys/mod.rs"]
mod sys;
#[path = "../../src/time.rs"]
mod time;

pub mod config;
pub mod handshake;
pub mod mount_options;
pub mod seccomp;

//! A conformance suite for OCI runtimes on Linux: it drives any runtime by its command line, looks
//! at the container from inside with a probe, and judges from outside against the
//! [runtime specification](https://github.com/opencontainers/runtime-spec/tree/v1.3.0).
//!
//! ```text
//!   suite/*  --makes-->  bundle (config.json + rootfs with the probe)
//!      |                    |
//!      |                 runtime create, start, state, kill, delete
//!      |                    |
//!   judges  <--JSON--   probe, as the container's process or as a hook
//! ```

pub mod bundle;
pub mod case;
pub mod container;
pub mod probe;
pub mod report;
pub mod requirement;
pub mod runtime;
pub mod suite;

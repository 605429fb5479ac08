//! Containers, for real: the manager's binary, an image pulled from a registry on loopback, and
//! every OCI runtime that this machine has. Needs root; everything made here is removed again.

mod crash;
mod exit_codes;
mod export;
mod host;
mod life;
mod logs;
mod run;
mod security;
mod terminal;
mod volumes;

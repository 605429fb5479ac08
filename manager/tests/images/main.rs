//! Images: from registries, honest and lying, to layer folders and back out of the store.

#[path = "../support/mod.rs"]
mod support;

mod breakouts;
mod compare;
mod debian;
mod hostile;
mod killed;
mod lists;
mod login;
mod lying;
mod parts;
mod power;
mod pull;
mod recover;
mod registries;
mod store;
mod system;
mod tls;
mod transfer;

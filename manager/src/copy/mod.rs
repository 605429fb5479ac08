//! An image from anywhere to anywhere. Below `pull`, `push`, `copy`, `save` and `load`.
//!
//! ```text
//!                     ┌─ into_store ─────► the store: unpacked while it arrives
//! source ─► documents ┼─ into_registry ──► a registry: blobs first, the manifest last
//!  (tree)             └─ into_layout ────► a folder or an archive, for other tools
//! ```
//!
//! Into the store, a `layer` comes by a `download`, a large one in `parts`; the `stack` of them is put in its place.
//! Blobs are passed on as they are, to the byte: what was pulled is pushed back with the same digest. Only plain
//! layers that were loaded are made smaller for a registry (`compress`).

mod check;
mod compress;
mod download;
mod into_layout;
mod into_registry;
mod into_store;
mod layer;
mod parts;
mod permits;
mod recover;
mod source;
mod stack;
mod tree;

pub(crate) use check::check;
pub(crate) use compress::{CompressArgs, FAST, Format, pack};
pub(crate) use into_layout::{Export, Target, write_layout};
pub(crate) use into_registry::{Options, push};
pub(crate) use into_store::{Wanted, keep, restore};
pub(crate) use recover::{recover, unpack_anew};
pub(crate) use source::Source;
pub(crate) use tree::Take;

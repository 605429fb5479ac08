//! Locks of the store, all flock(2): the kernel drops them with the process, however it ends.
//!
//! - `locks/store`, shared: held by whoever brings something in that no name reaches yet (a pull
//!   until its name is written, a run until its container folder is).
//! - `locks/store`, exclusive, never waited for: held by the sweep, which therefore runs only when
//!   nobody brings anything in.
//! - `locks/layer-<diffid>`, exclusive: two pulls that need the same layer do the work once. Taken
//!   in the order of their names, so that two pulls never wait for each other.
//! - `locks/index`: one writer of index.json at a time.
//!
//! Nothing is locked while containers run.

use std::fs::File;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use super::Store;

/// A held lock; dropping it releases it.
#[derive(Debug)]
pub(crate) struct Lock(#[expect(dead_code, reason = "held for its Drop")] Flock<File>);

impl Store {
    /// Keeps the sweep away until the lock is dropped. Take it before looking for an image that is
    /// about to be used, and keep it until `containers/<id>/image` is written.
    pub(crate) fn hold(&self) -> Result<Lock> {
        Ok(Lock(self.lock("store", FlockArg::LockShared)?))
    }

    /// For the sweep: the store alone, or none when somebody brings something in just now.
    pub(crate) fn try_alone(&self) -> Result<Option<Lock>> {
        let file = self.lock_file("store")?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Ok(Some(Lock(lock))),
            Err((_, Errno::EWOULDBLOCK)) => Ok(None),
            Err((_, errno)) => Err(errno).context("lock the store"),
        }
    }

    /// One name's lock, waited for.
    pub(crate) fn lock_exclusive(&self, name: &str) -> Result<Lock> {
        Ok(Lock(self.lock(name, FlockArg::LockExclusive)?))
    }

    fn lock(&self, name: &str, how: FlockArg) -> Result<Flock<File>> {
        let file = self.lock_file(name)?;
        Flock::lock(file, how)
            .map_err(|(_, errno)| errno)
            .with_context(|| format!("lock {name} of the store"))
    }

    fn lock_file(&self, name: &str) -> Result<File> {
        let path = self.path("locks").join(name);
        File::options()
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .with_context(|| format!("open {}", path.display()))
    }
}

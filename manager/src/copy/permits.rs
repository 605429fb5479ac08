//! So many of something at once.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// A semaphore.
#[derive(Debug)]
pub(super) struct Permits {
    free: Mutex<usize>,
    news: Condvar,
}

/// One of them. It is given back when it is dropped.
#[derive(Debug)]
pub(super) struct Permit<'a>(&'a Permits);

impl Permits {
    pub(super) fn new(count: usize) -> Self {
        Self { free: Mutex::new(count), news: Condvar::new() }
    }

    /// Waits for one.
    pub(super) fn take(&self) -> Permit<'_> {
        let mut free = self.free();
        while *free == 0 {
            free = self.news.wait(free).unwrap_or_else(PoisonError::into_inner);
        }
        *free -= 1;
        Permit(self)
    }

    /// One, if there is one.
    pub(super) fn try_take(&self) -> Option<Permit<'_>> {
        let mut free = self.free();
        *free = free.checked_sub(1)?;
        Some(Permit(self))
    }

    fn free(&self) -> MutexGuard<'_, usize> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        *self.0.free() += 1;
        self.0.news.notify_one();
    }
}

//! A lock whose waiters have a deadline: who sends or receives has its turn, and the others wait for theirs no longer than they said.

use std::ops::{Deref, DerefMut};
use std::sync::{Condvar, Mutex, PoisonError};

use crate::error::{Error, Kind, Result};
use crate::sync_std::lock;
use crate::time::Deadline;

/// What one thread has at a time.
#[derive(Debug)]
pub(super) struct Turn<T> {
    /// Empty while somebody has it.
    here: Mutex<Option<T>>,
    returned: Condvar,
}

/// It is this thread's turn until this is dropped.
pub(super) struct Taken<'a, T: Default> {
    turn: &'a Turn<T>,
    has: T,
}

impl<T: Default> Default for Turn<T> {
    fn default() -> Turn<T> {
        Turn { here: Mutex::new(Some(T::default())), returned: Condvar::new() }
    }
}

impl<T: Default> Turn<T> {
    /// Waits for its turn. `what` is for the error.
    pub(super) fn take(&self, what: &str, deadline: Deadline) -> Result<Taken<'_, T>> {
        let mut here = lock(&self.here);
        loop {
            if let Some(has) = here.take() {
                return Ok(Taken { turn: self, has });
            }
            here = match deadline.remaining() {
                None => self.returned.wait(here).unwrap_or_else(PoisonError::into_inner),
                Some(left) if left.is_zero() => return Err(Error::new(what, Kind::TimedOut)),
                Some(left) => {
                    let woken = self.returned.wait_timeout(here, left);
                    woken.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }
}

impl<T: Default> Deref for Taken<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.has
    }
}

impl<T: Default> DerefMut for Taken<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.has
    }
}

impl<T: Default> Drop for Taken<'_, T> {
    fn drop(&mut self) {
        *lock(&self.turn.here) = Some(std::mem::take(&mut self.has));
        self.turn.returned.notify_one();
    }
}

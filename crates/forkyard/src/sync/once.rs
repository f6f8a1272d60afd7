//! `Once`: something that is done once in a family, whoever dies while doing it.
//!
//! `done` is written under the lock, and never changes back. Killed here: before `done` is stored the next caller does it again; after that
//! it is done.
//!
//! # Safety
//! The payload is made of atomics.
#![allow(unsafe_code)]

use std::fmt;
use std::panic::Location;

use serde::{Deserialize, Serialize};

use super::base::Base;
use super::error::LockError;
use crate::error::Result;
use crate::primitive::{AtomicU32, Ordering};
use crate::shm::{self, Id, Payload, Shared};

/// The shared part.
#[repr(C)]
pub(super) struct State {
    pub(super) base: Base,
    /// 1: it is done. Stored with Release after it has been done.
    done: AtomicU32,
    unused: AtomicU32,
}

// SAFETY: atomics only, `repr(C)`, all-zero is one that was not called.
unsafe impl Payload for State {
    const KIND: shm::Kind = shm::Kind::Once;
}

/// Runs a closure once, in whichever process of the family comes first; the others wait for it.
///
/// **Death**: if a process dies in the closure, or the closure panics, the next caller runs its own, and is told so: what the first one had begun may
/// be half done.
///
/// The value is a handle: it travels among the arguments of a task.
///
/// ```
/// # use forkyard::sync::Once;
/// let once = Once::new()?;
/// let mut ran = 0;
/// for _ in 0..3 {
///     once.call_once(|_| ran += 1)?;
/// }
/// assert_eq!((ran, once.is_completed()), (1, true));
/// # Ok::<(), forkyard::Error>(())
/// ```
#[doc(alias = "pthread_once")]
#[derive(Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Once {
    state: Shared<State>,
}

/// How it came to a call of a [`Once`]'s closure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OnceState {
    again: bool,
}

impl OnceState {
    /// True if another process died while it was doing this, which may be half done.
    #[must_use]
    #[doc(alias = "is_poisoned")]
    pub fn is_again(&self) -> bool {
        self.again
    }
}

impl Once {
    /// Makes one of which nothing has been called.
    ///
    /// # Errors
    /// The family's shared memory is full, or has too many members.
    #[track_caller]
    pub fn new() -> Result<Once> {
        Ok(Once { state: Shared::new(0, Location::caller(), |_, _| {})? })
    }

    /// Calls the closure, unless one was called to its end; if another process is calling one, waits for that.
    ///
    /// # Errors
    /// The closure calls the same `Once`, or waits for who does ([`is_deadlock`](crate::Error::is_deadlock)); or this process cannot
    /// take part in shared memory.
    #[inline]
    pub fn call_once(&self, closure: impl FnOnce(OnceState)) -> Result<()> {
        if self.is_completed() { Ok(()) } else { self.call(closure) }
    }

    #[cold]
    fn call(&self, closure: impl FnOnce(OnceState)) -> Result<()> {
        /// Releases the lock, also when the closure panics.
        struct Release<'a>(&'a Base);
        impl Drop for Release<'_> {
            fn drop(&mut self) {
                self.0.release();
            }
        }
        let again = match self.state.base.acquire(self.state.offset(), None) {
            Ok(()) => false,
            Err(LockError::OwnerDied(_)) => true,
            Err(error) => return Err(error.into()),
        };
        let _release = Release(&self.state.base);
        if !self.is_completed() {
            closure(OnceState { again });
            self.state.done.store(1, Ordering::Release);
        }
        Ok(())
    }

    /// True if a closure was called to its end.
    #[inline]
    #[must_use]
    pub fn is_completed(&self) -> bool {
        self.state.done.load(Ordering::Acquire) == 1
    }
}

impl fmt::Debug for Once {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.state.fmt(f)
    }
}

/// Takes a dead caller out of the lock, and has everybody look again.
pub(super) fn repair(state: &State, dead: Id) {
    state.base.raw.repair(dead);
}

//! `Once`: something that is to be done once in a family.
//!
//! Killed here: raw.rs. Who dies before it is marked as done leaves it to the next one, to be done again.
//!
//! # Safety
//! The payload is made of atomics.
#![allow(unsafe_code)]

use std::fmt;
use std::panic::Location;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::base::Base;
use super::error::LockError;
use super::owned::HasLock;
use crate::error::Result;
use crate::primitive::{AtomicU32, Ordering};
use crate::shm::{self, Payload, Shared};
use crate::time::Deadline;

/// The shared part. `done`: 1 from when it is done; stored with Release by the lock's owner, once.
#[repr(C)]
pub(super) struct State {
    pub(super) base: Base,
    done: AtomicU32,
    unused: AtomicU32,
}

// SAFETY: atomics only, `repr(C)`, all-zero is not done and free.
unsafe impl Payload for State {
    const KIND: shm::Kind = shm::Kind::Once;
}

impl HasLock for State {
    fn base(&self) -> &Base {
        &self.base
    }
}

/// Something that is to be done once, by whichever process or thread comes first, before all others go on.
///
/// The value is a handle: it travels among the arguments of a task, and each copy is of the same one.
///
/// **Death**: if who does it dies, or panics, before it has returned, the next one does it again; [`call_once_force`](Once::call_once_force) tells it
/// so. Who has been killed may have come to its very last instruction.
///
/// **Deadlock**: as for [`Mutex`](super::Mutex); also if what is to be done calls this itself.
///
/// ```
/// # use forkyard::sync::Once;
/// let once = Once::new()?;
/// let mut times = 0;
/// once.call_once(|| times += 1)?;
/// once.call_once(|| times += 1)?;
/// assert!(once.is_completed() && times == 1);
/// # Ok::<(), forkyard::Error>(())
/// ```
#[doc(alias = "pthread_once")]
#[derive(Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Once {
    state: Shared<State>,
}

/// What [`Once::call_once_force`] tells the function.
#[derive(Debug)]
pub struct OnceState {
    owner_died: bool,
}

impl OnceState {
    /// True if a process died while it was at it: some of it may be done already.
    #[must_use]
    pub fn owner_died(&self) -> bool {
        self.owner_died
    }
}

impl Once {
    /// Makes one that is not done yet.
    ///
    /// # Errors
    /// The family's shared memory is full, or has too many members.
    #[track_caller]
    pub fn new() -> Result<Once> {
        Ok(Once { state: Shared::new(0, Location::caller(), |_, _| {})? })
    }

    /// Calls the function, unless that is done; waits while somebody else is at it. What it did is seen after this returns.
    ///
    /// # Errors
    /// [`is_deadlock`](crate::Error::is_deadlock); or this process cannot take part in shared memory.
    #[inline]
    pub fn call_once(&self, f: impl FnOnce()) -> Result<()> {
        self.call_once_force(|_| f())
    }

    /// The same, and the function is told whether somebody died while it was at it.
    ///
    /// # Errors
    /// As [`call_once`](Once::call_once).
    #[inline]
    pub fn call_once_force(&self, f: impl FnOnce(&OnceState)) -> Result<()> {
        self.call(Some(Deadline::NEVER), f)
    }

    /// Calls the function, unless that is done or somebody else is at it.
    ///
    /// # Errors
    /// [`is_would_block`](crate::Error::is_would_block), or as [`call_once`](Once::call_once).
    pub fn try_call_once(&self, f: impl FnOnce()) -> Result<()> {
        self.call(None, |_| f())
    }

    /// The same as [`call_once`](Once::call_once), waiting for so long at most. The function's own time does not count.
    ///
    /// # Errors
    /// [`is_timeout`](crate::Error::is_timeout), or as [`call_once`](Once::call_once).
    pub fn call_once_timeout(&self, timeout: Duration, f: impl FnOnce()) -> Result<()> {
        self.call(Some(Deadline::after(timeout)), |_| f())
    }

    /// The same as [`call_once`](Once::call_once), waiting until then at most.
    ///
    /// # Errors
    /// [`is_timeout`](crate::Error::is_timeout), or as [`call_once`](Once::call_once).
    pub fn call_once_deadline(&self, deadline: Instant, f: impl FnOnce()) -> Result<()> {
        self.call(Some(deadline.into()), |_| f())
    }

    /// True if it is done.
    #[inline]
    #[must_use]
    pub fn is_completed(&self) -> bool {
        self.state.done.load(Ordering::Acquire) != 0
    }

    #[inline]
    fn call(&self, deadline: Option<Deadline>, f: impl FnOnce(&OnceState)) -> Result<()> {
        if self.is_completed() { Ok(()) } else { self.call_alone(deadline, f) }
    }

    #[cold]
    fn call_alone(&self, deadline: Option<Deadline>, f: impl FnOnce(&OnceState)) -> Result<()> {
        /// Also if the function panics.
        struct Release<'a>(&'a Base);
        impl Drop for Release<'_> {
            fn drop(&mut self) {
                self.0.release();
            }
        }
        let base = &self.state.base;
        let acquired = match deadline {
            _ if base.acquire_at_once() => Ok(()),
            Some(deadline) => base.acquire(self.state.offset(), deadline.timeout()),
            None => base.try_acquire(),
        };
        let owner_died = match acquired {
            Ok(()) => false,
            Err(LockError::OwnerDied(_)) => true,
            Err(error) => return Err(error.into()),
        };
        let _release = Release(base);
        if !self.is_completed() {
            f(&OnceState { owner_died });
            self.state.done.store(1, Ordering::Release);
        }
        Ok(())
    }
}

impl fmt::Debug for Once {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.state.fmt(f)
    }
}

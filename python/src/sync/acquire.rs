//! Acquiring a lock, and what Python is told of its owner's death and of deadlocks.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use forkyard::Error;
use forkyard::sync::{Lock, LockError, RLock};
use pyo3::prelude::*;

use crate::error::{python, raise};
use crate::wait::{Patience, Slept, sleep};

/// A lock that is acquired and released by hand.
pub(super) trait ByHand: Sync {
    fn try_once(&self) -> Result<(), Trouble>;
    fn sleep_once(&self, until: Option<Instant>) -> Result<(), Trouble>;
    /// False: nobody has it.
    fn let_go(&self) -> bool;
}

macro_rules! by_hand {
    ($lock:ty) => {
        impl ByHand for $lock {
            #[inline]
            fn try_once(&self) -> Result<(), Trouble> {
                self.try_acquire().map_err(|error| Trouble::of(error, |guard| guard.keep()))
            }

            fn sleep_once(&self, until: Option<Instant>) -> Result<(), Trouble> {
                self.acquire_interruptible(until).map_err(|error| Trouble::of(error, |guard| guard.keep()))
            }

            #[inline]
            fn let_go(&self) -> bool {
                self.release().is_ok()
            }
        }
    };
}

by_hand!(Lock);
by_hand!(RLock);

/// Why a lock was not acquired in the ordinary way.
pub(super) enum Trouble {
    TimedOut,
    Interrupted,
    /// It was acquired.
    OwnerDied(String),
    Deadlock {
        text: String,
        alone: bool,
    },
    Failed(Error),
}

impl Trouble {
    #[cold]
    pub(super) fn of<G>(error: LockError<G>, keep: impl FnOnce(G)) -> Trouble {
        match error {
            LockError::OwnerDied(died) => {
                let text = died.to_string();
                keep(died.into_inner());
                Trouble::OwnerDied(text)
            }
            LockError::Deadlock(deadlock) => {
                Trouble::Deadlock { text: deadlock.to_string(), alone: deadlock.circle().len() < 2 }
            }
            LockError::WouldBlock | LockError::TimedOut => Trouble::TimedOut,
            LockError::Interrupted => Trouble::Interrupted,
            other => Trouble::Failed(other.into()),
        }
    }

    /// Tells Python. The lock is acquired if this succeeds with true, and after [`Trouble::OwnerDied`] in any case.
    pub(super) fn tell(self, py: Python<'_>, raises: bool) -> PyResult<bool> {
        match self {
            Trouble::TimedOut | Trouble::Interrupted => Ok(false),
            Trouble::OwnerDied(text) => python(py, "owner_died", (text, raises)).map(|_| true),
            Trouble::Deadlock { text, .. } => {
                Err(python(py, "deadlock", (text,)).map_or_else(|error| error, PyErr::from_value))
            }
            Trouble::Failed(error) => Err(raise(error)),
        }
    }
}

/// Acquires the lock; false if the time is up.
#[inline]
pub(super) fn acquire(
    py: Python<'_>,
    lock: &impl ByHand,
    patience: Patience,
    raises: &AtomicBool,
) -> PyResult<bool> {
    match lock.try_once() {
        Ok(()) => Ok(true),
        Err(trouble) => wait(py, lock, trouble, patience, raises),
    }
}

#[cold]
fn wait(
    py: Python<'_>,
    lock: &impl ByHand,
    first: Trouble,
    patience: Patience,
    raises: &AtomicBool,
) -> PyResult<bool> {
    let trouble = match (first, patience) {
        (Trouble::TimedOut, Patience::Until(until)) => {
            let acquired = sleep(py, || match lock.sleep_once(until) {
                Err(Trouble::Interrupted) => Slept::Interrupted,
                // A thread that waits for a lock which it has itself may wait for somebody else to release it.
                Err(Trouble::Deadlock { alone: true, .. }) => Slept::Interrupted,
                acquired => Slept::Done(acquired),
            })?;
            match acquired {
                Ok(()) => return Ok(true),
                Err(trouble) => trouble,
            }
        }
        (first, _) => first,
    };
    let acquired = matches!(trouble, Trouble::OwnerDied(_));
    trouble.tell(py, raises.load(Ordering::Relaxed)).inspect_err(|_| {
        if acquired {
            // Nobody else would release it.
            lock.let_go();
        }
    })
}

//! Acquiring a lock, and what Python is told of its owner's death and of deadlocks.

use std::sync::atomic::{AtomicBool, Ordering};

use forkyard::Error;
use forkyard::sync::{Lock, LockError, LockResult};
use pyo3::prelude::*;

use super::wait::{Patience, Slept, sleep};
use crate::error::{python, raise};

enum Outcome {
    Acquired,
    TimedOut,
    Interrupted,
    OwnerDied(String),
    Deadlock { text: String, alone: bool },
    Failed(Error),
}

fn outcome(result: LockResult<'_>) -> Outcome {
    match result {
        Ok(()) => Outcome::Acquired,
        Err(LockError::OwnerDied(died)) => {
            let text = died.to_string();
            died.into_inner().keep();
            Outcome::OwnerDied(text)
        }
        Err(LockError::Deadlock(deadlock)) => {
            Outcome::Deadlock { text: deadlock.to_string(), alone: deadlock.circle().len() < 2 }
        }
        Err(LockError::WouldBlock | LockError::TimedOut) => Outcome::TimedOut,
        Err(LockError::Interrupted) => Outcome::Interrupted,
        Err(other) => Outcome::Failed(other.into()),
    }
}

/// Acquires the lock; false if the time is up.
#[inline]
pub(super) fn acquire(
    py: Python<'_>,
    lock: &Lock,
    patience: Patience,
    raises: &AtomicBool,
) -> PyResult<bool> {
    match lock.try_acquire() {
        Ok(()) => Ok(true),
        other => told(py, lock, outcome(other), patience, raises),
    }
}

#[cold]
fn told(
    py: Python<'_>,
    lock: &Lock,
    first: Outcome,
    patience: Patience,
    raises: &AtomicBool,
) -> PyResult<bool> {
    let last = match (first, patience) {
        (Outcome::TimedOut, Patience::Until(until)) => wait(py, lock, until)?,
        (first, _) => first,
    };
    match last {
        Outcome::Acquired => Ok(true),
        Outcome::TimedOut | Outcome::Interrupted => Ok(false),
        Outcome::OwnerDied(text) => {
            // Where a warning is an error nobody would release the lock.
            let told = python(py, "owner_died", (text, raises.load(Ordering::Relaxed)));
            told.map(|_| true).inspect_err(|_| drop(lock.release()))
        }
        Outcome::Deadlock { text, .. } => Err(python(py, "deadlock", (text,))
            .map_or_else(|error| error, |exception| PyErr::from_value(exception))),
        Outcome::Failed(error) => Err(raise(error)),
    }
}

fn wait(py: Python<'_>, lock: &Lock, until: Option<std::time::Instant>) -> PyResult<Outcome> {
    sleep(py, || match outcome(lock.acquire_interruptible(until)) {
        Outcome::Interrupted => Slept::Interrupted,
        // A thread that waits for a lock which it has itself may wait for somebody else to release it.
        Outcome::Deadlock { alone: true, .. } => Slept::Interrupted,
        outcome => Slept::Done(outcome),
    })
}

//! A lock that an object has: one of ours, so that it is acquired without a way through Python.

use pyo3::prelude::*;
use pyo3::{PyTraverseError, PyVisit};

use super::fast::{Fast, Within};
use super::{Lock, RLock};

/// A lock whose class does nothing of its own.
pub(super) enum Held {
    Lock(Py<Lock>),
    RLock(Py<RLock>),
}

impl Held {
    /// `None`: it is another kind of lock.
    pub(super) fn of(lock: &Bound<'_, PyAny>) -> Option<Held> {
        if let Ok(lock) = lock.cast::<RLock>() {
            return Some(Held::RLock(lock.clone().unbind()));
        }
        lock.cast::<Lock>().ok().map(|lock| Held::Lock(lock.clone().unbind()))
    }

    #[inline]
    pub(super) fn at_once(&self) -> bool {
        match self {
            Held::Lock(lock) => lock.get().at_once(),
            Held::RLock(lock) => lock.get().at_once(),
        }
    }

    #[inline]
    pub(super) fn release_at_once(&self) -> bool {
        match self {
            Held::Lock(lock) => lock.get().release_at_once(),
            Held::RLock(lock) => lock.get().release_at_once(),
        }
    }

    pub(super) fn let_go(&self) -> bool {
        match self {
            Held::Lock(lock) => lock.get().let_go(),
            Held::RLock(lock) => lock.get().let_go(),
        }
    }

    pub(super) fn is_taken(&self) -> bool {
        match self {
            Held::Lock(lock) => lock.get().is_taken(),
            Held::RLock(lock) => lock.get().is_taken(),
        }
    }

    /// True if the calling thread has it.
    #[inline]
    pub(super) fn is_mine(&self) -> bool {
        match self {
            Held::Lock(lock) => lock.get().handle.0.get().is_some_and(|handle| handle.is_mine()),
            Held::RLock(lock) => lock.get().handle.0.get().is_some_and(|handle| handle.is_held()),
        }
    }

    pub(super) fn visit(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        match self {
            Held::Lock(lock) => visit.call(lock),
            Held::RLock(lock) => visit.call(lock),
        }
    }
}

//! Locks and the other means to wait for one another.
//!
//! Each class is a handle that is made empty (`__new__`) and filled by `_make` or `_attach`, so that Python classes derive from
//! it and have any `__init__`. Waiting begins with a look under the GIL; only who has to sleep lets go of it.

mod acquire;
mod barrier;
mod condition;
mod event;
mod fast;
mod lock;
mod rlock;
mod semaphore;
mod wait;

pub(crate) use barrier::Barrier;
pub(crate) use condition::Condition;
pub(crate) use event::Event;
pub(crate) use lock::Lock;
pub(crate) use rlock::RLock;
pub(crate) use semaphore::{BoundedSemaphore, Semaphore};
pub(crate) use wait::attention;

use std::sync::OnceLock;

use forkyard::__private::family;
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::raise;

/// Adds what is not made by PyO3.
pub(crate) fn init(py: Python<'_>) -> PyResult<()> {
    fast::add::<Lock>(py)?;
    fast::add::<RLock>(py)?;
    fast::add::<Semaphore>(py)?;
    fast::add::<BoundedSemaphore>(py)
}

/// A handle that is filled once.
struct Handle<T>(OnceLock<T>);

impl<T: Serialize + DeserializeOwned> Handle<T> {
    const fn empty() -> Handle<T> {
        Handle(OnceLock::new())
    }

    #[inline]
    fn get(&self) -> PyResult<&T> {
        self.0.get().ok_or_else(empty)
    }

    fn fill(&self, handle: forkyard::Result<T>) -> PyResult<()> {
        let handle = handle.map_err(raise)?;
        self.0.set(handle).map_err(|_| PyRuntimeError::new_err("__init__() was called already"))
    }

    fn attach(&self, state: &[u8]) -> PyResult<()> {
        self.fill(family::decode(state))
    }

    fn state<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        Ok(PyBytes::new(py, &family::encode(self.get()?).map_err(raise)?))
    }
}

#[cold]
fn empty() -> PyErr {
    PyRuntimeError::new_err("__init__() was not called")
}

#[cold]
fn released_too_often() -> PyErr {
    PyValueError::new_err("semaphore or lock released too many times")
}

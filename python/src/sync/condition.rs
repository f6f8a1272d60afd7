//! `Condition`.

use std::sync::atomic::Ordering;
use std::time::Instant;

use forkyard::sync::{self, Held, Waited};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use super::acquire::Trouble;
use super::{Lock, RLock};
use crate::error::raise;
use crate::handle::Handle;
use crate::wait::{Patience, goes_on, interrupted};

/// A condition in the family's shared memory.
#[pyclass(frozen, subclass, module = "forkyard._forkyard")]
pub(crate) struct Condition {
    handle: Handle<sync::Condition>,
}

#[pymethods]
impl Condition {
    #[new]
    #[pyo3(signature = (*_args, **_kwargs))]
    fn new(_args: &Bound<'_, PyAny>, _kwargs: Option<&Bound<'_, PyAny>>) -> Condition {
        Condition { handle: Handle::empty() }
    }

    fn _make(&self) -> PyResult<()> {
        self.handle.fill(sync::Condition::new())
    }

    fn _attach(&self, state: &[u8]) -> PyResult<()> {
        self.handle.attach(state)
    }

    fn _state<'py>(&self, py: Python<'py>) -> PyResult<(Bound<'py, PyBytes>,)> {
        Ok((self.handle.state(py)?,))
    }

    /// Waits with a lock that the calling thread has; false if the time was up.
    fn _wait(&self, py: Python<'_>, lock: &Bound<'_, PyAny>, timeout: &Bound<'_, PyAny>) -> PyResult<bool> {
        let condition = self.handle.get()?;
        let until = match Patience::seconds(timeout)? {
            Patience::Until(until) => until,
            Patience::None => Some(Instant::now()),
        };
        let (waited, trouble, raises) = if let Ok(lock) = lock.cast::<RLock>() {
            let (lock, raises) = (lock.get().handle.get()?, &lock.get().raises);
            let (waited, trouble) = py.detach(|| wait(condition, lock, until));
            (waited, trouble, raises.load(Ordering::Relaxed))
        } else if let Ok(lock) = lock.cast::<Lock>() {
            let (lock, raises) = (lock.get().handle.get()?, &lock.get().raises);
            let (waited, trouble) = py.detach(|| wait(condition, lock, until));
            (waited, trouble, raises.load(Ordering::Relaxed))
        } else {
            return Err(PyTypeError::new_err("a Condition of forkyard needs a Lock or RLock of forkyard"));
        };
        if let Some(trouble) = trouble {
            trouble.tell(py, raises)?;
        }
        match waited {
            Waited::Notified => Ok(true),
            Waited::TimedOut => Ok(false),
            Waited::Interrupted => interrupted(py).map(|()| false),
        }
    }

    fn _notify(&self, n: u32) -> PyResult<()> {
        self.handle.get()?.notify(n).map_err(raise)
    }
}

/// Waits, and tells what came of acquiring the lock again.
fn wait<G: Held>(condition: &sync::Condition, held: G, until: Option<Instant>) -> (Waited, Option<Trouble>) {
    match condition.wait_interruptible(held, until, goes_on) {
        Ok((_, waited)) => (waited, None),
        Err(error) => {
            let mut end = Waited::TimedOut;
            let trouble = Trouble::of(error, |(_, waited)| end = waited);
            (end, Some(trouble))
        }
    }
}

//! Locks and the other means to wait for one another.
//!
//! Each class is a handle that is made empty (`__new__`) and filled by `_make` or `_attach`, so that Python classes derive from
//! it and have any `__init__`. Waiting begins with a look under the GIL; only who has to sleep lets go of it.

mod acquire;
mod barrier;
mod condition;
mod event;
mod fast;
mod held;
mod lock;
mod rlock;
mod semaphore;
mod value;

pub(crate) use barrier::Barrier;
pub(crate) use condition::{Condition, quick_condition};
pub(crate) use event::Event;
pub(crate) use lock::Lock;
pub(crate) use rlock::RLock;
pub(crate) use semaphore::{BoundedSemaphore, Semaphore};
pub(crate) use value::{Synchronized, quick_value};

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyType;

/// Adds what is not made by PyO3.
pub(crate) fn init(py: Python<'_>) -> PyResult<()> {
    fast::add::<Lock>(&py.get_type::<Lock>())?;
    fast::add::<RLock>(&py.get_type::<RLock>())?;
    fast::add::<Semaphore>(&py.get_type::<Semaphore>())?;
    fast::add::<BoundedSemaphore>(&py.get_type::<BoundedSemaphore>())
}

/// Gives a class that derives from one of those its methods as its own, and returns it: they are called faster.
#[pyfunction]
pub(crate) fn quick_lock<'py>(class: &Bound<'py, PyType>) -> PyResult<Bound<'py, PyType>> {
    if class.is_subclass_of::<Lock>()? {
        fast::add::<Lock>(class)?;
    } else if class.is_subclass_of::<RLock>()? {
        fast::add::<RLock>(class)?;
    } else if class.is_subclass_of::<Semaphore>()? {
        fast::add::<Semaphore>(class)?;
    } else {
        fast::add::<BoundedSemaphore>(class)?;
    }
    Ok(class.clone())
}

#[cold]
fn released_too_often() -> PyErr {
    PyValueError::new_err("semaphore or lock released too many times")
}

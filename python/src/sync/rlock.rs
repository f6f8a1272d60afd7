//! `RLock`: acquired again by the thread that has it, and released as often.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use forkyard::sync;
use pyo3::exceptions::PyAssertionError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use super::Handle;
use super::acquire::acquire;
use super::wait::Patience;

/// A recursive lock in the family's shared memory.
///
/// `depth`: how often its owner has acquired it; written by the thread that has the lock.
#[pyclass(frozen, subclass, module = "forkyard._forkyard")]
pub(crate) struct RLock {
    handle: Handle<sync::Lock>,
    raises: AtomicBool,
    depth: AtomicU32,
}

#[pymethods]
impl RLock {
    #[new]
    #[pyo3(signature = (*_args, **_kwargs))]
    fn new(_args: &Bound<'_, PyAny>, _kwargs: Option<&Bound<'_, PyAny>>) -> RLock {
        RLock { handle: Handle::empty(), raises: AtomicBool::new(false), depth: AtomicU32::new(0) }
    }

    fn _make(&self, made_at: &str, raises: bool) -> PyResult<()> {
        self.raises.store(raises, Ordering::Relaxed);
        self.handle.fill(sync::Lock::new_at(made_at))
    }

    fn _attach(&self, state: &[u8], raises: bool) -> PyResult<()> {
        self.raises.store(raises, Ordering::Relaxed);
        self.handle.attach(state)
    }

    fn _state<'py>(&self, py: Python<'py>) -> PyResult<(Bound<'py, PyBytes>, bool)> {
        Ok((self.handle.state(py)?, self.raises.load(Ordering::Relaxed)))
    }

    #[pyo3(signature = (block = None, timeout = None))]
    fn acquire(
        &self,
        py: Python<'_>,
        block: Option<&Bound<'_, PyAny>>,
        timeout: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<bool> {
        let lock = self.handle.get()?;
        if lock.is_mine() {
            self.depth.store(self.depth.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
            return Ok(true);
        }
        let acquired = acquire(py, lock, Patience::of(block, timeout)?, &self.raises)?;
        if acquired {
            self.depth.store(1, Ordering::Relaxed);
        }
        Ok(acquired)
    }

    fn release(&self) -> PyResult<()> {
        let lock = self.handle.get()?;
        if !lock.is_mine() {
            return Err(PyAssertionError::new_err("attempt to release recursive lock not owned by thread"));
        }
        match self.depth.load(Ordering::Relaxed) {
            depth @ 2.. => self.depth.store(depth - 1, Ordering::Relaxed),
            _ => drop(lock.release()),
        }
        Ok(())
    }

    fn __enter__(&self, py: Python<'_>) -> PyResult<bool> {
        self.acquire(py, None, None)
    }

    #[pyo3(signature = (_type = None, _value = None, _traceback = None))]
    fn __exit__(
        &self,
        _type: Option<&Bound<'_, PyAny>>,
        _value: Option<&Bound<'_, PyAny>>,
        _traceback: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        self.release()
    }

    fn _is_mine(&self) -> PyResult<bool> {
        Ok(self.handle.get()?.is_mine())
    }

    fn _count(&self) -> PyResult<u32> {
        let ours = self.handle.get()?.is_ours();
        Ok(if ours { self.depth.load(Ordering::Relaxed) } else { 0 })
    }

    fn _is_zero(&self) -> PyResult<bool> {
        Ok(self.handle.get()?.is_locked())
    }

    fn _get_value(&self) -> PyResult<u32> {
        Ok((!self.handle.get()?.is_locked()).into())
    }
}

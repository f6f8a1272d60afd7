//! `Lock`: acquired by one thread, released by anybody.

use std::sync::atomic::{AtomicBool, Ordering};

use forkyard::sync;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use super::acquire::acquire;
use super::fast::{Fast, Within};
use super::released_too_often;
use crate::handle::Handle;
use crate::wait::Patience;

/// A lock in the family's shared memory.
#[pyclass(frozen, subclass, module = "forkyard._forkyard")]
pub(crate) struct Lock {
    pub(super) handle: Handle<sync::Lock>,
    pub(super) raises: AtomicBool,
}

#[pymethods]
impl Lock {
    #[new]
    #[pyo3(signature = (*_args, **_kwargs))]
    fn new(_args: &Bound<'_, PyAny>, _kwargs: Option<&Bound<'_, PyAny>>) -> Lock {
        Lock { handle: Handle::empty(), raises: AtomicBool::new(false) }
    }

    fn _make(&self, made_at: &str, raises: bool, looks_for_deadlocks: bool) -> PyResult<()> {
        self.raises.store(raises, Ordering::Relaxed);
        let lock = sync::Lock::new_at(made_at);
        self.handle.fill(if looks_for_deadlocks {
            lock
        } else {
            lock.map(sync::Lock::without_deadlock_report)
        })
    }

    fn _attach(&self, state: &[u8], raises: bool) -> PyResult<()> {
        self.raises.store(raises, Ordering::Relaxed);
        self.handle.attach(state)
    }

    fn _state<'py>(&self, py: Python<'py>) -> PyResult<(Bound<'py, PyBytes>, bool)> {
        Ok((self.handle.state(py)?, self.raises.load(Ordering::Relaxed)))
    }

    #[pyo3(signature = (block = None, timeout = None))]
    fn _acquire(
        &self,
        py: Python<'_>,
        block: Option<&Bound<'_, PyAny>>,
        timeout: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<bool> {
        acquire(py, self.handle.get()?, Patience::of(block, timeout)?, &self.raises)
    }

    fn _release(&self) -> PyResult<()> {
        self.handle.get()?.release().map_err(|_| released_too_often())
    }

    #[pyo3(signature = (*_args))]
    fn _exit(&self, _args: &Bound<'_, PyAny>) -> PyResult<()> {
        self._release()
    }

    fn _is_mine(&self) -> PyResult<bool> {
        Ok(self.handle.get()?.is_mine())
    }

    fn _count(&self) -> PyResult<u32> {
        Ok(self.handle.get()?.is_ours().into())
    }

    fn _is_zero(&self) -> PyResult<bool> {
        Ok(self.handle.get()?.is_locked())
    }

    fn _get_value(&self) -> PyResult<u32> {
        Ok((!self.handle.get()?.is_locked()).into())
    }
}

impl Within for Lock {
    #[inline]
    fn at_once(&self) -> bool {
        self.handle.0.get().is_some_and(|handle| handle.acquire_at_once())
    }

    #[inline]
    fn release_at_once(&self) -> bool {
        self.handle.0.get().is_some_and(|handle| handle.release_at_once())
    }
}

impl Fast for Lock {
    fn let_go(&self) -> bool {
        self.handle.0.get().is_some_and(|handle| handle.release().is_ok())
    }

    fn is_taken(&self) -> bool {
        self.handle.0.get().is_some_and(|handle| handle.is_taken())
    }
}

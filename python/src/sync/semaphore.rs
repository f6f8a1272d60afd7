//! `Semaphore` and `BoundedSemaphore`.

use std::sync::OnceLock;
use std::time::Instant;

use forkyard::sync;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use super::fast::{Fast, Within};
use super::released_too_often;
use crate::error::raise;
use crate::handle::Handle;
use crate::wait::{Patience, Slept, sleep};

/// What both have in common.
trait Permits: Sync {
    fn try_acquire(&self) -> forkyard::Result<bool>;
    fn acquire_interruptible(&self, until: Option<Instant>) -> forkyard::Result<()>;
}

macro_rules! permits {
    ($permits:ty) => {
        impl Permits for $permits {
            #[inline]
            fn try_acquire(&self) -> forkyard::Result<bool> {
                self.try_acquire()
            }

            fn acquire_interruptible(&self, until: Option<Instant>) -> forkyard::Result<()> {
                self.acquire_interruptible(until)
            }
        }
    };
}

permits!(sync::Semaphore);
permits!(sync::BoundedSemaphore);

#[inline]
fn acquire(py: Python<'_>, permits: &impl Permits, patience: Patience) -> PyResult<bool> {
    match permits.try_acquire() {
        Ok(true) => Ok(true),
        Ok(false) => wait(py, permits, patience),
        Err(error) => Err(raise(error)),
    }
}

#[cold]
fn wait(py: Python<'_>, permits: &impl Permits, patience: Patience) -> PyResult<bool> {
    let Patience::Until(until) = patience else { return Ok(false) };
    sleep(py, || Slept::of(permits.acquire_interruptible(until)))?.map_err(raise)
}

/// A number of permits that belong to nobody.
#[pyclass(frozen, subclass, module = "forkyard._forkyard")]
pub(crate) struct Semaphore {
    handle: Handle<sync::Semaphore>,
    most: OnceLock<u32>,
}

#[pymethods]
impl Semaphore {
    #[new]
    #[pyo3(signature = (*_args, **_kwargs))]
    fn new(_args: &Bound<'_, PyAny>, _kwargs: Option<&Bound<'_, PyAny>>) -> Semaphore {
        Semaphore { handle: Handle::empty(), most: OnceLock::new() }
    }

    fn _make(&self, permits: u32, most: u32) -> PyResult<()> {
        let _ = self.most.set(most);
        self.handle.fill(sync::Semaphore::new(permits))
    }

    fn _attach(&self, state: &[u8], most: u32) -> PyResult<()> {
        let _ = self.most.set(most);
        self.handle.attach(state)
    }

    fn _state<'py>(&self, py: Python<'py>) -> PyResult<(Bound<'py, PyBytes>, u32)> {
        Ok((self.handle.state(py)?, self.most()))
    }

    #[pyo3(signature = (block = None, timeout = None))]
    fn _acquire(
        &self,
        py: Python<'_>,
        block: Option<&Bound<'_, PyAny>>,
        timeout: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<bool> {
        acquire(py, self.handle.get()?, Patience::of(block, timeout)?)
    }

    fn _release(&self) -> PyResult<()> {
        let semaphore = self.handle.get()?;
        if semaphore.value() >= self.most() {
            return Err(released_too_often());
        }
        semaphore.release().map_err(|_| released_too_often())
    }

    #[pyo3(signature = (*_args))]
    fn _exit(&self, _args: &Bound<'_, PyAny>) -> PyResult<()> {
        self._release()
    }

    fn get_value(&self) -> PyResult<u32> {
        Ok(self.handle.get()?.value())
    }

    #[getter]
    fn maxvalue(&self) -> u32 {
        self.most()
    }
}

impl Semaphore {
    #[inline]
    fn most(&self) -> u32 {
        self.most.get().copied().unwrap_or(sync::Semaphore::MAX_PERMITS)
    }
}

/// Permits that belong to processes.
#[pyclass(frozen, subclass, module = "forkyard._forkyard")]
pub(crate) struct BoundedSemaphore {
    handle: Handle<sync::BoundedSemaphore>,
    most: OnceLock<u32>,
}

#[pymethods]
impl BoundedSemaphore {
    #[new]
    #[pyo3(signature = (*_args, **_kwargs))]
    fn new(_args: &Bound<'_, PyAny>, _kwargs: Option<&Bound<'_, PyAny>>) -> BoundedSemaphore {
        BoundedSemaphore { handle: Handle::empty(), most: OnceLock::new() }
    }

    #[classattr]
    const MAX_PERMITS: u32 = sync::BoundedSemaphore::MAX_PERMITS;

    fn _make(&self, permits: u32) -> PyResult<()> {
        let _ = self.most.set(permits);
        // A process that waits for permits which are all its own may wait for somebody else to give one back.
        self.handle
            .fill(sync::BoundedSemaphore::new(permits).map(sync::BoundedSemaphore::without_deadlock_report))
    }

    fn _attach(&self, state: &[u8], permits: u32) -> PyResult<()> {
        let _ = self.most.set(permits);
        self.handle.attach(state)
    }

    fn _state<'py>(&self, py: Python<'py>) -> PyResult<(Bound<'py, PyBytes>, u32)> {
        Ok((self.handle.state(py)?, self.maxvalue()))
    }

    #[pyo3(signature = (block = None, timeout = None))]
    fn _acquire(
        &self,
        py: Python<'_>,
        block: Option<&Bound<'_, PyAny>>,
        timeout: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<bool> {
        acquire(py, self.handle.get()?, Patience::of(block, timeout)?)
    }

    fn _release(&self) -> PyResult<()> {
        self.handle.get()?.release().map_err(|_| released_too_often())
    }

    #[pyo3(signature = (*_args))]
    fn _exit(&self, _args: &Bound<'_, PyAny>) -> PyResult<()> {
        self._release()
    }

    fn get_value(&self) -> PyResult<u32> {
        Ok(self.handle.get()?.value())
    }

    #[getter]
    fn maxvalue(&self) -> u32 {
        self.most.get().copied().unwrap_or(0)
    }
}

impl Within for Semaphore {
    #[inline]
    fn at_once(&self) -> bool {
        self.handle.0.get().is_some_and(sync::Semaphore::acquire_at_once)
    }

    #[inline]
    fn release_at_once(&self) -> bool {
        self.handle.0.get().is_some_and(|handle| handle.release_at_once(self.most()))
    }
}

impl Fast for Semaphore {
    fn let_go(&self) -> bool {
        self.handle.0.get().is_some_and(|handle| handle.value() < self.most() && handle.release().is_ok())
    }

    fn is_taken(&self) -> bool {
        self.handle.0.get().is_some_and(|handle| handle.value() == 0)
    }
}

impl Within for BoundedSemaphore {
    #[inline]
    fn at_once(&self) -> bool {
        self.handle.0.get().is_some_and(sync::BoundedSemaphore::acquire_at_once)
    }

    #[inline]
    fn release_at_once(&self) -> bool {
        self.handle.0.get().is_some_and(sync::BoundedSemaphore::release_at_once)
    }
}

impl Fast for BoundedSemaphore {
    fn let_go(&self) -> bool {
        self.handle.0.get().is_some_and(|handle| handle.release().is_ok())
    }

    fn is_taken(&self) -> bool {
        self.handle.0.get().is_some_and(|handle| handle.value() == 0)
    }
}

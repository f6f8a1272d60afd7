//! `Barrier`.

use forkyard::sync;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::error::{python, raise};
use crate::handle::Handle;
use crate::wait::{Patience, goes_on, interrupted};

/// A barrier in the family's shared memory.
#[pyclass(frozen, subclass, module = "forkyard._forkyard")]
pub(crate) struct Barrier {
    handle: Handle<sync::Barrier>,
}

#[pymethods]
impl Barrier {
    #[new]
    #[pyo3(signature = (*_args, **_kwargs))]
    fn new(_args: &Bound<'_, PyAny>, _kwargs: Option<&Bound<'_, PyAny>>) -> Barrier {
        Barrier { handle: Handle::empty() }
    }

    fn _make(&self, parties: usize) -> PyResult<()> {
        self.handle.fill(sync::Barrier::new(parties))
    }

    fn _attach(&self, state: &[u8]) -> PyResult<()> {
        self.handle.attach(state)
    }

    fn _state<'py>(&self, py: Python<'py>) -> PyResult<(Bound<'py, PyBytes>,)> {
        Ok((self.handle.state(py)?,))
    }

    /// Waits for the others; tells which of the parties this one is.
    fn _wait(&self, py: Python<'_>, timeout: &Bound<'_, PyAny>) -> PyResult<usize> {
        let barrier = self.handle.get()?;
        let passed = match Patience::seconds(timeout)? {
            Patience::Until(until) => py.detach(|| barrier.wait_interruptible(until, goes_on)),
            Patience::None => match barrier.try_wait() {
                Ok(None) => barrier.abort().and_then(|()| barrier.wait()),
                Ok(Some(passed)) => Ok(passed),
                Err(error) => Err(error),
            },
        };
        match passed {
            Ok(passed) => Ok(passed.index()),
            Err(error) if error.is_timeout() || error.is_broken_barrier() => {
                Err(python(py, "broken_barrier", ()).map_or_else(|error| error, PyErr::from_value))
            }
            Err(error) => {
                interrupted(py)?;
                Err(raise(error))
            }
        }
    }

    fn abort(&self) -> PyResult<()> {
        self.handle.get()?.abort().map_err(raise)
    }

    fn reset(&self) -> PyResult<()> {
        self.handle.get()?.reset().map_err(raise)
    }

    #[getter]
    fn parties(&self) -> PyResult<usize> {
        Ok(self.handle.get()?.parties())
    }

    #[getter]
    fn n_waiting(&self) -> PyResult<usize> {
        Ok(self.handle.get()?.waiting())
    }

    #[getter]
    fn broken(&self) -> PyResult<bool> {
        Ok(self.handle.get()?.is_broken())
    }
}

//! `Event`.

use forkyard::sync;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::error::raise;
use crate::handle::Handle;
use crate::wait::{Patience, Slept, sleep};

/// An event in the family's shared memory.
#[pyclass(frozen, subclass, module = "forkyard._forkyard")]
pub(crate) struct Event {
    handle: Handle<sync::Event>,
}

#[pymethods]
impl Event {
    #[new]
    #[pyo3(signature = (*_args, **_kwargs))]
    fn new(_args: &Bound<'_, PyAny>, _kwargs: Option<&Bound<'_, PyAny>>) -> Event {
        Event { handle: Handle::empty() }
    }

    fn _make(&self) -> PyResult<()> {
        self.handle.fill(sync::Event::new())
    }

    fn _attach(&self, state: &[u8]) -> PyResult<()> {
        self.handle.attach(state)
    }

    fn _state<'py>(&self, py: Python<'py>) -> PyResult<(Bound<'py, PyBytes>,)> {
        Ok((self.handle.state(py)?,))
    }

    fn is_set(&self) -> PyResult<bool> {
        Ok(self.handle.get()?.is_set())
    }

    fn set(&self) -> PyResult<()> {
        self.handle.get()?.set().map_err(raise)
    }

    fn clear(&self) -> PyResult<()> {
        self.handle.get()?.clear().map_err(raise)
    }

    #[pyo3(signature = (timeout = None))]
    fn wait(&self, py: Python<'_>, timeout: Option<&Bound<'_, PyAny>>) -> PyResult<bool> {
        let event = self.handle.get()?;
        let patience = timeout.map_or(Ok(Patience::FOR_EVER), Patience::seconds)?;
        if event.is_set() {
            return Ok(true);
        }
        let Patience::Until(until) = patience else { return Ok(false) };
        sleep(py, || Slept::of(event.wait_interruptible(until)))?.map_err(raise)
    }
}

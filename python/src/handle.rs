//! Handles of shared objects in Python objects: made empty (`__new__`), and filled by `_make` or `_attach`, so that Python classes derive from them
//! and have any `__init__`.

use std::sync::OnceLock;

use forkyard::__private::family;
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::raise;

/// A handle that is filled once.
pub(crate) struct Handle<T>(pub(crate) OnceLock<T>);

impl<T: Serialize + DeserializeOwned> Handle<T> {
    pub(crate) const fn empty() -> Handle<T> {
        Handle(OnceLock::new())
    }

    #[inline]
    pub(crate) fn get(&self) -> PyResult<&T> {
        self.0.get().ok_or_else(empty)
    }

    pub(crate) fn fill(&self, handle: forkyard::Result<T>) -> PyResult<()> {
        let handle = handle.map_err(raise)?;
        self.0.set(handle).map_err(|_| PyRuntimeError::new_err("__init__() was called already"))
    }

    pub(crate) fn attach(&self, state: &[u8]) -> PyResult<()> {
        self.fill(family::decode(state))
    }

    pub(crate) fn state<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        Ok(PyBytes::new(py, &family::encode(self.get()?).map_err(raise)?))
    }
}

#[cold]
fn empty() -> PyErr {
    PyRuntimeError::new_err("__init__() was not called")
}

//! The core's errors as Python's exceptions.

use forkyard::Error;
use pyo3::PyErr;
use pyo3::exceptions::{PyOSError, PyRuntimeError, PyValueError};

/// The exception for an error.
pub(crate) fn raise(error: Error) -> PyErr {
    if let Some(errno) = error.errno() {
        return PyOSError::new_err((errno.raw_os_error(), error.to_string()));
    }
    if error.is_full() {
        return PyOSError::new_err((ENOSPC, error.to_string()));
    }
    if error.is_invalid() {
        return PyValueError::new_err(error.to_string());
    }
    PyRuntimeError::new_err(error.to_string())
}

/// The same number on all Linux systems.
const ENOSPC: i32 = 28;

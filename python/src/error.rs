//! The core's errors as Python's exceptions.

use forkyard::Error;
use pyo3::call::PyCallArgs;
use pyo3::exceptions::{PyOSError, PyRuntimeError, PyValueError};
use pyo3::prelude::*;

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

/// Calls one of the functions in `forkyard._errors`, which make exceptions and warnings.
pub(crate) fn python<'py, A>(py: Python<'py>, name: &str, args: A) -> PyResult<Bound<'py, PyAny>>
where
    A: PyCallArgs<'py>,
{
    py.import("forkyard._errors")?.getattr(name)?.call1(args)
}

/// True if a wait ended because a signal handler has something to do.
pub(crate) fn is_interrupt(error: &Error) -> bool {
    error.errno().is_some_and(|errno| errno.raw_os_error() == EINTR)
}

/// The same number on all Linux systems.
const EINTR: i32 = 4;

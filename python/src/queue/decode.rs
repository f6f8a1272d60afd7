//! Messages as objects. A message is delivered when it is an object; what cannot become one is delivered too, with the error.

use forkyard::__private::channel::Taken;
use pyo3::exceptions::{PyException, PyMemoryError, PyOSError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{
    IntoPyDict, PyBool, PyByteArray, PyBytes, PyFloat, PyInt, PyList, PyMemoryView, PySlice, PyString,
};

use super::encode::{ALIGN, BUFFERS, BYTES, FALSE, FLOAT, INT, NONE, PICKLE, STR, TRUE, start};
use super::view::View;
use crate::error::raise;

/// The object that a message is of.
#[inline]
pub(super) fn deliver<'py>(py: Python<'py>, taken: Taken<'_>) -> PyResult<Bound<'py, PyAny>> {
    let object = match taken.read(|bytes| decode(py, bytes)).map_err(raise)? {
        Some(object) => object,
        None => return in_place(py, taken),
    };
    if is_delivered(py, &object) {
        taken.finish();
    }
    object
}

/// Whoever is interrupted while it reads, or has no memory for it, leaves the message to the next one.
pub(super) fn is_delivered(py: Python<'_>, object: &PyResult<Bound<'_, PyAny>>) -> bool {
    match object {
        Ok(_) => true,
        Err(error) => error.is_instance_of::<PyException>(py) && !error.is_instance_of::<PyMemoryError>(py),
    }
}

/// `None`: it is to be read where it lies.
#[inline]
fn decode<'py>(py: Python<'py>, bytes: &[u8]) -> Option<PyResult<Bound<'py, PyAny>>> {
    let Some((&tag, rest)) = bytes.split_first() else { return Some(Err(garbled())) };
    let number = || rest.try_into().map_err(|_| garbled());
    Some(match tag {
        PICKLE if bytes.len() < LARGE => loads(py).and_then(|loads| loads.call1((PyBytes::new(py, bytes),))),
        INT => number().map(|bytes| PyInt::new(py, i64::from_le_bytes(bytes)).into_any()),
        FLOAT => number().map(|bytes| PyFloat::new(py, f64::from_le_bytes(bytes)).into_any()),
        BYTES => Ok(PyBytes::new(py, rest).into_any()),
        STR => {
            std::str::from_utf8(rest).map_err(|_| garbled()).map(|text| PyString::new(py, text).into_any())
        }
        NONE => Ok(py.None().into_bound(py)),
        FALSE | TRUE => Ok(PyBool::new(py, tag == TRUE).to_owned().into_any()),
        BUFFERS | PICKLE => return None,
        _ => Err(garbled()),
    })
}

/// Has a large message read where it lies, for as long as an object looks at it.
#[cold]
fn in_place<'py>(py: Python<'py>, taken: Taken<'_>) -> PyResult<Bound<'py, PyAny>> {
    let Some(view) = View::new(&taken) else {
        let copy = taken.read(|bytes| PyByteArray::new(py, bytes)).map_err(raise)?;
        let object = unpickle(&PyMemoryView::from(&copy)?);
        if is_delivered(py, &object) {
            taken.finish();
        }
        return object;
    };
    let view = Bound::new(py, view)?;
    let object = unpickle(&PyMemoryView::from(&view)?);
    if is_delivered(py, &object) {
        view.get().deliver(taken);
    }
    object
}

fn unpickle<'py>(message: &Bound<'py, PyMemoryView>) -> PyResult<Bound<'py, PyAny>> {
    let py = message.py();
    let part = |from: usize, to: usize| message.get_item(PySlice::new(py, as_index(from)?, as_index(to)?, 1));
    let number = |at: usize| -> PyResult<usize> {
        let bytes: [u8; 8] = part(8 * at, 8 * at + 8)?.call_method0("tobytes")?.extract()?;
        usize::try_from(u64::from_le_bytes(bytes)).map_err(|_| garbled())
    };
    let loads = loads(py)?;
    if message.get_item(0)?.extract::<u8>()? == PICKLE {
        return loads.call1((message,));
    }
    let len = message.len()?;
    // There is a number for each, so there are not more than fit.
    let count = number(1)?;
    if count > len / 8 {
        return Err(garbled());
    }
    let end = |from: usize, len: usize| from.checked_add(len).ok_or_else(garbled);
    let from = start(count);
    let mut to = end(from, number(2)?)?;
    let pickle = part(from, to)?;
    let buffers = PyList::empty(py);
    for index in 0..count {
        let from = to.checked_next_multiple_of(ALIGN).ok_or_else(garbled)?;
        to = end(from, number(3 + index)?)?;
        buffers.append(part(from, to)?)?;
    }
    if to > len {
        return Err(garbled());
    }
    loads.call((pickle,), Some(&[("buffers", buffers)].into_py_dict(py)?))
}

fn as_index(at: usize) -> PyResult<isize> {
    isize::try_from(at).map_err(|_| garbled())
}

/// `pickle.loads`.
fn loads(py: Python<'_>) -> PyResult<&Bound<'_, PyAny>> {
    static LOADS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    LOADS.import(py, "_pickle", "loads")
}

#[cold]
fn garbled() -> PyErr {
    PyOSError::new_err("another process has overwritten the queue in shared memory")
}

/// A pickle of this size is read where it lies.
const LARGE: usize = 64 * 1024;

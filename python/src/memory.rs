//! Memory that a family keeps under a name.
//!
//! # Safety
//! A buffer is given out with a reference to its object, which keeps the memory.
#![allow(unsafe_code)]

use std::ffi::c_int;

use forkyard::__private::KeptMemory;
use pyo3::ffi;
use pyo3::prelude::*;

use crate::error::raise;

/// Memory that a family keeps under a name, as a buffer.
#[pyclass(frozen, module = "forkyard._forkyard")]
pub(crate) struct Memory {
    memory: KeptMemory,
}

#[pymethods]
impl Memory {
    #[staticmethod]
    fn create(name: &str, size: usize, made_at: &str) -> PyResult<Memory> {
        Ok(Memory { memory: KeptMemory::create(name, size, made_at).map_err(raise)? })
    }

    #[staticmethod]
    fn attach(py: Python<'_>, name: &str) -> PyResult<Memory> {
        Ok(Memory { memory: py.detach(|| KeptMemory::attach(name)).map_err(raise)? })
    }

    fn unlink(&self) -> PyResult<()> {
        self.memory.unlink().map_err(raise)
    }

    fn __len__(&self) -> usize {
        self.memory.size()
    }

    unsafe fn __getbuffer__(slf: Bound<'_, Self>, buffer: *mut ffi::Py_buffer, flags: c_int) -> PyResult<()> {
        let memory = &slf.get().memory;
        let len = memory.size().cast_signed();
        // SAFETY: see the heading; the interpreter passes a buffer to fill.
        let filled =
            unsafe { ffi::PyBuffer_FillInfo(buffer, slf.as_ptr(), memory.as_ptr().cast(), len, 0, flags) };
        if filled == 0 { Ok(()) } else { Err(PyErr::fetch(slf.py())) }
    }
}

//! Large messages that Python looks at where they lie, for as long as it does.
//!
//! What is written there is this process's own. A fork has the same bytes: before one, whatever is looked at becomes this process's own memory.
//!
//! # Safety
//! A buffer is given out with a reference to its view, whose mapping stays until there is none.
#![allow(unsafe_code)]

use std::ffi::c_int;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use forkyard::__private::channel::{self, Taken};
use pyo3::ffi;
use pyo3::prelude::*;

/// Most views at a time: a process has not many more mappings. What comes then is copied.
const MOST: usize = 16 * 1024;

/// All views of this process, and some that are gone.
static VIEWS: Mutex<Vec<Weak<channel::View>>> = Mutex::new(Vec::new());

/// A large message, as a buffer.
#[pyclass(frozen, module = "forkyard._forkyard")]
pub(crate) struct View {
    view: Arc<channel::View>,
}

impl View {
    /// The bytes of a message that was taken. `None`: it is a small one, or there is no room for another mapping.
    pub(super) fn new(taken: &Taken<'_>) -> Option<View> {
        let mut views = VIEWS.lock().unwrap_or_else(PoisonError::into_inner);
        if views.len() == views.capacity() {
            views.retain(|view| view.strong_count() > 0);
            if views.len() >= MOST {
                return None;
            }
            let more = views.len().max(32);
            views.reserve_exact(more);
        }
        let view = Arc::new(taken.map()?);
        views.push(Arc::downgrade(&view));
        Some(View { view })
    }

    /// Says that the message was delivered.
    pub(super) fn deliver(&self, taken: Taken<'_>) {
        taken.deliver(&self.view);
    }
}

/// Before a fork: makes all that is looked at this process's own memory.
#[pyfunction]
pub(crate) fn detach() {
    let views = VIEWS.lock().unwrap_or_else(PoisonError::into_inner);
    views.iter().filter_map(Weak::upgrade).for_each(|view| view.detach());
}

#[pymethods]
impl View {
    unsafe fn __getbuffer__(slf: Bound<'_, Self>, buffer: *mut ffi::Py_buffer, flags: c_int) -> PyResult<()> {
        let view = &slf.get().view;
        let len = view.len().cast_signed();
        // SAFETY: see the heading; the interpreter passes a buffer to fill.
        let filled =
            unsafe { ffi::PyBuffer_FillInfo(buffer, slf.as_ptr(), view.address().cast(), len, 0, flags) };
        if filled == 0 { Ok(()) } else { Err(PyErr::fetch(slf.py())) }
    }
}

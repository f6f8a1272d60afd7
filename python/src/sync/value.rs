//! Shared ctypes objects with a lock: what is done with the lock for the time of one access.
//!
//! # Safety
//! The functions here are called by descriptors, with the GIL and living objects: see `crate::fast`.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_int, c_void};
use std::ptr;
use std::sync::OnceLock;

use pyo3::exceptions::PyAttributeError;
use pyo3::ffi::{self, PyObject};
use pyo3::prelude::*;
use pyo3::types::{PyString, PyType};
use pyo3::{PyTraverseError, PyVisit, intern};

use super::fast::{Fast, Within, add};
use super::held::Held;
use crate::fast::{self, Call, Method, Property, attached, slow, this};

/// A shared ctypes object with a lock. Nothing lies in its dictionary, so its methods are found fast.
#[pyclass(frozen, subclass, module = "forkyard._forkyard")]
pub(crate) struct Synchronized {
    parts: OnceLock<Parts>,
}

struct Parts {
    object: Py<PyAny>,
    lock: Py<PyAny>,
    /// The lock, if it may be used without a way through Python.
    held: Option<Held>,
    value: Py<PyString>,
}

#[pymethods]
impl Synchronized {
    #[new]
    #[pyo3(signature = (*_args, **_kwargs))]
    fn new(_args: &Bound<'_, PyAny>, _kwargs: Option<&Bound<'_, PyAny>>) -> Synchronized {
        Synchronized { parts: OnceLock::new() }
    }

    /// Its parts, the first time; `is_plain`: its own class and the lock's do nothing of their own.
    fn _fill(&self, object: &Bound<'_, PyAny>, lock: &Bound<'_, PyAny>, is_plain: bool) {
        let held = if is_plain { Held::of(lock) } else { None };
        let value = intern!(object.py(), "value").clone().unbind();
        let _ = self.parts.set(Parts {
            object: object.clone().unbind(),
            lock: lock.clone().unbind(),
            held,
            value,
        });
    }

    #[getter]
    fn _obj(&self) -> PyResult<&Py<PyAny>> {
        self.parts.get().map(|parts| &parts.object).ok_or_else(empty)
    }

    #[getter]
    fn _lock(&self) -> PyResult<&Py<PyAny>> {
        self.parts.get().map(|parts| &parts.lock).ok_or_else(empty)
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        let Some(parts) = self.parts.get() else { return Ok(()) };
        visit.call(&parts.object)?;
        visit.call(&parts.lock)?;
        parts.held.as_ref().map_or(Ok(()), |held| held.visit(&visit))
    }
}

impl Synchronized {
    #[inline]
    fn held(&self) -> Option<(&Parts, &Held)> {
        let parts = self.parts.get()?;
        Some((parts, parts.held.as_ref()?))
    }
}

impl Within for Synchronized {
    const ENTER: &str = "_enter";

    #[inline]
    fn at_once(&self) -> bool {
        self.held().is_some_and(|(_, held)| held.at_once())
    }

    #[inline]
    fn release_at_once(&self) -> bool {
        self.held().is_some_and(|(_, held)| held.release_at_once())
    }
}

impl Fast for Synchronized {
    fn let_go(&self) -> bool {
        self.held().is_some_and(|(_, held)| held.let_go())
    }

    fn is_taken(&self) -> bool {
        self.held().is_some_and(|(_, held)| held.is_taken())
    }
}

#[cold]
fn empty() -> PyErr {
    PyAttributeError::new_err("__init__() was not called")
}

/// Gives a class that derives from [`Synchronized`] its methods as its own, and returns it: `value`, if it has `_read_value` and
/// `_write_value`, and items, if it has `_read_item` and `_write_item`.
#[pyfunction]
pub(crate) fn quick_value<'py>(class: &Bound<'py, PyType>) -> PyResult<Bound<'py, PyType>> {
    add::<Synchronized>(class)?;
    fast::add(class, [Method::alone(c"get_lock", GET_LOCK, get_lock)])?;
    if class.hasattr("_read_value")? {
        let value = Property { name: c"value", doc: VALUE, get: get_value, set: set_value };
        // SAFETY: as above.
        unsafe { fast::add_property::<Synchronized>(class, "value", value) }?;
    }
    if class.hasattr("_read_item")? {
        let get = Method::new(c"__getitem__", GET_ITEM, get_item);
        let set = Method::new(c"__setitem__", SET_ITEM, set_item);
        fast::add(class, [get, set, Method::alone(c"__len__", LEN, len)])?;
    }
    Ok(class.clone())
}

const GET_LOCK: &CStr = c"get_lock($self, /)\n--\n\nReturn the lock.";
const VALUE: &CStr = c"The value. Each access has the lock meanwhile.";
const GET_ITEM: &CStr = c"__getitem__($self, key, /)\n--\n\nReturn self[key], with the lock meanwhile.";
const LEN: &CStr = c"__len__($self, /)\n--\n\nReturn len(self).";
const SET_ITEM: &CStr =
    c"__setitem__($self, key, value, /)\n--\n\nSet self[key] to value, with the lock meanwhile.";

fn get_lock(call: Call<'_, Synchronized>) -> *mut PyObject {
    let Some(parts) = call.this().parts.get() else { return call.slow("_get_lock") };
    let lock = parts.lock.as_ptr();
    // SAFETY: with the GIL, on a living object.
    unsafe { ffi::Py_INCREF(lock) };
    lock
}

/// Does something with the object while the lock is held: null with an exception, or what it returns. `None`: it is not done yet.
#[inline]
fn with(this: &Synchronized, access: impl FnOnce(&Parts) -> *mut PyObject) -> Option<*mut PyObject> {
    let (parts, held) = this.held().filter(|(_, held)| held.at_once())?;
    let result = access(parts);
    // SAFETY: an access returns what is the caller's.
    Some(if held.release_at_once() { result } else { unsafe { release(parts, result) } })
}

/// With somebody waiting; or the access itself has released it.
///
/// # Safety
/// `result` is null with an exception, or the caller's.
#[cold]
unsafe fn release(parts: &Parts, result: *mut PyObject) -> *mut PyObject {
    attached(|py| {
        // SAFETY: null with an exception, or an object that is the caller's.
        let result = unsafe { Bound::from_owned_ptr_or_err(py, result) };
        parts.lock.bind(py).call_method0("release")?;
        result
    })
}

unsafe extern "C" fn get_value(object: *mut PyObject, _: *mut c_void) -> *mut PyObject {
    // SAFETY: see the heading.
    unsafe {
        let get = |parts: &Parts| ffi::PyObject_GetAttr(parts.object.as_ptr(), parts.value.as_ptr());
        with(this(object), get)
            .unwrap_or_else(|| slow(object, "_read_value", ptr::null(), 0, ptr::null_mut()))
    }
}

unsafe extern "C" fn set_value(object: *mut PyObject, value: *mut PyObject, _: *mut c_void) -> c_int {
    // SAFETY: see the heading; without a value it is to be deleted.
    unsafe {
        let set =
            |parts: &Parts| done(ffi::PyObject_SetAttr(parts.object.as_ptr(), parts.value.as_ptr(), value));
        let result = if value.is_null() {
            slow(object, "_delete_value", ptr::null(), 0, ptr::null_mut())
        } else {
            with(this(object), set)
                .unwrap_or_else(|| slow(object, "_write_value", &raw const value, 1, ptr::null_mut()))
        };
        if result.is_null() {
            return -1;
        }
        ffi::Py_DECREF(result);
        0
    }
}

fn get_item(call: Call<'_, Synchronized>) -> *mut PyObject {
    if call.has(1) {
        // SAFETY: with the GIL, on living objects.
        let get = |parts: &Parts| unsafe { ffi::PyObject_GetItem(parts.object.as_ptr(), call.args()[0]) };
        if let Some(got) = with(call.this(), get) {
            return got;
        }
    }
    call.slow("_read_item")
}

fn len(call: Call<'_, Synchronized>) -> *mut PyObject {
    let Some(parts) = call.this().parts.get() else { return call.slow("_get_len") };
    // SAFETY: with the GIL, on a living object.
    match unsafe { ffi::PyObject_Size(parts.object.as_ptr()) } {
        -1 => ptr::null_mut(),
        // SAFETY: with the GIL.
        len => unsafe { ffi::PyLong_FromSsize_t(len) },
    }
}

fn set_item(call: Call<'_, Synchronized>) -> *mut PyObject {
    if let (true, &[key, value]) = (call.has(2), call.args()) {
        // SAFETY: with the GIL, on living objects.
        let set = |parts: &Parts| unsafe { done(ffi::PyObject_SetItem(parts.object.as_ptr(), key, value)) };
        if let Some(set) = with(call.this(), set) {
            return set;
        }
    }
    call.slow("_write_item")
}

/// `None`, or null with an exception.
///
/// # Safety
/// With the GIL.
unsafe fn done(result: c_int) -> *mut PyObject {
    // SAFETY: with the GIL.
    if result == 0 { unsafe { fast::none() } } else { ptr::null_mut() }
}

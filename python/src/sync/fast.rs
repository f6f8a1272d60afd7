//! Acquiring and releasing where nobody has to wait.
//!
//! # Safety
//! A call comes with the GIL and living objects: see `crate::fast`.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_int};
use std::ptr;

use pyo3::ffi::{self, PyObject};
use pyo3::prelude::*;
use pyo3::types::PyType;

use crate::fast::{self, Call, Frozen, Method};

/// A class whose objects are acquired and released.
pub(super) trait Fast: Within {
    /// Releases it, whoever acquired it, if nothing is to be told.
    fn let_go(&self) -> bool;
    /// True if it cannot be acquired now.
    fn is_taken(&self) -> bool;
}

/// A class whose objects are acquired for the length of a `with` statement. The ordinary methods are called otherwise.
pub(super) trait Within: Frozen {
    const ENTER: &str = "_acquire";
    /// It is called with what is known of an exception.
    const EXIT: &str = "_exit";
    /// Acquires it if that needs no waiting and nothing is to be told.
    fn at_once(&self) -> bool;
    /// Releases it if this thread has it, and that is all there is to do.
    fn release_at_once(&self) -> bool;
}

/// Adds `acquire`, `release`, `__enter__` and `__exit__` to a class that has the first two with an underscore in front, and `_exit`.
pub(super) fn add<T: Fast>(class: &Bound<'_, PyType>) -> PyResult<()> {
    let acquire = Method::new(c"acquire", ACQUIRE, acquire::<T>);
    // In the form for arguments, which it does not have: without any, the interpreter counts how deep calls are, too.
    fast::add(class, [acquire, Method::new(c"release", RELEASE, release::<T>)])?;
    add_within::<T>(class)
}

/// Adds `__enter__` and `__exit__`.
pub(super) fn add_within<T: Within>(class: &Bound<'_, PyType>) -> PyResult<()> {
    let enter = Method::alone(c"__enter__", ENTER, enter::<T>);
    fast::add(class, [enter, Method::new(c"__exit__", EXIT, exit::<T>)])
}

const ACQUIRE: &CStr = c"acquire($self, /, block=True, timeout=None)\n--\n\nAcquire it, waiting if need be; false if the time is up.";
const RELEASE: &CStr = c"release($self, /)\n--\n\nRelease it.";
const ENTER: &CStr = c"__enter__($self, /)\n--\n\nAcquire it.";
const EXIT: &CStr = c"__exit__($self, /, *args)\n--\n\nRelease it.";

fn acquire<T: Fast>(call: Call<'_, T>) -> *mut PyObject {
    if call.has(0) && call.this().at_once() {
        return call.truth(true);
    }
    call.rarely(acquire_with)
}

/// With arguments, or when it is not free.
fn acquire_with<T: Fast>(call: Call<'_, T>) -> *mut PyObject {
    if let Some(waits) = waits(call) {
        if call.this().at_once() {
            return call.truth(true);
        }
        if !waits && call.this().is_taken() {
            return call.truth(false);
        }
    }
    call.slow("_acquire")
}

/// The arguments of `acquire`.
const ARGUMENTS: [&CStr; 2] = [c"block", c"timeout"];

/// Whether a call of `acquire` may wait. `None`: its arguments are not the usual ones.
fn waits<T: Fast>(call: Call<'_, T>) -> Option<bool> {
    let mut given = [ptr::null_mut(); ARGUMENTS.len()];
    given.get_mut(..call.args().len())?.copy_from_slice(call.args());
    // SAFETY: with the GIL, on living objects.
    unsafe {
        for (name, value) in call.named() {
            let is_it = |known: &&CStr| ffi::PyUnicode_CompareWithASCIIString(name, known.as_ptr()) == 0;
            let place = &mut given[ARGUMENTS.iter().position(is_it)?];
            if !place.is_null() {
                return None;
            }
            *place = value;
        }
        let [block, timeout] = given;
        if block == ffi::Py_False() {
            Some(false)
        } else if !block.is_null() && block != ffi::Py_True() {
            None
        } else if timeout.is_null() || timeout == ffi::Py_None() {
            Some(true)
        } else if ffi::Py_TYPE(timeout) == &raw mut ffi::PyFloat_Type {
            Some(ffi::PyFloat_AsDouble(timeout) > 0.0)
        } else if ffi::Py_TYPE(timeout) == &raw mut ffi::PyLong_Type {
            let mut overflow: c_int = 0;
            let seconds = ffi::PyLong_AsLongLongAndOverflow(timeout, &raw mut overflow);
            (overflow == 0).then_some(seconds > 0)
        } else {
            None
        }
    }
}

fn release<T: Fast>(call: Call<'_, T>) -> *mut PyObject {
    if call.has(0) && call.this().release_at_once() {
        return call.none();
    }
    call.rarely(release_other)
}

/// With somebody waiting, or by another thread.
fn release_other<T: Fast>(call: Call<'_, T>) -> *mut PyObject {
    if call.has(0) && call.this().let_go() {
        return call.none();
    }
    call.slow("_release")
}

fn enter<T: Within>(call: Call<'_, T>) -> *mut PyObject {
    if call.this().at_once() { call.truth(true) } else { call.slow(T::ENTER) }
}

fn exit<T: Within>(call: Call<'_, T>) -> *mut PyObject {
    if call.this().release_at_once() { call.none() } else { call.slow(T::EXIT) }
}

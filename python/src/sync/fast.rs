//! Acquiring and releasing where nobody has to wait, and without arguments.
//!
//! # Safety
//! The functions here are called by method descriptors: see `fast.rs`, whose rules they keep.
#![allow(unsafe_code)]

use std::ffi::CStr;
use std::ptr;

use pyo3::ffi::{Py_ssize_t, PyObject};
use pyo3::prelude::*;
use pyo3::types::PyType;

use crate::fast::{self, Frozen, Function, Method, none, slow, this, yes};

/// A class whose objects are acquired and released.
pub(super) trait Fast: Frozen {
    /// Acquires it if that needs no waiting and nothing is to be told.
    fn at_once(&self) -> bool;
    /// Releases it if that is all there is to do.
    fn let_go(&self) -> bool;
}

/// Adds `acquire`, `release`, `__enter__` and `__exit__` to a class that has the first two with an underscore in front.
pub(super) fn add<T: Fast>(class: &Bound<'_, PyType>) -> PyResult<()> {
    let method = |attribute, name, doc, function| Method { attribute, name, doc, function };
    let methods = [
        method("acquire", c"acquire", ACQUIRE, Function::WithKeywords(acquire::<T>)),
        method("release", c"release", RELEASE, Function::Plain(release::<T>)),
        method("__enter__", c"__enter__", ENTER, Function::Plain(enter::<T>)),
        method("__exit__", c"__exit__", EXIT, Function::WithKeywords(exit::<T>)),
    ];
    // SAFETY: the functions are for `T`.
    unsafe { fast::add::<T>(class, methods) }
}

const ACQUIRE: &CStr = c"acquire($self, /, block=True, timeout=None)\n--\n\nAcquire it, waiting if need be; false if the time is up.";
const RELEASE: &CStr = c"release($self, /)\n--\n\nRelease it.";
const ENTER: &CStr = c"__enter__($self, /)\n--\n\nAcquire it.";
const EXIT: &CStr = c"__exit__($self, /, *args)\n--\n\nRelease it.";

unsafe extern "C" fn acquire<T: Fast>(
    object: *mut PyObject,
    args: *const *mut PyObject,
    nargs: Py_ssize_t,
    names: *mut PyObject,
) -> *mut PyObject {
    // SAFETY: see the heading.
    unsafe {
        if nargs == 0 && names.is_null() && this::<T>(object).at_once() {
            return yes();
        }
        slow(object, "_acquire", args, nargs, names)
    }
}

unsafe extern "C" fn release<T: Fast>(object: *mut PyObject, _: *mut PyObject) -> *mut PyObject {
    // SAFETY: see the heading.
    unsafe {
        if this::<T>(object).let_go() {
            return none();
        }
        slow(object, "_release", ptr::null(), 0, ptr::null_mut())
    }
}

unsafe extern "C" fn enter<T: Fast>(object: *mut PyObject, _: *mut PyObject) -> *mut PyObject {
    // SAFETY: see the heading.
    unsafe {
        if this::<T>(object).at_once() {
            return yes();
        }
        slow(object, "_acquire", ptr::null(), 0, ptr::null_mut())
    }
}

unsafe extern "C" fn exit<T: Fast>(
    object: *mut PyObject,
    _: *const *mut PyObject,
    _: Py_ssize_t,
    _: *mut PyObject,
) -> *mut PyObject {
    // SAFETY: see the heading.
    unsafe { release::<T>(object, ptr::null_mut()) }
}

//! Acquiring and releasing where nobody has to wait.
//!
//! # Safety
//! The functions here are called by method descriptors: see `fast.rs`, whose rules they keep.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_int};
use std::ptr;

use pyo3::ffi::{self, Py_ssize_t, PyObject};
use pyo3::prelude::*;
use pyo3::types::PyType;

use crate::fast::{self, Frozen, Function, Method, no, none, slow, this, yes};

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
    let methods = [
        method("acquire", c"acquire", ACQUIRE, Function::WithKeywords(acquire::<T>)),
        method("release", c"release", RELEASE, Function::WithKeywords(release::<T>)),
    ];
    // SAFETY: the functions are for `T`.
    unsafe { fast::add::<T>(class, methods) }?;
    add_within::<T>(class)
}

/// Adds `__enter__` and `__exit__`.
pub(super) fn add_within<T: Within>(class: &Bound<'_, PyType>) -> PyResult<()> {
    let methods = [
        method("__enter__", c"__enter__", ENTER, Function::Plain(enter::<T>)),
        method("__exit__", c"__exit__", EXIT, Function::WithKeywords(exit::<T>)),
    ];
    // SAFETY: the functions are for `T`.
    unsafe { fast::add::<T>(class, methods) }
}

pub(super) fn method(
    attribute: &'static str,
    name: &'static CStr,
    doc: &'static CStr,
    function: Function,
) -> Method {
    Method { attribute, name, doc, function }
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
        acquire_with::<T>(object, args, nargs, names)
    }
}

/// With arguments, or when it is not free.
#[cold]
unsafe extern "C" fn acquire_with<T: Fast>(
    object: *mut PyObject,
    args: *const *mut PyObject,
    nargs: Py_ssize_t,
    names: *mut PyObject,
) -> *mut PyObject {
    // SAFETY: see the heading.
    unsafe {
        if let Some(waits) = waits(args, nargs, names) {
            let this = this::<T>(object);
            if this.at_once() {
                return yes();
            }
            if !waits && this.is_taken() {
                return no();
            }
        }
        slow(object, "_acquire", args, nargs, names)
    }
}

/// The arguments of `acquire`.
const ARGUMENTS: [&CStr; 2] = [c"block", c"timeout"];

/// Whether a call of `acquire` may wait. `None`: its arguments are not the usual ones.
///
/// # Safety
/// With the GIL; the arguments are those of such a call.
unsafe fn waits(args: *const *mut PyObject, nargs: Py_ssize_t, names: *mut PyObject) -> Option<bool> {
    let mut given = [ptr::null_mut(); ARGUMENTS.len()];
    // SAFETY: the caller says so.
    unsafe {
        for index in 0..nargs {
            *given.get_mut(index.cast_unsigned())? = *args.offset(index);
        }
        let named = if names.is_null() { 0 } else { ffi::PyTuple_Size(names) };
        for index in 0..named {
            let name = ffi::PyTuple_GetItem(names, index);
            let is_it = |known: &&CStr| ffi::PyUnicode_CompareWithASCIIString(name, known.as_ptr()) == 0;
            let place = &mut given[ARGUMENTS.iter().position(is_it)?];
            if !place.is_null() {
                return None;
            }
            *place = *args.offset(nargs + index);
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

/// In the form for arguments, which it does not have: without any, the interpreter counts how deep calls are, too.
unsafe extern "C" fn release<T: Fast>(
    object: *mut PyObject,
    args: *const *mut PyObject,
    nargs: Py_ssize_t,
    names: *mut PyObject,
) -> *mut PyObject {
    // SAFETY: see the heading.
    unsafe {
        if nargs == 0 && names.is_null() && this::<T>(object).release_at_once() {
            return none();
        }
        release_other::<T>(object, args, nargs, names)
    }
}

/// With somebody waiting, or by another thread.
#[cold]
unsafe extern "C" fn release_other<T: Fast>(
    object: *mut PyObject,
    args: *const *mut PyObject,
    nargs: Py_ssize_t,
    names: *mut PyObject,
) -> *mut PyObject {
    // SAFETY: see the heading.
    unsafe {
        if nargs == 0 && names.is_null() && this::<T>(object).let_go() {
            return none();
        }
        slow(object, "_release", args, nargs, names)
    }
}

unsafe extern "C" fn enter<T: Within>(object: *mut PyObject, _: *mut PyObject) -> *mut PyObject {
    // SAFETY: see the heading.
    unsafe {
        if this::<T>(object).at_once() {
            return yes();
        }
        slow(object, T::ENTER, ptr::null(), 0, ptr::null_mut())
    }
}

unsafe extern "C" fn exit<T: Within>(
    object: *mut PyObject,
    args: *const *mut PyObject,
    nargs: Py_ssize_t,
    names: *mut PyObject,
) -> *mut PyObject {
    // SAFETY: see the heading.
    unsafe {
        if this::<T>(object).release_at_once() {
            return none();
        }
        slow(object, T::EXIT, args, nargs, names)
    }
}

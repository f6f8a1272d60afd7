//! Acquiring and releasing without a framework in between: what takes ten nanoseconds should not wait for as long to begin.
//!
//! PyO3's wrappers count attachments, catch panics and parse arguments. Here is what is left of that where nobody has to wait and no
//! arguments are given; all else goes to the ordinary methods, under their names with an underscore.
//!
//! # Safety
//! A method descriptor calls its function with an instance of the type that it was made for, or of a subclass, and with the GIL;
//! `args` has `nargs` entries. Nothing here panics before [`Python::attach`], which the slow paths begin with. The definitions are
//! static, as the descriptors need them.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_int};
use std::ptr;

use pyo3::PyClass;
use pyo3::ffi::{self, METH_FASTCALL, METH_KEYWORDS, METH_NOARGS, PyObject};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

/// A class whose objects are acquired and released.
pub(super) trait Fast: PyClass<Frozen = pyo3::pyclass::boolean_struct::True> + Sync {
    /// Acquires it if that needs no waiting and nothing is to be told.
    fn at_once(&self) -> bool;
    /// Releases it if that is all there is to do.
    fn let_go(&self) -> bool;
}

/// Adds `acquire`, `release`, `__enter__` and `__exit__` to a class that has them with an underscore in front.
pub(super) fn add<T: Fast>(py: Python<'_>) -> PyResult<()> {
    let class = T::type_object(py);
    let fast = METH_FASTCALL | METH_KEYWORDS;
    let with_keywords = |function| ffi::PyMethodDefPointer { PyCFunctionFastWithKeywords: function };
    let plain = |function| ffi::PyMethodDefPointer { PyCFunction: function };
    for (name, function, flags, doc) in [
        (c"acquire", with_keywords(acquire::<T>), fast, ACQUIRE),
        (c"release", plain(release::<T>), METH_NOARGS, RELEASE),
        (c"__enter__", plain(enter::<T>), METH_NOARGS, ENTER),
        (c"__exit__", with_keywords(exit::<T>), fast, EXIT),
    ] {
        let definition = ffi::PyMethodDef {
            ml_name: name.as_ptr(),
            ml_meth: function,
            ml_flags: flags as c_int,
            ml_doc: doc.as_ptr(),
        };
        let definition = Box::leak(Box::new(definition));
        // SAFETY: see the heading.
        let method = unsafe {
            Bound::from_owned_ptr_or_err(py, ffi::PyDescr_NewMethod(class.as_type_ptr(), definition))
        }?;
        class.setattr(name, method)?;
    }
    Ok(())
}

const ACQUIRE: &CStr = c"acquire($self, /, block=True, timeout=None)\n--\n\nAcquire it, waiting if need be; false if the time is up.";
const RELEASE: &CStr = c"release($self, /)\n--\n\nRelease it.";
const ENTER: &CStr = c"__enter__($self, /)\n--\n\nAcquire it.";
const EXIT: &CStr = c"__exit__($self, /, *args)\n--\n\nRelease it.";

/// The object; its class is `T` or derives from it.
unsafe fn this<'a, T: Fast>(object: *mut PyObject) -> &'a T {
    // SAFETY: the caller is called by a descriptor, with the GIL.
    let py = unsafe { Python::assume_attached() };
    // SAFETY: as above.
    let borrowed = unsafe { Borrowed::from_ptr(py, object) };
    // SAFETY: as above; the caller of the caller keeps the object.
    unsafe { &*ptr::from_ref(borrowed.cast_unchecked::<T>().get()) }
}

unsafe extern "C" fn acquire<T: Fast>(
    object: *mut PyObject,
    args: *const *mut PyObject,
    nargs: ffi::Py_ssize_t,
    names: *mut PyObject,
) -> *mut PyObject {
    // SAFETY: see the heading.
    if nargs == 0 && names.is_null() && unsafe { this::<T>(object) }.at_once() {
        return yes();
    }
    // SAFETY: as above.
    unsafe { slow(object, "_acquire", args, nargs, names) }
}

unsafe extern "C" fn release<T: Fast>(object: *mut PyObject, _: *mut PyObject) -> *mut PyObject {
    // SAFETY: see the heading.
    if unsafe { this::<T>(object) }.let_go() {
        return none();
    }
    // SAFETY: as above.
    unsafe { slow(object, "_release", ptr::null(), 0, ptr::null_mut()) }
}

unsafe extern "C" fn enter<T: Fast>(object: *mut PyObject, _: *mut PyObject) -> *mut PyObject {
    // SAFETY: see the heading.
    if unsafe { this::<T>(object) }.at_once() {
        return yes();
    }
    // SAFETY: as above.
    unsafe { slow(object, "_acquire", ptr::null(), 0, ptr::null_mut()) }
}

unsafe extern "C" fn exit<T: Fast>(
    object: *mut PyObject,
    _: *const *mut PyObject,
    _: ffi::Py_ssize_t,
    _: *mut PyObject,
) -> *mut PyObject {
    // SAFETY: see the heading.
    unsafe { release::<T>(object, ptr::null_mut()) }
}

fn yes() -> *mut PyObject {
    // SAFETY: a singleton of the interpreter.
    let object = unsafe { ffi::Py_True() };
    // SAFETY: with the GIL.
    unsafe { ffi::Py_IncRef(object) };
    object
}

fn none() -> *mut PyObject {
    // SAFETY: a singleton of the interpreter.
    let object = unsafe { ffi::Py_None() };
    // SAFETY: with the GIL.
    unsafe { ffi::Py_IncRef(object) };
    object
}

/// Calls the ordinary method.
#[cold]
unsafe fn slow(
    object: *mut PyObject,
    method: &str,
    args: *const *mut PyObject,
    nargs: ffi::Py_ssize_t,
    names: *mut PyObject,
) -> *mut PyObject {
    let result = Python::attach(|py| {
        // SAFETY: a descriptor passes a living object.
        let object = unsafe { Bound::from_borrowed_ptr(py, object) };
        // SAFETY: so many living objects follow, and one more for each name.
        let at = |index: isize| unsafe { Bound::from_borrowed_ptr(py, *args.offset(index)) };
        let positional = PyTuple::new(py, (0..nargs).map(at).collect::<Vec<_>>())?;
        let keywords = PyDict::new(py);
        // SAFETY: null, or a tuple of names.
        if let Some(names) = unsafe { Bound::from_borrowed_ptr_or_opt(py, names) } {
            for (index, name) in names.try_iter()?.enumerate() {
                keywords.set_item(name?, at(nargs + index.cast_signed()))?;
            }
        }
        object.call_method(method, positional, Some(&keywords)).map(Bound::unbind)
    });
    match result {
        Ok(result) => result.into_ptr(),
        Err(error) => {
            Python::attach(|py| error.restore(py));
            ptr::null_mut()
        }
    }
}

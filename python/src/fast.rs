//! Methods without a framework in between: what takes ten nanoseconds should not wait for as long to begin.
//!
//! PyO3's wrappers count attachments, catch panics and parse arguments. Here is what is left of that where nobody has to wait and the arguments
//! are the usual ones; all else goes to the ordinary methods, whose names begin with an underscore.
//!
//! # Safety
//! A method descriptor calls its function with an instance of the type that it was made for, or of a subclass, and with the GIL;
//! `args` has `nargs` entries. Nothing in such a function panics before [`Python::attach`], which the slow paths begin with. The definitions are
//! never freed, as the descriptors need them.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_int};
use std::ptr;

use pyo3::PyClass;
use pyo3::exceptions::PyTypeError;
use pyo3::ffi::{self, METH_FASTCALL, METH_KEYWORDS, METH_NOARGS, PyObject};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple, PyType};

/// A class that has such methods.
pub(crate) trait Frozen: PyClass<Frozen = pyo3::pyclass::boolean_struct::True> + Sync {}

impl<T: PyClass<Frozen = pyo3::pyclass::boolean_struct::True> + Sync> Frozen for T {}

/// A function behind a method.
pub(crate) enum Function {
    Plain(unsafe extern "C" fn(*mut PyObject, *mut PyObject) -> *mut PyObject),
    WithKeywords(
        unsafe extern "C" fn(
            *mut PyObject,
            *const *mut PyObject,
            ffi::Py_ssize_t,
            *mut PyObject,
        ) -> *mut PyObject,
    ),
}

/// A method: the attribute, its name for people, its signature and documentation, and what it does.
pub(crate) struct Method {
    pub(crate) attribute: &'static str,
    pub(crate) name: &'static CStr,
    pub(crate) doc: &'static CStr,
    pub(crate) function: Function,
}

/// Adds such methods to a class: `T`, or one that derives from it, whose objects then need not be asked what they derive from.
///
/// # Safety
/// The functions are for instances of `T`.
pub(crate) unsafe fn add<T: Frozen>(
    class: &Bound<'_, PyType>,
    methods: impl IntoIterator<Item = Method>,
) -> PyResult<()> {
    let py = class.py();
    if !class.is_subclass_of::<T>()? {
        return Err(PyTypeError::new_err("it does not derive from the native class"));
    }
    for Method { attribute, name, doc, function } in methods {
        let (ml_meth, flags) = match function {
            Function::Plain(function) => (ffi::PyMethodDefPointer { PyCFunction: function }, METH_NOARGS),
            Function::WithKeywords(function) => {
                let function = ffi::PyMethodDefPointer { PyCFunctionFastWithKeywords: function };
                (function, METH_FASTCALL | METH_KEYWORDS)
            }
        };
        let definition = ffi::PyMethodDef {
            ml_name: name.as_ptr(),
            ml_meth,
            ml_flags: flags as c_int,
            ml_doc: doc.as_ptr(),
        };
        let definition = Box::leak(Box::new(definition));
        // SAFETY: see the heading.
        let method = unsafe {
            Bound::from_owned_ptr_or_err(py, ffi::PyDescr_NewMethod(class.as_type_ptr(), definition))
        }?;
        class.setattr(attribute, method)?;
    }
    Ok(())
}

/// The object; its class is `T` or derives from it.
///
/// # Safety
/// The caller is called by a descriptor, with the GIL, and keeps the object.
pub(crate) unsafe fn this<'a, T: Frozen>(object: *mut PyObject) -> &'a T {
    // SAFETY: the caller is called by a descriptor, with the GIL.
    let py = unsafe { Python::assume_attached() };
    // SAFETY: as above.
    let borrowed = unsafe { Borrowed::from_ptr(py, object) };
    // SAFETY: as above; the caller of the caller keeps the object.
    unsafe { &*ptr::from_ref(borrowed.cast_unchecked::<T>().get()) }
}

/// `True`.
///
/// # Safety
/// With the GIL.
pub(crate) unsafe fn yes() -> *mut PyObject {
    // SAFETY: a singleton of the interpreter.
    let object = unsafe { ffi::Py_True() };
    // SAFETY: with the GIL.
    unsafe { ffi::Py_INCREF(object) };
    object
}

/// `None`.
///
/// # Safety
/// With the GIL.
pub(crate) unsafe fn none() -> *mut PyObject {
    // SAFETY: a singleton of the interpreter.
    let object = unsafe { ffi::Py_None() };
    // SAFETY: with the GIL.
    unsafe { ffi::Py_INCREF(object) };
    object
}

/// Calls the ordinary method.
///
/// # Safety
/// As for the function that calls it.
#[cold]
pub(crate) unsafe fn slow(
    object: *mut PyObject,
    method: &str,
    args: *const *mut PyObject,
    nargs: ffi::Py_ssize_t,
    names: *mut PyObject,
) -> *mut PyObject {
    attached(|py| {
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
        object.call_method(method, positional, Some(&keywords))
    })
}

/// What `body` returns, as the interpreter wants it.
pub(crate) fn attached(
    body: impl for<'py> FnOnce(Python<'py>) -> PyResult<Bound<'py, PyAny>>,
) -> *mut PyObject {
    Python::attach(|py| match body(py) {
        Ok(object) => object.into_ptr(),
        Err(error) => {
            error.restore(py);
            ptr::null_mut()
        }
    })
}

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
use std::hint;
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
    check::<T>(class)?;
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

/// The functions behind an attribute.
pub(crate) struct Property {
    pub(crate) name: &'static CStr,
    pub(crate) doc: &'static CStr,
    pub(crate) get: ffi::getter,
    pub(crate) set: ffi::setter,
}

/// Adds an attribute to a class, in the same way.
///
/// # Safety
/// The functions are for instances of `T`.
pub(crate) unsafe fn add_property<T: Frozen>(
    class: &Bound<'_, PyType>,
    attribute: &str,
    Property { name, doc, get, set }: Property,
) -> PyResult<()> {
    check::<T>(class)?;
    let definition = ffi::PyGetSetDef {
        name: name.as_ptr(),
        get: Some(get),
        set: Some(set),
        doc: doc.as_ptr(),
        closure: ptr::null_mut(),
    };
    let definition = Box::leak(Box::new(definition));
    // SAFETY: see the heading.
    let property = unsafe {
        Bound::from_owned_ptr_or_err(class.py(), ffi::PyDescr_NewGetSet(class.as_type_ptr(), definition))
    }?;
    class.setattr(attribute, property)
}

fn check<T: Frozen>(class: &Bound<'_, PyType>) -> PyResult<()> {
    if class.is_subclass_of::<T>()? {
        return Ok(());
    }
    Err(PyTypeError::new_err("it does not derive from the native class"))
}

/// The object; its class is `T` or derives from it.
///
/// # Safety
/// The caller is called by a descriptor, with the GIL, and keeps the object.
pub(crate) unsafe fn this<'a, T: Frozen>(object: *mut PyObject) -> &'a T {
    // SAFETY: the caller is called by a descriptor, with the GIL.
    let py = unsafe { Python::assume_attached() };
    // SAFETY: as above.
    unsafe { hint::assert_unchecked(!object.is_null()) };
    // SAFETY: as above.
    let borrowed = unsafe { Borrowed::from_ptr(py, object) };
    // SAFETY: as above; the caller of the caller keeps the object.
    unsafe { &*ptr::from_ref(borrowed.cast_unchecked::<T>().get()) }
}

/// `True`.
///
/// # Safety
/// With the GIL.
#[inline]
pub(crate) unsafe fn yes() -> *mut PyObject {
    // SAFETY: a singleton of the interpreter, and with the GIL.
    unsafe { singleton(ffi::Py_True()) }
}

/// `False`.
///
/// # Safety
/// With the GIL.
#[inline]
pub(crate) unsafe fn no() -> *mut PyObject {
    // SAFETY: a singleton of the interpreter, and with the GIL.
    unsafe { singleton(ffi::Py_False()) }
}

/// `None`.
///
/// # Safety
/// With the GIL.
#[inline]
pub(crate) unsafe fn none() -> *mut PyObject {
    // SAFETY: a singleton of the interpreter, and with the GIL.
    unsafe { singleton(ffi::Py_None()) }
}

/// A reference to an object that there is always. From 3.12 on these are not counted, which shows in the sign of the lower half of their count.
///
/// # Safety
/// With the GIL, on such an object.
#[inline]
unsafe fn singleton(object: *mut PyObject) -> *mut PyObject {
    // SAFETY: each object begins with its count, and the lower half comes first on these machines.
    if unsafe { object.cast::<i32>().read() } >= 0 {
        // SAFETY: before 3.12, where each object begins with a count and nothing else.
        unsafe { *object.cast::<ffi::Py_ssize_t>() += 1 };
    }
    object
}

/// Calls the ordinary method. It does not unwind, so whoever ends with it keeps nothing for it on the stack.
///
/// # Safety
/// As for the function that calls it.
#[cold]
#[expect(improper_ctypes_definitions, reason = "it is called here only")]
pub(crate) unsafe extern "C" fn slow(
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

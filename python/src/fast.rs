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
use std::marker::PhantomData;
use std::ptr::{self, NonNull};
use std::slice;

use pyo3::PyClass;
use pyo3::exceptions::PyTypeError;
use pyo3::ffi::{self, METH_FASTCALL, METH_KEYWORDS, METH_NOARGS, Py_ssize_t, PyObject};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple, PyType};

/// A class that has such methods.
pub(crate) trait Frozen: PyClass<Frozen = pyo3::pyclass::boolean_struct::True> + Sync {}

impl<T: PyClass<Frozen = pyo3::pyclass::boolean_struct::True> + Sync> Frozen for T {}

/// A call of a method of `T`'s, or of a class that derives from it. There is one only while the interpreter makes that call, with the GIL.
pub(crate) struct Call<'a, T> {
    object: *mut PyObject,
    args: *const *mut PyObject,
    nargs: Py_ssize_t,
    names: *mut PyObject,
    this: PhantomData<&'a T>,
}

impl<T> Clone for Call<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Call<'_, T> {}

impl<'a, T: Frozen> Call<'a, T> {
    /// The object.
    #[inline]
    pub(crate) fn this(self) -> &'a T {
        // SAFETY: see the heading; the interpreter keeps the object as long as the call lasts.
        unsafe { this(self.object) }
    }

    /// True if it has so many arguments, and none with a name.
    #[inline]
    pub(crate) fn has(self, count: usize) -> bool {
        self.nargs.cast_unsigned() == count && self.names.is_null()
    }

    /// The arguments without a name: living objects.
    #[inline]
    pub(crate) fn args(self) -> &'a [*mut PyObject] {
        if self.nargs == 0 {
            return &[];
        }
        // SAFETY: see the heading.
        unsafe { slice::from_raw_parts(self.args, self.nargs.cast_unsigned()) }
    }

    /// The arguments with a name, and these.
    pub(crate) fn named(self) -> impl Iterator<Item = (*mut PyObject, *mut PyObject)> {
        // SAFETY: see the heading: null, or a tuple of the names.
        let count = if self.names.is_null() { 0 } else { unsafe { ffi::PyTuple_Size(self.names) } };
        // SAFETY: as above; the arguments with a name are behind the others.
        (0..count).map(move |index| unsafe {
            (ffi::PyTuple_GetItem(self.names, index), *self.args.offset(self.nargs + index))
        })
    }

    /// What another function makes of it. That one is not inlined, so whoever ends with it keeps nothing for it on the stack.
    #[inline]
    pub(crate) fn rarely<F: Body<T>>(self, _: F) -> *mut PyObject {
        // SAFETY: the call is still there.
        unsafe { run::<T, F>(self.object, self.args, self.nargs, self.names) }
    }

    /// Calls the ordinary method of this name.
    #[inline]
    pub(crate) fn slow(self, method: &str) -> *mut PyObject {
        // SAFETY: see the heading.
        unsafe { slow(self.object, method, self.args, self.nargs, self.names) }
    }

    /// `True` or `False`.
    #[inline]
    pub(crate) fn truth(self, value: bool) -> *mut PyObject {
        // SAFETY: with the GIL.
        unsafe { if value { yes() } else { no() } }
    }

    /// `None`.
    #[inline]
    pub(crate) fn none(self) -> *mut PyObject {
        // SAFETY: with the GIL.
        unsafe { none() }
    }
}

/// A method of `T`'s: its name, its signature and documentation, and what it does.
pub(crate) struct Method<T> {
    name: &'static CStr,
    doc: &'static CStr,
    function: ffi::PyMethodDefPointer,
    flags: c_int,
    class: PhantomData<fn(T)>,
}

impl<T: Frozen> Method<T> {
    /// One that may have arguments.
    pub(crate) fn new<F: Body<T>>(name: &'static CStr, doc: &'static CStr, _: F) -> Method<T> {
        let function = ffi::PyMethodDefPointer { PyCFunctionFastWithKeywords: run::<T, F> };
        Method { name, doc, function, flags: METH_FASTCALL | METH_KEYWORDS, class: PhantomData }
    }

    /// One that has none.
    pub(crate) fn alone<F: Body<T>>(name: &'static CStr, doc: &'static CStr, _: F) -> Method<T> {
        let function = ffi::PyMethodDefPointer { PyCFunction: run_alone::<T, F> };
        Method { name, doc, function, flags: METH_NOARGS, class: PhantomData }
    }
}

/// What a method does.
pub(crate) trait Body<T>: Fn(Call<'_, T>) -> *mut PyObject + Copy {}

impl<T, F: Fn(Call<'_, T>) -> *mut PyObject + Copy> Body<T> for F {}

/// The function behind a method, as the interpreter calls it.
#[inline(never)]
unsafe extern "C" fn run<T: Frozen, F: Body<T>>(
    object: *mut PyObject,
    args: *const *mut PyObject,
    nargs: Py_ssize_t,
    names: *mut PyObject,
) -> *mut PyObject {
    the::<F>()(Call { object, args, nargs, names, this: PhantomData })
}

/// The same of one without arguments.
unsafe extern "C" fn run_alone<T: Frozen, F: Body<T>>(
    object: *mut PyObject,
    _: *mut PyObject,
) -> *mut PyObject {
    the::<F>()(Call { object, args: ptr::null(), nargs: 0, names: ptr::null_mut(), this: PhantomData })
}

/// A function, which is known by its type.
#[inline]
fn the<F: Copy>() -> F {
    const { assert!(size_of::<F>() == 0, "a function, or a closure of nothing") };
    // SAFETY: whoever made the method had one, and without bytes they are all the same.
    unsafe { NonNull::dangling().read() }
}

/// Adds such methods to a class: `T`, or one that derives from it, whose objects then need not be asked what they derive from.
pub(crate) fn add<T: Frozen>(
    class: &Bound<'_, PyType>,
    methods: impl IntoIterator<Item = Method<T>>,
) -> PyResult<()> {
    let py = class.py();
    check::<T>(class)?;
    for Method { name, doc, function, flags, .. } in methods {
        let (ml_name, ml_doc) = (name.as_ptr(), doc.as_ptr());
        let definition = ffi::PyMethodDef { ml_name, ml_meth: function, ml_flags: flags, ml_doc };
        let definition = Box::leak(Box::new(definition));
        // SAFETY: see the heading.
        let method = unsafe {
            Bound::from_owned_ptr_or_err(py, ffi::PyDescr_NewMethod(class.as_type_ptr(), definition))
        }?;
        class.setattr(name, method)?;
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
    nargs: Py_ssize_t,
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

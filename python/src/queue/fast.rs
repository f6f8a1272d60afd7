//! Putting and getting where nobody has to wait: `put(obj)` and `get()` of short plain objects, and `get()` of others that are there.
//!
//! # Safety
//! A call comes with the GIL and living objects: see `crate::fast`.
#![allow(unsafe_code)]

use std::ffi::CStr;
use std::hint;
use std::slice;
use std::sync::atomic::Ordering;

use forkyard::__private::channel::{Patience as Wait, Taken};
use forkyard::channel::ByteQueue;
use pyo3::ffi::{self, Py_ssize_t, PyObject};
use pyo3::prelude::*;
use pyo3::types::PyType;

use super::encode::{BYTES, FALSE, FLOAT, INT, NONE, STR, TRUE};
use super::{INLINE, Queue, decode};
use crate::fast::{self, Call, Method, attached, none};
use crate::wait::Patience;

/// Adds `put` and `get` to a class of queues, with time-outs or without.
pub(super) fn add(class: &Bound<'_, PyType>, is_simple: bool) -> PyResult<()> {
    fast::add(class, [Method::alone(c"qsize", QSIZE, qsize)])?;
    if is_simple {
        let put = Method::new(c"put", SIMPLE_PUT, |call| put(call, "_put_simply"));
        return fast::add(class, [put, Method::new(c"get", SIMPLE_GET, |call| get(call, "_get_simply"))]);
    }
    let put = Method::new(c"put", PUT, |call| put(call, "_put_patiently"));
    let get = Method::new(c"get", GET, |call| get(call, "_get_patiently"));
    fast::add(class, [put, get, Method::alone(c"full", FULL, full)])
}

const PUT: &CStr =
    c"put($self, obj, block=True, timeout=None)\n--\n\nPut an object, waiting for room if need be.";
const GET: &CStr =
    c"get($self, block=True, timeout=None)\n--\n\nTake out the next object, waiting for one if need be.";
const SIMPLE_PUT: &CStr = c"put($self, obj)\n--\n\nPut an object.";
const SIMPLE_GET: &CStr = c"get($self)\n--\n\nTake out the next object, waiting for one if need be.";

const QSIZE: &CStr = c"qsize($self, /)\n--\n\nReturn how many objects there are in it.";
const FULL: &CStr = c"full($self, /)\n--\n\nReturn true if there is no room.";

fn qsize(call: Call<'_, Queue>) -> *mut PyObject {
    match call.this().handle.0.get() {
        // SAFETY: with the GIL.
        Some(queue) => unsafe { ffi::PyLong_FromSize_t(queue.len()) },
        None => call.slow("_qsize"),
    }
}

fn full(call: Call<'_, Queue>) -> *mut PyObject {
    let this = call.this();
    let Some(queue) = this.handle.0.get() else { return call.slow("_qsize") };
    let kept = this.most.load(Ordering::Relaxed);
    let most = if kept == 0 { queue.capacity() } else { kept };
    call.truth(most < usize::MAX && queue.len() >= most)
}

#[inline]
fn put(call: Call<'_, Queue>, otherwise: &str) -> *mut PyObject {
    // SAFETY: with the GIL, on a living object.
    if call.has(1) && unsafe { put_now(call.this(), call.args()[0]) } {
        return call.none();
    }
    call.slow(otherwise)
}

#[inline]
fn get(call: Call<'_, Queue>, otherwise: &str) -> *mut PyObject {
    let this = call.this();
    // What is reported as done, or closed, is no plain matter.
    if call.has(0)
        && this.work.0.get().is_none()
        && let Some(queue) = open(this)
    {
        // SAFETY: with the GIL.
        return unsafe { get_now(queue) }.unwrap_or_else(|| get_patiently(this));
    }
    call.slow(otherwise)
}

#[cold]
fn get_patiently(this: &Queue) -> *mut PyObject {
    attached(|py| this.get_object(py, Patience::FOR_EVER))
}

/// The queue, unless this process has closed it.
fn open(this: &Queue) -> Option<&ByteQueue> {
    this.handle.0.get().filter(|_| !this.closed.load(Ordering::Relaxed))
}

/// False: nothing was done, and the ordinary way is to be gone.
///
/// # Safety
/// With the GIL, and a living object.
unsafe fn put_now(this: &Queue, object: *mut PyObject) -> bool {
    let Some(queue) = open(this) else { return false };
    if this.most.load(Ordering::Relaxed) != 0 {
        return false;
    }
    let put = |message: &[u8]| queue.put_patiently(message, Wait::Look).is_ok();
    // SAFETY: with the GIL, on a living object.
    let is_put = unsafe {
        let class = ffi::Py_TYPE(object);
        if class == &raw mut ffi::PyLong_Type {
            let mut overflow = 0;
            let value = ffi::PyLong_AsLongLongAndOverflow(object, &raw mut overflow);
            overflow == 0 && put(&number(INT, value.to_le_bytes()))
        } else if class == &raw mut ffi::PyFloat_Type {
            put(&number(FLOAT, ffi::PyFloat_AsDouble(object).to_le_bytes()))
        } else if object == ffi::Py_None() {
            put(&[NONE])
        } else if object == ffi::Py_True() {
            put(&[TRUE])
        } else if object == ffi::Py_False() {
            put(&[FALSE])
        } else if class == &raw mut ffi::PyBytes_Type {
            put_text(queue, BYTES, ffi::PyBytes_AsString(object).cast(), ffi::PyBytes_Size(object))
        } else if class == &raw mut ffi::PyUnicode_Type {
            let mut len = 0;
            let text = ffi::PyUnicode_AsUTF8AndSize(object, &raw mut len);
            if text.is_null() {
                // It cannot be written so.
                ffi::PyErr_Clear();
                return false;
            }
            put_text(queue, STR, text.cast(), len)
        } else {
            false
        }
    };
    if is_put && !this.used.load(Ordering::Relaxed) {
        this.used.store(true, Ordering::Relaxed);
    }
    is_put
}

fn number(tag: u8, value: [u8; 8]) -> [u8; 9] {
    let mut message = [tag; 9];
    message[1..].copy_from_slice(&value);
    message
}

/// # Safety
/// There are so many bytes, until this returns.
unsafe fn put_text(queue: &ByteQueue, tag: u8, bytes: *const u8, len: Py_ssize_t) -> bool {
    // SAFETY: the caller says so; an empty slice may begin anywhere.
    let bytes = if len <= 0 { &[] } else { unsafe { slice::from_raw_parts(bytes, len.cast_unsigned()) } };
    if bytes.len() < INLINE {
        let mut message = [tag; INLINE];
        message[1..=bytes.len()].copy_from_slice(bytes);
        return queue.put_patiently(&message[..=bytes.len()], Wait::Look).is_ok();
    }
    // Written straight into shared memory.
    let Ok(mut loan) = queue.loan(1 + bytes.len()) else { return false };
    loan[0] = tag;
    loan[1..].copy_from_slice(bytes);
    queue.send_patiently(loan, Wait::Look).is_ok()
}

/// How long it is waited, under the GIL, before an empty queue is looked at again. A consumer that looks all the time takes the memory away
/// from its producer; so does one that comes a little later, but for several objects.
const PAUSES: [u32; 3] = [8, 16, 32];

/// `None`: there is nothing to get so.
///
/// # Safety
/// With the GIL.
#[inline(never)]
unsafe fn get_now(queue: &ByteQueue) -> Option<*mut PyObject> {
    let mut pauses = PAUSES.into_iter();
    let taken = loop {
        if let Some(taken) = queue.glance().ok()? {
            break taken;
        }
        (0..pauses.next()?).for_each(|_| hint::spin_loop());
    };
    // SAFETY: with the GIL.
    match taken.read(|message| unsafe { plain(message) }) {
        Ok(Some(object)) if !object.is_null() => {
            taken.finish();
            Some(object)
        }
        _ => Some(get_other(taken)),
    }
}

#[cold]
fn get_other(taken: Taken<'_>) -> *mut PyObject {
    attached(|py| {
        // Why a plain object could not be made is found out again.
        drop(PyErr::take(py));
        decode::deliver(py, taken)
    })
}

/// A plain object, or null with an exception. `None`: it is something else.
///
/// # Safety
/// With the GIL.
unsafe fn plain(message: &[u8]) -> Option<*mut PyObject> {
    let (&tag, rest) = message.split_first()?;
    let len = rest.len().cast_signed();
    // SAFETY: with the GIL, on bytes that are there.
    unsafe {
        Some(match tag {
            INT => ffi::PyLong_FromLongLong(i64::from_le_bytes(rest.try_into().ok()?)),
            FLOAT => ffi::PyFloat_FromDouble(f64::from_le_bytes(rest.try_into().ok()?)),
            BYTES => ffi::PyBytes_FromStringAndSize(rest.as_ptr().cast(), len),
            STR => ffi::PyUnicode_FromStringAndSize(rest.as_ptr().cast(), len),
            NONE => none(),
            TRUE => fast::yes(),
            _ => return None,
        })
    }
}

//! `Condition`.
//!
//! # Safety
//! A call comes with the GIL and living objects: see `crate::fast`.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_int};
use std::sync::OnceLock;
use std::sync::atomic::Ordering;
use std::time::Instant;

use forkyard::sync::{self, Waited};
use pyo3::exceptions::PyTypeError;
use pyo3::ffi::{self, PyObject};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyType};
use pyo3::{PyTraverseError, PyVisit};

use super::acquire::Trouble;
use super::fast::{Within, add_within};
use super::held::Held;
use super::{Lock, RLock};
use crate::error::raise;
use crate::fast::{self, Call, Method};
use crate::handle::Handle;
use crate::wait::{Patience, goes_on, interrupted};

/// A condition in the family's shared memory.
#[pyclass(frozen, subclass, module = "forkyard._forkyard")]
pub(crate) struct Condition {
    handle: Handle<sync::Condition>,
    /// Its lock, if that is one of ours.
    held: OnceLock<Held>,
}

#[pymethods]
impl Condition {
    #[new]
    #[pyo3(signature = (*_args, **_kwargs))]
    fn new(_args: &Bound<'_, PyAny>, _kwargs: Option<&Bound<'_, PyAny>>) -> Condition {
        Condition { handle: Handle::empty(), held: OnceLock::new() }
    }

    fn _make(&self) -> PyResult<()> {
        self.handle.fill(sync::Condition::new())
    }

    fn _attach(&self, state: &[u8]) -> PyResult<()> {
        self.handle.attach(state)
    }

    fn _state<'py>(&self, py: Python<'py>) -> PyResult<(Bound<'py, PyBytes>,)> {
        Ok((self.handle.state(py)?,))
    }

    /// Its lock, whose class does nothing of its own.
    fn _with(&self, lock: &Bound<'_, PyAny>) {
        if let Some(held) = Held::of(lock) {
            let _ = self.held.set(held);
        }
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.held.get().map_or(Ok(()), |held| held.visit(&visit))
    }

    /// Waits with a lock that the calling thread has; false if the time was up.
    fn _wait(&self, py: Python<'_>, lock: &Bound<'_, PyAny>, timeout: &Bound<'_, PyAny>) -> PyResult<bool> {
        let condition = self.handle.get()?;
        let until = match Patience::seconds(timeout)? {
            Patience::Until(until) => until,
            Patience::None => Some(Instant::now()),
        };
        let (waited, trouble, raises) = if let Ok(lock) = lock.cast::<RLock>() {
            let (lock, raises) = (lock.get().handle.get()?, &lock.get().raises);
            let (waited, trouble) = py.detach(|| wait(condition, lock, until));
            (waited, trouble, raises.load(Ordering::Relaxed))
        } else if let Ok(lock) = lock.cast::<Lock>() {
            let (lock, raises) = (lock.get().handle.get()?, &lock.get().raises);
            let (waited, trouble) = py.detach(|| wait(condition, lock, until));
            (waited, trouble, raises.load(Ordering::Relaxed))
        } else {
            return Err(PyTypeError::new_err("a Condition of forkyard needs a Lock or RLock of forkyard"));
        };
        if let Some(trouble) = trouble {
            trouble.tell(py, raises)?;
        }
        match waited {
            Waited::Notified => Ok(true),
            Waited::TimedOut => Ok(false),
            Waited::Interrupted => interrupted(py).map(|()| false),
        }
    }

    fn _notify(&self, n: u32) -> PyResult<()> {
        self.handle.get()?.notify(n).map_err(raise)
    }
}

/// Waits, and tells what came of acquiring the lock again.
fn wait<G: sync::Held>(
    condition: &sync::Condition,
    held: G,
    until: Option<Instant>,
) -> (Waited, Option<Trouble>) {
    match condition.wait_interruptible(held, until, goes_on) {
        Ok((_, waited)) => (waited, None),
        Err(error) => {
            let mut end = Waited::TimedOut;
            let trouble = Trouble::of(error, |(_, waited)| end = waited);
            (end, Some(trouble))
        }
    }
}

impl Within for Condition {
    const ENTER: &str = "_enter";

    #[inline]
    fn at_once(&self) -> bool {
        self.held.get().is_some_and(Held::at_once)
    }

    #[inline]
    fn release_at_once(&self) -> bool {
        self.held.get().is_some_and(Held::release_at_once)
    }
}

/// Gives a class that derives from [`Condition`] its methods as its own, and returns it: they are called faster.
#[pyfunction]
pub(crate) fn quick_condition<'py>(class: &Bound<'py, PyType>) -> PyResult<Bound<'py, PyType>> {
    add_within::<Condition>(class)?;
    let notify_all = Method::alone(c"notify_all", NOTIFY_ALL, notify_all);
    fast::add(class, [Method::new(c"notify", NOTIFY, notify), notify_all])?;
    Ok(class.clone())
}

const NOTIFY: &CStr = c"notify($self, /, n=1)\n--\n\nWake at most so many who wait.";
const NOTIFY_ALL: &CStr = c"notify_all($self, /)\n--\n\nWake all who wait.";

/// Wakes so many, if the calling thread has the lock.
fn tell(condition: &Condition, n: u32) -> bool {
    condition.held.get().is_some_and(Held::is_mine)
        && condition.handle.0.get().is_some_and(|handle| handle.notify(n).is_ok())
}

fn notify(call: Call<'_, Condition>) -> *mut PyObject {
    let n = match call.args() {
        [] => Some(1),
        // SAFETY: with the GIL, on a living object.
        &[n] => unsafe { number(n) },
        _ => None,
    };
    if call.has(call.args().len())
        && let Some(n) = n
        && tell(call.this(), n)
    {
        return call.none();
    }
    call.slow("_notify_some")
}

/// # Safety
/// With the GIL, on a living object.
unsafe fn number(object: *mut PyObject) -> Option<u32> {
    let mut overflow: c_int = 0;
    // SAFETY: the caller says so.
    unsafe {
        if ffi::Py_TYPE(object) != &raw mut ffi::PyLong_Type {
            return None;
        }
        let n = ffi::PyLong_AsLongLongAndOverflow(object, &raw mut overflow);
        if overflow == 0 { u32::try_from(n).ok() } else { None }
    }
}

fn notify_all(call: Call<'_, Condition>) -> *mut PyObject {
    if tell(call.this(), u32::MAX) { call.none() } else { call.slow("_notify_everybody") }
}

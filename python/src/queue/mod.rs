//! `Queue`: Python objects in a queue of bytes.
//!
//! An object is written down by whoever puts it, into the memory that it is read from: a `put` that returned is committed. A message stays in the
//! queue until it is an object again, so a process that is killed while it reads loses nothing.
//!
//! Each call begins with a look under the GIL; only who has to wait lets go of it.

mod decode;
mod encode;
mod fast;
mod ready;
mod view;
mod work;

pub(crate) use ready::Ready;
pub(crate) use view::detach;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use forkyard::__private::channel::{Patience as Wait, Taken};
use forkyard::channel::{ByteQueue, GetError, Loan, PutError, QueueBuilder};
use pyo3::exceptions::PyOSError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyType};

use crate::error::{is_interrupt, raise};
use crate::handle::Handle;
use crate::wait::{Patience, Slept, sleep};
use encode::Encoded;
use work::Work;

mod exceptions {
    pyo3::import_exception!(queue, Empty);
    pyo3::import_exception!(queue, Full);
}
use exceptions::{Empty, Full};

/// A queue in the family's shared memory.
#[pyclass(frozen, subclass, module = "forkyard._forkyard")]
pub(crate) struct Queue {
    handle: Handle<ByteQueue>,
    /// By this process: others go on.
    closed: AtomicBool,
    /// Something was put by this process.
    used: AtomicBool,
    /// Of a queue whose objects are reported as done.
    work: Handle<Work>,
    /// Of a queue that would take much memory if it had room for so many from the beginning: how many. Producers look at it, and several at the
    /// same time may each put one more.
    most: AtomicUsize,
}

/// The largest bound that the core keeps.
const KEPT: usize = 1024;

/// Bytes of a message that lies in the queue itself: so its place takes two lines of memory. What a producer is ahead of its consumer takes new
/// memory, and to get and to give back a page is more than to put what is in it.
const INLINE: usize = 104;

/// Adds what is not made by PyO3.
pub(crate) fn init(py: Python<'_>) -> PyResult<()> {
    fast::add(&py.get_type::<Queue>(), false)
}

/// Gives a class that derives from this one its methods as its own, and returns it: they are called faster.
#[pyfunction]
pub(crate) fn quick_queue<'py>(class: &Bound<'py, PyType>) -> PyResult<Bound<'py, PyType>> {
    fast::add(class, false)?;
    Ok(class.clone())
}

/// The same for queues without time-outs.
#[pyfunction]
pub(crate) fn quick_simple_queue<'py>(class: &Bound<'py, PyType>) -> PyResult<Bound<'py, PyType>> {
    fast::add(class, true)?;
    Ok(class.clone())
}

/// What a call that does not wait came to.
enum Tried<T> {
    Done(T),
    NotNow,
}

#[pymethods]
impl Queue {
    #[new]
    #[pyo3(signature = (*_args, **_kwargs))]
    fn new(_args: &Bound<'_, PyAny>, _kwargs: Option<&Bound<'_, PyAny>>) -> Queue {
        Queue {
            handle: Handle::empty(),
            closed: AtomicBool::new(false),
            used: AtomicBool::new(false),
            work: Handle::empty(),
            most: AtomicUsize::new(0),
        }
    }

    fn _make(&self, maxsize: usize) -> PyResult<()> {
        let builder = QueueBuilder::new().inline(INLINE);
        let builder = if (1..=KEPT).contains(&maxsize) { builder.items(maxsize) } else { builder };
        self.bound(maxsize);
        self.handle.fill(builder.byte_queue())
    }

    fn _attach(&self, state: &[u8], maxsize: usize) -> PyResult<()> {
        self.bound(maxsize);
        self.handle.attach(state)
    }

    fn _state<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        self.handle.state(py)
    }

    #[pyo3(signature = (obj, block = None, timeout = None))]
    fn _put_patiently(
        slf: &Bound<'_, Self>,
        obj: &Bound<'_, PyAny>,
        block: Option<&Bound<'_, PyAny>>,
        timeout: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let patience = Patience::of(block, timeout)?;
        slf.get().check_open(slf)?;
        slf.get().put_object(slf, obj, patience)
    }

    #[pyo3(signature = (block = None, timeout = None))]
    fn _get_patiently<'py>(
        slf: &Bound<'py, Self>,
        block: Option<&Bound<'py, PyAny>>,
        timeout: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let patience = Patience::of(block, timeout)?;
        slf.get().check_open(slf)?;
        slf.get().get_object(slf.py(), patience)
    }

    /// Has this be a queue whose objects are reported as done.
    fn _make_joinable(&self) -> PyResult<()> {
        self.work.fill(work::new())
    }

    fn _attach_joinable(&self, state: &[u8]) -> PyResult<()> {
        self.work.attach(state)
    }

    fn _joinable_state<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        self.work.state(py)
    }

    /// Report that an object which was got is done.
    fn _task_done(&self) -> PyResult<()> {
        work::finish(self.work.get()?)?;
        self.handle.get()?.tell_joiners();
        Ok(())
    }

    /// Wait until every object that was put is done, or its process has ended.
    fn _join(&self, py: Python<'_>) -> PyResult<()> {
        let (queue, work) = (self.handle.get()?, self.work.get()?);
        let joined = sleep(py, || match queue.wait_until_done(|| work::is_done(work), Wait::Until(None)) {
            Err(GetError::Failed(error)) if is_interrupt(&error) => Slept::Interrupted,
            joined => Slept::Done(joined),
        })?;
        joined.map_err(|error| raise(error.into()))?;
        work::tell_of_lost(py, work)
    }

    fn _put_simply(slf: &Bound<'_, Self>, obj: &Bound<'_, PyAny>) -> PyResult<()> {
        Queue::_put_patiently(slf, obj, None, None)
    }

    fn _get_simply<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        Queue::_get_patiently(slf, None, None)
    }

    /// Put several objects, in this order, waiting for room if need be.
    #[pyo3(signature = (objs, block = None, timeout = None), text_signature = "($self, objs, block=True, timeout=None)")]
    fn put_many(
        slf: &Bound<'_, Self>,
        objs: &Bound<'_, PyAny>,
        block: Option<&Bound<'_, PyAny>>,
        timeout: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let patience = Patience::of(block, timeout)?;
        slf.get().check_open(slf)?;
        objs.try_iter()?.try_for_each(|obj| slf.get().put_object(slf, &obj?, patience))
    }

    /// Take out at most so many objects, as many as there are: waiting for the first one if need be, and for no other.
    #[pyo3(signature = (most, block = None, timeout = None), text_signature = "($self, most, block=True, timeout=None)")]
    fn get_many<'py>(
        slf: &Bound<'py, Self>,
        most: usize,
        block: Option<&Bound<'py, PyAny>>,
        timeout: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyList>> {
        let (py, this, patience) = (slf.py(), slf.get(), Patience::of(block, timeout)?);
        this.check_open(slf)?;
        let list = PyList::empty(py);
        if most > 0 {
            list.append(this.get_object(py, patience)?)?;
        }
        while list.len() < most {
            match this.get_object(py, Patience::None) {
                Ok(object) => list.append(object)?,
                Err(error) if error.is_instance_of::<Empty>(py) => break,
                Err(error) => return Err(error),
            }
        }
        Ok(list)
    }

    /// Wait for an object, and leave it where it is; false if the time is up.
    #[pyo3(signature = (timeout = None))]
    fn _poll(&self, py: Python<'_>, timeout: Option<&Bound<'_, PyAny>>) -> PyResult<bool> {
        // Without an argument it looks once, as a connection's does.
        let patience = timeout.map_or(Ok(Patience::None), Patience::seconds)?;
        match self.taken(py, patience) {
            // It goes back when it is dropped.
            Ok(_) => Ok(true),
            Err(error) if error.is_instance_of::<Empty>(py) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn _qsize(&self) -> PyResult<usize> {
        Ok(self.handle.get()?.len())
    }

    /// True if there is nothing in it.
    fn empty(&self) -> PyResult<bool> {
        if self.closed.load(Ordering::Relaxed) && self.used.load(Ordering::Relaxed) {
            return Err(PyOSError::new_err("handle is closed"));
        }
        Ok(self.handle.get()?.is_empty())
    }

    #[getter]
    fn _closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    /// True from the first object on that this process put.
    #[getter]
    fn _used(&self) -> bool {
        self.used.load(Ordering::Relaxed)
    }

    fn _close(&self) {
        self.closed.store(true, Ordering::Relaxed);
    }
}

impl Queue {
    fn bound(&self, maxsize: usize) {
        if maxsize > KEPT {
            self.most.store(maxsize, Ordering::Relaxed);
        }
    }

    /// Waits for room in a queue whose bound is kept here.
    #[cold]
    fn room(&self, py: Python<'_>, queue: &ByteQueue, most: usize, patience: Patience) -> PyResult<()> {
        if queue.len() < most {
            return Ok(());
        }
        let Patience::Until(until) = patience else { return Err(Full::new_err(())) };
        let room = sleep(py, || match queue.wait_for_fewer(most, Wait::Until(until)) {
            Err(PutError::Failed(_, error)) if is_interrupt(&error) => Slept::Interrupted,
            room => Slept::Done(room),
        })?;
        match tried_put(room)? {
            Tried::Done(()) => Ok(()),
            Tried::NotNow => Err(Full::new_err(())),
        }
    }

    #[inline]
    fn check_open(&self, slf: &Bound<'_, Self>) -> PyResult<()> {
        if self.closed.load(Ordering::Relaxed) { Err(closed(slf)) } else { Ok(()) }
    }

    #[inline]
    fn put_object(&self, slf: &Bound<'_, Self>, obj: &Bound<'_, PyAny>, patience: Patience) -> PyResult<()> {
        let (py, queue) = (slf.py(), self.handle.get()?);
        self.used.store(true, Ordering::Relaxed);
        let encoded = encode::encode(obj);
        let most = self.most.load(Ordering::Relaxed);
        if most > 0 && encoded.is_ok() {
            self.room(py, queue, most, patience)?;
        }
        match encoded {
            Ok(Encoded::Short(bytes, len)) => put_bytes(py, queue, &bytes[..len], patience),
            Ok(Encoded::Long(bytes)) => put_bytes(py, queue, &bytes, patience),
            Ok(Encoded::Large(large)) => {
                let mut loan = queue.loan(large.len()).map_err(raise)?;
                large.write(&mut loan)?;
                put_loan(py, queue, loan, patience)
            }
            // The queue's class may know what to do.
            Err(error) => slf.call_method1("_unpicklable", (error, obj)).map(drop),
        }
    }

    #[inline]
    fn get_object<'py>(&self, py: Python<'py>, patience: Patience) -> PyResult<Bound<'py, PyAny>> {
        let taken = self.taken(py, patience)?;
        let Some(work) = self.work.0.get() else { return decode::deliver(py, taken) };
        work::begin(work)?;
        let object = decode::deliver(py, taken);
        if decode::is_delivered(py, &object) {
            work::began(work)?;
        } else {
            work::cancel(work);
        }
        object
    }

    #[inline]
    fn taken(&self, py: Python<'_>, patience: Patience) -> PyResult<Taken<'_>> {
        let queue = self.handle.get()?;
        let Patience::Until(until) = patience else {
            return match tried_get(queue.take(Wait::Look))? {
                Tried::Done(taken) => Ok(taken),
                Tried::NotNow => Err(Empty::new_err(())),
            };
        };
        // Not a look of those who give up, after which a queue lets go of memory that its producers then make anew.
        if let Some(taken) = tried_glance(queue.glance())? {
            return Ok(taken);
        }
        let taken = sleep(py, || match queue.take(Wait::Until(until)) {
            Err(GetError::Failed(error)) if is_interrupt(&error) => Slept::Interrupted,
            taken => Slept::Done(taken),
        })?;
        match tried_get(taken)? {
            Tried::Done(taken) => Ok(taken),
            Tried::NotNow => Err(Empty::new_err(())),
        }
    }
}

#[inline]
fn put_bytes(py: Python<'_>, queue: &ByteQueue, bytes: &[u8], patience: Patience) -> PyResult<()> {
    match tried_put(queue.put_patiently(bytes, Wait::Look))? {
        Tried::Done(()) => return Ok(()),
        Tried::NotNow => {}
    }
    let Patience::Until(until) = patience else { return Err(Full::new_err(())) };
    let put = sleep(py, || match queue.put_patiently(bytes, Wait::Until(until)) {
        Err(PutError::Failed(_, error)) if is_interrupt(&error) => Slept::Interrupted,
        put => Slept::Done(put),
    })?;
    match tried_put(put)? {
        Tried::Done(()) => Ok(()),
        Tried::NotNow => Err(Full::new_err(())),
    }
}

fn put_loan(py: Python<'_>, queue: &ByteQueue, loan: Loan, patience: Patience) -> PyResult<()> {
    let mut loan = match queue.send_patiently(loan, Wait::Look) {
        Err(PutError::Full(loan)) => Some(loan),
        put => return tried_put(put).map(drop),
    };
    let Patience::Until(until) = patience else { return Err(Full::new_err(())) };
    let put = sleep(py, || {
        let Some(mine) = loan.take() else { return Slept::Done(Ok(())) };
        match queue.send_patiently(mine, Wait::Until(until)) {
            Err(PutError::Failed(mine, error)) if is_interrupt(&error) => {
                loan = Some(mine);
                Slept::Interrupted
            }
            put => Slept::Done(put),
        }
    })?;
    match tried_put(put)? {
        Tried::Done(()) => Ok(()),
        Tried::NotNow => Err(Full::new_err(())),
    }
}

#[inline]
fn tried_put<T>(put: Result<(), PutError<T>>) -> PyResult<Tried<()>> {
    match put {
        Ok(()) => Ok(Tried::Done(())),
        Err(PutError::Full(_) | PutError::TimedOut(_)) => Ok(Tried::NotNow),
        Err(PutError::Failed(_, error)) => Err(raise(error)),
        Err(other) => Err(PyOSError::new_err(other.to_string())),
    }
}

#[inline]
fn tried_get(taken: Result<Taken<'_>, GetError>) -> PyResult<Tried<Taken<'_>>> {
    match taken {
        Ok(taken) => Ok(Tried::Done(taken)),
        Err(GetError::Empty | GetError::TimedOut) => Ok(Tried::NotNow),
        Err(GetError::Failed(error)) => Err(raise(error)),
        Err(other) => Err(PyOSError::new_err(other.to_string())),
    }
}

#[inline]
fn tried_glance(taken: Result<Option<Taken<'_>>, GetError>) -> PyResult<Option<Taken<'_>>> {
    match taken {
        Ok(taken) => Ok(taken),
        Err(error) => tried_get(Err(error)).map(|_| None),
    }
}

#[cold]
fn closed(queue: &Bound<'_, Queue>) -> PyErr {
    queue.call_method0("_refusal").map_or_else(|error| error, PyErr::from_value)
}

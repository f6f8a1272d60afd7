//! What a `JoinableQueue` knows of objects that were got and are not done.
//!
//! Each of them is a permit of the process that got it, taken before the object leaves the queue. So at any moment an unfinished object is
//! in the queue, or a living process has a permit: `join` waits for both, and what a process had not finished when it ended, however, is
//! waited for by nobody.
//!
//! Killed here: before the object left the queue it goes back, and the permit comes back; after that the permit alone does.

use forkyard::sync::{BoundedSemaphore, Semaphore};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::error::{python, raise};

/// Permits there are; what is got beside them belongs to nobody.
const PERMITS: u32 = 4096;

/// The permits; how many objects were got and not reported, by the living or the dead; and how many of those are beside the permits.
pub(super) type Work = (BoundedSemaphore, Semaphore, Semaphore);

pub(super) fn new() -> forkyard::Result<Work> {
    Ok((BoundedSemaphore::new(PERMITS)?, Semaphore::new(0)?, Semaphore::new(0)?))
}

/// An object is about to leave the queue.
pub(super) fn begin((permits, _, beside): &Work) -> PyResult<()> {
    if permits.try_acquire().map_err(raise)? { Ok(()) } else { beside.release().map_err(raise) }
}

/// It has not left it: this process's permit is given back.
pub(super) fn cancel(work: &Work) {
    give_back(work);
}

/// It has left it.
pub(super) fn began((_, got, _): &Work) -> PyResult<()> {
    got.release().map_err(raise)
}

/// An object is done: whoever got it.
pub(super) fn finish(work: &Work) -> PyResult<()> {
    if !work.1.try_acquire().map_err(raise)? {
        return Err(PyValueError::new_err("task_done() called too many times"));
    }
    give_back(work);
    Ok(())
}

fn give_back((permits, _, beside): &Work) {
    // Without a permit in use it was got beside them, or by a process that has ended.
    if permits.release().is_err() {
        let _ = beside.try_acquire();
    }
}

/// True if no living process has something to do.
pub(super) fn is_done((permits, _, beside): &Work) -> bool {
    permits.value() == PERMITS && beside.value() == 0
}

/// Warns of objects whose processes have ended: all is done, but those.
pub(super) fn tell_of_lost(py: Python<'_>, (_, got, _): &Work) -> PyResult<()> {
    let mut lost = 0u32;
    while got.try_acquire().map_err(raise)? {
        lost += 1;
    }
    if lost == 0 {
        return Ok(());
    }
    let objects = if lost == 1 { "object of a JoinableQueue was" } else { "objects of a JoinableQueue were" };
    let text = format!("{lost} {objects} got by a process that ended before it called task_done()");
    python(py, "owner_died", (text, false)).map(drop)
}

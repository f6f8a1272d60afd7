//! A queue as a descriptor, for event loops.

use std::os::fd::{AsRawFd, RawFd};

use forkyard::channel;
use pyo3::prelude::*;

use super::Queue;
use crate::error::raise;

/// Tells by a descriptor that it is time to look at a queue again.
#[pyclass(frozen, module = "forkyard._forkyard")]
pub(crate) struct Ready {
    ready: channel::Ready,
}

#[pymethods]
impl Ready {
    /// Of a queue: whether there is room in it, or an object.
    #[new]
    fn new(queue: &Bound<'_, Queue>, puts: bool) -> PyResult<Ready> {
        let queue = queue.get().handle.get()?;
        let ready = if puts { queue.ready_to_put() } else { queue.ready_to_get() };
        Ok(Ready { ready: ready.map_err(raise)? })
    }

    /// Makes it readable from the next change on, and not before.
    fn arm(&self) {
        self.ready.arm();
    }

    fn fileno(&self) -> RawFd {
        self.ready.as_raw_fd()
    }
}

//! A child, named by its pidfd. Its status is taken once: by whoever asks first, or by the keeper, which asks when it has ended.
//!
//! Killed here: only this process knows the status, and it ends with it.
//!
//! # Safety
//! Whoever makes a `Child` gives its descriptor away.
#![allow(unsafe_code)]

use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};

use forkyard_sys::wait::{self, Ending};
use forkyard_sys::{Errno, pidfd};
use pyo3::exceptions::{PyOSError, PyProcessLookupError};
use pyo3::prelude::*;

use super::keeper;

/// The exit code of a child whose status somebody else took, on a kernel that keeps none: as the fork server has it.
const UNKNOWN: i32 = 255;

/// What the handle and the keeper share.
pub(super) struct State {
    pub(super) pidfd: OwnedFd,
    /// Which process has it as a child: a fork has a copy of this, and no such child.
    parent: u32,
    /// The keeper's number of it.
    pub(super) key: AtomicU64,
    /// Locked for a moment only, by threads that hold the interpreter's lock, and by the keeper.
    exitcode: Mutex<Option<i32>>,
}

impl State {
    /// The exit code, if the child has ended.
    pub(super) fn settle(&self) -> Option<i32> {
        if self.parent != std::process::id() {
            return None;
        }
        let mut exitcode = self.exitcode.lock().unwrap_or_else(PoisonError::into_inner);
        if exitcode.is_none() {
            *exitcode = match wait::try_reap(self.pidfd.as_fd()) {
                Ok(status) => status.map(|status| code(status.ending())),
                // Somebody else took it, or the program ignores SIGCHLD.
                Err(_) => wait::status_after_reaping(self.pidfd.as_fd())
                    .map(|status| code(status.ending()))
                    .or(Some(UNKNOWN)),
            };
        }
        *exitcode
    }
}

/// The code, or the negative number of a signal.
fn code(ending: Ending) -> i32 {
    match ending {
        Ending::Exited(code) => code,
        Ending::Signaled { signal, .. } => -signal,
        Ending::Unknown => UNKNOWN,
    }
}

/// A child of this process.
#[pyclass(frozen, module = "forkyard._forkyard")]
pub(crate) struct Child {
    state: Arc<State>,
}

#[pymethods]
impl Child {
    /// Takes the child's pidfd over, and reaps the child when it has ended, whether or not anybody asks.
    #[new]
    fn new(pidfd: RawFd) -> PyResult<Child> {
        if pidfd < 0 {
            return Err(PyOSError::new_err((Errno::BADF.raw_os_error(), "not a descriptor")));
        }
        // SAFETY: the caller gives it away.
        let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
        let (key, exitcode) = (AtomicU64::new(0), Mutex::new(None));
        let state = Arc::new(State { pidfd, parent: std::process::id(), key, exitcode });
        keeper::watch(&state);
        Ok(Child { state })
    }

    /// The pidfd: readable once the child has ended.
    fn fileno(&self) -> RawFd {
        self.state.pidfd.as_raw_fd()
    }

    /// The exit code, or None while it lives.
    fn poll(&self) -> Option<i32> {
        let exitcode = self.state.settle();
        if exitcode.is_some() {
            keeper::unwatch(&self.state);
        }
        exitcode
    }

    /// Sends a signal, and never to another process.
    fn send_signal(&self, signal: i32) -> PyResult<()> {
        pidfd::send_signal(self.state.pidfd.as_fd(), signal).map_err(|errno| match errno {
            Errno::SRCH => PyProcessLookupError::new_err("the process has ended"),
            errno => PyOSError::new_err((errno.raw_os_error(), errno.to_string())),
        })
    }
}

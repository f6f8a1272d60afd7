//! The family's shared memory, as it is handed to children that this library does not start.
//!
//! # Safety
//! Whoever calls `attach` gives a descriptor away: it is the only place where a number becomes an owned descriptor.
#![allow(unsafe_code)]

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use forkyard::__private::family;
use forkyard_sys::{Errno, bereaved};
use pyo3::prelude::*;

use crate::error::raise;

/// The descriptor of the family's shared memory, which is made now if this is the family's first process.
#[pyfunction]
pub(crate) fn arena() -> PyResult<RawFd> {
    family::arena().map(|fd| fd.as_raw_fd()).map_err(raise)
}

/// Takes over the family's shared memory and the descriptor; harmless if this process has it already.
#[pyfunction]
pub(crate) fn attach(fd: RawFd) -> PyResult<()> {
    if family::has_arena() && family::arena().is_ok_and(|arena| arena.as_raw_fd() == fd) {
        return Ok(());
    }
    // SAFETY: the caller gives the descriptor away.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    family::attach(fd).map_err(raise)
}

/// Cleans up after the family's dead; true if there were any.
#[pyfunction]
pub(crate) fn reap(py: Python<'_>) -> bool {
    py.detach(family::reap)
}

/// From here on this process ends when that one is killed; the pipe tells when it ends. A pidfd of it, which is given away, tells
/// how, even if that one has ended by now.
#[pyfunction]
#[pyo3(signature = (pid, pipe, pidfd = None))]
pub(crate) fn end_with_killed(pid: i32, pipe: RawFd, pidfd: Option<RawFd>) -> PyResult<()> {
    // SAFETY: the caller gives it away.
    let pidfd = pidfd.filter(|&fd| fd >= 0).map(|fd| unsafe { OwnedFd::from_raw_fd(fd) });
    // SAFETY: the caller keeps it open as long as the call lasts.
    let pipe = unsafe { BorrowedFd::borrow_raw(pipe) };
    match bereaved::end_with_killed(pid, pidfd, pipe) {
        // It has ended, and nobody knows how.
        Err(Errno::SRCH) => Ok(()),
        result => Ok(result.map_err(std::io::Error::from)?),
    }
}

/// Whether that process, which has ended, was killed or crashed.
#[pyfunction]
pub(crate) fn was_killed(pid: i32, pidfd: RawFd) -> bool {
    // SAFETY: the caller keeps it open as long as the call lasts.
    bereaved::was_killed(pid, unsafe { BorrowedFd::borrow_raw(pidfd) })
}

/// Says what this process is called, and whether it ends with its parent.
#[pyfunction]
pub(crate) fn introduce(name: &str, daemon: bool) {
    family::introduce(name, daemon);
}

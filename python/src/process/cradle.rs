//! Where a zygote's children are born: one word that the zygote shares with the process it makes children for.
//!
//! The kernel writes a child's pid there before the child runs and before the zygote can be killed. So whoever asked for it
//! knows of it, whatever happens to the zygote. Written: by the kernel, and zeroed by whoever asks, before it asks; they take
//! turns. Killed here: the zygote after the clone: the word names the child.
//!
//! # Safety
//! The word lies at the start of a sealed page that lives as long as the mapping. The interpreter is told of the copy as it is
//! of a fork, before and after it, by the one thread there is.
#![allow(unsafe_code)]

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use forkyard::__private::family;
use forkyard_sys::clone::{Side, Template};
use forkyard_sys::mmap::Mapping;
use forkyard_sys::poll::readable;
use forkyard_sys::{Errno, inherit, memfd, thread};
use pyo3::exceptions::PyOSError;
use pyo3::ffi;
use pyo3::prelude::*;

/// A place for one birth at a time.
#[pyclass(frozen, module = "forkyard._forkyard")]
pub(crate) struct Cradle {
    page: Mapping,
    fd: OwnedFd,
}

#[pymethods]
impl Cradle {
    /// Makes one, or takes over the descriptor of one.
    #[new]
    #[pyo3(signature = (fd = None))]
    fn new(fd: Option<RawFd>) -> PyResult<Cradle> {
        let fd = match fd {
            // SAFETY: the caller gives it away.
            Some(fd) if fd >= 0 => unsafe { OwnedFd::from_raw_fd(fd) },
            Some(_) => return Err(raise(Errno::BADF)),
            None => memfd::create_sealed("forkyard-cradle", 4096).map_err(raise)?,
        };
        Ok(Cradle { page: Mapping::shared(&fd, true).map_err(raise)?, fd })
    }

    fn fileno(&self) -> RawFd {
        self.fd.as_raw_fd()
    }

    /// The pid of the last child; 0 after a `clear`.
    fn born(&self) -> u32 {
        self.word().load(Ordering::Acquire)
    }

    fn clear(&self) {
        self.word().store(0, Ordering::Release);
    }

    /// Makes a copy of this process whose parent is this process's own: its pid and pidfd, or None in the copy.
    ///
    /// `OSError` where that is refused, and in a process with several threads.
    fn clone(&self, _py: Python<'_>) -> PyResult<Option<(u32, RawFd)>> {
        if !has_one_thread() {
            return Err(raise(Errno::DEADLK));
        }
        let template = Template::of_this_thread().map_err(raise)?;
        // SAFETY: with the interpreter's lock held.
        unsafe { ffi::PyOS_BeforeFork() };
        let made = family::copying(|| {
            // SAFETY: just looked.
            let made = unsafe { template.clone_sibling(self.word()) };
            (matches!(made, Ok(Side::Child)), made)
        });
        match made {
            Ok(Side::Child) => {
                // SAFETY: as above.
                unsafe { ffi::PyOS_AfterFork_Child() };
                Ok(None)
            }
            made => {
                // SAFETY: as above.
                unsafe { ffi::PyOS_AfterFork_Parent() };
                match made.map_err(raise)? {
                    Side::Caller { pid, pidfd } => {
                        Ok(Some((pid.as_raw_nonzero().get().unsigned_abs(), pidfd.into_raw_fd())))
                    }
                    Side::Child => Ok(None),
                }
            }
        }
    }
}

impl Cradle {
    fn word(&self) -> &AtomicU32 {
        // SAFETY: a page is large enough and aligned.
        unsafe { self.page.address().cast::<AtomicU32>().as_ref() }
    }
}

/// The C library may not know that threads have ended; the kernel does.
fn has_one_thread() -> bool {
    thread::is_only_one() || std::fs::read_dir("/proc/self/task").is_ok_and(|threads| threads.count() == 1)
}

fn raise(errno: Errno) -> PyErr {
    PyOSError::new_err((errno.raw_os_error(), errno.to_string()))
}

/// So many ranges are made ready between two looks.
const AT_A_TIME: usize = 8;

/// Makes pages ready to be written to, until there is something to read: pairs of where they begin and how long they are. What is not made
/// ready comes when it is needed.
#[pyfunction]
pub(crate) fn populate(ranges: &[u8], until: RawFd) {
    // SAFETY: the caller keeps it open as long as the call lasts.
    let until = unsafe { BorrowedFd::borrow_raw(until) };
    let now = Instant::now();
    let is_wanted = || matches!(readable([until], Some(now)), Ok([true]));
    let number = |bytes: &[u8]| bytes.try_into().map_or(0, usize::from_ne_bytes);
    for some in ranges.chunks(AT_A_TIME * 16) {
        if is_wanted() {
            return;
        }
        for range in some.chunks_exact(16) {
            let _ = inherit::populate(number(&range[..8]), number(&range[8..]), true);
        }
    }
}

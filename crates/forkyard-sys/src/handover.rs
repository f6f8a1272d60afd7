//! Descriptors that one image of a process leaves to the next one, by number.
//!
//! # Safety
//! A number is taken over once, by the image it was left to, before anything else there could have opened it.
#![allow(unsafe_code)]

use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};

use rustix::io::FdFlags;

use crate::{Errno, Result};

/// Takes over a descriptor that the image before this one left open under a number that it told. Makes it
/// close-on-exec.
///
/// Call it once for each such number, and for no others: the result closes the descriptor when it is dropped.
///
/// # Errors
/// `EBADF`: there is none, or it is a standard stream.
pub fn take(number: RawFd) -> Result<OwnedFd> {
    if number < 3 {
        return Err(Errno::BADF);
    }
    // SAFETY: used for two fcntl calls, which refuse a closed number.
    let fd = unsafe { BorrowedFd::borrow_raw(number) };
    rustix::io::fcntl_getfd(fd)?;
    rustix::io::fcntl_setfd(fd, FdFlags::CLOEXEC)?;
    // SAFETY: it is open, and was left to this image by the one before: see the heading.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// True if the calling thread is the process's first one, which keeps its identity through exec.
#[must_use]
pub fn in_first_thread() -> bool {
    rustix::thread::gettid() == rustix::process::getpid()
}

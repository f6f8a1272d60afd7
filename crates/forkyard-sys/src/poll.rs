//! Waiting for readiness of a few fds; for many, and for standing sets, there is `epoll`.

use std::os::fd::BorrowedFd;

pub use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;

use crate::Result;
use crate::time::{Timeout, timespec};

/// Waits until one of the fds is ready; the number of ready ones, zero when the time-out passed. Interruptions
/// by signals are taken up again with the time that is left.
///
/// # Errors
/// As poll(2), but never `EINTR`.
pub fn poll(fds: &mut [PollFd<'_>], timeout: Timeout) -> Result<usize> {
    loop {
        let left = timespec(timeout);
        match rustix::event::poll(fds, left.as_ref()) {
            Err(Errno::INTR) => {}
            result => return result,
        }
    }
}

/// Waits until one of the fds is readable or closed at its other end; which ones are, all false when the time-out
/// passed.
///
/// # Errors
/// As [`poll`].
pub fn readable<const N: usize>(fds: [BorrowedFd<'_>; N], timeout: Timeout) -> Result<[bool; N]> {
    let mut fds = fds.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN));
    poll(&mut fds, timeout)?;
    Ok(fds.each_ref().map(|fd| !fd.revents().is_empty()))
}

//! The standard streams' numbers, where a program has closed them.
//!
//! # Safety
//! A number is borrowed as a descriptor for one call, which fails if it is none.
#![allow(unsafe_code)]

use std::os::fd::{AsRawFd, BorrowedFd, IntoRawFd};

use rustix::fs::{Mode, OFlags};

use crate::Result;

/// Opens `/dev/null` under each of the numbers 0 to 2 that is closed, as the standard library does before main: what is opened
/// next could get one of them, and then whatever the program prints.
///
/// # Errors
/// As open(2).
pub fn occupy() -> Result<()> {
    for number in 0..3 {
        // SAFETY: a number that is closed is an error of fcntl's; the borrow ends with the call.
        let closed = rustix::io::fcntl_getfd(unsafe { BorrowedFd::borrow_raw(number) }).is_err();
        if closed {
            let null = rustix::fs::open("/dev/null", OFlags::RDWR, Mode::empty())?;
            // Another thread may have been faster; and what is closed at the end was not needed.
            if null.as_raw_fd() <= 2 {
                let _ = null.into_raw_fd();
            }
        }
    }
    Ok(())
}

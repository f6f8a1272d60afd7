//! Where an operation begins and ends: system calls that nothing in between makes.
//!
//! # Safety
//! The calls take a number and change nothing.
#![allow(unsafe_code, reason = "each unsafe block has its own reason")]

/// Made before the operation.
pub(crate) const BEGIN: libc::c_long = libc::SYS_getsid;
/// Made after it.
pub(crate) const END: libc::c_long = libc::SYS_getpgid;

/// Runs `operation` between the two calls.
pub(crate) fn between<R>(operation: impl FnOnce() -> R) -> R {
    // SAFETY: see the heading.
    unsafe { libc::syscall(BEGIN, 0) };
    let result = operation();
    end();
    result
}

/// Marks the end alone.
pub(crate) fn end() {
    // SAFETY: see the heading.
    unsafe { libc::syscall(END, 0) };
}

//! How long a call may wait, and what time it is.
//!
//! # Safety
//! The one raw call writes into a local variable of the type that the kernel fills.
#![allow(unsafe_code)]

use std::time::{Duration, Instant};

/// Until when a call may wait: for ever, or until an instant of the monotonic clock.
pub type Timeout = Option<Instant>;

/// What is left of a time-out as the kernel takes it; `None` for ever.
pub(crate) fn timespec(timeout: Timeout) -> Option<rustix::event::Timespec> {
    let left = timeout?.saturating_duration_since(Instant::now()).min(Duration::from_secs(1 << 31));
    // The bound above makes both conversions exact.
    Some(rustix::event::Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() })
}

/// How many of the kernel's ticks make a second, as proc(5) counts processor time.
#[must_use]
pub fn clock_ticks() -> u64 {
    rustix::param::clock_ticks_per_second()
}

/// Nanoseconds on the monotonic clock, which all processes of the system share.
#[must_use]
pub fn monotonic_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    // The clock starts at boot: never negative, and 64 bits last five centuries.
    now.tv_sec.unsigned_abs() * 1_000_000_000 + now.tv_nsec.unsigned_abs()
}

/// The same by a system call: for a fresh clone, in which the faster way, through the vDSO, begins with a page fault.
#[must_use]
pub fn monotonic_ns_by_syscall() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel fills the live local structure.
    unsafe { libc::syscall(libc::SYS_clock_gettime, libc::CLOCK_MONOTONIC, &raw mut now) };
    now.tv_sec.unsigned_abs() * 1_000_000_000 + now.tv_nsec.unsigned_abs()
}

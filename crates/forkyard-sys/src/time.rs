//! How long a call may wait.

use std::time::{Duration, Instant};

/// Until when a call may wait: for ever, or until an instant of the monotonic clock.
pub type Timeout = Option<Instant>;

/// What is left of a time-out as the kernel takes it; `None` for ever.
pub(crate) fn timespec(timeout: Timeout) -> Option<rustix::event::Timespec> {
    let left = timeout?.saturating_duration_since(Instant::now()).min(Duration::from_secs(1 << 31));
    // The bound above makes both conversions exact.
    Some(rustix::event::Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() })
}

/// Nanoseconds on the monotonic clock, which all processes of the system share.
#[must_use]
pub fn monotonic_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    // The clock starts at boot: never negative, and 64 bits last five centuries.
    now.tv_sec.unsigned_abs() * 1_000_000_000 + now.tv_nsec.unsigned_abs()
}

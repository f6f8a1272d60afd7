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

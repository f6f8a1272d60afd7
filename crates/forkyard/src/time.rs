//! Points in time to wait for: the only place where a duration becomes an absolute time.

use std::time::{Duration, Instant};

/// When a wait gives up: never, or at an instant of the monotonic clock.
///
/// Every blocking call has the forms `x` (never gives up), `x_timeout(Duration)` and `x_deadline(Instant)`.
/// A time-out so long that the clock cannot express its end means never.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Deadline(Option<Instant>);

impl Deadline {
    /// Waits for ever.
    pub(crate) const NEVER: Deadline = Deadline(None);

    /// Gives up once `timeout` has passed from now.
    #[must_use]
    pub(crate) fn after(timeout: Duration) -> Deadline {
        Deadline(Instant::now().checked_add(timeout))
    }

    /// As the kernel's calls take it.
    pub(crate) fn timeout(self) -> forkyard_sys::time::Timeout {
        self.0
    }

    /// What is left: `None` for ever, zero when it has passed.
    #[must_use]
    pub(crate) fn remaining(self) -> Option<Duration> {
        self.0.map(|at| at.saturating_duration_since(Instant::now()))
    }

    /// True when the time has come.
    #[must_use]
    pub(crate) fn has_passed(self) -> bool {
        self.0.is_some_and(|at| at <= Instant::now())
    }
}

impl From<Instant> for Deadline {
    fn from(at: Instant) -> Deadline {
        Deadline(Some(at))
    }
}

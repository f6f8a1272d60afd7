//! `alarm` and the interval timers.

use std::time::Duration;

use forkyard_sys::signal::timer as sys;

use super::{TimerKind, TimerState};

/// Has `SIGALRM` sent to this process once the time is over. There is one alarm: this one replaces the one
/// before, and what was left of that is returned (`None`: there was none, or it has rung).
///
/// `None` or zero only cancels. Without a handler `SIGALRM` ends the process. The alarm is exact to a
/// microsecond, is not inherited by children, and is kept by exec; it is the timer [`TimerKind::Real`].
///
/// ```
/// use std::time::Duration;
/// use forkyard::signal::alarm;
/// assert_eq!(alarm(Duration::from_secs(60)), None);
/// assert!(alarm(Duration::from_secs(10)).is_some_and(|left| left > Duration::from_secs(50)));
/// assert!(alarm(None).is_some_and(|left| left <= Duration::from_secs(10)));
/// ```
pub fn alarm(time: impl Into<Option<Duration>>) -> Option<Duration> {
    let left = time.into().unwrap_or_default();
    let before = sys::set(TimerKind::Real, TimerState { left, every: Duration::ZERO });
    (!before.left.is_zero()).then_some(before.left)
}

/// Sets an interval timer: its [signal](TimerKind::signal) is sent after `first`, and from then on every
/// `every`, or once only if that is zero. `first` zero cancels. Returns the state before.
#[doc(alias = "setitimer")]
pub fn set_timer(kind: TimerKind, first: Duration, every: Duration) -> TimerState {
    sys::set(kind, TimerState { left: first, every })
}

/// The state of an interval timer.
#[must_use]
#[doc(alias = "getitimer")]
pub fn get_timer(kind: TimerKind) -> TimerState {
    sys::get(kind)
}

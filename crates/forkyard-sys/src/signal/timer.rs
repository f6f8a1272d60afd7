//! Interval timers: setitimer(2), one of each kind per process.
//!
//! # Safety
//! The raw calls read and write local `itimerval` values.
#![allow(unsafe_code)]

use std::time::Duration;

use super::Signal;

/// The clock of an interval timer, and so the signal it sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TimerKind {
    /// Time that passes; sends `SIGALRM`. `alarm` sets the same timer.
    Real,
    /// CPU time of the process in user mode; sends `SIGVTALRM`.
    Virtual,
    /// CPU time of the process, in the kernel too; sends `SIGPROF`.
    Prof,
}

impl TimerKind {
    /// The signal that the timer sends.
    #[must_use]
    pub const fn signal(self) -> Signal {
        match self {
            TimerKind::Real => Signal::ALRM,
            TimerKind::Virtual => Signal::VTALRM,
            TimerKind::Prof => Signal::PROF,
        }
    }

    const fn raw(self) -> libc::c_int {
        match self {
            TimerKind::Real => 0,
            TimerKind::Virtual => 1,
            TimerKind::Prof => 2,
        }
    }
}

/// The state of a timer: zero `left` when it is not set, zero `every` when it fires once only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TimerState {
    /// Time until the next signal.
    pub left: Duration,
    /// Time between two signals from then on.
    pub every: Duration,
}

/// Sets a timer and returns the state it had. A time above zero never becomes zero by rounding.
#[doc(alias = "setitimer")]
pub fn set(kind: TimerKind, state: TimerState) -> TimerState {
    let new = libc::itimerval { it_value: to_raw(state.left), it_interval: to_raw(state.every) };
    let mut old = zero();
    // SAFETY: both are on the stack. Fails for microseconds out of range only, which `to_raw` never makes.
    unsafe { libc::syscall(libc::SYS_setitimer, kind.raw(), &raw const new, &raw mut old) };
    from_raw(&old)
}

/// Reads the state of a timer.
#[must_use]
#[doc(alias = "getitimer")]
pub fn get(kind: TimerKind) -> TimerState {
    let mut state = zero();
    // SAFETY: it is on the stack.
    unsafe { libc::syscall(libc::SYS_getitimer, kind.raw(), &raw mut state) };
    from_raw(&state)
}

const fn zero() -> libc::itimerval {
    let none = libc::timeval { tv_sec: 0, tv_usec: 0 };
    libc::itimerval { it_value: none, it_interval: none }
}

/// Rounds up to microseconds; cuts off at some 68 years.
fn to_raw(time: Duration) -> libc::timeval {
    let micros = time.as_nanos().div_ceil(1000).min(1_000_000 << 31);
    let micros = i64::try_from(micros).unwrap_or(i64::MAX);
    libc::timeval { tv_sec: micros / 1_000_000, tv_usec: micros % 1_000_000 }
}

fn from_raw(raw: &libc::itimerval) -> TimerState {
    let time = |t: libc::timeval| {
        Duration::from_secs(t.tv_sec.cast_unsigned()) + Duration::from_micros(t.tv_usec.cast_unsigned())
    };
    TimerState { left: time(raw.it_value), every: time(raw.it_interval) }
}

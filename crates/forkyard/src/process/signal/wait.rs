//! Waiting for a blocked signal, which is then taken and not handled.

use std::time::{Duration, Instant};

use forkyard_sys::signal::set as sys;

use super::{SignalInfo, SignalSet};
use crate::error::Kind;
use crate::{Error, Result};

/// Waits until one of the signals is pending, and takes it: of several the one with the lowest number.
///
/// Nothing else happens to a signal that is taken here; handlers of it are not called. Signals that are not in
/// the set are handled meanwhile, and the wait goes on.
///
/// # Errors
/// A signal of the set is not [blocked](super::block) in the calling thread. (It has to be blocked in all
/// threads, or one of the others may be given the signal, to act on it.)
#[doc(alias = "sigwait")]
#[doc(alias = "sigwaitinfo")]
pub fn wait(signals: impl Into<SignalSet>) -> Result<SignalInfo> {
    until(signals.into(), None)?.ok_or_else(timed_out)
}

/// [`wait`] for at most this time.
///
/// # Errors
/// As [`wait`]; and [`is_timeout`](Error::is_timeout) when none came in time.
#[doc(alias = "sigtimedwait")]
pub fn wait_timeout(signals: impl Into<SignalSet>, timeout: Duration) -> Result<SignalInfo> {
    until(signals.into(), Instant::now().checked_add(timeout))?.ok_or_else(timed_out)
}

/// [`wait`] until this time at most.
///
/// # Errors
/// As [`wait`]; and [`is_timeout`](Error::is_timeout) when none came in time.
pub fn wait_deadline(signals: impl Into<SignalSet>, deadline: Instant) -> Result<SignalInfo> {
    until(signals.into(), Some(deadline))?.ok_or_else(timed_out)
}

/// Takes one of the signals if it is pending; does not wait.
///
/// # Errors
/// As [`wait`].
pub fn try_wait(signals: impl Into<SignalSet>) -> Result<Option<SignalInfo>> {
    until(signals.into(), Some(Instant::now()))
}

const WHAT: &str = "wait for signal";

fn until(signals: SignalSet, deadline: Option<Instant>) -> Result<Option<SignalInfo>> {
    let mask = sys::mask();
    if let Some(open) = signals.iter().find(|signal| !mask.contains(*signal)) {
        let why = format!("{open} is not blocked in this thread, so it would be acted on between two waits");
        return Err(Error::new(WHAT, Kind::Invalid(why)));
    }
    sys::wait(signals, deadline).map_err(|errno| Error::os(WHAT, errno))
}

fn timed_out() -> Error {
    Error::new(WHAT, Kind::TimedOut)
}

//! `pause`: waiting until a signal has been handled.
//!
//! Every handled signal has a number, and every thread remembers up to which it has seen them. So what comes
//! between a thread's check and its `pause` is not missed, and two threads in `pause` both see a signal.

use std::cell::Cell;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use super::SignalInfo;
use super::dispatch::on_dispatcher;
use super::registry::{CHANGED, State, lock};
use crate::error::Kind;
use crate::time::Deadline;
use crate::{Error, Result};

/// How many handled signals are kept for threads that have not seen them.
const KEPT: usize = 1024;

const WHAT: &str = "pause";

thread_local! {
    /// How many signals this thread has seen; `None` before its first `handle` or `pause`.
    static SEEN: Cell<Option<u64>> = const { Cell::new(None) };
}

/// A thread that registers a closure sees the signals from then on.
pub(super) fn begin(state: &State) {
    if SEEN.get().is_none() {
        SEEN.set(Some(state.handled));
    }
}

/// Notes that the closures of a signal have run.
pub(super) fn note(state: &mut State, info: &SignalInfo) {
    if state.recent.len() == KEPT {
        state.recent.pop_front();
    }
    state.recent.push_back(*info);
    state.handled += 1;
}

/// The oldest signal kept that this thread has not seen; it has then.
fn next(state: &State) -> Option<SignalInfo> {
    let unseen = state.handled - SEEN.get().unwrap_or(0);
    let index = state.recent.len().checked_sub(usize::try_from(unseen).unwrap_or(KEPT).min(KEPT))?;
    let info = state.recent.get(index)?;
    SEEN.set(Some(state.handled - (state.recent.len() - index - 1) as u64));
    Some(*info)
}

/// Waits until a signal has been handled, and tells which.
///
/// "Handled" means that the closures registered for it ([`handle`](super::handle)) have returned. Each thread
/// gets each signal once, in order, from its first registration or `pause` on, the last 1024 of them; so the
/// usual `while !done { pause()?; }` cannot sleep through the signal that sets `done`, whenever it arrives. (The
/// first `pause` of a thread that has registered nothing may return at once with an older signal.)
///
/// pause(2) differs: it waits for a signal that interrupts the calling thread, which in a program with threads
/// may be any other; it also returns for handlers that are not this library's; and it misses what came just
/// before. As there, a signal whose action is the default one acts as ever.
///
/// # Errors
/// It was called by a closure, whose own return it would wait for.
pub fn pause() -> Result<SignalInfo> {
    until(Deadline::NEVER)?.ok_or_else(|| Error::new(WHAT, Kind::TimedOut))
}

/// [`pause`] for at most this time.
///
/// # Errors
/// As [`pause`]; and [`is_timeout`](Error::is_timeout) when no signal was handled in time.
pub fn pause_timeout(timeout: Duration) -> Result<SignalInfo> {
    until(Deadline::after(timeout))?.ok_or_else(|| Error::new(WHAT, Kind::TimedOut))
}

/// [`pause`] until this time at most.
///
/// # Errors
/// As [`pause`]; and [`is_timeout`](Error::is_timeout) when no signal was handled in time.
pub fn pause_deadline(deadline: Instant) -> Result<SignalInfo> {
    until(Deadline::from(deadline))?.ok_or_else(|| Error::new(WHAT, Kind::TimedOut))
}

/// The next handled signal that this thread has not seen, if there is one; does not wait.
///
/// # Errors
/// As [`pause`].
pub fn try_pause() -> Result<Option<SignalInfo>> {
    until(Deadline::from(Instant::now()))
}

fn until(deadline: Deadline) -> Result<Option<SignalInfo>> {
    let mut state = lock();
    if on_dispatcher() {
        return Err(Error::new(WHAT, Kind::JoinSelf));
    }
    if state.has_closures() {
        state.ensure_dispatcher()?;
    }
    loop {
        if let Some(info) = next(&state) {
            return Ok(Some(info));
        }
        state = match deadline.remaining() {
            None => CHANGED.wait(state).unwrap_or_else(PoisonError::into_inner),
            Some(Duration::ZERO) => return Ok(None),
            Some(left) => CHANGED.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0,
        };
    }
}

//! What the caller of a wait is told that ended without what it was for.

use forkyard_sys::Errno;

use super::base::Patience;
use super::word::End;
use crate::error::{Error, Kind, Result};

/// The result of a wait, with `what` was tried.
pub(super) fn told<T>(
    result: std::result::Result<T, End>,
    patience: &mut Patience,
    what: impl FnOnce() -> String,
) -> Result<T> {
    result.map_err(|end| failed(end, patience, what()))
}

/// The error of a wait that ended so.
#[cold]
pub(super) fn failed(end: End, patience: &mut Patience, what: String) -> Error {
    match (end, patience.deadlock.take()) {
        (End::Interrupted, _) => Error::os(what, Errno::INTR),
        (End::GaveUp, Some(deadlock)) => Error::new(what, Kind::Deadlock(deadlock.to_string())),
        (End::TimedOut | End::GaveUp, _) => Error::new(what, Kind::TimedOut),
    }
}

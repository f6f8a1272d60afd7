//! Why a message was not put, or none was got.

use std::fmt;

use forkyard_sys::Errno;

use super::core::Refused;
use crate::error::{Error, Kind};

/// Why a message is not in the queue; with the message.
#[non_exhaustive]
pub enum PutError<T> {
    /// There is no room, and the call does not wait.
    Full(T),
    /// The queue was closed.
    Closed(T),
    /// There was no room for as long as the call waits.
    TimedOut(T),
    /// The message cannot be encoded, or there is no memory for it.
    Failed(T, Error),
}

/// A wait ended because a signal handler has something to do.
#[cold]
fn interrupted(what: &str) -> Error {
    Error::os(what, Errno::INTR)
}

impl<T> PutError<T> {
    /// Why this message was refused.
    #[cold]
    pub(super) fn of(value: T, refused: Refused) -> PutError<T> {
        match refused {
            Refused::NotNow => PutError::Full(value),
            Refused::Closed => PutError::Closed(value),
            Refused::TimedOut => PutError::TimedOut(value),
            Refused::Interrupted => PutError::Failed(value, interrupted("put a message into a queue")),
            Refused::Failed(error) => PutError::Failed(value, error),
        }
    }

    /// The message.
    pub fn into_inner(self) -> T {
        match self {
            PutError::Full(value)
            | PutError::Closed(value)
            | PutError::TimedOut(value)
            | PutError::Failed(value, _) => value,
        }
    }

    /// True if there was no room for it.
    #[must_use]
    pub fn is_full(&self) -> bool {
        matches!(self, PutError::Full(_))
    }

    /// True if the queue was closed.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        matches!(self, PutError::Closed(_))
    }

    /// True if the time was up.
    #[must_use]
    pub fn is_timeout(&self) -> bool {
        matches!(self, PutError::TimedOut(_))
    }
}

impl<T> fmt::Display for PutError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("put a message into a queue: ")?;
        match self {
            PutError::Full(_) => f.write_str("it is full"),
            PutError::Closed(_) => f.write_str("it was closed"),
            PutError::TimedOut(_) => f.write_str("timed out"),
            PutError::Failed(_, error) => error.fmt(f),
        }
    }
}

impl<T> fmt::Debug for PutError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PutError({self})")
    }
}

impl<T> std::error::Error for PutError<T> {}

impl<T> From<PutError<T>> for Error {
    fn from(error: PutError<T>) -> Error {
        let what = "put a message into a queue";
        match error {
            PutError::Full(_) => Error::new(what, Kind::Full("it is full".to_owned())),
            PutError::Closed(_) => Error::new(what, Kind::Closed),
            PutError::TimedOut(_) => Error::new(what, Kind::TimedOut),
            PutError::Failed(_, error) => error,
        }
    }
}

/// Why there is no message.
#[derive(Debug)]
#[non_exhaustive]
pub enum GetError {
    /// There is none now, and the call does not wait.
    Empty,
    /// The queue was closed, and there will be none.
    Closed,
    /// There was none for as long as the call waits.
    TimedOut,
    /// What was got is no message of this type; or this process cannot use the queue.
    Failed(Error),
}

impl GetError {
    /// True if there is no message now.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        matches!(self, GetError::Empty)
    }

    /// True if there will be no message any more.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        matches!(self, GetError::Closed)
    }

    /// True if the time was up.
    #[must_use]
    pub fn is_timeout(&self) -> bool {
        matches!(self, GetError::TimedOut)
    }
}

impl fmt::Display for GetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("get a message from a queue: ")?;
        match self {
            GetError::Empty => f.write_str("it is empty"),
            GetError::Closed => f.write_str("it is empty and was closed"),
            GetError::TimedOut => f.write_str("timed out"),
            GetError::Failed(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for GetError {}

impl From<Refused> for GetError {
    fn from(refused: Refused) -> GetError {
        match refused {
            Refused::NotNow => GetError::Empty,
            Refused::Closed => GetError::Closed,
            Refused::TimedOut => GetError::TimedOut,
            Refused::Interrupted => GetError::Failed(interrupted("get a message from a queue")),
            Refused::Failed(error) => GetError::Failed(error),
        }
    }
}

impl From<GetError> for Error {
    fn from(error: GetError) -> Error {
        let what = "get a message from a queue";
        match error {
            GetError::Empty => Error::new(what, Kind::Empty),
            GetError::Closed => Error::new(what, Kind::Closed),
            GetError::TimedOut => Error::new(what, Kind::TimedOut),
            GetError::Failed(error) => error,
        }
    }
}

//! What the locks return instead of a plain guard.

use std::fmt;

use super::deadlock::Deadlock;
use crate::error::{Error, Kind};
use crate::shm;

/// Why a lock was not acquired in the ordinary way.
///
/// `G` is a guard: dropped with the error, it releases a lock that was acquired all the same.
#[non_exhaustive]
pub enum LockError<G> {
    /// The lock **is** acquired, and its last owner died while it had it: what the lock protects may be half changed.
    OwnerDied(OwnerDied<G>),
    /// Somebody has the lock, and the call was not to wait.
    WouldBlock,
    /// Somebody had the lock until the time was up.
    TimedOut,
    /// A signal handler ran, and the call was to end then.
    Interrupted,
    /// The lock's owner waits, directly or by way of others, for the caller.
    Deadlock(Deadlock),
    /// This process cannot take part in its family's shared memory.
    Failed(Error),
}

impl<G> LockError<G> {
    /// The guard, for callers that can go on although the last owner died: `mutex.lock().or_else(LockError::recovered)`.
    ///
    /// # Errors
    /// All others.
    pub fn recovered(self) -> Result<G, LockError<G>> {
        match self {
            LockError::OwnerDied(died) => Ok(died.into_inner()),
            error => Err(error),
        }
    }

    pub(super) fn map<H>(self, guard: impl FnOnce(G) -> H) -> LockError<H> {
        match self {
            LockError::OwnerDied(died) => {
                LockError::OwnerDied(OwnerDied { guard: guard(died.guard), who: died.who })
            }
            LockError::WouldBlock => LockError::WouldBlock,
            LockError::TimedOut => LockError::TimedOut,
            LockError::Interrupted => LockError::Interrupted,
            LockError::Deadlock(deadlock) => LockError::Deadlock(deadlock),
            LockError::Failed(error) => LockError::Failed(error),
        }
    }
}

impl<G> fmt::Display for LockError<G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LockError::OwnerDied(died) => fmt::Display::fmt(died, f),
            LockError::WouldBlock => f.write_str("somebody else has the lock"),
            LockError::TimedOut => f.write_str("somebody else had the lock until the time was up"),
            LockError::Interrupted => f.write_str("a signal handler ran"),
            LockError::Deadlock(deadlock) => fmt::Display::fmt(deadlock, f),
            LockError::Failed(error) => fmt::Display::fmt(error, f),
        }
    }
}

impl<G> fmt::Debug for LockError<G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LockError({self})")
    }
}

impl<G> std::error::Error for LockError<G> {}

impl<G> From<LockError<G>> for Error {
    /// An [`OwnerDied`] lets go of the lock.
    fn from(error: LockError<G>) -> Error {
        let kind = match error {
            LockError::OwnerDied(died) => Kind::OwnerDied(died.to_string()),
            LockError::WouldBlock => Kind::WouldBlock,
            LockError::TimedOut => Kind::TimedOut,
            LockError::Interrupted => Kind::Os { errno: forkyard_sys::Errno::INTR, hint: None },
            LockError::Deadlock(deadlock) => Kind::Deadlock(deadlock.to_string()),
            LockError::Failed(error) => return error,
        };
        Error::new("acquire a lock", kind)
    }
}

/// A lock whose last owner died while it had it. The lock is the caller's now.
///
/// What the lock protects may be half changed: look at it, or put it into a state that is known, and go on with
/// [`into_inner`](OwnerDied::into_inner). Dropped, it releases the lock, and nobody else is told.
pub struct OwnerDied<G> {
    guard: G,
    who: Option<Box<shm::Who>>,
}

impl<G> OwnerDied<G> {
    pub(super) fn new(guard: G, dead: Option<shm::Id>) -> OwnerDied<G> {
        OwnerDied { guard, who: dead.and_then(shm::who).map(Box::new) }
    }

    /// The guard.
    pub fn into_inner(self) -> G {
        self.guard
    }

    /// The guard, to look at.
    pub fn get_ref(&self) -> &G {
        &self.guard
    }

    /// The guard, to repair what it protects.
    pub fn get_mut(&mut self) -> &mut G {
        &mut self.guard
    }

    /// The name of the process that died, as long as nobody has cleaned up after it.
    pub fn name(&self) -> Option<&str> {
        self.who.as_ref().map(|who| who.name.as_str())
    }

    /// Its pid.
    pub fn pid(&self) -> Option<u32> {
        self.who.as_ref().map(|who| who.pid)
    }
}

impl<G> fmt::Display for OwnerDied<G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the lock's last owner")?;
        if let Some(who) = &self.who {
            write!(f, ", {:?} (pid {}),", who.name, who.pid)?;
        }
        f.write_str(" died while it had it; what it protects may be half changed")
    }
}

impl<G> fmt::Debug for OwnerDied<G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OwnerDied({self})")
    }
}

impl<G> std::error::Error for OwnerDied<G> {}

//! `RLock`: a lock that its owner may acquire again.
//!
//! `depth` is written by the owner only: how often it has acquired the lock, less one. Killed here: raw.rs; the next owner begins at
//! depth 0, whatever the dead one left.
//!
//! # Safety
//! The payload is made of atomics.
#![allow(unsafe_code)]

use std::fmt;
use std::marker::PhantomData;
use std::panic::Location;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::base::Base;
use super::error::LockError;
use super::owned::HasLock;
use crate::error::{Error, Kind, Result};
use crate::primitive::{AtomicU32, Ordering};
use crate::shm::{self, Payload, Shared};
use crate::time::Deadline;

/// The shared part.
#[repr(C)]
pub(super) struct State {
    pub(super) base: Base,
    depth: AtomicU32,
    unused: AtomicU32,
}

// SAFETY: atomics only, `repr(C)`, all-zero is a free lock.
unsafe impl Payload for State {
    const KIND: shm::Kind = shm::Kind::RLock;
}

impl HasLock for State {
    fn base(&self) -> &Base {
        &self.base
    }
}

/// A lock without data that the thread that has it may acquire again, and that only this thread may release, as often as it
/// has acquired it.
///
/// It is POSIX's recursive mutex, and Python's `multiprocessing.RLock`. The value is a handle: it travels among the arguments of a task, and
/// each copy is of the same lock, which is freed with its last handle in any process.
///
/// **Fairness**: a newcomer may overtake those who sleep; but whoever has waited for a millisecond goes before all newcomers.
///
/// **Death**: if the owner dies, the next one gets the lock, once, and is told with [`LockError::OwnerDied`].
///
/// **Deadlock**: who waits for a second looks whether it waits for itself by way of others; one of such a circle gets
/// [`LockError::Deadlock`].
///
/// ```
/// # use forkyard::sync::RLock;
/// let lock = RLock::new()?;
/// lock.acquire()?;
/// lock.acquire()?;
/// lock.release()?;
/// assert!(lock.is_held());
/// lock.release()?;
/// assert!(lock.release().unwrap_err().is_not_owner());
/// # Ok::<(), forkyard::Error>(())
/// ```
#[doc(alias = "PTHREAD_MUTEX_RECURSIVE")]
#[derive(Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RLock {
    state: Shared<State>,
}

/// What acquiring an [`RLock`] gives: nothing, or the reason why not. An [`OwnerDied`](super::OwnerDied) is a guard.
pub type RLockResult<'a> = std::result::Result<(), LockError<RLockGuard<'a>>>;

impl RLock {
    /// Makes a lock, which nobody has.
    ///
    /// # Errors
    /// The family's shared memory is full, or has too many members.
    #[track_caller]
    pub fn new() -> Result<RLock> {
        Ok(RLock { state: Shared::new(0, Location::caller(), |_, _| {})? })
    }

    /// The same, made at a place that its caller knows.
    ///
    /// # Errors
    /// As [`new`](RLock::new).
    #[doc(hidden)]
    pub fn new_at(made_at: &str) -> Result<RLock> {
        Ok(RLock { state: Shared::new_at(0, made_at, |_, _| {})? })
    }

    /// Acquires the lock if this thread has it, or if it is free, nobody else wants it, and there is nothing to be told.
    #[doc(hidden)]
    #[must_use]
    #[inline]
    pub fn acquire_at_once(&self) -> bool {
        self.at_once().unwrap_or(false)
    }

    /// True if somebody who lives has it, at this moment.
    #[doc(hidden)]
    #[must_use]
    pub fn is_taken(&self) -> bool {
        self.state.base.is_taken()
    }

    /// Releases the lock once, if the calling thread has it, and nobody waits for it.
    #[doc(hidden)]
    #[must_use]
    #[inline]
    pub fn release_at_once(&self) -> bool {
        let Some(owner) = self.state.base.owned() else { return false };
        match self.state.depth.load(Ordering::Relaxed).checked_sub(1) {
            Some(depth) => {
                self.state.depth.store(depth, Ordering::Relaxed);
                true
            }
            None => self.state.base.raw.release_at_once(owner.into()),
        }
    }

    /// How often a thread of this process has acquired it; 0 if none has it.
    #[doc(hidden)]
    #[must_use]
    pub fn depth(&self) -> u32 {
        let ours = shm::me().is_ok_and(|me| self.state.base.raw.owner() == Some(me.id));
        if ours { self.state.depth.load(Ordering::Relaxed).saturating_add(1) } else { 0 }
    }

    /// The same lock, for which nobody looks for deadlocks. To be called before others have it.
    #[must_use]
    pub fn without_deadlock_report(self) -> RLock {
        self.state.base.silence();
        self
    }

    /// Acquires the lock, waiting for it; at once if this thread has it.
    ///
    /// # Errors
    /// [`OwnerDied`](LockError::OwnerDied), with the lock acquired, and released if that is dropped; [`Deadlock`](LockError::Deadlock); this thread
    /// has acquired it 2³² times; or this process cannot take part in shared memory.
    #[inline]
    pub fn acquire(&self) -> RLockResult<'_> {
        if self.at_once()? { Ok(()) } else { self.wait(Deadline::NEVER) }
    }

    /// Acquires the lock if it is free, or this thread's.
    ///
    /// # Errors
    /// [`WouldBlock`](LockError::WouldBlock), or as [`acquire`](RLock::acquire).
    #[inline]
    pub fn try_acquire(&self) -> RLockResult<'_> {
        if self.at_once()? { Ok(()) } else { self.first(self.state.base.try_acquire()) }
    }

    /// Acquires the lock, waiting for so long at most.
    ///
    /// # Errors
    /// [`TimedOut`](LockError::TimedOut), or as [`acquire`](RLock::acquire).
    #[inline]
    pub fn acquire_timeout(&self, timeout: Duration) -> RLockResult<'_> {
        if self.at_once()? { Ok(()) } else { self.wait(Deadline::after(timeout)) }
    }

    /// Acquires the lock, waiting until then at most.
    ///
    /// # Errors
    /// [`TimedOut`](LockError::TimedOut), or as [`acquire`](RLock::acquire).
    #[inline]
    pub fn acquire_deadline(&self, deadline: Instant) -> RLockResult<'_> {
        if self.at_once()? { Ok(()) } else { self.wait(deadline.into()) }
    }

    /// As [`acquire_deadline`](RLock::acquire_deadline), and ended by a signal handler with [`Interrupted`](LockError::Interrupted).
    #[doc(hidden)]
    pub fn acquire_interruptible(&self, deadline: Option<Instant>) -> RLockResult<'_> {
        if self.at_once()? {
            return Ok(());
        }
        self.first(self.state.base.acquire_interruptible(self.state.offset(), deadline))
    }

    /// Acquires the lock if this thread has it, or nobody wants it.
    #[inline]
    fn at_once(&self) -> std::result::Result<bool, LockError<RLockGuard<'_>>> {
        if self.state.base.acquire_at_once() {
            self.state.depth.store(0, Ordering::Relaxed);
            return Ok(true);
        }
        if self.state.base.owned().is_none() {
            return Ok(false);
        }
        match self.state.depth.load(Ordering::Relaxed).checked_add(1) {
            Some(depth) => {
                self.state.depth.store(depth, Ordering::Relaxed);
                Ok(true)
            }
            None => Err(LockError::Failed(too_deep())),
        }
    }

    #[cold]
    fn wait(&self, deadline: Deadline) -> RLockResult<'_> {
        self.first(self.state.base.acquire(self.state.offset(), deadline.timeout()))
    }

    fn first(&self, acquired: std::result::Result<(), LockError<()>>) -> RLockResult<'_> {
        if matches!(acquired, Ok(()) | Err(LockError::OwnerDied(_))) {
            self.state.depth.store(0, Ordering::Relaxed);
        }
        acquired.map_err(|error| error.map(|()| RLockGuard::of(self)))
    }

    /// Releases the lock once.
    ///
    /// # Errors
    /// [`is_not_owner`](Error::is_not_owner): this thread does not have it.
    #[inline]
    pub fn release(&self) -> Result<()> {
        let Some(owner) = self.state.base.owned() else { return Err(self.not_owner()) };
        match self.state.depth.load(Ordering::Relaxed).checked_sub(1) {
            Some(depth) => self.state.depth.store(depth, Ordering::Relaxed),
            None => self.state.base.release_own(Some(owner)),
        }
        Ok(())
    }

    #[cold]
    fn not_owner(&self) -> Error {
        let why = match self.state.base.raw.owner().map(shm::who) {
            None => "nobody has it".to_owned(),
            Some(None) => "another process has it".to_owned(),
            Some(Some(who)) => format!("a thread of {:?} (pid {}) has it, not this one", who.name, who.pid),
        };
        Error::new(format!("release the {self:?}"), Kind::NotOwner(why))
    }

    /// True if the calling thread has it.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.state.base.owned().is_some()
    }

    /// True if somebody has it, at this moment.
    #[must_use]
    pub fn is_locked(&self) -> bool {
        self.state.base.raw.owner().is_some()
    }

    /// [`acquire`](RLock::acquire), with a guard that releases the lock once when it is dropped.
    ///
    /// # Errors
    /// As [`acquire`](RLock::acquire).
    #[inline]
    pub fn lock(&self) -> std::result::Result<RLockGuard<'_>, LockError<RLockGuard<'_>>> {
        self.acquire().map(|()| RLockGuard::of(self))
    }

    /// [`try_acquire`](RLock::try_acquire), with a guard.
    ///
    /// # Errors
    /// As [`try_acquire`](RLock::try_acquire).
    #[inline]
    pub fn try_lock(&self) -> std::result::Result<RLockGuard<'_>, LockError<RLockGuard<'_>>> {
        self.try_acquire().map(|()| RLockGuard::of(self))
    }

    /// [`acquire_timeout`](RLock::acquire_timeout), with a guard.
    ///
    /// # Errors
    /// As [`acquire_timeout`](RLock::acquire_timeout).
    pub fn lock_timeout(
        &self,
        timeout: Duration,
    ) -> std::result::Result<RLockGuard<'_>, LockError<RLockGuard<'_>>> {
        self.acquire_timeout(timeout).map(|()| RLockGuard::of(self))
    }

    /// [`acquire_deadline`](RLock::acquire_deadline), with a guard.
    ///
    /// # Errors
    /// As [`acquire_deadline`](RLock::acquire_deadline).
    pub fn lock_deadline(
        &self,
        deadline: Instant,
    ) -> std::result::Result<RLockGuard<'_>, LockError<RLockGuard<'_>>> {
        self.acquire_deadline(deadline).map(|()| RLockGuard::of(self))
    }

    /// Releases the lock whole, for a wait that acquires it again; how deep it was.
    pub(super) fn release_all(&self) -> Result<u32> {
        let Some(owner) = self.state.base.owned() else { return Err(self.not_owner()) };
        let depth = self.state.depth.swap(0, Ordering::Relaxed);
        self.state.base.release_own(Some(owner));
        Ok(depth)
    }

    /// Acquires the lock again, as deep as it was.
    pub(super) fn take_again(&self, depth: u32) -> std::result::Result<(), LockError<()>> {
        let base = &self.state.base;
        let acquired = if base.acquire_at_once() { Ok(()) } else { base.acquire(self.state.offset(), None) };
        if matches!(acquired, Ok(()) | Err(LockError::OwnerDied(_))) {
            self.state.depth.store(depth, Ordering::Relaxed);
        }
        acquired
    }
}

#[cold]
fn too_deep() -> Error {
    Error::new("acquire a lock", Kind::Invalid("this thread has acquired it too often".to_owned()))
}

impl fmt::Debug for RLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.state.fmt(f)
    }
}

/// Releases an [`RLock`] once when it is dropped.
#[must_use = "the lock is released when its guard is dropped"]
pub struct RLockGuard<'a> {
    lock: &'a RLock,
    /// It says that this thread has the lock.
    thread: PhantomData<*const ()>,
}

impl<'a> RLockGuard<'a> {
    #[inline]
    fn of(lock: &'a RLock) -> RLockGuard<'a> {
        RLockGuard { lock, thread: PhantomData }
    }

    /// The lock, for a condition.
    pub(super) fn lock(&self) -> &RLock {
        self.lock
    }

    /// Leaves the lock acquired, to be released by hand.
    pub fn keep(self) {
        let _ = std::mem::ManuallyDrop::new(self);
    }
}

impl Drop for RLockGuard<'_> {
    #[inline]
    fn drop(&mut self) {
        // In a fork it is its parent's.
        let _ = self.lock.release();
    }
}

impl fmt::Debug for RLockGuard<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}, acquired", self.lock)
    }
}

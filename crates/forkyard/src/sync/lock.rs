//! `Lock`: acquired by one, released by anybody.
//!
//! Killed here: raw.rs. An owner that dies leaves the lock to the next one, who is told.
//!
//! # Safety
//! The payload is made of atomics.
#![allow(unsafe_code)]

use std::fmt;
use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::panic::Location;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::base::Base;
use super::error::LockError;
use super::owned::HasLock;
use super::raw::{Holder, Released};
use crate::error::{Error, Kind, Result};
use crate::shm::{self, Payload, Shared};
use crate::time::Deadline;

/// The shared part.
#[repr(transparent)]
pub(super) struct State(pub(super) Base);

// SAFETY: atomics only, `repr(C)`, all-zero is a free lock.
unsafe impl Payload for State {
    const KIND: shm::Kind = shm::Kind::Lock;
}

impl HasLock for State {
    fn base(&self) -> &Base {
        &self.0
    }
}

/// A lock without data, which may be released by another process or thread than the one that acquired it.
///
/// It is POSIX's binary semaphore with an owner, and Python's `multiprocessing.Lock`: not recursive, so who acquires it twice waits
/// for somebody else to release it. For data there is [`Mutex`](super::Mutex), for recursion [`RLock`](super::RLock).
///
/// The value is a handle: it travels among the arguments of a task, and each copy is of the same lock, which is freed with its last
/// handle in any process.
///
/// **Fairness**: a newcomer may overtake those who sleep; but whoever has waited for a millisecond goes before all newcomers.
///
/// **Death**: if the owner dies, the next one gets the lock, and is told with [`LockError::OwnerDied`]. The owner is the process that acquired it, until
/// somebody releases it.
///
/// **Deadlock**: who waits for a second looks whether it waits for itself by way of others; one of such a circle gets
/// [`LockError::Deadlock`].
///
/// ```
/// # use forkyard::sync::Lock;
/// let lock = Lock::new()?;
/// {
///     let _held = lock.lock()?;
///     assert!(lock.try_lock().is_err());
/// }
/// lock.acquire()?;
/// lock.release()?;
/// # Ok::<(), forkyard::Error>(())
/// ```
#[doc(alias = "pthread_mutex_t")]
#[derive(Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Lock {
    state: Shared<State>,
}

/// What acquiring a [`Lock`] gives: nothing, or the reason why not. An [`OwnerDied`](super::OwnerDied) is a guard.
pub type LockResult<'a> = std::result::Result<(), LockError<LockGuard<'a>>>;

impl Lock {
    /// Makes a lock, which nobody has.
    ///
    /// # Errors
    /// The family's shared memory is full, or has too many members.
    #[track_caller]
    pub fn new() -> Result<Lock> {
        Ok(Lock { state: Shared::new(0, Location::caller(), |_, _| {})? })
    }

    /// The same, made at a place that its caller knows.
    ///
    /// # Errors
    /// As [`new`](Lock::new).
    #[doc(hidden)]
    pub fn new_at(made_at: &str) -> Result<Lock> {
        Ok(Lock { state: Shared::new_at(0, made_at, |_, _| {})? })
    }

    /// The same lock, for which nobody looks for deadlocks: for one that is used to signal, and released by others than its owners. To be
    /// called before others have it.
    #[must_use]
    pub fn without_deadlock_report(self) -> Lock {
        self.state.0.silence();
        self
    }

    /// Acquires the lock, waiting for it.
    ///
    /// # Errors
    /// [`OwnerDied`](LockError::OwnerDied), with the lock acquired, and released if that is dropped; [`Deadlock`](LockError::Deadlock); or
    /// this process cannot take part in shared memory.
    #[inline]
    #[doc(alias = "pthread_mutex_lock")]
    pub fn acquire(&self) -> LockResult<'_> {
        if self.state.0.acquire_at_once() {
            return Ok(());
        }
        self.wait(Deadline::NEVER)
    }

    /// Acquires the lock if it is free.
    ///
    /// # Errors
    /// [`WouldBlock`](LockError::WouldBlock), or as [`acquire`](Lock::acquire).
    #[inline]
    #[doc(alias = "pthread_mutex_trylock")]
    pub fn try_acquire(&self) -> LockResult<'_> {
        if self.state.0.acquire_at_once() {
            return Ok(());
        }
        self.state.0.try_acquire().map_err(|error| error.map(|()| LockGuard::of(self)))
    }

    /// Acquires the lock, waiting for so long at most.
    ///
    /// # Errors
    /// [`TimedOut`](LockError::TimedOut), or as [`acquire`](Lock::acquire).
    #[inline]
    #[doc(alias = "pthread_mutex_timedlock")]
    pub fn acquire_timeout(&self, timeout: Duration) -> LockResult<'_> {
        if self.state.0.acquire_at_once() {
            return Ok(());
        }
        self.wait(Deadline::after(timeout))
    }

    /// Acquires the lock, waiting until then at most.
    ///
    /// # Errors
    /// [`TimedOut`](LockError::TimedOut), or as [`acquire`](Lock::acquire).
    #[inline]
    pub fn acquire_deadline(&self, deadline: Instant) -> LockResult<'_> {
        if self.state.0.acquire_at_once() {
            return Ok(());
        }
        self.wait(deadline.into())
    }

    /// The lock, for a condition.
    pub(super) fn base(&self) -> (&Base, u64) {
        (&self.state.0, self.state.offset())
    }

    #[cold]
    fn wait(&self, deadline: Deadline) -> LockResult<'_> {
        let acquired = self.state.0.acquire(self.state.offset(), deadline.timeout());
        acquired.map_err(|error| error.map(|()| LockGuard::of(self)))
    }

    /// As [`acquire_deadline`](Lock::acquire_deadline), and ended by a signal handler with [`Interrupted`](LockError::Interrupted).
    #[doc(hidden)]
    pub fn acquire_interruptible(&self, deadline: Option<Instant>) -> LockResult<'_> {
        let acquired = self.state.0.acquire_interruptible(self.state.offset(), deadline);
        acquired.map_err(|error| error.map(|()| LockGuard::of(self)))
    }

    /// Releases the lock, whoever acquired it. Of two that do so at the same time both may be told that it was acquired.
    ///
    /// # Errors
    /// Nobody has it.
    #[inline]
    #[doc(alias = "pthread_mutex_unlock")]
    pub fn release(&self) -> Result<()> {
        let Some(me) = shm::known() else { return self.join_and_release() };
        self.released(me.into())
    }

    #[cold]
    fn join_and_release(&self) -> Result<()> {
        self.released(shm::me()?.into())
    }

    #[inline]
    fn released(&self, me: Holder) -> Result<()> {
        match self.state.0.raw.release_any(me) {
            Released::Done => Ok(()),
            _ => Err(not_locked()),
        }
    }

    /// Releases the lock if the calling thread has it, and nobody waits for it.
    #[doc(hidden)]
    #[must_use]
    #[inline]
    pub fn release_at_once(&self) -> bool {
        shm::known().is_some_and(|me| self.state.0.raw.release_at_once(me.into()))
    }

    /// True if somebody has it, at this moment.
    #[must_use]
    pub fn is_locked(&self) -> bool {
        self.state.0.raw.owner().is_some()
    }

    /// True if somebody who lives has it, at this moment.
    #[doc(hidden)]
    #[must_use]
    pub fn is_taken(&self) -> bool {
        self.state.0.is_taken()
    }

    /// Acquires the lock if it is free, nobody else wants it, and there is nothing to be told.
    #[doc(hidden)]
    #[must_use]
    #[inline]
    pub fn acquire_at_once(&self) -> bool {
        self.state.0.acquire_at_once()
    }

    /// True if the calling thread acquired it, and nobody has released it since.
    #[doc(hidden)]
    #[must_use]
    #[inline]
    pub fn is_mine(&self) -> bool {
        self.state.0.is_held()
    }

    /// True if a thread of this process acquired it, and nobody has released it since.
    #[doc(hidden)]
    #[must_use]
    pub fn is_ours(&self) -> bool {
        shm::me().is_ok_and(|me| self.state.0.raw.owner() == Some(me.id))
    }

    /// [`acquire`](Lock::acquire), with a guard that releases the lock when it is dropped.
    ///
    /// # Errors
    /// As [`acquire`](Lock::acquire).
    #[inline]
    pub fn lock(&self) -> std::result::Result<LockGuard<'_>, LockError<LockGuard<'_>>> {
        self.acquire().map(|()| LockGuard::of(self))
    }

    /// [`try_acquire`](Lock::try_acquire), with a guard.
    ///
    /// # Errors
    /// As [`try_acquire`](Lock::try_acquire).
    #[inline]
    pub fn try_lock(&self) -> std::result::Result<LockGuard<'_>, LockError<LockGuard<'_>>> {
        self.try_acquire().map(|()| LockGuard::of(self))
    }

    /// [`acquire_timeout`](Lock::acquire_timeout), with a guard.
    ///
    /// # Errors
    /// As [`acquire_timeout`](Lock::acquire_timeout).
    pub fn lock_timeout(
        &self,
        timeout: Duration,
    ) -> std::result::Result<LockGuard<'_>, LockError<LockGuard<'_>>> {
        self.acquire_timeout(timeout).map(|()| LockGuard::of(self))
    }

    /// [`acquire_deadline`](Lock::acquire_deadline), with a guard.
    ///
    /// # Errors
    /// As [`acquire_deadline`](Lock::acquire_deadline).
    pub fn lock_deadline(
        &self,
        deadline: Instant,
    ) -> std::result::Result<LockGuard<'_>, LockError<LockGuard<'_>>> {
        self.acquire_deadline(deadline).map(|()| LockGuard::of(self))
    }
}

#[cold]
fn not_locked() -> Error {
    Error::new("release a lock", Kind::NotOwner("nobody has it".to_owned()))
}

impl fmt::Debug for Lock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.state.fmt(f)
    }
}

/// Releases a [`Lock`] when it is dropped, unless somebody else has released it before.
#[must_use = "the lock is released when its guard is dropped"]
pub struct LockGuard<'a> {
    lock: &'a Lock,
    /// It says that this thread has the lock.
    thread: PhantomData<*const ()>,
}

impl<'a> LockGuard<'a> {
    #[inline]
    fn of(lock: &'a Lock) -> LockGuard<'a> {
        LockGuard { lock, thread: PhantomData }
    }

    /// The lock, for a condition.
    pub(super) fn base(&self) -> (&Base, u64) {
        self.lock.base()
    }

    /// Leaves the lock acquired, to be released by hand.
    pub fn keep(self) {
        let _ = ManuallyDrop::new(self);
    }
}

impl Drop for LockGuard<'_> {
    #[inline]
    fn drop(&mut self) {
        if self.lock.state.0.is_held() {
            self.lock.state.0.release();
        }
    }
}

impl fmt::Debug for LockGuard<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}, acquired", self.lock)
    }
}

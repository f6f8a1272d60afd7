//! `Mutex<T>`: data, and the lock that protects it.
//!
//! Killed here: raw.rs. An owner that dies leaves the lock to the next one, who is told, and the data as it was.
//!
//! # Safety
//! The data is a [`ShmSafe`] in the tail of the mutex's block: aligned, with room for it, which is checked when a handle is made or
//! arrives. References to it live as long as the guard, that is while this thread has the lock.
#![allow(unsafe_code)]

use std::fmt;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::panic::Location;
use std::ptr::NonNull;
use std::time::{Duration, Instant};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::base::Base;
use super::error::LockError;
use super::owned::HasLock;
use crate::error::Result;
use crate::shm::{self, Me, Payload, Shared, ShmSafe};
use crate::time::Deadline;

/// The shared part.
#[repr(transparent)]
pub(super) struct State(pub(super) Base);

// SAFETY: atomics only, `repr(C)`, all-zero is a free lock.
unsafe impl Payload for State {
    const KIND: shm::Kind = shm::Kind::Mutex;
}

impl HasLock for State {
    fn base(&self) -> &Base {
        &self.0
    }
}

/// Data that processes share, one at a time.
///
/// The value is a handle: it travels among the arguments of a task, and each copy is of the same mutex, which is freed with its last
/// handle in any process. The data is never dropped: it has nothing to drop.
///
/// **Fairness**: a newcomer may overtake those who sleep; but whoever has waited for a millisecond goes before all newcomers.
///
/// **Death**: if the owner dies, the next one gets the mutex in [`LockError::OwnerDied`], with the data as the death left it. A panic is no death:
/// the guard is dropped on its way, and nobody is told.
///
/// **Deadlock**: who waits for a second looks whether it waits for itself, directly or by way of others; one of such a circle
/// gets [`LockError::Deadlock`].
///
/// ```
/// # use forkyard::{process, sync::{LockError, Mutex}};
/// #[forkyard::task]
/// fn add(total: Mutex<u64>, n: u64) {
///     match total.lock() {
///         Ok(mut total) => *total += n,
///         // An addition is whole or not at all, so there is nothing to repair.
///         Err(LockError::OwnerDied(died)) => *died.into_inner() += n,
///         Err(error) => panic!("{error}"),
///     }
/// }
///
/// let total = Mutex::new(0)?;
/// let children = [process::spawn(add, (total.clone(), 1))?, process::spawn(add, (total.clone(), 2))?];
/// for child in children {
///     child.join()?;
/// }
/// assert_eq!(*total.lock()?, 3);
/// # Ok::<(), forkyard::Error>(())
/// ```
#[doc(alias = "pthread_mutex_t")]
pub struct Mutex<T: ShmSafe> {
    state: Shared<State>,
    data: PhantomData<T>,
}

/// What locking a [`Mutex`] gives: a guard, or the reason why there is none. An [`OwnerDied`](super::OwnerDied) has a guard.
pub type MutexResult<'a, T> = std::result::Result<MutexGuard<'a, T>, LockError<MutexGuard<'a, T>>>;

impl<T: ShmSafe> Mutex<T> {
    /// Moves the data into shared memory, behind a mutex that nobody has.
    ///
    /// # Errors
    /// The family's shared memory is full, or has too many members.
    #[track_caller]
    pub fn new(value: T) -> Result<Mutex<T>> {
        const { assert!(align_of::<T>() <= 64) };
        let state = Shared::new(size_of::<T>(), Location::caller(), |_: &State, tail| {
            // SAFETY: the tail has room for it, is aligned, and is nobody else's yet.
            unsafe { tail.cast::<T>().write(value) }
        })?;
        Ok(Mutex { state, data: PhantomData })
    }

    /// The same mutex, for which nobody looks for deadlocks. To be called before others have it.
    #[must_use]
    pub fn without_deadlock_report(self) -> Mutex<T> {
        self.state.0.silence();
        self
    }

    /// Locks the mutex, waiting for it.
    ///
    /// # Errors
    /// [`OwnerDied`](LockError::OwnerDied), with the guard; [`Deadlock`](LockError::Deadlock); or this process cannot take part in
    /// shared memory.
    #[inline]
    #[doc(alias = "pthread_mutex_lock")]
    pub fn lock(&self) -> MutexResult<'_, T> {
        if let Some(owner) = self.state.0.own_at_once() {
            return Ok(MutexGuard::of(self, Some(owner)));
        }
        self.wait(Deadline::NEVER)
    }

    /// Locks the mutex if nobody has it.
    ///
    /// # Errors
    /// [`WouldBlock`](LockError::WouldBlock), or as [`lock`](Mutex::lock).
    #[inline]
    #[doc(alias = "pthread_mutex_trylock")]
    pub fn try_lock(&self) -> MutexResult<'_, T> {
        if let Some(owner) = self.state.0.own_at_once() {
            return Ok(MutexGuard::of(self, Some(owner)));
        }
        self.guarded(self.state.0.try_acquire())
    }

    /// Locks the mutex, waiting for so long at most.
    ///
    /// # Errors
    /// [`TimedOut`](LockError::TimedOut), or as [`lock`](Mutex::lock).
    #[inline]
    #[doc(alias = "pthread_mutex_timedlock")]
    pub fn lock_timeout(&self, timeout: Duration) -> MutexResult<'_, T> {
        if let Some(owner) = self.state.0.own_at_once() {
            return Ok(MutexGuard::of(self, Some(owner)));
        }
        self.wait(Deadline::after(timeout))
    }

    /// Locks the mutex, waiting until then at most.
    ///
    /// # Errors
    /// [`TimedOut`](LockError::TimedOut), or as [`lock`](Mutex::lock).
    #[inline]
    pub fn lock_deadline(&self, deadline: Instant) -> MutexResult<'_, T> {
        if let Some(owner) = self.state.0.own_at_once() {
            return Ok(MutexGuard::of(self, Some(owner)));
        }
        self.wait(deadline.into())
    }

    #[cold]
    fn wait(&self, deadline: Deadline) -> MutexResult<'_, T> {
        self.guarded(self.state.0.acquire(self.state.offset(), deadline.timeout()))
    }

    fn guarded(&self, acquired: std::result::Result<(), LockError<()>>) -> MutexResult<'_, T> {
        match acquired {
            Ok(()) => Ok(MutexGuard::of(self, shm::known())),
            Err(error) => Err(error.map(|()| MutexGuard::of(self, shm::known()))),
        }
    }

    /// True if somebody has it, at this moment.
    #[must_use]
    pub fn is_locked(&self) -> bool {
        self.state.0.raw.owner().is_some()
    }

    fn data(&self) -> NonNull<T> {
        self.state.tail().0.cast()
    }
}

impl<T: ShmSafe> Clone for Mutex<T> {
    fn clone(&self) -> Mutex<T> {
        Mutex { state: self.state.clone(), data: PhantomData }
    }
}

impl<T: ShmSafe> fmt::Debug for Mutex<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.state.fmt(f)
    }
}

impl<T: ShmSafe> Serialize for Mutex<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        self.state.serialize(serializer)
    }
}

impl<'de, T: ShmSafe> Deserialize<'de> for Mutex<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Mutex<T>, D::Error> {
        let state = Shared::<State>::deserialize(deserializer)?;
        if state.tail().1 < size_of::<T>() {
            return Err(serde::de::Error::custom("the mutex is of another type: its data is shorter"));
        }
        Ok(Mutex { state, data: PhantomData })
    }
}

/// The data of a [`Mutex`], and the mutex locked; unlocked when it is dropped. In a fork it is its parent's, and dropping it does nothing.
#[must_use = "the mutex is unlocked when its guard is dropped"]
pub struct MutexGuard<'a, T: ShmSafe> {
    mutex: &'a Mutex<T>,
    owner: Option<Me>,
    /// It says that this thread has the lock.
    thread: PhantomData<*const ()>,
}

// SAFETY: what it gives others is a `&T`.
unsafe impl<T: ShmSafe + Sync> Sync for MutexGuard<'_, T> {}

impl<'a, T: ShmSafe> MutexGuard<'a, T> {
    #[inline]
    fn of(mutex: &'a Mutex<T>, owner: Option<Me>) -> MutexGuard<'a, T> {
        MutexGuard { mutex, owner, thread: PhantomData }
    }

    /// The lock, for a condition.
    pub(super) fn base(&self) -> (&Base, u64) {
        (&self.mutex.state.0, self.mutex.state.offset())
    }
}

impl<T: ShmSafe> Deref for MutexGuard<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: see the heading.
        unsafe { self.mutex.data().as_ref() }
    }
}

impl<T: ShmSafe> DerefMut for MutexGuard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: see the heading.
        unsafe { self.mutex.data().as_mut() }
    }
}

impl<T: ShmSafe> Drop for MutexGuard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        self.mutex.state.0.release_own(self.owner);
    }
}

impl<T: ShmSafe + fmt::Debug> fmt::Debug for MutexGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        T::fmt(self, f)
    }
}

//! `Value<T>`: one piece of plain data, atomic or with a lock.
//!
//! Killed here: raw.rs. An owner that dies leaves the lock to the next one, who is told, and the data as it was.
//!
//! # Safety
//! References to the data live as long as the guard, that is while this thread has the lock; those of an [`Atomic`] as long as the
//! handle, and nobody gets a mutable one: it is not `Copy`.
#![allow(unsafe_code)]

use std::fmt;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::panic::Location;
use std::time::{Duration, Instant};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::base::Base;
use super::data::{Atomic, Data};
use super::error::LockError;
use super::owned::HasLock;
use crate::error::Result;
use crate::shm::{Kind, Payload, ShmSafe};
use crate::time::Deadline;

/// The shared part.
#[repr(transparent)]
pub(super) struct State(pub(super) Base);

// SAFETY: atomics only, `repr(C)`, all-zero is a free lock.
unsafe impl Payload for State {
    const KIND: Kind = Kind::Value;
}

impl HasLock for State {
    fn base(&self) -> &Base {
        &self.0
    }
}

/// A value that processes share.
///
/// - **Atomic**: of an atomic type, a `Value` is used like that one, without a lock.
/// - **Locked**: [`get`](Value::get) and [`set`](Value::set) of any type that is `Copy` take its lock for a moment; [`lock`](Value::lock) is
///   for changes that depend on what was there.
/// - **Raw**: [`as_ptr`](Value::as_ptr), for those who know what they do.
///
/// The value is a handle: it travels among the arguments of a task, and each copy is of the same value, which is freed with its last
/// handle in any process.
///
/// **Death**: what an atomic operation did before a death is done. If a process dies with the lock, the next one gets it in
/// [`LockError::OwnerDied`], with the data as the death left it.
///
/// ```
/// use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
/// use forkyard::{process, sync::Value};
///
/// #[forkyard::task]
/// fn count(counter: Value<AtomicU64>) {
///     (0..1000).for_each(|_| drop(counter.fetch_add(1, Relaxed)));
/// }
///
/// let counter = Value::new(AtomicU64::new(0))?;
/// let children = [process::spawn(count, (counter.clone(),))?, process::spawn(count, (counter.clone(),))?];
/// for child in children {
///     child.join()?;
/// }
/// assert_eq!(counter.load(Relaxed), 2000);
///
/// let ratio = Value::new(0.5)?;
/// *ratio.lock()? *= 3.0;
/// assert_eq!(ratio.get()?, 1.5);
/// # Ok::<(), forkyard::Error>(())
/// ```
pub struct Value<T: ShmSafe> {
    data: Data<State, T>,
}

/// What locking a [`Value`] gives: a guard, or the reason why there is none. An [`OwnerDied`](super::OwnerDied) has a guard.
pub type ValueResult<'a, T> = std::result::Result<ValueGuard<'a, T>, LockError<ValueGuard<'a, T>>>;

impl<T: ShmSafe> Value<T> {
    /// Moves the value into shared memory.
    ///
    /// # Errors
    /// The family's shared memory is full, or has too many members.
    #[track_caller]
    pub fn new(value: T) -> Result<Value<T>> {
        // SAFETY: there is room for one, and nobody else has it yet.
        let init = |place: std::ptr::NonNull<T>| unsafe { place.write(value) };
        Ok(Value { data: Data::new(1, Location::caller(), init)? })
    }

    /// The same value, for whose lock nobody looks for deadlocks. To be called before others have it.
    #[must_use]
    pub fn without_deadlock_report(self) -> Value<T> {
        self.data.silence();
        self
    }

    /// Locks the value, waiting for it.
    ///
    /// # Errors
    /// [`OwnerDied`](LockError::OwnerDied), with the guard; [`Deadlock`](LockError::Deadlock); or this process cannot take part in
    /// shared memory.
    #[inline]
    pub fn lock(&self) -> ValueResult<'_, T> {
        self.guarded(self.data.acquire(None))
    }

    /// Locks the value if nobody has it locked.
    ///
    /// # Errors
    /// [`WouldBlock`](LockError::WouldBlock), or as [`lock`](Value::lock).
    #[inline]
    pub fn try_lock(&self) -> ValueResult<'_, T> {
        self.guarded(self.data.try_acquire())
    }

    /// Locks the value, waiting for so long at most.
    ///
    /// # Errors
    /// [`TimedOut`](LockError::TimedOut), or as [`lock`](Value::lock).
    pub fn lock_timeout(&self, timeout: Duration) -> ValueResult<'_, T> {
        self.guarded(self.data.acquire(Deadline::after(timeout).timeout()))
    }

    /// Locks the value, waiting until then at most.
    ///
    /// # Errors
    /// [`TimedOut`](LockError::TimedOut), or as [`lock`](Value::lock).
    pub fn lock_deadline(&self, deadline: Instant) -> ValueResult<'_, T> {
        self.guarded(self.data.acquire(Some(deadline)))
    }

    fn guarded(&self, acquired: std::result::Result<(), LockError<()>>) -> ValueResult<'_, T> {
        let guard = || ValueGuard { value: self, thread: PhantomData };
        match acquired {
            Ok(()) => Ok(guard()),
            Err(error) => Err(error.map(|()| guard())),
        }
    }

    /// Where it is in this process, as long as there is a handle. Others may write to it at any time.
    #[must_use]
    pub fn as_ptr(&self) -> *mut T {
        self.data.pointer().as_ptr()
    }
}

impl<T: ShmSafe + Copy> Value<T> {
    /// The value, whole: with its lock taken for a moment.
    ///
    /// # Errors
    /// As [`lock`](Value::lock), as an [`Error`](crate::Error); the next one is not told of an owner that died.
    pub fn get(&self) -> Result<T> {
        Ok(*self.lock()?)
    }

    /// Makes it this value, with its lock taken for a moment. It is not set if the lock's last owner died: the next call does.
    ///
    /// # Errors
    /// As those of [`get`](Value::get).
    pub fn set(&self, value: T) -> Result<()> {
        *self.lock()? = value;
        Ok(())
    }
}

impl<A: Atomic> Deref for Value<A> {
    type Target = A;

    #[inline]
    fn deref(&self) -> &A {
        // SAFETY: see the heading: an atomic, of which there are shared references only.
        unsafe { self.data.pointer().as_ref() }
    }
}

impl<T: ShmSafe> Clone for Value<T> {
    fn clone(&self) -> Value<T> {
        Value { data: self.data.clone() }
    }
}

impl<T: ShmSafe> fmt::Debug for Value<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.data.fmt(f)
    }
}

impl<T: ShmSafe> Serialize for Value<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        self.data.serialize(serializer)
    }
}

impl<'de, T: ShmSafe> Deserialize<'de> for Value<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Value<T>, D::Error> {
        let data = Data::deserialize(deserializer)?;
        if data.len() < 1 {
            return Err(serde::de::Error::custom("the value is of another type: it is shorter"));
        }
        Ok(Value { data })
    }
}

/// A [`Value`], locked; unlocked when it is dropped. In a fork it is its parent's, and dropping it does nothing.
#[must_use = "the value is unlocked when its guard is dropped"]
pub struct ValueGuard<'a, T: ShmSafe> {
    value: &'a Value<T>,
    /// It says that this thread has the lock.
    thread: PhantomData<*const ()>,
}

// SAFETY: what it gives others is a `&T`.
unsafe impl<T: ShmSafe + Sync> Sync for ValueGuard<'_, T> {}

impl<T: ShmSafe> Deref for ValueGuard<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: see the heading.
        unsafe { self.value.data.pointer().as_ref() }
    }
}

impl<T: ShmSafe + Copy> DerefMut for ValueGuard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: see the heading.
        unsafe { self.value.data.pointer().as_mut() }
    }
}

impl<T: ShmSafe> Drop for ValueGuard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        self.value.data.release();
    }
}

impl<T: ShmSafe + fmt::Debug> fmt::Debug for ValueGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        T::fmt(self, f)
    }
}

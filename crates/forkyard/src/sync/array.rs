//! `Array<T>`: plain data in a row, atomic or with a lock.
//!
//! Killed here: raw.rs. An owner that dies leaves the lock to the next one, who is told, and the elements as they were.
//!
//! # Safety
//! References to the elements live as long as the guard, that is while this thread has the lock; those of an [`Atomic`] as long as the
//! handle, and nobody gets a mutable one: it is not `Copy`.
#![allow(unsafe_code)]

use std::fmt;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::panic::Location;
use std::ptr::NonNull;
use std::time::{Duration, Instant};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::base::Base;
use super::data::{Atomic, Data};
use super::error::LockError;
use super::owned::HasLock;
use crate::error::{Error, Kind as Reason, Result};
use crate::shm::{Kind, Payload, ShmSafe};
use crate::time::Deadline;

/// The shared part.
#[repr(transparent)]
pub(super) struct State(pub(super) Base);

// SAFETY: atomics only, `repr(C)`, all-zero is a free lock.
unsafe impl Payload for State {
    const KIND: Kind = Kind::Array;
}

impl HasLock for State {
    fn base(&self) -> &Base {
        &self.0
    }
}

/// A number of elements that processes share; as many as at first.
///
/// - **Atomic**: of an atomic type, an `Array` is used like a slice of that one, without a lock.
/// - **Locked**: [`get`](Array::get) and [`set`](Array::set) of any type that is `Copy` take the array's lock for a moment;
///   [`lock`](Array::lock) gives all elements as a slice.
/// - **Raw**: [`as_ptr`](Array::as_ptr), for those who know what they do.
///
/// The value is a handle: it travels among the arguments of a task, and each copy is of the same array, which is freed with its last
/// handle in any process.
///
/// **Death**: if a process dies with the lock, the next one gets it in [`LockError::OwnerDied`], with the elements as the death left
/// them.
///
/// ```
/// use forkyard::{process, sync::Array};
///
/// #[forkyard::task]
/// fn square(numbers: Array<f64>) {
///     numbers.lock().unwrap().iter_mut().for_each(|number| *number *= *number);
/// }
///
/// let numbers = Array::new(&[1.0, 2.0, 3.0])?;
/// process::spawn(square, (numbers.clone(),))?.join()?;
/// assert_eq!(*numbers.lock()?, [1.0, 4.0, 9.0]);
/// assert_eq!(numbers.get(1)?, 4.0);
/// # Ok::<(), forkyard::Error>(())
/// ```
pub struct Array<T: ShmSafe> {
    data: Data<State, T>,
}

/// What locking an [`Array`] gives: a guard, or the reason why there is none. An [`OwnerDied`](super::OwnerDied) has a guard.
pub type ArrayResult<'a, T> = std::result::Result<ArrayGuard<'a, T>, LockError<ArrayGuard<'a, T>>>;

impl<T: ShmSafe> Array<T> {
    /// Makes an array of so many elements, all of whose bits are zero.
    ///
    /// # Errors
    /// The family's shared memory is full, or has too many members.
    #[track_caller]
    pub fn zeroed(len: usize) -> Result<Array<T>> {
        Ok(Array { data: Data::new(len, Location::caller(), |_| {})? })
    }

    /// How many elements there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.data.len()
    }

    /// True if there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The same array, for whose lock nobody looks for deadlocks. To be called before others have it.
    #[must_use]
    pub fn without_deadlock_report(self) -> Array<T> {
        self.data.silence();
        self
    }

    /// Locks the array, waiting for it.
    ///
    /// # Errors
    /// [`OwnerDied`](LockError::OwnerDied), with the guard; [`Deadlock`](LockError::Deadlock); or this process cannot take part in
    /// shared memory.
    #[inline]
    pub fn lock(&self) -> ArrayResult<'_, T> {
        self.guarded(self.data.acquire(None))
    }

    /// Locks the array if nobody has it locked.
    ///
    /// # Errors
    /// [`WouldBlock`](LockError::WouldBlock), or as [`lock`](Array::lock).
    #[inline]
    pub fn try_lock(&self) -> ArrayResult<'_, T> {
        self.guarded(self.data.try_acquire())
    }

    /// Locks the array, waiting for so long at most.
    ///
    /// # Errors
    /// [`TimedOut`](LockError::TimedOut), or as [`lock`](Array::lock).
    pub fn lock_timeout(&self, timeout: Duration) -> ArrayResult<'_, T> {
        self.guarded(self.data.acquire(Deadline::after(timeout).timeout()))
    }

    /// Locks the array, waiting until then at most.
    ///
    /// # Errors
    /// [`TimedOut`](LockError::TimedOut), or as [`lock`](Array::lock).
    pub fn lock_deadline(&self, deadline: Instant) -> ArrayResult<'_, T> {
        self.guarded(self.data.acquire(Some(deadline)))
    }

    fn guarded(&self, acquired: std::result::Result<(), LockError<()>>) -> ArrayResult<'_, T> {
        let guard = || ArrayGuard { array: self, thread: PhantomData };
        match acquired {
            Ok(()) => Ok(guard()),
            Err(error) => Err(error.map(|()| guard())),
        }
    }

    /// Where its elements are in this process, as long as there is a handle. Others may write to them at any time.
    #[must_use]
    pub fn as_ptr(&self) -> *mut T {
        self.data.pointer().as_ptr()
    }
}

impl<T: ShmSafe + Copy> Array<T> {
    /// Copies the elements into shared memory.
    ///
    /// # Errors
    /// As those of [`zeroed`](Array::zeroed).
    #[track_caller]
    pub fn new(elements: &[T]) -> Result<Array<T>> {
        let init = |place: NonNull<T>| {
            // SAFETY: there is room for as many, and nobody else has it yet.
            unsafe { place.as_ptr().copy_from_nonoverlapping(elements.as_ptr(), elements.len()) }
        };
        Ok(Array { data: Data::new(elements.len(), Location::caller(), init)? })
    }

    /// One element, whole: with the array's lock taken for a moment.
    ///
    /// # Errors
    /// There is no such element; or as [`lock`](Array::lock), as an [`Error`]; the next one is not told of an owner that died.
    pub fn get(&self, index: usize) -> Result<T> {
        self.lock()?.get(index).copied().ok_or_else(|| self.beyond(index))
    }

    /// Makes one element this value, with the array's lock taken for a moment. It is not set if the lock's last owner died: the next
    /// call does.
    ///
    /// # Errors
    /// As those of [`get`](Array::get).
    pub fn set(&self, index: usize, value: T) -> Result<()> {
        *self.lock()?.get_mut(index).ok_or_else(|| self.beyond(index))? = value;
        Ok(())
    }

    #[cold]
    fn beyond(&self, index: usize) -> Error {
        let why = format!("it has {} elements, numbered from 0", self.len());
        Error::new(format!("use element {index} of the {self:?}"), Reason::Invalid(why))
    }
}

impl<A: Atomic> Deref for Array<A> {
    type Target = [A];

    #[inline]
    fn deref(&self) -> &[A] {
        // SAFETY: see the heading: atomics, of which there are shared references only.
        unsafe { self.data.slice() }
    }
}

impl<T: ShmSafe> Clone for Array<T> {
    fn clone(&self) -> Array<T> {
        Array { data: self.data.clone() }
    }
}

impl<T: ShmSafe> fmt::Debug for Array<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.data.fmt(f)
    }
}

impl<T: ShmSafe> Serialize for Array<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        self.data.serialize(serializer)
    }
}

impl<'de, T: ShmSafe> Deserialize<'de> for Array<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Array<T>, D::Error> {
        Ok(Array { data: Data::deserialize(deserializer)? })
    }
}

/// The elements of an [`Array`], locked; unlocked when it is dropped. In a fork it is its parent's, and dropping it does nothing.
#[must_use = "the array is unlocked when its guard is dropped"]
pub struct ArrayGuard<'a, T: ShmSafe> {
    array: &'a Array<T>,
    /// It says that this thread has the lock.
    thread: PhantomData<*const ()>,
}

// SAFETY: what it gives others is a `&[T]`.
unsafe impl<T: ShmSafe + Sync> Sync for ArrayGuard<'_, T> {}

impl<T: ShmSafe> Deref for ArrayGuard<'_, T> {
    type Target = [T];

    #[inline]
    fn deref(&self) -> &[T] {
        // SAFETY: see the heading.
        unsafe { self.array.data.slice() }
    }
}

impl<T: ShmSafe + Copy> DerefMut for ArrayGuard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: see the heading.
        unsafe { self.array.data.slice_mut() }
    }
}

impl<T: ShmSafe> Drop for ArrayGuard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        self.array.data.release();
    }
}

impl<T: ShmSafe + fmt::Debug> fmt::Debug for ArrayGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        <[T]>::fmt(self, f)
    }
}

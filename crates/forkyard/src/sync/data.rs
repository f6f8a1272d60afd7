//! Plain data behind a lock: what a value and an array have in common.
//!
//! # Safety
//! The elements lie in the tail of the object's block, aligned, as many as its length has room for, which was checked when the handle
//! was made or arrived. All of them are [`ShmSafe`], so whatever bits are there are values.
#![allow(unsafe_code)]

use std::fmt;
use std::marker::PhantomData;
use std::panic::Location;
use std::ptr::NonNull;
use std::sync::atomic::{
    AtomicI8, AtomicI16, AtomicI32, AtomicI64, AtomicIsize, AtomicU8, AtomicU16, AtomicU32, AtomicU64,
    AtomicUsize,
};
use std::time::Instant;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::error::LockError;
use super::owned::HasLock;
use crate::error::Result;
use crate::shm::{Payload, Shared, ShmSafe};

/// Elements in shared memory, and a lock.
pub(super) struct Data<S: 'static, T> {
    shared: Shared<S>,
    elements: PhantomData<T>,
}

impl<S: HasLock, T: ShmSafe> Data<S, T> {
    /// Makes so many elements, all zero but for what `init` makes of them.
    pub(super) fn new(
        len: usize,
        made_at: &Location<'_>,
        init: impl FnOnce(NonNull<T>),
    ) -> Result<Data<S, T>> {
        const { assert!(align_of::<T>() <= 64 && size_of::<T>() > 0) };
        // What saturates is more than the memory has room for.
        let bytes = len.saturating_mul(size_of::<T>());
        let shared = Shared::new(bytes, made_at, |_: &S, tail| init(tail.cast()))?;
        Ok(Data { shared, elements: PhantomData })
    }

    pub(super) fn len(&self) -> usize {
        self.shared.tail().1 / size_of::<T>()
    }

    pub(super) fn pointer(&self) -> NonNull<T> {
        self.shared.tail().0.cast()
    }

    /// All elements, for an owner of the lock, or where they are atomic.
    ///
    /// # Safety
    /// Nobody has a mutable reference, or non-atomic access, to them while this one lives.
    pub(super) unsafe fn slice(&self) -> &[T] {
        // SAFETY: see the heading, and the caller.
        unsafe { std::slice::from_raw_parts(self.pointer().as_ptr(), self.len()) }
    }

    /// The same to write to, for an owner of the lock.
    ///
    /// # Safety
    /// Nobody has another reference to them while this one lives.
    #[allow(clippy::mut_from_ref, reason = "the lock makes it the only one")]
    pub(super) unsafe fn slice_mut(&self) -> &mut [T] {
        // SAFETY: see the heading, and the caller.
        unsafe { std::slice::from_raw_parts_mut(self.pointer().as_ptr(), self.len()) }
    }

    #[inline]
    pub(super) fn acquire(&self, until: Option<Instant>) -> std::result::Result<(), LockError<()>> {
        let base = self.shared.base();
        if base.acquire_at_once() { Ok(()) } else { base.acquire(self.shared.offset(), until) }
    }

    #[inline]
    pub(super) fn try_acquire(&self) -> std::result::Result<(), LockError<()>> {
        let base = self.shared.base();
        if base.acquire_at_once() { Ok(()) } else { base.try_acquire() }
    }

    #[inline]
    pub(super) fn release(&self) {
        self.shared.base().release();
    }

    pub(super) fn silence(&self) {
        self.shared.base().silence();
    }
}

impl<S, T> Clone for Data<S, T> {
    fn clone(&self) -> Data<S, T> {
        Data { shared: self.shared.clone(), elements: PhantomData }
    }
}

impl<S: Payload, T> fmt::Debug for Data<S, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.shared.fmt(f)
    }
}

impl<S: Payload, T> Serialize for Data<S, T> {
    fn serialize<R: Serializer>(&self, serializer: R) -> std::result::Result<R::Ok, R::Error> {
        self.shared.serialize(serializer)
    }
}

impl<'de, S: Payload, T> Deserialize<'de> for Data<S, T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Data<S, T>, D::Error> {
        Ok(Data { shared: Shared::deserialize(deserializer)?, elements: PhantomData })
    }
}

/// Types that are used without a lock: the atomics of `std::sync::atomic`, and arrays of them.
pub trait Atomic: ShmSafe + Sync + atomic::Atomic {}

mod atomic {
    pub trait Atomic {}
}

/// Each of these is an atomic.
macro_rules! atomics {
    ($($atomic:ty)*) => {$(
        impl atomic::Atomic for $atomic {}
        impl Atomic for $atomic {}
    )*};
}
atomics!(AtomicU8 AtomicU16 AtomicU32 AtomicU64 AtomicUsize AtomicI8 AtomicI16 AtomicI32 AtomicI64 AtomicIsize);

impl<A: Atomic, const N: usize> atomic::Atomic for [A; N] {}
impl<A: Atomic, const N: usize> Atomic for [A; N] {}

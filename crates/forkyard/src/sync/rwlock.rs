//! `RwLock<T>`: data that many may read, or one may change.
//!
//! Killed here: word/readers.rs. A dead reader is no reader, and of a dead writer everybody is told until a writer has been.
//!
//! # Safety
//! The data is a [`ShmSafe`] at the end of the lock's block, after the cells: aligned, with room for it, which is checked when a handle is
//! made or arrives. References to it live as long as a guard, that is while this thread is in, and only a writer's are mutable.
#![allow(unsafe_code)]

use std::fmt;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::panic::Location;
use std::ptr::NonNull;
use std::time::{Duration, Instant};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::base::{Patience, told};
use super::describe::{Description, Owner};
use super::error::LockError;
use super::raw::{Holder, Outcome};
use super::word::readers::{Entered, Readers, ReadersWord};
use crate::error::Result;
use crate::primitive::{AtomicU32, AtomicU64, Ordering};
use crate::shm::{self, Family, Id, Payload, Shared, ShmSafe};
use crate::time::Deadline;

/// Most threads that read at the same time without excluding each other.
const CELLS: usize = 128;
/// Where the data begins in the tail.
const DATA: usize = CELLS * size_of::<AtomicU64>();

/// The shared part; the cells and the data lie in the tail. `silent`: who makes the lock, before others have it.
#[repr(C)]
pub(super) struct State {
    word: ReadersWord,
    silent: AtomicU32,
    unused: AtomicU32,
}

// SAFETY: atomics only, `repr(C)`, all-zero is a free lock.
unsafe impl Payload for State {
    const KIND: shm::Kind = shm::Kind::RwLock;
}

/// Data that processes share: many read it, or one changes it.
///
/// The value is a handle: it travels among the arguments of a task, and each copy is of the same lock, which is freed with its last
/// handle in any process. The data is never dropped: it has nothing to drop.
///
/// **Fairness**: writers come first: while one waits nobody new comes in to read. Readers that had to wait queue together with the writers, and
/// whoever has waited for a millisecond goes before all newcomers, so neither starves. A thread that reads must not read again: between
/// the two a writer may have come, and all three would wait. Of more than 128 threads that read, the others come in one at a time.
///
/// **Death**: a reader that dies is out. If a writer dies the next one to come in is told with [`LockError::OwnerDied`], and gets the data as the
/// death left it; readers, who cannot repair it, are told until a writer has been. A panic is no death.
///
/// **Deadlock**: who waits for a second looks whether it waits for itself, directly or by way of others; one of such a circle
/// gets [`LockError::Deadlock`]. That a thread reads, and not only its process, is known of 128 threads.
///
/// ```
/// # use forkyard::sync::RwLock;
/// let limits = RwLock::new([10u32, 20])?;
/// assert_eq!(limits.read()?[1], 20);
/// limits.write()?[1] = 30;
/// assert_eq!(*limits.read()?, [10, 30]);
/// # Ok::<(), forkyard::Error>(())
/// ```
#[doc(alias = "pthread_rwlock_t")]
pub struct RwLock<T: ShmSafe> {
    state: Shared<State>,
    /// The cell that was used last.
    hint: AtomicU32,
    data: PhantomData<T>,
}

/// What reading an [`RwLock`] gives: a guard, or the reason why there is none. An [`OwnerDied`](super::OwnerDied) has a guard.
pub type ReadResult<'a, T> = std::result::Result<RwLockReadGuard<'a, T>, LockError<RwLockReadGuard<'a, T>>>;

/// What writing an [`RwLock`] gives: a guard, or the reason why there is none. An [`OwnerDied`](super::OwnerDied) has a guard.
pub type WriteResult<'a, T> =
    std::result::Result<RwLockWriteGuard<'a, T>, LockError<RwLockWriteGuard<'a, T>>>;

impl<T: ShmSafe> RwLock<T> {
    /// Moves the data into shared memory, behind a lock that nobody has.
    ///
    /// # Errors
    /// The family's shared memory is full, or has too many members.
    #[track_caller]
    pub fn new(value: T) -> Result<RwLock<T>> {
        const { assert!(align_of::<T>() <= 64) };
        let state = Shared::new(DATA + size_of::<T>(), Location::caller(), |_: &State, tail| {
            // SAFETY: the tail has room for it there, is aligned, and is nobody else's yet.
            unsafe { tail.add(DATA).cast::<T>().write(value) }
        })?;
        Ok(RwLock::over(state))
    }

    fn over(state: Shared<State>) -> RwLock<T> {
        RwLock { state, hint: AtomicU32::new(0), data: PhantomData }
    }

    /// The same lock, for which nobody looks for deadlocks. To be called before others have it.
    #[must_use]
    pub fn without_deadlock_report(self) -> RwLock<T> {
        self.state.silent.store(1, Ordering::Relaxed);
        self
    }

    #[inline]
    fn readers(&self) -> Readers<'_> {
        let cells = self.state.cells();
        Readers { word: &self.state.word, cells: &cells[..CELLS.min(cells.len())], hint: &self.hint }
    }

    /// Comes in to read, waiting for writers that came before.
    ///
    /// # Errors
    /// [`OwnerDied`](LockError::OwnerDied), with the guard; [`Deadlock`](LockError::Deadlock); or this process cannot take part in
    /// shared memory.
    #[inline]
    #[doc(alias = "pthread_rwlock_rdlock")]
    pub fn read(&self) -> ReadResult<'_, T> {
        self.read_as(|| Deadline::NEVER)
    }

    /// Comes in to read if there is no writer.
    ///
    /// # Errors
    /// [`WouldBlock`](LockError::WouldBlock), or as [`read`](RwLock::read).
    #[doc(alias = "pthread_rwlock_tryrdlock")]
    pub fn try_read(&self) -> ReadResult<'_, T> {
        let me = shm::me().map_err(LockError::Failed)?;
        self.reading(self.readers().try_read(&Family, me.into()), |outcome| match outcome {
            Outcome::TimedOut => Err(LockError::WouldBlock),
            outcome => told(outcome, None),
        })
    }

    /// Comes in to read, waiting for so long at most.
    ///
    /// # Errors
    /// [`TimedOut`](LockError::TimedOut), or as [`read`](RwLock::read).
    #[doc(alias = "pthread_rwlock_timedrdlock")]
    pub fn read_timeout(&self, timeout: Duration) -> ReadResult<'_, T> {
        self.read_as(|| Deadline::after(timeout))
    }

    /// Comes in to read, waiting until then at most.
    ///
    /// # Errors
    /// [`TimedOut`](LockError::TimedOut), or as [`read`](RwLock::read).
    pub fn read_deadline(&self, deadline: Instant) -> ReadResult<'_, T> {
        self.read_as(|| deadline.into())
    }

    #[inline]
    fn read_as(&self, deadline: impl FnOnce() -> Deadline) -> ReadResult<'_, T> {
        let me = shm::me().map_err(LockError::Failed)?;
        if let Some(entered) = self.readers().read_at_once(me.into()) {
            return Ok(RwLockReadGuard::of(self, entered));
        }
        self.wait_to_read(me, deadline())
    }

    #[cold]
    fn wait_to_read(&self, me: shm::Me, deadline: Deadline) -> ReadResult<'_, T> {
        let mut patience = Patience::new(self.state.offset(), deadline.timeout(), self.state.reports())?;
        let came = self.readers().read(&Family, me.into(), &mut patience);
        self.reading(came, |outcome| told(outcome, patience.deadlock.take()))
    }

    fn reading(
        &self,
        (outcome, entered): (Outcome, Option<Entered>),
        told: impl FnOnce(Outcome) -> std::result::Result<(), LockError<()>>,
    ) -> ReadResult<'_, T> {
        let guard = || RwLockReadGuard::of(self, entered.unwrap_or(Entered::Alone));
        match told(outcome) {
            Ok(()) => Ok(guard()),
            Err(error) => Err(error.map(|()| guard())),
        }
    }

    /// Comes in to write, waiting for all others to be out.
    ///
    /// # Errors
    /// [`OwnerDied`](LockError::OwnerDied), with the guard; [`Deadlock`](LockError::Deadlock); or this process cannot take part in
    /// shared memory.
    #[inline]
    #[doc(alias = "pthread_rwlock_wrlock")]
    pub fn write(&self) -> WriteResult<'_, T> {
        self.write_as(Deadline::NEVER)
    }

    /// Comes in to write if nobody is in.
    ///
    /// # Errors
    /// [`WouldBlock`](LockError::WouldBlock), or as [`write`](RwLock::write).
    #[doc(alias = "pthread_rwlock_trywrlock")]
    pub fn try_write(&self) -> WriteResult<'_, T> {
        let me = shm::me().map_err(LockError::Failed)?;
        self.writing(match self.readers().try_write(&Family, me.into()) {
            Outcome::TimedOut => Err(LockError::WouldBlock),
            outcome => told(outcome, None),
        })
    }

    /// Comes in to write, waiting for so long at most.
    ///
    /// # Errors
    /// [`TimedOut`](LockError::TimedOut), or as [`write`](RwLock::write).
    #[doc(alias = "pthread_rwlock_timedwrlock")]
    pub fn write_timeout(&self, timeout: Duration) -> WriteResult<'_, T> {
        self.write_as(Deadline::after(timeout))
    }

    /// Comes in to write, waiting until then at most.
    ///
    /// # Errors
    /// [`TimedOut`](LockError::TimedOut), or as [`write`](RwLock::write).
    pub fn write_deadline(&self, deadline: Instant) -> WriteResult<'_, T> {
        self.write_as(deadline.into())
    }

    fn write_as(&self, deadline: Deadline) -> WriteResult<'_, T> {
        let me = shm::me().map_err(LockError::Failed)?;
        let mut patience = Patience::new(self.state.offset(), deadline.timeout(), self.state.reports())?;
        let outcome = self.readers().write(&Family, me.into(), &mut patience);
        self.writing(told(outcome, patience.deadlock.take()))
    }

    fn writing(&self, came: std::result::Result<(), LockError<()>>) -> WriteResult<'_, T> {
        match came {
            Ok(()) => Ok(RwLockWriteGuard::of(self)),
            Err(error) => Err(error.map(|()| RwLockWriteGuard::of(self))),
        }
    }

    fn data(&self) -> NonNull<T> {
        // SAFETY: inside the tail: see the heading.
        unsafe { self.state.tail().0.add(DATA).cast() }
    }
}

impl State {
    /// True if who waits for this lock may be told of a deadlock.
    pub(super) fn reports(&self) -> bool {
        self.silent.load(Ordering::Relaxed) == 0
    }

    /// The whole lock, with the cells of its tail.
    pub(super) fn with<'a, R>(&'a self, cells: &'a [AtomicU64], act: impl FnOnce(&Readers<'_>) -> R) -> R {
        let hint = AtomicU32::new(0);
        act(&Readers { word: &self.word, cells: &cells[..CELLS.min(cells.len())], hint: &hint })
    }
}

impl<T: ShmSafe> Clone for RwLock<T> {
    fn clone(&self) -> RwLock<T> {
        RwLock::over(self.state.clone())
    }
}

impl<T: ShmSafe> fmt::Debug for RwLock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.state.fmt(f)
    }
}

impl<T: ShmSafe> Serialize for RwLock<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        self.state.serialize(serializer)
    }
}

impl<'de, T: ShmSafe> Deserialize<'de> for RwLock<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<RwLock<T>, D::Error> {
        let state = Shared::<State>::deserialize(deserializer)?;
        if state.tail().1 < DATA + size_of::<T>() {
            return Err(serde::de::Error::custom("the lock is of another type: its data is shorter"));
        }
        Ok(RwLock::over(state))
    }
}

/// The data of an [`RwLock`], to read. In a fork of it it is its parent's, and dropping it does nothing.
#[must_use = "the lock is released when its guard is dropped"]
pub struct RwLockReadGuard<'a, T: ShmSafe> {
    lock: &'a RwLock<T>,
    entered: Entered,
    /// It says that this thread is in.
    thread: PhantomData<*const ()>,
}

/// The data of an [`RwLock`], to change. In a fork of it it is its parent's, and dropping it does nothing.
#[must_use = "the lock is released when its guard is dropped"]
pub struct RwLockWriteGuard<'a, T: ShmSafe> {
    lock: &'a RwLock<T>,
    /// It says that this thread is in.
    thread: PhantomData<*const ()>,
}

// SAFETY: what it gives others is a `&T`.
unsafe impl<T: ShmSafe + Sync> Sync for RwLockReadGuard<'_, T> {}
// SAFETY: what it gives others is a `&T`.
unsafe impl<T: ShmSafe + Sync> Sync for RwLockWriteGuard<'_, T> {}

impl<'a, T: ShmSafe> RwLockReadGuard<'a, T> {
    #[inline]
    fn of(lock: &'a RwLock<T>, entered: Entered) -> RwLockReadGuard<'a, T> {
        RwLockReadGuard { lock, entered, thread: PhantomData }
    }
}

impl<'a, T: ShmSafe> RwLockWriteGuard<'a, T> {
    #[inline]
    fn of(lock: &'a RwLock<T>) -> RwLockWriteGuard<'a, T> {
        RwLockWriteGuard { lock, thread: PhantomData }
    }
}

impl<T: ShmSafe> Deref for RwLockReadGuard<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: see the heading.
        unsafe { self.lock.data().as_ref() }
    }
}

impl<T: ShmSafe> Deref for RwLockWriteGuard<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: see the heading.
        unsafe { self.lock.data().as_ref() }
    }
}

impl<T: ShmSafe> DerefMut for RwLockWriteGuard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: see the heading.
        unsafe { self.lock.data().as_mut() }
    }
}

impl<T: ShmSafe> Drop for RwLockReadGuard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        if let Ok(me) = shm::me() {
            self.lock.readers().unread(self.entered, me.into());
        }
    }
}

impl<T: ShmSafe> Drop for RwLockWriteGuard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        if let Ok(me) = shm::me() {
            self.lock.readers().unwrite(me.into());
        }
    }
}

impl<T: ShmSafe + fmt::Debug> fmt::Debug for RwLockReadGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        T::fmt(self, f)
    }
}

impl<T: ShmSafe + fmt::Debug> fmt::Debug for RwLockWriteGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        T::fmt(self, f)
    }
}

/// Takes the dead out of the lock, and has everybody look again.
pub(super) fn repair(state: &State, cells: &[AtomicU64], dead: Id) {
    state.with(cells, |readers| readers.repair(dead));
}

/// What it says to people.
pub(super) fn describe(state: &State, cells: &[AtomicU64]) -> Description {
    let owner =
        |how, held_for| move |holder: Holder| Owner { id: holder.id, thread: holder.thread, how, held_for };
    let owners = state.with(cells, |readers| {
        let writer = readers.writer().map(owner("write", state.word.lock.held_for()));
        writer.into_iter().chain(readers.inside().map(owner("read", None))).collect()
    });
    Description { owners, facts: Vec::new() }
}

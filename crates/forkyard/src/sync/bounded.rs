//! BoundedSemaphore: permits that belong to processes, and never are more than at first.
//!
//! # Safety
//! What lies in shared memory is made of atomics.
#![allow(unsafe_code)]

use std::panic::Location;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::base::Patience;
use super::describe::{Description, Owner};
use super::ended::told;
use super::raw::Holder;
use super::word::permits::{Permits, PermitsWord};
use crate::error::{Error, Kind as Reason, Result};
use crate::primitive::{AtomicU32, AtomicU64, Ordering};
use crate::shm::{self, Family, Id, Kind, Payload, Shared};
use crate::time::Deadline;

/// Most permits that have a cell each.
pub(super) const MOST_CELLS: u32 = 1 << 16;

/// In `flags`: no search for deadlocks by those who wait.
const SILENT: u32 = 1;

/// `flags`: who makes it, before others have it.
#[repr(C)]
pub(super) struct BoundedShared {
    word: PermitsWord,
    flags: AtomicU32,
}

// SAFETY: atomics only, `repr(C)`; all-zero has free permits only.
unsafe impl Payload for BoundedShared {
    const KIND: Kind = Kind::BoundedSemaphore;
}

/// The cell that this handle used last, or another one: where a search begins.
#[derive(Debug, Default)]
pub(super) struct Hint(AtomicU32);

impl Hint {
    pub(super) fn word(&self) -> &AtomicU32 {
        &self.0
    }
}

impl Clone for Hint {
    fn clone(&self) -> Hint {
        Hint(AtomicU32::new(self.0.load(Ordering::Relaxed)))
    }
}

/// A resource with so many permits, which processes take and give back.
///
/// Permits held by a process that dies come back at once, and who waits for one gets it. Anybody may give back a permit, also
/// one that another process took; the own process's are given back first. Newcomers may overtake those who wait.
///
/// A handle is cheap to clone and travels in the arguments of a task.
///
/// Killed here: taking a permit is one step, and so is giving it back. Those who wait are woken by the kernel when a holder dies.
///
/// ```
/// use forkyard::sync::BoundedSemaphore;
///
/// let permits = BoundedSemaphore::new(2)?;
/// permits.acquire()?;
/// assert_eq!(permits.value(), 1);
/// permits.release()?;
/// assert!(permits.release().unwrap_err().is_invalid());
/// # Ok::<(), forkyard::Error>(())
/// ```
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct BoundedSemaphore {
    shared: Shared<BoundedShared>,
    #[serde(skip)]
    hint: Hint,
}

impl BoundedSemaphore {
    /// Most permits of a bounded semaphore.
    pub const MAX_PERMITS: u32 = MOST_CELLS;

    /// Makes one with so many permits.
    ///
    /// # Errors
    /// More than [`MAX_PERMITS`](BoundedSemaphore::MAX_PERMITS); no room in the family's shared memory; or this process
    /// cannot take part in it.
    #[track_caller]
    pub fn new(permits: u32) -> Result<BoundedSemaphore> {
        if permits > MOST_CELLS {
            return Err(refuse("make a bounded semaphore", permits, MOST_CELLS));
        }
        let shared = Shared::new(tail(permits), Location::caller(), |_, _| {})?;
        Ok(BoundedSemaphore { shared, hint: Hint::default() })
    }

    /// The same one, for which nobody looks for deadlocks: for one whose permits are given back by others than who took them. To be
    /// called before others have it.
    #[must_use]
    pub fn without_deadlock_report(self) -> BoundedSemaphore {
        self.shared.flags.store(SILENT, Ordering::Relaxed);
        self
    }

    fn permits(&self) -> Permits<'_> {
        Permits { word: &self.shared.word, cells: self.shared.cells(), hint: self.hint.word() }
    }

    /// How many permits can be taken now.
    #[must_use]
    pub fn value(&self) -> u32 {
        self.permits().value(&Family)
    }

    /// Takes a permit, waiting for one.
    ///
    /// # Errors
    /// [`is_deadlock`](crate::Error::is_deadlock): all who have permits wait for this thread, directly or by way of others; or this
    /// process cannot take part in the family.
    pub fn acquire(&self) -> Result<()> {
        self.acquire_as(None, false)
    }

    /// Takes a permit if there is one.
    ///
    /// # Errors
    /// As those of [`acquire`](BoundedSemaphore::acquire).
    pub fn try_acquire(&self) -> Result<bool> {
        let me = shm::me()?;
        Ok(self.permits().try_acquire(&Family, me.into()))
    }

    /// Takes the permit that this handle took last, if it is free.
    #[doc(hidden)]
    #[must_use]
    #[inline]
    pub fn acquire_at_once(&self) -> bool {
        shm::known().is_some_and(|me| self.permits().acquire_at_once(me.into()))
    }

    /// Gives back the permit that this handle took last, if it is this thread's.
    #[doc(hidden)]
    #[must_use]
    #[inline]
    pub fn release_at_once(&self) -> bool {
        shm::known().is_some_and(|me| self.permits().release_at_once(me.into()))
    }

    /// Takes a permit, waiting for at most so long.
    ///
    /// # Errors
    /// [`is_timeout`](crate::Error::is_timeout), and those of [`acquire`](BoundedSemaphore::acquire).
    pub fn acquire_timeout(&self, timeout: Duration) -> Result<()> {
        self.acquire_as(Deadline::after(timeout).timeout(), false)
    }

    /// Takes a permit, waiting until then at most.
    ///
    /// # Errors
    /// As those of [`acquire_timeout`](BoundedSemaphore::acquire_timeout).
    pub fn acquire_deadline(&self, deadline: Instant) -> Result<()> {
        self.acquire_as(Some(deadline), false)
    }

    /// As [`acquire_deadline`](BoundedSemaphore::acquire_deadline), and ended by a signal handler with `EINTR`.
    #[doc(hidden)]
    pub fn acquire_interruptible(&self, deadline: Option<Instant>) -> Result<()> {
        self.acquire_as(deadline, true)
    }

    fn acquire_as(&self, until: Option<Instant>, interruptible: bool) -> Result<()> {
        let mut patience = Patience::new::<()>(self.shared.offset(), until, reports(&self.shared))?;
        patience.interruptible = interruptible;
        let result = self.permits().acquire(&Family, patience.me.into(), &mut patience);
        told(result, &mut patience, || format!("acquire the {:?}", self.shared))
    }

    /// Gives back a permit, and wakes one who waits.
    ///
    /// # Errors
    /// All permits are there already; or as those of [`acquire`](BoundedSemaphore::acquire).
    pub fn release(&self) -> Result<()> {
        let me = shm::me()?;
        self.permits().release(&Family, me.id).map_err(|_| {
            let why = "all its permits are free already; release as often as was acquired".to_owned();
            Error::new(format!("release the {:?}", self.shared), Reason::Invalid(why))
        })
    }
}

/// The bytes of so many cells.
fn tail(cells: u32) -> usize {
    cells as usize * size_of::<AtomicU64>()
}

/// Makes an object with `most` cells, of which the first `permits` are free and the others absent.
pub(super) fn with_cells<T: Payload>(most: u32, permits: u32, made_at: &Location<'_>) -> Result<Shared<T>> {
    Shared::new(tail(most), made_at, |_, address| {
        // SAFETY: the tail has room for so many cells, aligned, and all-zero is a value of each.
        let cells =
            unsafe { std::slice::from_raw_parts(address.cast::<AtomicU64>().as_ptr(), most as usize) };
        Permits { word: &PermitsWord::default(), cells, hint: &AtomicU32::new(0) }.init(permits as usize);
    })
}

/// The error of too many permits.
pub(super) fn refuse(what: &str, permits: u32, most: u32) -> Error {
    Error::new(what, Reason::Invalid(format!("{permits} permits are more than the {most} that it can have")))
}

/// See [`Permits::repair`].
pub(super) fn repair(shared: &BoundedShared, cells: &[AtomicU64], dead: Id) {
    Permits { word: &shared.word, cells, hint: &AtomicU32::new(0) }.repair(dead);
}

/// The threads that have its permits, as far as they are known.
pub(super) fn holders(shared: &BoundedShared, cells: &[AtomicU64]) -> Vec<Holder> {
    Permits { word: &shared.word, cells, hint: &AtomicU32::new(0) }.holders().collect()
}

/// True if who waits for a permit may be told of a deadlock.
pub(super) fn reports(shared: &BoundedShared) -> bool {
    shared.flags.load(Ordering::Relaxed) & SILENT == 0
}

/// What it says to people.
pub(super) fn describe(shared: &BoundedShared, cells: &[AtomicU64]) -> Description {
    describe_permits(&shared.word, cells)
}

/// What its permits say to people.
pub(super) fn describe_permits(word: &PermitsWord, cells: &[AtomicU64]) -> Description {
    let permits = Permits { word, cells, hint: &AtomicU32::new(0) };
    let owner =
        |holder: Holder| Owner { id: holder.id, thread: holder.thread, how: "permit", held_for: None };
    let facts = vec![("value", permits.value(&Family).into()), ("permits", permits.count().into())];
    Description { owners: permits.holders().map(owner).collect(), facts }
}

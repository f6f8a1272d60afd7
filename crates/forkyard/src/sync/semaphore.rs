//! Semaphore: a count of permits that processes take and give.
//!
//! # Safety
//! What lies in shared memory is made of atomics.
#![allow(unsafe_code)]

use std::panic::Location;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::base::Patience;
use super::bounded::{Hint, MOST_CELLS, refuse};
use super::describe::Description;
use super::ended::told;
use super::word::permits::{Permits, PermitsWord};
use super::word::semaphore::{MOST, SemaphoreWord};
use crate::error::{Error, Kind as Reason, Result};
use crate::primitive::{AtomicU32, AtomicU64};
use crate::shm::{self, Family, Id, Kind, Payload, Shared};
use crate::time::Deadline;

/// Either word is used, or the other; with cells behind them it is `permits`.
#[repr(C)]
pub(super) struct SemaphoreShared {
    plain: SemaphoreWord,
    permits: PermitsWord,
}

// SAFETY: atomics only, `repr(C)`, all-zero is a semaphore without permits.
unsafe impl Payload for SemaphoreShared {
    const KIND: Kind = Kind::Semaphore;
}

/// A number of permits: taking one waits until there is one, and anybody may give more.
///
/// The permits of a plain semaphore, made with [`new`](Semaphore::new), belong to nobody: they serve as signals between
/// processes too, so the count is never touched at anybody's death. With [`undo`](Semaphore::undo) a permit belongs to the process
/// that took it, and comes back if that one dies. Newcomers may overtake those who wait.
///
/// A handle is cheap to clone and travels in the arguments of a task.
///
/// Killed here: taking a permit is one step, and so is giving one, waking included. A process that is killed between being woken
/// and taking its permit leaves it to the others, who are woken at its death.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[doc(alias = "sem_t")]
pub struct Semaphore {
    shared: Shared<SemaphoreShared>,
    #[serde(skip)]
    hint: Hint,
}

impl Semaphore {
    /// Most permits of a plain semaphore.
    #[doc(alias = "SEM_VALUE_MAX")]
    pub const MAX_PERMITS: u32 = MOST;

    /// Makes a plain semaphore with so many permits.
    ///
    /// # Errors
    /// More than [`MAX_PERMITS`](Semaphore::MAX_PERMITS); no room in the family's shared memory; or this process cannot
    /// take part in it.
    #[track_caller]
    #[doc(alias = "sem_init")]
    pub fn new(permits: u32) -> Result<Semaphore> {
        if permits > MOST {
            return Err(refuse("make a semaphore", permits, MOST));
        }
        let shared =
            Shared::new(0, Location::caller(), |shared: &SemaphoreShared, _| shared.plain.init(permits))?;
        Ok(Semaphore { shared, hint: Hint::default() })
    }

    /// Makes a semaphore whose permits come back when their holder dies. It has so many permits now, and never more than `most`.
    ///
    /// A release gives back a permit of the own process; or somebody else's, if the own process has none; or makes a new one.
    ///
    /// # Errors
    /// `most` is 0, less than `permits`, or more than 65536; and those of [`new`](Semaphore::new).
    #[track_caller]
    #[doc(alias = "SEM_UNDO")]
    pub fn undo(permits: u32, most: u32) -> Result<Semaphore> {
        if most == 0 || most < permits || most > MOST_CELLS {
            let why = format!(
                "at most {most} permits were asked for, {permits} now: give a most of 1 to {MOST_CELLS}"
            );
            return Err(Error::new("make a semaphore with undo", Reason::Invalid(why)));
        }
        let shared = super::bounded::with_cells(most, permits, Location::caller())?;
        Ok(Semaphore { shared, hint: Hint::default() })
    }

    fn permits(&self) -> Option<Permits<'_>> {
        let cells = self.shared.cells();
        (!cells.is_empty()).then(|| Permits { word: &self.shared.permits, cells, hint: self.hint.word() })
    }

    /// How many permits can be taken now.
    #[must_use]
    #[doc(alias = "sem_getvalue")]
    pub fn value(&self) -> u32 {
        self.permits().map_or_else(|| self.shared.plain.value(), |permits| permits.value(&Family))
    }

    /// Takes a permit, waiting for one.
    ///
    /// # Errors
    /// This process cannot take part in the family.
    #[doc(alias = "sem_wait")]
    pub fn acquire(&self) -> Result<()> {
        self.acquire_as(None, false)
    }

    /// Takes a permit if there is one.
    ///
    /// # Errors
    /// As those of [`acquire`](Semaphore::acquire).
    #[doc(alias = "sem_trywait")]
    pub fn try_acquire(&self) -> Result<bool> {
        let me = shm::me()?;
        Ok(match self.permits() {
            None => self.shared.plain.try_acquire(),
            Some(permits) => permits.try_acquire(&Family, me.into()),
        })
    }

    /// Takes a permit of a plain semaphore, if there is one.
    #[doc(hidden)]
    #[must_use]
    #[inline]
    pub fn acquire_at_once(&self) -> bool {
        shm::known().is_some() && self.is_plain() && self.shared.plain.try_acquire()
    }

    /// Gives a permit of a plain semaphore, if there are fewer than `most`, and nobody waits.
    #[doc(hidden)]
    #[must_use]
    #[inline]
    pub fn release_at_once(&self, most: u32) -> bool {
        shm::known().is_some() && self.is_plain() && self.shared.plain.release_at_once(most)
    }

    #[inline]
    fn is_plain(&self) -> bool {
        self.shared.cells::<AtomicU64>().is_empty()
    }

    /// Takes a permit, waiting for at most so long.
    ///
    /// # Errors
    /// [`is_timeout`](crate::Error::is_timeout), and those of [`acquire`](Semaphore::acquire).
    #[doc(alias = "sem_timedwait")]
    pub fn acquire_timeout(&self, timeout: Duration) -> Result<()> {
        self.acquire_as(Deadline::after(timeout).timeout(), false)
    }

    /// Takes a permit, waiting until then at most.
    ///
    /// # Errors
    /// As those of [`acquire_timeout`](Semaphore::acquire_timeout).
    pub fn acquire_deadline(&self, deadline: Instant) -> Result<()> {
        self.acquire_as(Some(deadline), false)
    }

    /// As [`acquire_deadline`](Semaphore::acquire_deadline), and ended by a signal handler with `EINTR`.
    #[doc(hidden)]
    pub fn acquire_interruptible(&self, deadline: Option<Instant>) -> Result<()> {
        self.acquire_as(deadline, true)
    }

    fn acquire_as(&self, until: Option<Instant>, interruptible: bool) -> Result<()> {
        let mut patience = Patience::new::<()>(self.shared.offset(), until, false)?;
        patience.interruptible = interruptible;
        let result = match self.permits() {
            None => self.shared.plain.acquire(&Family, &mut patience),
            Some(permits) => permits.acquire(&Family, patience.me.into(), &mut patience),
        };
        told(result, &mut patience, || format!("acquire the {:?}", self.shared))
    }

    /// Gives a permit, and wakes one who waits.
    ///
    /// # Errors
    /// There would be too many; or as those of [`acquire`](Semaphore::acquire).
    #[doc(alias = "sem_post")]
    pub fn release(&self) -> Result<()> {
        self.release_many(1)
    }

    /// Gives so many permits, and wakes as many who wait. Somebody may see some of them before the others: in one step happens what
    /// nobody waits for, or is below 2048 or a power of two.
    ///
    /// # Errors
    /// As those of [`release`](Semaphore::release); with [`undo`](Semaphore::undo) those that fit have been given then.
    pub fn release_many(&self, n: u32) -> Result<()> {
        let me = shm::me()?;
        let full = || {
            let why = "it would have more permits than it may; release no more than was acquired".to_owned();
            Error::new(format!("release the {:?}", self.shared), Reason::Invalid(why))
        };
        match self.permits() {
            None => self.shared.plain.release(n).map_err(|_| full()),
            Some(permits) => (0..n).try_for_each(|_| permits.release(&Family, me.id)).map_err(|_| full()),
        }
    }
}

/// See [`SemaphoreWord::repair`] and [`Permits::repair`].
pub(super) fn repair(shared: &SemaphoreShared, cells: &[AtomicU64], dead: Id) {
    match cells {
        [] => shared.plain.repair(),
        cells => Permits { word: &shared.permits, cells, hint: &AtomicU32::new(0) }.repair(dead),
    }
}

/// What it says to people.
pub(super) fn describe(shared: &SemaphoreShared, cells: &[AtomicU64]) -> Description {
    match cells {
        [] => Description { owners: Vec::new(), facts: vec![("value", shared.plain.value().into())] },
        cells => super::bounded::describe_permits(&shared.permits, cells),
    }
}

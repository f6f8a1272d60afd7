//! Barrier: parties wait for each other.
//!
//! # Safety
//! What lies in shared memory is made of atomics.
#![allow(unsafe_code)]

use std::panic::Location;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::base::Patience;
use super::describe::Description;
use super::ended::failed;
use super::word::End;
use super::word::barrier::{Barrier as Words, BarrierWord, Failed};
use crate::error::{Error, Kind as Reason, Result};
use crate::primitive::AtomicU64;
use crate::shm::{self, Family, Id, Kind, Payload, Shared};
use crate::time::Deadline;

/// Most parties of a barrier.
const MOST: usize = 1 << 16;

// SAFETY: atomics only, `repr(C)`; all-zero is a barrier at which nobody waits.
unsafe impl Payload for BarrierWord {
    const KIND: Kind = Kind::Barrier;
}

/// A point at which so many parties wait until all have arrived; again and again.
///
/// If a party dies while it waits, the barrier is broken: the others are told at once, and whoever comes until somebody
/// [resets](Barrier::reset) it. So it is if a wait times out. One that dies before it arrives breaks nothing. Either all parties of a
/// round pass, or none.
///
/// A handle is cheap to clone and travels in the arguments of a task.
///
/// Killed here: a party has arrived from one step on, and if it was the last one the others let each other pass, though it is dead.
/// The kernel wakes them when one of them dies.
///
/// ```
/// use forkyard::{process, sync::Barrier};
///
/// #[forkyard::task]
/// fn party(barrier: Barrier) -> bool {
///     barrier.wait().unwrap().is_leader()
/// }
///
/// let barrier = Barrier::new(2)?;
/// let child = process::spawn(party, (barrier.clone(),))?;
/// let here = barrier.wait()?.is_leader();
/// assert_ne!(here, child.join()?);
/// # Ok::<(), forkyard::Error>(())
/// ```
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(transparent)]
#[doc(alias = "pthread_barrier_t")]
pub struct Barrier {
    shared: Shared<BarrierWord>,
}

/// Which of the parties that passed together this one is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BarrierWaitResult {
    index: u32,
}

impl BarrierWaitResult {
    /// From 0 to the number of parties, which is not reached; each party has a different one.
    #[must_use]
    pub fn index(&self) -> usize {
        self.index as usize
    }

    /// True for the one whose index is 0.
    #[must_use]
    #[doc(alias = "PTHREAD_BARRIER_SERIAL_THREAD")]
    pub fn is_leader(&self) -> bool {
        self.index == 0
    }
}

impl Barrier {
    /// Makes a barrier for so many parties.
    ///
    /// # Errors
    /// No party, or more than 65536; no room in the family's shared memory; or this process cannot take part in it.
    #[track_caller]
    pub fn new(parties: usize) -> Result<Barrier> {
        if parties == 0 || parties > MOST {
            let why = format!("it is for {parties} parties; give 1 to {MOST}");
            return Err(Error::new("make a barrier", Reason::Invalid(why)));
        }
        let tail = parties * size_of::<AtomicU64>();
        Ok(Barrier { shared: Shared::new(tail, Location::caller(), |_, _| {})? })
    }

    fn words(&self) -> Words<'_> {
        Words { word: &self.shared, cells: self.shared.cells() }
    }

    /// How many parties it takes to pass.
    #[must_use]
    pub fn parties(&self) -> usize {
        self.words().cells.len()
    }

    /// How many wait. None do at a broken barrier.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.words().waiting() as usize
    }

    /// True if it is broken.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        self.words().is_broken()
    }

    /// Waits until all parties have arrived.
    ///
    /// # Errors
    /// [`is_broken_barrier`](crate::Error::is_broken_barrier): a party died or gave up, or somebody aborted or reset it. Or
    /// this process cannot take part in the family.
    pub fn wait(&self) -> Result<BarrierWaitResult> {
        self.wait_as(None)
    }

    /// Passes if this is the last party; otherwise nothing has happened.
    ///
    /// # Errors
    /// As those of [`wait`](Barrier::wait).
    pub fn try_wait(&self) -> Result<Option<BarrierWaitResult>> {
        let me = shm::me()?;
        let passed = self.words().try_wait(&Family, me.id).map_err(|_| self.broken())?;
        Ok(passed.map(|index| BarrierWaitResult { index }))
    }

    /// Waits for at most so long, and then breaks the barrier.
    ///
    /// # Errors
    /// [`is_timeout`](crate::Error::is_timeout), and those of [`wait`](Barrier::wait).
    pub fn wait_timeout(&self, timeout: Duration) -> Result<BarrierWaitResult> {
        self.wait_as(Deadline::after(timeout).timeout())
    }

    /// Waits until then at most, and then breaks the barrier.
    ///
    /// # Errors
    /// As those of [`wait_timeout`](Barrier::wait_timeout).
    pub fn wait_deadline(&self, deadline: Instant) -> Result<BarrierWaitResult> {
        self.wait_as(Some(deadline))
    }

    fn wait_as(&self, until: Option<Instant>) -> Result<BarrierWaitResult> {
        let mut patience = Patience::new::<()>(self.shared.offset(), until, false)?;
        let passed = self.words().wait(&Family, patience.me.id, &mut patience);
        self.told(passed, &mut patience)
    }

    /// As [`wait_deadline`](Barrier::wait_deadline); whenever a signal handler has run, `goes_on` is called. If it says no the
    /// barrier is broken, unless all have arrived, and the wait ends with `EINTR`.
    #[doc(hidden)]
    pub fn wait_interruptible(
        &self,
        deadline: Option<Instant>,
        mut goes_on: impl FnMut() -> bool,
    ) -> Result<BarrierWaitResult> {
        let mut patience = Patience::new::<()>(self.shared.offset(), deadline, false)?;
        patience.interruptible = true;
        let (words, me) = (self.words(), patience.me.id);
        let arrival = words.arrive(&Family, me).map_err(|_| self.broken())?;
        loop {
            match words.stay(arrival, &Family, me, &mut patience) {
                Err(Failed::Ended(End::Interrupted)) if goes_on() => {}
                passed => {
                    if passed == Err(Failed::Ended(End::Interrupted)) {
                        words.leave(arrival);
                    }
                    return self.told(passed, &mut patience);
                }
            }
        }
    }

    fn told(
        &self,
        passed: std::result::Result<u32, Failed>,
        patience: &mut Patience,
    ) -> Result<BarrierWaitResult> {
        passed.map(|index| BarrierWaitResult { index }).map_err(|why| match why {
            Failed::Broken => self.broken(),
            Failed::Ended(end) => failed(end, patience, format!("wait at the {:?}", self.shared)),
        })
    }

    #[cold]
    fn broken(&self) -> Error {
        Error::new(format!("wait at the {:?}", self.shared), Reason::BrokenBarrier)
    }

    /// Breaks the barrier: for all who wait, and for whoever comes until it is reset.
    ///
    /// # Errors
    /// This process cannot take part in the family.
    pub fn abort(&self) -> Result<()> {
        shm::me()?;
        self.words().abort();
        Ok(())
    }

    /// Makes it as new. Those who wait are told that it was broken. If the caller is killed meanwhile it may stay broken, until somebody
    /// resets it.
    ///
    /// # Errors
    /// As those of [`abort`](Barrier::abort).
    pub fn reset(&self) -> Result<()> {
        shm::me()?;
        self.words().reset();
        Ok(())
    }
}

/// See [`Words::repair`].
pub(super) fn repair(shared: &BarrierWord, cells: &[AtomicU64], dead: Id) {
    Words { word: shared, cells }.repair(&Family, dead);
}

/// What it says to people.
pub(super) fn describe(shared: &BarrierWord, cells: &[AtomicU64]) -> Description {
    let words = Words { word: shared, cells };
    let facts = vec![
        ("parties", cells.len() as u64),
        ("arrived", words.waiting().into()),
        ("broken", words.is_broken().into()),
    ];
    Description { owners: Vec::new(), facts }
}

//! The lock under all locks: a word that says who has it, and how to wait for that.
//!
//! README.md beside this file has the table of its steps. Three rules make them survive a death:
//!
//! - A sleeper watches the life of the owner that it saw, so the owner may be killed between its release and its wake-up.
//!   A release by somebody else, whom nobody watches, is one system call (`FUTEX_WAKE_OP`).
//! - Two sleepers are woken, not one: one gets the lock, and the other sees who got it and watches that one's life.
//! - Whoever was woken and does not take the lock wakes another in its place.
//!
//! Killed here: before the acquiring exchange nothing has happened, from there on the owner stands in the word, and after the
//! releasing one the lock is free. A woken waiter that is killed took the wake-up with it: the reaper calls [`RawLock::repair`].

use std::sync::atomic::AtomicU32 as Hint;
use std::time::{Duration, Instant};

use super::sleep::{Slept, earlier, sleep};
use crate::primitive::{self, AtomicU32, AtomicU64, Ordering};
use crate::shm::{Id, Lives};

/// Somebody sleeps, or may.
const WAITERS: u64 = 1 << 31;
/// Somebody has waited for too long: who comes now has to wait as well.
const STARVING: u64 = 1 << 30;
/// The owner died, and the reaper took its name out of the word.
const DIED: u64 = 1 << 29;
/// Free, whoever the word names: somebody else than the owner released it.
const RELEASED: u64 = 1 << 28;

/// After waiting for so long a waiter is served before newcomers, and after each further such time again.
const STARVES: Duration = Duration::from_millis(1);
/// How many sleepers a release wakes: one for the lock, and one to watch over it.
const WOKEN: u32 = 2;

/// SeqCst: a writer that has acquired a reader–writer lock looks at the readers' cells after that.
const ACQUIRE: Ordering = Ordering::SeqCst;

/// A lock in shared memory. All zero is free.
///
/// `word`: everybody, by exchange, but for one bit that the kernel sets; acquired with [`ACQUIRE`], released with Release. Its low half
/// is what sleepers sleep on: the owner's [`Id`] and the marks above. The high half is the owner's thread. `died`: who removes a dead
/// owner, before it does. `since`: who sets [`WAITERS`] in an owned word, before it does (with [`primitive::millis`]); a hint for people, so
/// no business of the model checker.
#[repr(C)]
#[derive(Debug, Default)]
pub(crate) struct RawLock {
    word: AtomicU64,
    died: AtomicU32,
    since: Hint,
}

/// A thread of a participant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Holder {
    pub(crate) id: Id,
    pub(crate) thread: u32,
}

impl Holder {
    /// The word of a lock that it has.
    #[inline]
    fn word(self) -> u64 {
        u64::from(self.thread) << 32 | u64::from(self.id.bits())
    }
}

/// What came of waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum Outcome {
    /// The caller has the lock.
    Acquired,
    /// The caller has the lock, whose last owner died with it: this one, if it is still known.
    OwnerDied(Option<Id>),
    /// The lock is held, and the time is up.
    TimedOut,
    /// A signal handler ran, and the waiter wanted to know.
    Interrupted,
    /// The waiter gave up when it was asked.
    GaveUp,
}

/// What came of releasing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum Released {
    /// The lock was released.
    Done,
    /// Somebody else has it.
    NotOwner,
    /// Nobody has it.
    NotLocked,
}

/// How a caller waits: for how long, and what it does meanwhile.
pub(crate) trait Waiter {
    /// When it gives up.
    fn until(&self) -> Option<Instant> {
        None
    }
    /// Whether a signal handler ends the wait.
    fn interruptible(&self) -> bool {
        false
    }
    /// Called before the first sleep: what others can know of this wait is to be written down now, if it is not yet.
    fn sleeps(&mut self) {}
    /// Called when a sleep lasted for a slice without an event. True ends the wait.
    fn slice(&mut self) -> bool {
        false
    }
    /// Called after that: true if a signal came that no sleep has seen, and the waiter wants to know.
    fn attention(&self) -> bool {
        false
    }
}

/// What a word says.
enum Standing {
    Free,
    Owned(Id),
}

/// Whom a word names.
fn named(word: u64) -> Option<Id> {
    Id::of_word(word as u32)
}

fn standing(word: u64) -> Standing {
    match named(word) {
        Some(owner) if word & RELEASED == 0 => Standing::Owned(owner),
        _ => Standing::Free,
    }
}

impl RawLock {
    /// Acquires the lock if nobody has it, and nobody starves for it.
    #[inline]
    pub(crate) fn acquire_at_once(&self, me: Holder) -> bool {
        self.word.compare_exchange(0, me.word(), ACQUIRE, Ordering::Relaxed).is_ok()
    }

    /// Acquires the lock, waiting as `waiter` does.
    #[inline]
    pub(crate) fn acquire(&self, lives: &impl Lives, me: Holder, waiter: &mut impl Waiter) -> Outcome {
        if self.acquire_at_once(me) { Outcome::Acquired } else { self.wait(lives, me, waiter) }
    }

    /// Acquires the lock if it is free, or its owner dead; otherwise `TimedOut`.
    #[inline]
    pub(crate) fn try_acquire(&self, lives: &impl Lives, me: Holder) -> Outcome {
        if self.acquire_at_once(me) { Outcome::Acquired } else { self.look(lives, me) }
    }

    #[cold]
    fn look(&self, lives: &impl Lives, me: Holder) -> Outcome {
        loop {
            let word = self.word.load(Ordering::Relaxed);
            let taken = match standing(word) {
                Standing::Free => self.take(word, 0, me),
                Standing::Owned(owner) if lives.is_dead(owner) => self.take_over(word, owner, 0, me),
                Standing::Owned(_) => return Outcome::TimedOut,
            };
            if let Some(outcome) = taken {
                return outcome;
            }
        }
    }

    #[cold]
    fn wait(&self, lives: &impl Lives, me: Holder, waiter: &mut impl Waiter) -> Outcome {
        let until = waiter.until();
        let mut spins = primitive::SPINS;
        let mut starves = primitive::slice_end(STARVES);
        let mut starving = false;
        // Of a waiter that sleeps, or slept: others may as well.
        let mut waiters = 0;
        let mut ends = None;
        loop {
            let word = self.word.load(Ordering::Relaxed);
            let (seen, watched) = match standing(word) {
                Standing::Free if word & STARVING == 0 || starving || ends.is_some() => {
                    if let Some(outcome) = self.take(word, waiters, me) {
                        return outcome;
                    }
                    continue;
                }
                Standing::Free => (word, None),
                Standing::Owned(_) if spins > 0 && word & WAITERS == 0 => {
                    spins -= 1;
                    primitive::spin_loop();
                    continue;
                }
                Standing::Owned(owner) if lives.is_dead(owner) => {
                    if let Some(outcome) = self.take_over(word, owner, waiters, me) {
                        return outcome;
                    }
                    continue;
                }
                Standing::Owned(owner) => (word | WAITERS, Some(owner)),
            };
            if ends.is_none() && until.is_some_and(primitive::has_passed) {
                ends = Some(Outcome::TimedOut);
                continue;
            }
            if waiters != 0 && (ends.is_some() || watched.is_none()) {
                // It may have been woken for a lock that it does not take.
                primitive::wake(&self.word, 1);
            }
            if let Some(outcome) = ends {
                return outcome;
            }
            if waiters == 0 {
                waiter.sleeps();
                waiters = WAITERS;
            }
            let mut seen = seen;
            if word & WAITERS == 0 && seen & WAITERS != 0 {
                self.note_time();
            }
            if starves.is_some_and(primitive::has_passed) {
                starving = true;
                starves = primitive::slice_end(STARVES);
                seen |= STARVING;
            }
            if seen != word
                && self.word.compare_exchange(word, seen, Ordering::Relaxed, Ordering::Relaxed).is_err()
            {
                continue;
            }
            // Not longer than until it starves, unless the one who starves is served next anyway.
            let soon =
                if watched.is_some() && seen & STARVING != 0 { until } else { earlier(until, starves) };
            ends = match sleep(lives, &self.word, seen as u32, watched.as_slice(), soon) {
                Slept::Interrupted if waiter.interruptible() => Some(Outcome::Interrupted),
                Slept::Slice if waiter.slice() => Some(Outcome::GaveUp),
                Slept::Slice if waiter.attention() => Some(Outcome::Interrupted),
                _ => None,
            };
        }
    }

    /// Takes a free lock.
    fn take(&self, word: u64, waiters: u64, me: Holder) -> Option<Outcome> {
        // Newcomers that had to queue behind one who starves are asleep without a mark of theirs.
        let others = if word & (WAITERS | STARVING) == 0 { waiters } else { WAITERS };
        if others != 0 {
            self.note_time();
        }
        self.word.compare_exchange(word, me.word() | others, ACQUIRE, Ordering::Relaxed).ok()?;
        if word & DIED == 0 {
            return Some(Outcome::Acquired);
        }
        Some(Outcome::OwnerDied(Id::of_word(self.died.load(Ordering::Relaxed))))
    }

    /// Takes the lock from a dead owner.
    fn take_over(&self, word: u64, owner: Id, waiters: u64, me: Holder) -> Option<Outcome> {
        let others = word & WAITERS | waiters;
        if others != 0 {
            // Before it is taken: this one will see who took it, and watch that one.
            primitive::wake(&self.word, 1);
            self.note_time();
        }
        self.word.compare_exchange(word, me.word() | others, ACQUIRE, Ordering::Relaxed).ok()?;
        Some(Outcome::OwnerDied(Some(owner)))
    }

    /// Releases the lock if it is the caller's process's. A look before the exchange would cost half as much again.
    #[inline]
    pub(crate) fn release(&self, me: Holder) -> Released {
        if self.release_at_once(me) { Released::Done } else { self.release_contended(me.id, 0) }
    }

    /// The same, if nobody sleeps, or starves for it.
    #[inline]
    pub(crate) fn release_at_once(&self, me: Holder) -> bool {
        self.word.compare_exchange(me.word(), 0, Ordering::Release, Ordering::Relaxed).is_ok()
    }

    /// The same, and the next one to acquire it is told that its owner died: `dead`, if it is known.
    #[cold]
    pub(crate) fn release_died(&self, me: Id, dead: Option<Id>) -> Released {
        self.died.store(dead.map_or(0, Id::bits), Ordering::Relaxed);
        self.release_contended(me, DIED)
    }

    #[cold]
    fn release_contended(&self, me: Id, died: u64) -> Released {
        loop {
            let word = self.word.load(Ordering::Relaxed);
            match standing(word) {
                Standing::Owned(owner) if owner == me => {}
                Standing::Owned(_) => return Released::NotOwner,
                Standing::Free => return Released::NotLocked,
            }
            let free = word & STARVING | died;
            if self.word.compare_exchange(word, free, Ordering::Release, Ordering::Relaxed).is_ok() {
                if word & WAITERS != 0 {
                    primitive::wake(&self.word, WOKEN);
                }
                return Released::Done;
            }
        }
    }

    /// Releases the lock, whoever has it. Of two that release one acquisition at the same time both may be told that it was theirs, if
    /// somebody waits: the one system call that releases and wakes does not say what it found. An exchange in front of it would, and whoever was
    /// killed behind that would leave sleepers whom nobody tells.
    #[inline]
    pub(crate) fn release_any(&self, me: Holder) -> Released {
        match self.release(me) {
            Released::NotOwner => self.release_of_other(),
            released => released,
        }
    }

    #[cold]
    fn release_of_other(&self) -> Released {
        loop {
            let word = self.word.load(Ordering::Relaxed);
            if matches!(standing(word), Standing::Free) {
                return Released::NotLocked;
            }
            if word & WAITERS != 0 {
                // Nobody watches this process.
                primitive::set_bit_and_wake(&self.word, RELEASED.trailing_zeros(), WOKEN);
                return Released::Done;
            }
            let free = word & STARVING;
            if self.word.compare_exchange(word, free, Ordering::Release, Ordering::Relaxed).is_ok() {
                return Released::Done;
            }
        }
    }

    /// True if nobody has the lock, nobody starves for it, and nobody has to be told of a death. SeqCst.
    #[inline]
    pub(crate) fn is_quiet(&self) -> bool {
        self.word.load(Ordering::SeqCst) == 0
    }

    /// Who has the lock, dead or alive.
    pub(crate) fn owner(&self) -> Option<Id> {
        self.holder().map(|holder| holder.id)
    }

    /// The same, and which thread of it.
    pub(crate) fn holder(&self) -> Option<Holder> {
        let word = self.word.load(Ordering::Acquire);
        match standing(word) {
            Standing::Owned(id) => Some(Holder { id, thread: (word >> 32) as u32 }),
            Standing::Free => None,
        }
    }

    /// It is about to be said that somebody waits for the owner.
    fn note_time(&self) {
        self.since.store(primitive::millis(), Ordering::Relaxed);
    }

    /// For how many milliseconds its owner has had it, at least: since it acquired the lock, if others waited then, and otherwise
    /// since somebody began to wait. `None` where nobody waits, or for more than 24 days.
    pub(crate) fn held_for(&self) -> Option<u32> {
        let word = self.word.load(Ordering::Acquire);
        if word & WAITERS == 0 || matches!(standing(word), Standing::Free) {
            return None;
        }
        let held = primitive::millis().wrapping_sub(self.since.load(Ordering::Relaxed));
        // Of two clocks that were read at the same time the later one may have been read first.
        match held.cast_signed() {
            -1000..0 => Some(0),
            held => u32::try_from(held).ok(),
        }
    }

    /// True if this thread has the lock.
    #[inline]
    pub(crate) fn is_held_by(&self, me: Holder) -> bool {
        // What this thread wrote it reads, and nobody else writes its name.
        self.word.load(Ordering::Relaxed) & !(WAITERS | STARVING | DIED) == me.word()
    }

    /// Removes the dead from the lock, and has everybody look again. May be done twice, or by halves.
    pub(crate) fn repair(&self, dead: Id) {
        loop {
            let word = self.word.load(Ordering::Relaxed);
            if named(word) != Some(dead) {
                break;
            }
            let died = if word & RELEASED == 0 { DIED } else { word & DIED };
            self.died.store(dead.bits(), Ordering::Relaxed);
            let free = word & STARVING | died;
            if self.word.compare_exchange(word, free, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
                break;
            }
        }
        self.wake_all();
    }

    /// Has every sleeper look again.
    pub(crate) fn wake_all(&self) {
        primitive::wake(&self.word, u32::MAX);
    }
}

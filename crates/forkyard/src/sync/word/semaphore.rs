//! A plain semaphore: a count of permits, which belong to nobody.
//!
//! Killed here: taking a permit is one exchange. Releasing is one too, or with sleepers one system call that wakes as many in the
//! same step (`FUTEX_WAKE_OP`). A sleeper that is killed when it was woken, and before it took, leaves a permit that others sleep
//! beside: the reaper calls [`SemaphoreWord::repair`]. The count is never touched at a death.

use super::{End, Wait};
use crate::primitive::{self, AtomicU32, Ordering};
use crate::shm::Lives;
use crate::sync::raw::Waiter;

/// Somebody sleeps, or may. Who sleeps found no permit beside this bit; it is cleared by waking all only.
const WAITERS: u32 = 1 << 31;
/// The permits.
const VALUE: u32 = WAITERS - 1;
/// Most that one system call adds that is no power of two.
const STEP: u32 = 2047;
/// From here on permits are added by exchange only, which cannot overflow.
const MANY: u32 = 1 << 30;

/// Most permits of a semaphore.
pub(crate) const MOST: u32 = VALUE;

/// A semaphore in shared memory. All zero has no permits.
///
/// `word`: everybody, by exchange or in the kernel; released with Release, acquired with Acquire.
#[repr(C)]
#[derive(Debug, Default)]
pub(crate) struct SemaphoreWord {
    word: AtomicU32,
}

/// There would be more than [`MOST`] permits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Full;

impl SemaphoreWord {
    /// Puts the first permits in, before anybody else has the semaphore.
    pub(crate) fn init(&self, value: u32) {
        self.word.store(value & VALUE, Ordering::Relaxed);
    }

    /// How many permits there are.
    #[inline]
    pub(crate) fn value(&self) -> u32 {
        self.word.load(Ordering::Acquire) & VALUE
    }

    /// Takes a permit if there is one.
    #[inline]
    pub(crate) fn try_acquire(&self) -> bool {
        let mut word = self.word.load(Ordering::Relaxed);
        while word & VALUE != 0 {
            match self.word.compare_exchange_weak(word, word - 1, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(now) => word = now,
            }
        }
        false
    }

    /// Takes a permit, waiting for one. Newcomers may overtake whoever sleeps.
    #[inline]
    pub(crate) fn acquire(&self, lives: &impl Lives, waiter: &mut impl Waiter) -> Result<(), End> {
        if self.try_acquire() { Ok(()) } else { self.wait(lives, waiter) }
    }

    #[cold]
    fn wait(&self, lives: &impl Lives, waiter: &mut impl Waiter) -> Result<(), End> {
        let mut wait = Wait::new(waiter);
        loop {
            if self.try_acquire() {
                return Ok(());
            }
            wait.ended()?;
            if wait.spins() {
                continue;
            }
            let word = self.word.load(Ordering::Relaxed);
            if word == WAITERS
                || word == 0
                    && self.word.compare_exchange(0, WAITERS, Ordering::Relaxed, Ordering::Relaxed).is_ok()
            {
                wait.sleep(lives, &self.word, WAITERS, &[]);
            }
        }
    }

    /// Adds permits and wakes as many sleepers: in one step if nobody sleeps, or `n` is below 2048 or a power of two;
    /// otherwise in several of these.
    #[inline]
    pub(crate) fn release(&self, n: u32) -> Result<(), Full> {
        let word = self.word.load(Ordering::Relaxed);
        if word & WAITERS == 0
            && n <= MOST - word
            && self.word.compare_exchange(word, word + n, Ordering::Release, Ordering::Relaxed).is_ok()
        {
            return Ok(());
        }
        self.release_contended(n)
    }

    /// Adds one permit if there are fewer than `most`, and nobody sleeps.
    #[inline]
    pub(crate) fn release_at_once(&self, most: u32) -> bool {
        let word = self.word.load(Ordering::Relaxed);
        // With sleepers it is more than any bound.
        word < most.min(VALUE)
            && self.word.compare_exchange(word, word + 1, Ordering::Release, Ordering::Relaxed).is_ok()
    }

    #[cold]
    fn release_contended(&self, mut n: u32) -> Result<(), Full> {
        while n > 0 {
            let word = self.word.load(Ordering::Relaxed);
            let value = word & VALUE;
            if n > MOST - value {
                return Err(Full);
            }
            if word & WAITERS == 0 {
                if self.word.compare_exchange(word, word + n, Ordering::Release, Ordering::Relaxed).is_ok() {
                    return Ok(());
                }
            } else if value >= MANY {
                self.wake_all();
            } else {
                let step = if n <= STEP { n } else { 1 << n.ilog2() };
                if primitive::add_and_wake(&self.word, step, step) < step {
                    self.nobody_sleeps();
                }
                n -= step;
            }
        }
        Ok(())
    }

    /// Lets the next release do without a system call, if the permits are still there that found no sleeper.
    fn nobody_sleeps(&self) {
        let word = self.word.load(Ordering::Relaxed);
        if word & WAITERS != 0 && word & VALUE != 0 {
            self.wake_all();
        }
    }

    /// Has every sleeper look again, and announce itself again.
    fn wake_all(&self) {
        primitive::clear_bit_and_wake(&self.word, WAITERS.trailing_zeros(), u32::MAX);
    }

    /// Has the others look for the permit that one of the dead was woken for. May be done twice.
    pub(crate) fn repair(&self) {
        let word = self.word.load(Ordering::Acquire);
        if word & WAITERS != 0 && word & VALUE != 0 {
            self.wake_all();
        }
    }
}

//! An event: set or not, and somebody may wait until it is.
//!
//! Killed here: a set is one exchange, or one system call that wakes all sleepers in the same step (`FUTEX_WAKE_OP`), so a killed
//! setter has set the event and woken everybody, or has done nothing. Nobody waits for a sleeper's answer, so a killed one owes none.

use super::{End, Wait};
use crate::primitive::{self, AtomicU32, Ordering};
use crate::shm::Lives;
use crate::sync::raw::Waiter;

/// The event is set.
const SET: u32 = 1;
/// Somebody sleeps, or may. Only beside a clear `SET`, or left over from then.
const WAITERS: u32 = 1 << 1;
/// What a clear adds: the other bits count how often the event has been set and cleared.
const EPOCH: u32 = 1 << 2;

/// An event in shared memory. All zero is not set.
///
/// `word`: everybody, by exchange or in the kernel; set with Release, seen with Acquire.
#[repr(C)]
#[derive(Debug, Default)]
pub(crate) struct EventWord {
    word: AtomicU32,
}

impl EventWord {
    /// True if it is set.
    #[inline]
    pub(crate) fn is_set(&self) -> bool {
        self.word.load(Ordering::Acquire) & SET != 0
    }

    /// Sets it, and wakes everybody who waits.
    pub(crate) fn set(&self) {
        loop {
            let word = self.word.load(Ordering::Relaxed);
            if word & (SET | WAITERS) == WAITERS {
                primitive::set_bit_and_wake(&self.word, SET.trailing_zeros(), u32::MAX);
                return;
            }
            // An event that is set already is written too: what this process did before is to be seen by whoever looks next.
            if self.word.compare_exchange(word, word | SET, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
                return;
            }
        }
    }

    /// Makes it not set. Whoever was woken by the set before knows it all the same.
    pub(crate) fn clear(&self) {
        loop {
            let word = self.word.load(Ordering::Acquire);
            if word & SET == 0 {
                return;
            }
            // Nobody sleeps while it is set.
            let clear = (word & !(SET | WAITERS)).wrapping_add(EPOCH);
            if self.word.compare_exchange(word, clear, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
                return;
            }
        }
    }

    /// Waits until it is set, or has been since the wait began.
    #[inline]
    pub(crate) fn wait(&self, lives: &impl Lives, waiter: &mut impl Waiter) -> Result<(), End> {
        let word = self.word.load(Ordering::Acquire);
        if word & SET != 0 { Ok(()) } else { self.wait_past(word, lives, waiter) }
    }

    #[cold]
    fn wait_past(&self, first: u32, lives: &impl Lives, waiter: &mut impl Waiter) -> Result<(), End> {
        let mut wait = Wait::new(waiter);
        loop {
            let word = self.word.load(Ordering::Acquire);
            if word & SET != 0 || (word ^ first) & !(EPOCH - 1) != 0 {
                return Ok(());
            }
            wait.ended()?;
            if wait.spins() {
                continue;
            }
            let seen = word | WAITERS;
            if seen == word
                || self.word.compare_exchange(word, seen, Ordering::AcqRel, Ordering::Relaxed).is_ok()
            {
                wait.sleep(lives, &self.word, seen, &[]);
            }
        }
    }
}

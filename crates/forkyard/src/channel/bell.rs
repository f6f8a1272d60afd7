//! A word that sleepers sleep on, and that costs who calls them nothing when there are none.
//!
//! `[calls:31][quiet:1]`. A sleeper announces itself, looks once more for what it wants, and sleeps on the value that it got. Who has made
//! work rings afterwards. All of that is sequentially consistent, so one of the two sees the other.
//!
//! Killed here: README.md, "Sleeping".

use crate::primitive::{self, AtomicU32, Ordering};

const QUIET: u32 = 1;
const CALL: u32 = 2;

/// A bell. Zero is one that somebody may sleep on.
#[repr(transparent)]
#[derive(Debug, Default)]
pub(crate) struct Bell(AtomicU32);

impl Bell {
    /// Says that nobody sleeps: in a queue that is being made.
    pub(crate) fn calm(&self) {
        self.0.store(QUIET, Ordering::Relaxed);
    }

    /// The word to sleep on.
    pub(crate) fn word(&self) -> &AtomicU32 {
        &self.0
    }

    /// Announces a sleeper, which then looks again, and sleeps while the word has this value.
    pub(crate) fn announce(&self) -> u32 {
        let mut seen = self.0.load(Ordering::SeqCst);
        loop {
            if seen & QUIET == 0 {
                return seen;
            }
            match self.0.compare_exchange(seen, seen & !QUIET, Ordering::SeqCst, Ordering::SeqCst) {
                Ok(_) => return seen & !QUIET,
                Err(now) => seen = now,
            }
        }
    }

    /// True if nobody sleeps, or is about to.
    #[inline]
    pub(crate) fn is_quiet(&self) -> bool {
        self.0.load(Ordering::SeqCst) & QUIET != 0
    }

    /// Wakes as many sleepers as there is work for.
    #[inline]
    pub(crate) fn ring(&self, work: u32) {
        if !self.is_quiet() {
            self.call(work);
        }
    }

    #[cold]
    fn call(&self, work: u32) {
        if primitive::add_and_wake(&self.0, CALL, work) < work {
            // Nobody else sleeps, or is about to.
            primitive::set_bit_and_wake(&self.0, QUIET.trailing_zeros(), u32::MAX);
        }
    }

    /// Has every sleeper look again.
    pub(crate) fn ring_all(&self) {
        primitive::add_and_wake(&self.0, CALL, u32::MAX);
    }
}

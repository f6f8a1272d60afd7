//! How long a call looks at a queue before it sleeps.
//!
//! A sleep and the wake-up from it take longer than a short message does, on both sides. So whoever got its last messages soon looks for longer; but only
//! as long as that is of use: where there are more processes than processors, looking takes time from those who would bring the message. A long look
//! that was in vain is not tried again for twice as many calls as the last time.
//!
//! Private to a handle, so a clone learns anew, and one that is made for a single call never does. And a hint: threads that use it at once may
//! lose a count. Killed here: it goes with its process.

use crate::primitive::{self, AtomicU32, Ordering};

/// Spins of a long look: some 50 µs.
const LONG: u32 = 1500;
/// So many calls look briefly at first.
const AT_FIRST: u32 = 4;
/// A long look is tried at least once in so many calls: a power of two.
const MOST_SKIPPED_LOG2: u32 = 10;

/// What was learnt: `[failures in a row:16][calls that look briefly:16]`.
#[derive(Debug)]
pub(super) struct Patience(AtomicU32);

impl Default for Patience {
    fn default() -> Patience {
        Patience(AtomicU32::new(AT_FIRST))
    }
}

impl Clone for Patience {
    fn clone(&self) -> Patience {
        Patience::default()
    }
}

impl Patience {
    /// How often a call that is about to wait spins at most.
    pub(super) fn spins(&self) -> u32 {
        match self.0.load(Ordering::Relaxed) {
            learnt if learnt & 0xffff == 0 => LONG,
            learnt => {
                self.0.store(learnt - 1, Ordering::Relaxed);
                primitive::SPINS
            }
        }
    }

    /// Somebody came within so many spins.
    pub(super) fn was_right(&self, spins: u32) {
        if spins == LONG {
            self.0.store(0, Ordering::Relaxed);
        }
    }

    /// Nobody came within so many.
    pub(super) fn was_wrong(&self, spins: u32) {
        if spins == LONG {
            let failures = (self.0.load(Ordering::Relaxed) >> 16) + 1;
            let failures = failures.min(MOST_SKIPPED_LOG2);
            self.0.store(failures << 16 | 1 << failures, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{AT_FIRST, LONG, Patience};

    #[test]
    fn what_was_in_vain_is_tried_ever_less() {
        let patience = Patience::default();
        let until_long = || {
            let brief = std::iter::from_fn(|| Some(patience.spins()).filter(|&spins| spins != LONG)).count();
            patience.was_wrong(LONG);
            brief
        };
        let waits: Vec<_> = (0..13).map(|_| until_long()).collect();
        assert_eq!(waits[0], AT_FIRST as usize);
        assert_eq!(waits[1..4], [2, 4, 8]);
        assert_eq!(waits[11..], [1024, 1024]);
        while patience.spins() != LONG {}
        patience.was_right(LONG);
        assert_eq!(patience.spins(), LONG);
    }
}

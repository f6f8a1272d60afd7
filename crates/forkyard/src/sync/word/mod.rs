//! The state machines under what is not a lock: a few words each, and the steps on them. tests/model runs these sources under a
//! model checker.

pub(crate) mod barrier;
pub(crate) mod condition;
pub(crate) mod event;
pub(crate) mod permits;
pub(crate) mod readers;
pub(crate) mod semaphore;

use super::raw::Waiter;
use super::sleep::{Slept, sleep};
use crate::primitive::{self, AtomicU32};
use crate::shm::{Id, Lives};

/// Why a wait ended without what it was for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The time is up.
    TimedOut,
    /// A signal handler ran, and the waiter wanted to know.
    Interrupted,
    /// The waiter gave up when it was asked.
    GaveUp,
}

/// One wait: it looks a few times, then it sleeps, and after whatever ended its last sleep it looks once more.
struct Wait<'a, W> {
    waiter: &'a mut W,
    spins: u32,
    slept: bool,
    end: Option<End>,
}

impl<'a, W: Waiter> Wait<'a, W> {
    /// Whoever waits for a signal waits longer, as a rule, than for a lock, and looks less often before it sleeps.
    fn new(waiter: &'a mut W) -> Wait<'a, W> {
        Wait { waiter, spins: primitive::SPINS / 5, slept: false, end: None }
    }

    /// True if the words should be looked at again before a sleep.
    fn spins(&mut self) -> bool {
        if self.spins == 0 {
            return false;
        }
        self.spins -= 1;
        primitive::spin_loop();
        true
    }

    /// The wait's end, if it has come: asked after each look.
    fn ended(&self) -> Result<(), End> {
        self.end.map_or(Ok(()), Err)
    }

    fn sleep(&mut self, lives: &impl Lives, word: &AtomicU32, expected: u32, watched: &[Id]) -> Slept {
        if !self.slept {
            self.slept = true;
            self.waiter.sleeps();
        }
        let slept = sleep(lives, word, expected, watched, self.waiter.until());
        self.end = match slept {
            Slept::Look => None,
            Slept::Slice if self.waiter.slice() => Some(End::GaveUp),
            Slept::Slice => self.waiter.attention().then_some(End::Interrupted),
            Slept::TimedOut => Some(End::TimedOut),
            Slept::Interrupted => self.waiter.interruptible().then_some(End::Interrupted),
        };
        slept
    }
}

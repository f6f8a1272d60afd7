//! What the state machines of shared memory are made of: atomics and futexes. tests/model puts a model checker's in
//! their place and compiles the same sources.

use std::time::{Duration, Instant};

pub(crate) use std::hint::spin_loop;
pub(crate) use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

use forkyard_sys::futex as sys;
pub(crate) use sys::{Futex, Woken};

/// How often a contended word is looked at before its waiter sleeps.
pub(crate) const SPINS: u32 = 100;

/// The end of a slice that begins now. `None` where no time passes.
pub(crate) fn slice_end(slice: Duration) -> Option<Instant> {
    Instant::now().checked_add(slice)
}

/// True when the time has come.
pub(crate) fn has_passed(at: Instant) -> bool {
    at <= Instant::now()
}

/// Milliseconds on the monotonic clock, from 0 again after 49 days.
pub(crate) fn millis() -> u32 {
    (forkyard_sys::time::monotonic_ns() / 1_000_000) as u32
}

/// Sleeps while every word has its expected value: until one is woken, or the time is up, or a signal came.
pub(crate) fn wait(words: &[(Futex<'_>, u32)], until: Option<Instant>) -> Woken {
    sys::wait_any(words, until)
}

/// Wakes at most so many sleepers, and tells how many it woke.
pub(crate) fn wake<'a>(word: impl Into<Futex<'a>>, most: u32) -> u32 {
    sys::wake(word, most)
}

/// Adds to the word and wakes its sleepers in one step that no death can cut in two. At most 2047, or a power of two.
pub(crate) fn add_and_wake<'a>(word: impl Into<Futex<'a>>, add: u32, most: u32) -> u32 {
    sys::add_and_wake(word, add, most)
}

/// Sets one bit in the word and wakes its sleepers, in one such step.
pub(crate) fn set_bit_and_wake<'a>(word: impl Into<Futex<'a>>, bit: u32, most: u32) -> u32 {
    sys::set_bit_and_wake(word, bit, most)
}

/// Clears one bit in the word and wakes its sleepers, in one such step.
pub(crate) fn clear_bit_and_wake<'a>(word: impl Into<Futex<'a>>, bit: u32, most: u32) -> u32 {
    sys::clear_bit_and_wake(word, bit, most)
}

//! Sleeping on words of shared memory: futex(2) and futex_waitv(2), between processes.
//!
//! A wait may return early: its caller looks at the words again. Words are live and aligned, so the only errors are those
//! that are told.
//!
//! # Safety
//! A word of 64 bits is live and aligned, and each of its halves is a word of 32 bits, of which the kernel alone is told.
#![allow(unsafe_code)]

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::thread::ClockId;
use rustix::thread::futex::{self, Flags, Wait, WaitFlags, WaitPtr, WaitvFlags, WakeOp, WakeOpCmp};

use crate::fallback::{Feature, forced};
use crate::time::timespec;

/// Most words that one call can sleep on (`FUTEX_WAITV_MAX`).
pub const MOST_WORDS: usize = 128;

/// Without [`Feature::FutexWaitv`] a sleeper on several words sleeps on the first, and looks at the others this often.
pub const SLICE: Duration = Duration::from_millis(2);

/// Why a sleep ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Woken {
    /// A word was woken, or had another value; or for no reason.
    Look,
    /// A signal handler ran.
    Interrupted,
    /// The time is up.
    TimedOut,
}

/// What one can sleep on: 32 bits, in a word of their own or in the low half of a longer one.
#[derive(Clone, Copy, Debug)]
pub enum Futex<'a> {
    /// A word of its own.
    Word(&'a AtomicU32),
    /// The low half of one of 64 bits. Its other half may change without a notice to sleepers.
    LowHalf(&'a AtomicU64),
}

impl<'a> From<&'a AtomicU32> for Futex<'a> {
    fn from(word: &'a AtomicU32) -> Futex<'a> {
        Futex::Word(word)
    }
}

impl<'a> From<&'a AtomicU64> for Futex<'a> {
    fn from(word: &'a AtomicU64) -> Futex<'a> {
        Futex::LowHalf(word)
    }
}

impl<'a> Futex<'a> {
    /// Its value.
    pub fn load(self, order: Ordering) -> u32 {
        match self {
            Futex::Word(word) => word.load(order),
            Futex::LowHalf(word) => word.load(order) as u32,
        }
    }

    /// As the kernel is told of it. Not to be read or written: a program's accesses to one place all have one size.
    fn told(self) -> &'a AtomicU32 {
        match self {
            Futex::Word(word) => word,
            Futex::LowHalf(word) => {
                let low = usize::from(cfg!(target_endian = "big"));
                // SAFETY: see the heading.
                unsafe { &*std::ptr::from_ref(word).cast::<AtomicU32>().add(low) }
            }
        }
    }
}

/// Sleeps until the word is woken, unless it has another value already. May return early: look at the word again.
pub fn wait(word: &AtomicU32, expected: u32) {
    wait_one(word, expected, None);
}

/// Sleeps while the word has the expected value, until it is woken.
pub fn wait_one<'a>(word: impl Into<Futex<'a>>, expected: u32, until: Option<Instant>) -> Woken {
    let left = timespec(until);
    let left = left.map(|left| rustix::thread::Timespec { tv_sec: left.tv_sec, tv_nsec: left.tv_nsec });
    told(futex::wait(word.into().told(), Flags::empty(), expected, left.as_ref()).map(|()| 0))
}

/// Sleeps while all these words have their expected values, until one of them is woken. Of more than [`MOST_WORDS`] the
/// first so many count.
pub fn wait_any(words: &[(Futex<'_>, u32)], until: Option<Instant>) -> Woken {
    static REFUSED: AtomicBool = AtomicBool::new(false);
    match words {
        [] => return Woken::Look,
        [(word, expected)] => return wait_one(*word, *expected, until),
        _ => {}
    }
    if !REFUSED.load(Ordering::Relaxed) && !forced(Feature::FutexWaitv) {
        let mut waits = [Wait::new(); MOST_WORDS];
        let words = &words[..words.len().min(MOST_WORDS)];
        for (wait, (word, expected)) in waits.iter_mut().zip(words) {
            wait.val = (*expected).into();
            wait.uaddr = WaitPtr::new(word.told().as_ptr().cast());
            wait.flags = WaitFlags::SIZE_U32;
        }
        let until = until.map(absolute);
        match futex::waitv(&waits[..words.len()], WaitvFlags::empty(), until.as_ref(), ClockId::Monotonic) {
            // Before Linux 5.16, or behind a sandbox that does not know the call.
            Err(Errno::NOSYS | Errno::PERM) => REFUSED.store(true, Ordering::Relaxed),
            result => return told(result),
        }
    }
    loop {
        if words.iter().any(|(word, expected)| word.load(Ordering::Acquire) != *expected) {
            return Woken::Look;
        }
        let slice = Instant::now() + SLICE;
        match wait_one(words[0].0, words[0].1, Some(until.map_or(slice, |until| until.min(slice)))) {
            Woken::TimedOut if until.is_none_or(|until| Instant::now() < until) => {}
            woken => return woken,
        }
    }
}

fn told(result: Result<usize, Errno>) -> Woken {
    match result {
        Ok(_) | Err(Errno::AGAIN) => Woken::Look,
        Err(Errno::INTR) => Woken::Interrupted,
        Err(Errno::TIMEDOUT) => Woken::TimedOut,
        // The words are mapped and aligned, so nothing else can be; if it were, not sleeping is the safe answer.
        Err(_) => {
            std::thread::yield_now();
            Woken::Look
        }
    }
}

/// An instant as the monotonic clock has it.
fn absolute(at: Instant) -> rustix::thread::Timespec {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let left = at.saturating_duration_since(Instant::now()).min(Duration::from_secs(1 << 31));
    let nanos = now.tv_nsec + i64::from(left.subsec_nanos());
    rustix::thread::Timespec {
        // The bound above makes the conversion exact.
        tv_sec: now.tv_sec + left.as_secs() as i64 + nanos / 1_000_000_000,
        tv_nsec: nanos % 1_000_000_000,
    }
}

/// Wakes one sleeper.
pub fn wake_one(word: &AtomicU32) {
    wake(word, 1);
}

/// Wakes at most so many sleepers, and tells how many it woke.
pub fn wake<'a>(word: impl Into<Futex<'a>>, most: u32) -> u32 {
    // The word is mapped and aligned: the call cannot fail.
    count(futex::wake(word.into().told(), Flags::empty(), most.min(i32::MAX as u32)))
}

/// Adds to the word and wakes its sleepers in one system call, which a SIGKILL cannot cut in two. `add` is below 2048, or a
/// power of two. Tells how many it woke, which may be one more than `most` if the word is changed meanwhile.
pub fn add_and_wake<'a>(word: impl Into<Futex<'a>>, add: u32, most: u32) -> u32 {
    match u16::try_from(add) {
        Ok(add) if add < 2048 => change_and_wake(word.into(), WakeOp::Add, add, most),
        _ => change_and_wake(word.into(), WakeOp::AddShift, add.trailing_zeros() as u16, most),
    }
}

/// Sets one bit of the word and wakes its sleepers in one such call.
pub fn set_bit_and_wake<'a>(word: impl Into<Futex<'a>>, bit: u32, most: u32) -> u32 {
    change_and_wake(word.into(), WakeOp::OrShift, (bit % 32) as u16, most)
}

/// Clears one bit of the word and wakes its sleepers in one such call.
pub fn clear_bit_and_wake<'a>(word: impl Into<Futex<'a>>, bit: u32, most: u32) -> u32 {
    change_and_wake(word.into(), WakeOp::AndNShift, (bit % 32) as u16, most)
}

fn change_and_wake(word: Futex<'_>, op: WakeOp, argument: u16, most: u32) -> u32 {
    // The call can wake once more if the old value has a certain relation to a small number: it is not to.
    let unlike = u16::from(word.load(Ordering::Relaxed) == 0);
    let (most, word) = (most.min(i32::MAX as u32), word.told());
    count(futex::wake_op(word, Flags::empty(), most, 1, word, op, WakeOpCmp::Eq, argument, unlike))
}

fn count(woken: Result<usize, Errno>) -> u32 {
    woken.ok().and_then(|count| u32::try_from(count).ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
    use std::time::{Duration, Instant};

    use super::{Futex, Woken, add_and_wake, clear_bit_and_wake, set_bit_and_wake, wait_any, wait_one, wake};

    const LONG: Duration = Duration::from_secs(20);

    #[test]
    fn changing_and_waking_is_one_step() {
        let word = AtomicU32::new(5);
        std::thread::scope(|scope| {
            let sleeper = scope.spawn(|| {
                while word.load(Ordering::Acquire) == 5 {
                    assert_ne!(wait_one(&word, 5, Some(Instant::now() + LONG)), Woken::TimedOut);
                }
            });
            add_and_wake(&word, 1 << 20, 1);
            sleeper.join().unwrap();
        });
        assert_eq!(word.load(Ordering::Acquire), 5 + (1 << 20));
        assert_eq!(set_bit_and_wake(&word, 31, 1), 0);
        assert_eq!(add_and_wake(&word, 2047, u32::MAX), 0);
        assert_eq!(word.load(Ordering::Acquire), (5 + (1 << 20) + 2047) | 1 << 31);
        assert_eq!(clear_bit_and_wake(&word, 31, 1), 0);
        assert_eq!(word.load(Ordering::Acquire), 5 + (1 << 20) + 2047);
    }

    #[test]
    fn any_word_wakes_and_any_difference_is_seen() {
        let words = [AtomicU32::new(1), AtomicU32::new(2)];
        let all = [(Futex::from(&words[0]), 1), (Futex::from(&words[1]), 2)];
        assert_eq!(wait_any(&[all[0], (all[1].0, 3)], Some(Instant::now() + LONG)), Woken::Look);
        assert_eq!(wait_any(&all, Some(Instant::now())), Woken::TimedOut);
        std::thread::scope(|scope| {
            let sleeper = scope.spawn(|| {
                while words[1].load(Ordering::Acquire) == 2 {
                    assert_ne!(wait_any(&all, Some(Instant::now() + LONG)), Woken::TimedOut);
                }
            });
            words[1].store(3, Ordering::Release);
            wake(&words[1], u32::MAX);
            sleeper.join().unwrap();
        });
    }

    #[test]
    fn the_low_half_of_a_long_word_is_a_word() {
        let word = AtomicU64::new(7 << 32 | 5);
        assert_eq!(wait_one(&word, 7, Some(Instant::now() + LONG)), Woken::Look);
        std::thread::scope(|scope| {
            let sleeper = scope.spawn(|| {
                while word.load(Ordering::Acquire) as u32 == 5 {
                    assert_ne!(wait_one(&word, 5, Some(Instant::now() + LONG)), Woken::TimedOut);
                }
            });
            set_bit_and_wake(&word, 31, 1);
            sleeper.join().unwrap();
        });
        assert_eq!(word.load(Ordering::Acquire), 7 << 32 | 1 << 31 | 5);
    }
}

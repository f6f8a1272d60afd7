//! `crate::primitive` as the model has it: loom's atomics, a futex made of them, and no time.
//!
//! Each call is a step before which its participant may be killed.

use std::cell::Cell;
use std::time::{Duration, Instant};

pub(crate) use loom::sync::atomic::fence;
use loom::sync::{Arc, Condvar, Mutex};

pub(crate) use std::sync::atomic::Ordering;

pub(crate) const SPINS: u32 = 0;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(dead_code, reason = "what the real one can say")]
pub(crate) enum Woken {
    Look,
    Interrupted,
    TimedOut,
}

/// What a killed participant's thread unwinds with.
pub(crate) struct Killed;

loom::thread_local! {
    static STEPS_LEFT: Cell<Option<u32>> = Cell::new(None);
    static KILLED: Cell<bool> = Cell::new(false);
    static HURRIES: Cell<bool> = Cell::new(false);
    static IMPATIENT: Cell<bool> = Cell::new(false);
    static FIRST_SLEEP: Cell<bool> = Cell::new(false);
}

/// This thread is to be killed before the step after so many.
pub(crate) fn kill_after(steps: Option<u32>) {
    STEPS_LEFT.with(|left| left.set(steps));
    KILLED.with(|killed| killed.set(false));
}

/// This thread was killed, and is unwinding.
pub(crate) fn is_killed() -> bool {
    KILLED.with(Cell::get)
}

/// For this thread every moment is the end of every time.
pub(crate) fn hurry() {
    HURRIES.with(|hurries| hurries.set(true));
}

/// The time of this thread is up when it is woken for the first time.
pub(crate) fn sleep_once() {
    FIRST_SLEEP.with(|first| first.set(true));
}

/// This thread never sleeps: its time is up at once.
pub(crate) fn impatient() {
    IMPATIENT.with(|impatient| impatient.set(true));
}

fn step() {
    STEPS_LEFT.with(|left| match left.get() {
        Some(0) => {
            KILLED.with(|killed| killed.set(true));
            std::panic::resume_unwind(Box::new(Killed))
        }
        Some(steps) => left.set(Some(steps - 1)),
        None => {}
    });
}

pub(crate) fn slice_end(_: Duration) -> Option<Instant> {
    HURRIES.with(Cell::get).then(Instant::now)
}

pub(crate) fn has_passed(_: Instant) -> bool {
    !FIRST_SLEEP.with(Cell::get)
}

pub(crate) fn millis() -> u32 {
    0
}

pub(crate) fn spin_loop() {
    loom::thread::yield_now();
}

/// The model checker knows sequential consistency of fences only.
fn ordered<T>(orders: &[Ordering], operation: impl FnOnce() -> T) -> T {
    step();
    let all = orders.contains(&Ordering::SeqCst);
    if all {
        fence(Ordering::SeqCst);
    }
    let result = operation();
    if all {
        fence(Ordering::SeqCst);
    }
    result
}

macro_rules! atomic {
    ($name:ident, $int:ty) => {
        #[derive(Debug, Default)]
        pub(crate) struct $name(loom::sync::atomic::$name);

        #[allow(dead_code, reason = "what the real one can do")]
        impl $name {
            pub(crate) fn new(value: $int) -> Self {
                Self(loom::sync::atomic::$name::new(value))
            }
            pub(crate) fn load(&self, order: Ordering) -> $int {
                ordered(&[order], || self.0.load(order))
            }
            pub(crate) fn store(&self, value: $int, order: Ordering) {
                ordered(&[order], || self.0.store(value, order))
            }
            pub(crate) fn swap(&self, value: $int, order: Ordering) -> $int {
                ordered(&[order], || self.0.swap(value, order))
            }
            pub(crate) fn fetch_add(&self, value: $int, order: Ordering) -> $int {
                ordered(&[order], || self.0.fetch_add(value, order))
            }
            pub(crate) fn fetch_sub(&self, value: $int, order: Ordering) -> $int {
                ordered(&[order], || self.0.fetch_sub(value, order))
            }
            pub(crate) fn fetch_and(&self, value: $int, order: Ordering) -> $int {
                ordered(&[order], || self.0.fetch_and(value, order))
            }
            pub(crate) fn fetch_or(&self, value: $int, order: Ordering) -> $int {
                ordered(&[order], || self.0.fetch_or(value, order))
            }
            pub(crate) fn fetch_max(&self, value: $int, order: Ordering) -> $int {
                ordered(&[order], || self.0.fetch_max(value, order))
            }
            pub(crate) fn compare_exchange(
                &self,
                old: $int,
                new: $int,
                done: Ordering,
                not: Ordering,
            ) -> Result<$int, $int> {
                ordered(&[done, not], || self.0.compare_exchange(old, new, done, not))
            }
            pub(crate) fn compare_exchange_weak(
                &self,
                old: $int,
                new: $int,
                done: Ordering,
                not: Ordering,
            ) -> Result<$int, $int> {
                self.compare_exchange(old, new, done, not)
            }
        }
    };
}

atomic!(AtomicU32, u32);
atomic!(AtomicU64, u64);

/// What one can sleep on.
#[derive(Clone, Copy)]
pub(crate) enum Futex<'a> {
    Word(&'a AtomicU32),
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

impl Futex<'_> {
    pub(crate) fn load(self, order: Ordering) -> u32 {
        match self {
            Futex::Word(word) => word.load(order),
            Futex::LowHalf(word) => word.load(order) as u32,
        }
    }

    /// Its value at this moment, which is no step of anybody's.
    fn now(self) -> u32 {
        match self {
            Futex::Word(word) => word.0.load(Ordering::SeqCst),
            Futex::LowHalf(word) => word.0.load(Ordering::SeqCst) as u32,
        }
    }

    fn set(self, bits: u32) {
        match self {
            Futex::Word(word) => drop(word.0.fetch_or(bits, Ordering::SeqCst)),
            Futex::LowHalf(word) => drop(word.0.fetch_or(bits.into(), Ordering::SeqCst)),
        }
    }

    fn clear(self, bits: u32) {
        match self {
            Futex::Word(word) => drop(word.0.fetch_and(!bits, Ordering::SeqCst)),
            Futex::LowHalf(word) => drop(word.0.fetch_and(!u64::from(bits), Ordering::SeqCst)),
        }
    }

    fn address(self) -> usize {
        match self {
            Futex::Word(word) => std::ptr::from_ref(word).addr(),
            Futex::LowHalf(word) => std::ptr::from_ref(word).addr(),
        }
    }
}

/// Who sleeps on what, first come first served, as in the kernel.
#[derive(Default)]
struct Sleepers {
    queue: Vec<Sleeper>,
    tickets: usize,
}

struct Sleeper {
    ticket: usize,
    words: Vec<usize>,
    bell: Arc<Condvar>,
}

loom::lazy_static! {
    static ref SLEEPERS: Mutex<Sleepers> = Mutex::new(Sleepers::default());
    static ref ASLEEP: Condvar = Condvar::new();
}

/// Waits until so many sleep: for models that are about what comes then.
pub(crate) fn until_asleep(count: usize) {
    let mut sleepers = SLEEPERS.lock().unwrap();
    while sleepers.queue.len() < count {
        sleepers = ASLEEP.wait(sleepers).unwrap();
    }
}

pub(crate) fn wait(words: &[(Futex<'_>, u32)], _: Option<Instant>) -> Woken {
    step();
    let mut sleepers = SLEEPERS.lock().unwrap();
    if words.iter().any(|(word, expected)| word.now() != *expected) {
        return Woken::Look;
    }
    if IMPATIENT.with(Cell::get) {
        return Woken::TimedOut;
    }
    let (bell, ticket) = (Arc::new(Condvar::new()), sleepers.tickets);
    sleepers.tickets += 1;
    let words = words.iter().map(|(word, _)| word.address()).collect();
    sleepers.queue.push(Sleeper { ticket, words, bell: Arc::clone(&bell) });
    ASLEEP.notify_all();
    while sleepers.queue.iter().any(|sleeper| sleeper.ticket == ticket) {
        sleepers = bell.wait(sleepers).unwrap();
    }
    FIRST_SLEEP.with(|first| first.set(false));
    Woken::Look
}

pub(crate) fn wake<'a>(word: impl Into<Futex<'a>>, most: u32) -> u32 {
    step();
    wake_in(&mut SLEEPERS.lock().unwrap(), word.into(), most)
}

fn wake_in(sleepers: &mut Sleepers, word: Futex<'_>, most: u32) -> u32 {
    let mut woken = 0;
    while woken < most {
        let Some(at) = sleepers.queue.iter().position(|sleeper| sleeper.words.contains(&word.address()))
        else {
            break;
        };
        sleepers.queue.remove(at).bell.notify_one();
        woken += 1;
    }
    woken
}

#[allow(dead_code, reason = "what the real one can do")]
pub(crate) fn add_and_wake(word: &AtomicU32, add: u32, most: u32) -> u32 {
    step();
    let mut sleepers = SLEEPERS.lock().unwrap();
    word.0.fetch_add(add, Ordering::SeqCst);
    wake_in(&mut sleepers, word.into(), most)
}

pub(crate) fn set_bit_and_wake<'a>(word: impl Into<Futex<'a>>, bit: u32, most: u32) -> u32 {
    let word = word.into();
    step();
    let mut sleepers = SLEEPERS.lock().unwrap();
    word.set(1 << bit);
    wake_in(&mut sleepers, word, most)
}

pub(crate) fn clear_bit_and_wake<'a>(word: impl Into<Futex<'a>>, bit: u32, most: u32) -> u32 {
    let word = word.into();
    step();
    let mut sleepers = SLEEPERS.lock().unwrap();
    word.clear(1 << bit);
    wake_in(&mut sleepers, word, most)
}

/// What the kernel does with a life word at its owner's end: no step of anybody's.
pub(crate) fn end_life(word: &AtomicU32, mark: u32) {
    let mut sleepers = SLEEPERS.lock().unwrap();
    word.0.fetch_or(mark, Ordering::SeqCst);
    wake_in(&mut sleepers, word.into(), 1);
}

//! Sleeping on a word, and on the lives of those who may change it.
//!
//! Killed here: a sleeper leaves `FUTEX_WAITERS` in life words, which is true for the others as well, and costs one
//! system call at most.

use std::time::{Duration, Instant};

use crate::primitive::{self, Futex, Woken};
use crate::shm::{Id, Life, Lives, watch};

/// Most lives that one sleeper watches; the reaper tells it of the others.
pub(crate) const MOST_WATCHED: usize = 120;

/// How long a sleep lasts at most: then its caller looks for what no event told it, a deadlock or a death without a witness.
pub(crate) const SLICE: Duration = Duration::from_secs(1);

/// The kernel wakes one of those who watch a life, and each one who is woken wakes so many more, before it looks: so the first is not
/// kept up by all the others, and one that is killed on its way does not keep the news to itself.
const PASSED_ON: u32 = 2;

/// Why a sleep ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Slept {
    /// Look at the word again.
    Look,
    /// A second has passed without an event.
    Slice,
    /// The caller's time is up.
    TimedOut,
    /// A signal handler ran.
    Interrupted,
}

/// Sleeps while `word` has the value `expected` and all of `watched` live. Whoever is woken by a death wakes others that
/// watch the same life.
pub(crate) fn sleep<'a>(
    lives: &'a impl Lives,
    word: impl Into<Futex<'a>>,
    expected: u32,
    watched: &[Id],
    until: Option<Instant>,
) -> Slept {
    let watched = &watched[..watched.len().min(MOST_WATCHED)];
    let mut words = Words::new(word.into(), expected);
    for &id in watched {
        match lives.life(id) {
            Life::Alive(life) => match watch(life) {
                Some(value) => words.push(life.into(), value),
                None => {
                    primitive::wake(life, PASSED_ON);
                    return Slept::Look;
                }
            },
            Life::Dead => return Slept::Look,
        }
    }
    let slice = primitive::slice_end(SLICE);
    let woken = primitive::wait(words.all(), earlier(until, slice));
    for &(life, value) in &words.all()[1..] {
        if life.load(primitive::Ordering::Acquire) != value {
            primitive::wake(life, PASSED_ON);
        }
    }
    match woken {
        Woken::Look => Slept::Look,
        Woken::Interrupted => Slept::Interrupted,
        Woken::TimedOut if until.is_some_and(primitive::has_passed) => Slept::TimedOut,
        Woken::TimedOut => {
            watched.iter().for_each(|&id| lives.suspect(id));
            lives.tidy();
            Slept::Slice
        }
    }
}

/// The earlier of two ends, where there are any.
pub(super) fn earlier(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

/// The words of one sleep: on the stack, and no more of them written than are used.
struct Words<'a> {
    few: [(Futex<'a>, u32); 2],
    many: Vec<(Futex<'a>, u32)>,
    count: usize,
}

impl<'a> Words<'a> {
    fn new(word: Futex<'a>, expected: u32) -> Words<'a> {
        Words { few: [(word, expected); 2], many: Vec::new(), count: 1 }
    }

    fn push(&mut self, word: Futex<'a>, expected: u32) {
        if self.count < self.few.len() {
            self.few[self.count] = (word, expected);
        } else {
            if self.many.is_empty() {
                self.many.extend(self.few);
            }
            self.many.push((word, expected));
        }
        self.count += 1;
    }

    fn all(&self) -> &[(Futex<'a>, u32)] {
        if self.many.is_empty() { &self.few[..self.count] } else { &self.many }
    }
}

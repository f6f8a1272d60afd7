//! One writer or many readers: a lock for writers, and a cell for each reading thread.
//!
//! A reader writes itself into a cell and then looks at the lock; a writer takes the lock and then looks at the cells: whoever comes second sees
//! the other. A reader that sees an owner leaves its cell, queues for the lock like a writer, enters its cell as its owner, and lets go of it. So
//! writers come before new readers, and nobody is overtaken by more than those who queue before it.
//!
//! Killed here: a reader's cell names it, and the cell of a dead reader is empty. A writer that waits for readers watches their lives, so
//! one that is killed between leaving and waking is seen. A dead writer's lock is taken over (raw.rs); if it may have changed
//! something its id is in `writing`, and everybody is told until a writer has been.

use super::{End, Wait};
use crate::primitive::{self, AtomicU32, AtomicU64, Ordering};
use crate::shm::{Id, Lives};
use crate::sync::raw::{Holder, Outcome, RawLock, Waiter};

/// In `drain`: a writer waits for readers to leave.
const WAITS: u32 = 1;
/// The bit of `drain` that a reader sets which has left.
const LEFT: u32 = 1;

const COUNT_SHIFT: u32 = 28;
const THREAD_SHIFT: u32 = 42;
/// Most times that a cell is entered.
const MOST: u64 = (1 << (THREAD_SHIFT - COUNT_SHIFT)) - 1;
/// Cells on a line of memory, and lines: neighbours in number lie on different lines.
const LINE: usize = 8;

/// The words of a reader–writer lock. All zero is free.
///
/// `lock`: raw.rs. `drain`: the lock's owner; readers set [`LEFT`]. `writing`: the owner, before it changes the data and after; 0: nobody.
/// `used`: readers, it only grows: no cell beyond is in use.
#[repr(C)]
#[derive(Debug, Default)]
pub(crate) struct ReadersWord {
    pub(crate) lock: RawLock,
    drain: AtomicU32,
    writing: AtomicU32,
    used: AtomicU32,
    unused: AtomicU32,
}

/// A reader–writer lock: the words and the cells.
///
/// A cell is `[thread:22][count:14][id:28]`, 0 is empty; `thread` is 0 if threads of that process share it. A reader changes its own process's, or an
/// empty one to its own; anybody empties one of the dead. `hint` is private memory: the cell to try first.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Readers<'a> {
    pub(crate) word: &'a ReadersWord,
    pub(crate) cells: &'a [AtomicU64],
    pub(crate) hint: &'a AtomicU32,
}

/// How a reader has come in: by which cell, or, where there was none left, as the lock's owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Entered {
    Cell(usize),
    Alone,
}

fn reader(cell: u64) -> Option<Id> {
    Id::of_word((cell & u64::from(Id::MASK)) as u32)
}

fn count(cell: u64) -> u64 {
    cell >> COUNT_SHIFT & MOST
}

fn thread(cell: u64) -> u32 {
    (cell >> THREAD_SHIFT) as u32
}

fn cell(id: Id, count: u64, thread: u32) -> u64 {
    let thread = if thread >> (64 - THREAD_SHIFT) == 0 { thread } else { 0 };
    u64::from(id.bits()) | count << COUNT_SHIFT | u64::from(thread) << THREAD_SHIFT
}

/// SeqCst: see the heading.
fn exchange(cell: &AtomicU64, from: u64, to: u64) -> bool {
    cell.compare_exchange(from, to, Ordering::SeqCst, Ordering::Relaxed).is_ok()
}

impl Readers<'_> {
    /// Comes in as a reader if there is no writer.
    #[inline]
    pub(crate) fn read_at_once(&self, me: Holder) -> Option<Entered> {
        let number = self.hint.load(Ordering::Relaxed) as usize;
        let known = number < self.word.used.load(Ordering::SeqCst) as usize;
        let entered = known && exchange(self.cell(number)?, 0, cell(me.id, 1, me.thread));
        if entered { self.stay(number, me.id) } else { None }
    }

    /// A reader in its cell: stays there if nobody has the lock or wants it more.
    #[inline]
    fn stay(&self, number: usize, me: Id) -> Option<Entered> {
        if self.word.lock.is_quiet() {
            return Some(Entered::Cell(number));
        }
        self.leave(number, me);
        None
    }

    /// Comes in as a reader if that can be done now; otherwise `TimedOut`.
    pub(crate) fn try_read(&self, lives: &impl Lives, me: Holder) -> (Outcome, Option<Entered>) {
        let mut spins = primitive::SPINS;
        loop {
            if let Some(entered) = self.enter(lives, me).and_then(|number| self.stay(number, me.id)) {
                return (Outcome::Acquired, Some(entered));
            }
            match self.word.lock.try_acquire(lives, me) {
                // It may be another reader that is just coming in.
                Outcome::TimedOut if spins > 0 => spins -= 1,
                Outcome::TimedOut => return (Outcome::TimedOut, None),
                _ => return self.come_in(lives, me),
            }
            primitive::spin_loop();
        }
    }

    /// Comes in as a reader, waiting as `waiter` does.
    pub(crate) fn read(
        &self,
        lives: &impl Lives,
        me: Holder,
        waiter: &mut impl Waiter,
    ) -> (Outcome, Option<Entered>) {
        if let Some(entered) = self.enter(lives, me).and_then(|number| self.stay(number, me.id)) {
            return (Outcome::Acquired, Some(entered));
        }
        match self.word.lock.acquire(lives, me, waiter) {
            Outcome::Acquired | Outcome::OwnerDied(_) => self.come_in(lives, me),
            end => (end, None),
        }
    }

    /// The lock's owner becomes a reader.
    fn come_in(&self, lives: &impl Lives, me: Holder) -> (Outcome, Option<Entered>) {
        let outcome = self.told();
        let entered = self.enter(lives, me).map_or(Entered::Alone, Entered::Cell);
        if entered != Entered::Alone {
            self.let_go(me);
        }
        (outcome, Some(entered))
    }

    /// What the lock's owner is told: that the last writer died, if it did.
    fn told(&self) -> Outcome {
        match self.word.writing.load(Ordering::Relaxed) {
            0 => Outcome::Acquired,
            dead => Outcome::OwnerDied(Id::of_word(dead)),
        }
    }

    /// The owner gives up the lock without having written: what it was told others are told as well.
    fn let_go(&self, me: Holder) {
        let _ = match self.word.writing.load(Ordering::Relaxed) {
            0 => self.word.lock.release(me),
            dead => self.word.lock.release_died(me.id, Id::of_word(dead)),
        };
    }

    /// Goes out as a reader.
    #[inline]
    pub(crate) fn unread(&self, entered: Entered, me: Holder) {
        match entered {
            Entered::Cell(number) => self.leave(number, me.id),
            Entered::Alone if self.word.lock.is_held_by(me) => self.let_go(me),
            Entered::Alone => {}
        }
    }

    /// Comes in as the writer, waiting as `waiter` does.
    pub(crate) fn write(&self, lives: &impl Lives, me: Holder, waiter: &mut impl Waiter) -> Outcome {
        match self.word.lock.acquire(lives, me, waiter) {
            Outcome::Acquired | Outcome::OwnerDied(_) => {}
            end => return end,
        }
        let drained = self.drain(lives, waiter);
        self.word.drain.store(0, Ordering::Relaxed);
        match drained {
            Ok(()) => self.begin(me.id),
            Err(end) => {
                self.let_go(me);
                match end {
                    End::TimedOut => Outcome::TimedOut,
                    End::Interrupted => Outcome::Interrupted,
                    End::GaveUp => Outcome::GaveUp,
                }
            }
        }
    }

    /// Comes in as the writer if nobody is in; otherwise `TimedOut`.
    pub(crate) fn try_write(&self, lives: &impl Lives, me: Holder) -> Outcome {
        if self.word.lock.try_acquire(lives, me) == Outcome::TimedOut {
            return Outcome::TimedOut;
        }
        if self.readers(lives).is_empty() {
            return self.begin(me.id);
        }
        self.let_go(me);
        Outcome::TimedOut
    }

    fn begin(&self, me: Id) -> Outcome {
        let outcome = self.told();
        self.word.writing.store(me.bits(), Ordering::Relaxed);
        outcome
    }

    /// The lock's owner waits until no reader is in.
    fn drain(&self, lives: &impl Lives, waiter: &mut impl Waiter) -> Result<(), End> {
        if self.readers(lives).is_empty() {
            return Ok(());
        }
        let mut wait = Wait::new(waiter);
        loop {
            self.word.drain.store(WAITS, Ordering::SeqCst);
            let readers = self.readers(lives);
            if readers.is_empty() {
                return Ok(());
            }
            wait.ended()?;
            if !wait.spins() {
                wait.sleep(lives, &self.word.drain, WAITS, &readers);
            }
        }
    }

    /// The living readers. Cells of the dead are emptied.
    fn readers(&self, lives: &impl Lives) -> Vec<Id> {
        let mut readers = Vec::new();
        for number in 0..self.used() {
            let Some(cell) = self.cell(number) else { break };
            let seen = cell.load(Ordering::SeqCst);
            match reader(seen) {
                Some(id) if !lives.is_dead(id) => readers.push(id),
                _ if seen != 0 => drop(exchange(cell, seen, 0)),
                _ => {}
            }
        }
        readers
    }

    /// Goes out as the writer. In a fork of it nothing happens.
    #[inline]
    pub(crate) fn unwrite(&self, me: Holder) {
        if self.word.lock.is_held_by(me) {
            self.word.writing.store(0, Ordering::Relaxed);
            let _ = self.word.lock.release(me);
        }
    }

    fn used(&self) -> usize {
        self.cells.len().min(self.word.used.load(Ordering::SeqCst) as usize)
    }

    /// The cell of this number.
    #[inline]
    fn cell(&self, number: usize) -> Option<&AtomicU64> {
        let lines = self.cells.len() / LINE;
        if !lines.is_power_of_two() {
            return self.cells.get(number);
        }
        self.cells.get((number & (lines - 1)) * LINE + (number >> lines.trailing_zeros()))
    }

    /// Enters a cell: an empty one, or one that this thread is in already, or if there is none, one of its process's.
    #[cold]
    fn enter(&self, lives: &impl Lives, me: Holder) -> Option<usize> {
        let hint = self.hint.load(Ordering::Relaxed) as usize;
        let numbers = || std::iter::once(hint).chain(0..self.cells.len());
        let own = |seen| match reader(seen) {
            Some(id) if id == me.id && thread(seen) == me.thread && count(seen) < MOST => {
                Some(cell(me.id, count(seen) + 1, me.thread))
            }
            Some(id) if id == me.id || !lives.is_dead(id) => None,
            _ => Some(cell(me.id, 1, me.thread)),
        };
        let shared = |seen| {
            (reader(seen) == Some(me.id) && count(seen) < MOST).then(|| cell(me.id, count(seen) + 1, 0))
        };
        let number = numbers()
            .find(|number| self.change(*number, own))
            .or_else(|| numbers().find(|number| self.change(*number, shared)))?;
        self.hint.store(number as u32, Ordering::Relaxed);
        Some(number)
    }

    /// Changes a cell as `to` says, if it says something.
    fn change(&self, number: usize, to: impl Fn(u64) -> Option<u64>) -> bool {
        let Some(cell) = self.cell(number) else { return false };
        loop {
            let seen = cell.load(Ordering::Relaxed);
            let Some(to) = to(seen) else { return false };
            // Before the cell is in use, for the writer's look.
            if self.word.used.load(Ordering::SeqCst) as usize <= number {
                self.word.used.fetch_max(number as u32 + 1, Ordering::SeqCst);
            }
            if exchange(cell, seen, to) {
                return true;
            }
        }
    }

    /// Leaves a cell, once.
    #[inline]
    fn leave(&self, number: usize, me: Id) {
        let Some(place) = self.cell(number) else { return };
        loop {
            let seen = place.load(Ordering::Relaxed);
            if reader(seen) != Some(me) {
                // A fork's.
                return;
            }
            let left = if count(seen) > 1 { cell(me, count(seen) - 1, thread(seen)) } else { 0 };
            if exchange(place, seen, left) {
                if left == 0 && self.word.drain.load(Ordering::SeqCst) == WAITS {
                    primitive::set_bit_and_wake(&self.word.drain, LEFT, u32::MAX);
                }
                return;
            }
        }
    }

    /// Takes the dead out, and has everybody look again. May be done twice.
    pub(crate) fn repair(&self, dead: Id) {
        for number in 0..self.used() {
            let Some(cell) = self.cell(number) else { break };
            let seen = cell.load(Ordering::Acquire);
            if reader(seen) == Some(dead) {
                exchange(cell, seen, 0);
            }
        }
        self.word.lock.repair(dead);
        if self.word.drain.load(Ordering::SeqCst) == WAITS {
            primitive::set_bit_and_wake(&self.word.drain, LEFT, u32::MAX);
        }
    }

    /// Everybody who is in as a reader; thread 0 if it is not known which.
    pub(crate) fn inside(&self) -> impl Iterator<Item = Holder> {
        (0..self.used()).filter_map(|number| {
            let seen = self.cell(number)?.load(Ordering::Acquire);
            Some(Holder { id: reader(seen)?, thread: thread(seen) })
        })
    }

    /// Who is in as the writer, or about to come in.
    pub(crate) fn writer(&self) -> Option<Holder> {
        self.word.lock.holder()
    }

    /// Whom this thread waits for, if it waits for this lock: its owner, or who has it waits for the readers.
    pub(crate) fn blockers(&self, waiter: Holder) -> Vec<Holder> {
        match self.word.lock.holder() {
            Some(owner) if owner == waiter && self.word.drain.load(Ordering::Relaxed) != 0 => {
                self.inside().filter(|reader| reader.thread != 0).collect()
            }
            owner => owner.into_iter().collect(),
        }
    }
}

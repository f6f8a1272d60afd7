//! A barrier: parties that wait for each other, generation after generation.
//!
//! A generation has ended when the phase says so: passed, by an exchange that any of its parties makes when all have arrived, or
//! broken, by one that anybody makes. So all its parties learn the same, however late they look.
//!
//! Killed here: before it arrived a party has done nothing. From then on the others see it dead, and break the barrier; if it was
//! the last to arrive they let each other pass. They watch the lives of all that have a cell, and a process takes its cell, and
//! has the others look at it, before it arrives. Whoever is killed between ending a generation and waking has a cell too, or wakes in
//! the same system call.

use super::{End, Wait};
use crate::primitive::{self, AtomicU32, AtomicU64, Ordering};
use crate::shm::{Id, Lives};
use crate::sync::raw::Waiter;
use crate::sync::sleep::MOST_WATCHED;

/// In the phase: the generation is broken, and so is the barrier until it is reset.
const BROKEN: u32 = 1;
/// In the phase: what is added when a process takes a cell: whoever sleeps, or is about to, is to watch it too.
const JOIN: u32 = 1 << 1;
const JOINS: u32 = ((1 << 9) - 1) << 1;
/// In the phase: what is added when a generation ends.
const GENERATION: u32 = 1 << 10;

/// In a cell: its process has arrived in that generation.
const ARRIVED: u64 = 1 << 63;
/// In a cell: the others may not know yet whose it is.
const NEW: u64 = 1 << 62;

/// How many broken generations are remembered, for parties that look late.
const REMEMBERED: usize = 8;

/// A barrier in shared memory, beside a cell for each party. All zero is the initial value.
///
/// `phase`: everybody, by exchange; `BROKEN` also in the kernel. `broken`: whoever resets a broken barrier notes its
/// generation there, plus one, before that is over; whoever ends a generation forgets an old one.
#[repr(C)]
#[derive(Debug, Default)]
pub(crate) struct BarrierWord {
    phase: AtomicU32,
    broken: [AtomicU32; REMEMBERED],
}

/// The word and its cells.
///
/// A cell is `[arrived:1][new:1][0:8][generation:22][0:4][process:28]`. By exchange: to its own id by a process that takes it, unless it
/// says `ARRIVED` in the generation of the phase; to `ARRIVED` by the process whose id it has; and out of that by a reset.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Barrier<'a> {
    pub(crate) word: &'a BarrierWord,
    pub(crate) cells: &'a [AtomicU64],
}

/// A party that has arrived: in which generation, and at which cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Arrival {
    generation: u32,
    index: u32,
}

/// Why a party did not pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failed {
    /// The barrier is broken: by a death, a time-out, an abort or a reset.
    Broken,
    /// This wait ended, and broke the barrier.
    Ended(End),
}

/// What the cells say of one generation.
enum Survey {
    AllArrived,
    /// One that has arrived is dead.
    Death,
    /// Whose lives are to be watched.
    Waits(Vec<Id>),
}

fn generation(phase: u32) -> u32 {
    phase / GENERATION
}

fn arrived(generation: u32) -> u64 {
    ARRIVED | u64::from(generation) << 32
}

/// Without the process.
fn standing(cell: u64) -> u64 {
    cell >> 32 << 32
}

fn process(cell: u64) -> Option<Id> {
    Id::of_word((cell & u64::from(u32::MAX)) as u32)
}

fn bits(id: Id) -> u64 {
    u64::from(id.bits())
}

/// One that has no time.
struct Hurried;

impl Waiter for Hurried {}

/// What came of looking for a cell to arrive at.
enum Took {
    Cell(u32),
    /// All have arrived.
    None,
    /// Somebody was faster.
    Again,
}

impl Barrier<'_> {
    /// Arrives, and waits for all others. Tells which of the parties this one was: each has a different number, from 0 on.
    pub(crate) fn wait(&self, lives: &impl Lives, me: Id, waiter: &mut impl Waiter) -> Result<u32, Failed> {
        let arrival = self.arrive(lives, me)?;
        let passed = self.stay(arrival, lives, me, waiter);
        if passed == Err(Failed::Ended(End::Interrupted)) {
            self.leave(arrival);
        }
        passed
    }

    /// Passes if all others have arrived; otherwise nothing has happened.
    pub(crate) fn try_wait(&self, lives: &impl Lives, me: Id) -> Result<Option<u32>, Failed> {
        loop {
            let phase = self.word.phase.load(Ordering::SeqCst);
            let generation = generation(phase);
            if phase & BROKEN != 0 {
                return Err(Failed::Broken);
            }
            if self.arrived(generation) + 1 < self.cells.len() {
                return Ok(None);
            }
            match self.take_cell(lives, me, generation) {
                // All have: it does not wait.
                Took::Cell(index) => {
                    return self.stay(Arrival { generation, index }, lives, me, &mut Hurried).map(Some);
                }
                Took::None => self.pass(phase),
                Took::Again => {}
            }
        }
    }

    /// Arrives.
    pub(crate) fn arrive(&self, lives: &impl Lives, me: Id) -> Result<Arrival, Failed> {
        loop {
            let phase = self.word.phase.load(Ordering::SeqCst);
            let generation = generation(phase);
            if phase & BROKEN != 0 {
                return Err(Failed::Broken);
            }
            match self.take_cell(lives, me, generation) {
                Took::Cell(index) => return Ok(Arrival { generation, index }),
                // More come than are parties: this one belongs to the next generation.
                Took::None => self.pass(phase),
                Took::Again => {}
            }
        }
    }

    /// Waits until the generation ends. After an interruption it may be called again; that alone does not break the barrier.
    pub(crate) fn stay(
        &self,
        arrival: Arrival,
        lives: &impl Lives,
        me: Id,
        waiter: &mut impl Waiter,
    ) -> Result<u32, Failed> {
        let Arrival { generation, index } = arrival;
        let mut wait = Wait::new(waiter);
        let mut looked = false;
        loop {
            let phase = self.word.phase.load(Ordering::SeqCst);
            match self.passed(generation, phase) {
                Some(true) => {
                    if !looked {
                        // The last to arrive: whoever let it pass may have no cell, and be killed before it wakes.
                        primitive::wake(&self.word.phase, u32::MAX);
                    }
                    return Ok(index);
                }
                Some(false) => return Err(Failed::Broken),
                None if looked && wait.spins() => continue,
                None => looked = true,
            }
            match (self.survey(lives, me, generation), wait.ended()) {
                (Survey::AllArrived, _) => self.pass(phase),
                (Survey::Death, _) => _ = self.break_off(generation),
                (_, Err(End::Interrupted)) => return Err(Failed::Ended(End::Interrupted)),
                (_, Err(end)) => {
                    if self.break_off(generation) {
                        return Err(Failed::Ended(end));
                    }
                }
                (Survey::Waits(_), Ok(())) if wait.spins() => {}
                (Survey::Waits(watched), Ok(())) => {
                    wait.sleep(lives, &self.word.phase, phase, &watched);
                }
            }
        }
    }

    /// Gives up an arrival that was interrupted: breaks the barrier, unless the generation has ended.
    pub(crate) fn leave(&self, arrival: Arrival) {
        self.break_off(arrival.generation);
    }

    /// Arrives at a cell of its own, or one that is free in this generation.
    fn take_cell(&self, lives: &impl Lives, me: Id, now: u32) -> Took {
        let here = arrived(now);
        let (mut own, mut nobodys, mut other) = (None, None, None);
        for (cell, index) in self.cells.iter().zip(0..) {
            let seen = cell.load(Ordering::SeqCst);
            let place = match process(seen) {
                _ if standing(seen) == here => continue,
                Some(id) if id == me && seen & NEW == 0 => &mut own,
                Some(id) if id != me && !lives.is_dead(id) => &mut other,
                _ => &mut nobodys,
            };
            place.get_or_insert((cell, index, seen));
            if own.is_some() {
                break;
            }
        }
        let known = own.is_some();
        let Some((cell, index, seen)) = own.or(nobodys).or(other) else { return Took::None };
        // What it says is older than this generation only if that has not ended before it was read.
        if generation(self.word.phase.load(Ordering::SeqCst)) != now {
            return Took::Again;
        }
        let new = NEW | u64::from(now) << 32 | bits(me);
        let taken = if known {
            exchange(cell, seen, here | bits(me))
        } else {
            exchange(cell, seen, new) && self.announce(now) && exchange(cell, new, here | bits(me))
        };
        if taken { Took::Cell(index) } else { Took::Again }
    }

    /// Has those who sleep in this generation look at the cells again.
    fn announce(&self, now: u32) -> bool {
        loop {
            let phase = self.word.phase.load(Ordering::SeqCst);
            if generation(phase) != now {
                return false;
            }
            let joined = phase & !JOINS | phase.wrapping_add(JOIN) & JOINS;
            if self.word.phase.compare_exchange(phase, joined, Ordering::SeqCst, Ordering::Relaxed).is_ok() {
                primitive::wake(&self.word.phase, u32::MAX);
                return true;
            }
        }
    }

    /// SeqCst: of those who arrive at the same time, one at least sees all.
    fn survey(&self, lives: &impl Lives, me: Id, generation: u32) -> Survey {
        let (mut all, mut death, mut others) = (true, false, Vec::new());
        for cell in self.cells {
            let mut seen = cell.load(Ordering::SeqCst);
            let mut dead = false;
            while let Some(id) = process(seen)
                && !dead
                && id != me
                && !others.contains(&id)
            {
                if lives.is_dead(id) {
                    // It may have arrived after the first look, but not after this one.
                    let last = cell.load(Ordering::SeqCst);
                    dead = process(last) == Some(id);
                    seen = last;
                } else if others.len() < MOST_WATCHED {
                    others.push(id);
                } else {
                    break;
                }
            }
            let here = standing(seen) == arrived(generation);
            all &= here;
            death |= dead && here;
        }
        match (all, death) {
            (true, _) => Survey::AllArrived,
            (false, true) => Survey::Death,
            (false, false) => Survey::Waits(others),
        }
    }

    /// Whether a generation passed or was broken, if it has ended.
    fn passed(&self, which: u32, phase: u32) -> Option<bool> {
        match generation(phase) == which {
            true if phase & BROKEN == 0 => None,
            true => Some(false),
            false => Some(self.note(which).load(Ordering::Acquire) != which + 1),
        }
    }

    fn note(&self, generation: u32) -> &AtomicU32 {
        &self.word.broken[generation as usize % REMEMBERED]
    }

    /// Ends the generation of this phase, in which all have arrived, unless somebody else does.
    fn pass(&self, phase: u32) {
        let old = self.note(generation(phase) + 1);
        let noted = old.load(Ordering::Relaxed);
        let next = phase.wrapping_add(GENERATION);
        let ended =
            self.word.phase.compare_exchange(phase, next, Ordering::SeqCst, Ordering::Relaxed).is_ok();
        // Also where somebody else was faster, for the same reason.
        primitive::wake(&self.word.phase, u32::MAX);
        if ended && noted != 0 {
            // Before the numbers come again.
            _ = old.compare_exchange(noted, 0, Ordering::Relaxed, Ordering::Relaxed);
        }
    }

    /// Breaks the barrier unless this generation has ended; true if it was this call that did.
    fn break_off(&self, which: u32) -> bool {
        loop {
            let phase = self.word.phase.load(Ordering::SeqCst);
            if self.passed(which, phase).is_some() {
                return false;
            }
            if self
                .word
                .phase
                .compare_exchange(phase, phase | BROKEN, Ordering::SeqCst, Ordering::Relaxed)
                .is_ok()
            {
                primitive::wake(&self.word.phase, u32::MAX);
                return true;
            }
        }
    }

    /// Breaks the barrier, until it is reset.
    pub(crate) fn abort(&self) {
        primitive::set_bit_and_wake(&self.word.phase, BROKEN.trailing_zeros(), u32::MAX);
    }

    /// Makes it as new. Breaks it first for those who wait: while their generation can still end, nobody can say how it did. Killed in between:
    /// it stays broken, which nobody waits for, until somebody resets it.
    pub(crate) fn reset(&self) {
        loop {
            let phase = self.word.phase.load(Ordering::SeqCst);
            if phase & BROKEN == 0 {
                if self.waiting() == 0 {
                    return;
                }
                self.abort();
                continue;
            }
            let ends = generation(phase);
            let noted = self.note(ends).load(Ordering::Relaxed);
            let note =
                self.note(ends).compare_exchange(noted, ends + 1, Ordering::Release, Ordering::Relaxed);
            if note.is_err_and(|now| now != ends + 1) {
                continue;
            }
            for cell in self.cells {
                let seen = cell.load(Ordering::Relaxed);
                if standing(seen) == arrived(ends) {
                    exchange(cell, seen, seen & !ARRIVED);
                }
            }
            let next = (phase & !BROKEN).wrapping_add(GENERATION);
            if self.word.phase.compare_exchange(phase, next, Ordering::SeqCst, Ordering::Relaxed).is_ok() {
                return;
            }
        }
    }

    /// True if it is broken.
    pub(crate) fn is_broken(&self) -> bool {
        self.word.phase.load(Ordering::SeqCst) & BROKEN != 0
    }

    /// How many wait. None do at a broken barrier.
    pub(crate) fn waiting(&self) -> u32 {
        let phase = self.word.phase.load(Ordering::SeqCst);
        if phase & BROKEN == 0 { self.arrived(generation(phase)) as u32 } else { 0 }
    }

    fn arrived(&self, generation: u32) -> usize {
        let here = |cell: &&AtomicU64| standing(cell.load(Ordering::SeqCst)) == arrived(generation);
        self.cells.iter().filter(here).count()
    }

    /// Removes one of the dead: breaks the barrier if it waited, and has everybody look again. May be done twice.
    pub(crate) fn repair(&self, lives: &impl Lives, dead: Id) {
        for cell in self.cells {
            let seen = cell.load(Ordering::SeqCst);
            if process(seen) != Some(dead) {
                continue;
            }
            // Looked at after the cell: what that says is of this generation, or older.
            let phase = self.word.phase.load(Ordering::SeqCst);
            let now = generation(phase);
            if standing(seen) != arrived(now) {
                exchange(cell, seen, 0);
            } else if phase & BROKEN == 0 {
                match self.survey(lives, dead, now) {
                    Survey::AllArrived => self.pass(phase),
                    _ => _ = self.break_off(now),
                }
            }
        }
        primitive::wake(&self.word.phase, u32::MAX);
    }
}

fn exchange(cell: &AtomicU64, from: u64, to: u64) -> bool {
    cell.compare_exchange(from, to, Ordering::SeqCst, Ordering::Relaxed).is_ok()
}

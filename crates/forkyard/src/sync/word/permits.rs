//! Permits that belong to somebody: a cell for each, with its holder's id in it. What the dead hold is free.
//!
//! Killed here: taking a permit is one exchange, from nobody or from one of the dead to the taker, and giving it back is one too. A
//! sleeper watches the lives of all holders, so one that is killed between giving back its permit and waking is seen by them. Whoever is
//! killed there with another's permit, or when it was woken and before it took, is seen by the reaper, which calls
//! [`Permits::repair`].

use super::{End, Wait};
use crate::primitive::{self, AtomicU32, AtomicU64, Ordering};
use crate::shm::{Id, Lives};
use crate::sync::raw::{Holder, Waiter};

/// In [`PermitsWord`]: somebody sleeps, or may. Cleared by waking all only.
const WAITERS: u32 = 1;
/// What is added there when a permit becomes free beside sleepers.
const CHANGE: u32 = 2;

/// In a cell: nobody has the permit.
const FREE: u64 = 0;
/// In a cell: there is no such permit yet, a release makes it.
const ABSENT: u64 = 1 << 28;

/// What sleepers sleep on, beside the cells. All zero is the initial value.
///
/// `word`: everybody, by exchange or in the kernel.
#[repr(C)]
#[derive(Debug, Default)]
pub(crate) struct PermitsWord {
    word: AtomicU32,
}

/// All permits are free, and no further ones can be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Over;

/// Permits in shared memory: the word and the cells.
///
/// A cell is `[thread:32][0:4][holder's id:28]`. Everybody, by exchange: to the own id where it is free or its holder dead, and to free by
/// its holder, or by others, who may give back anybody's permit. `hint` is private memory: the cell that was used last.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Permits<'a> {
    pub(crate) word: &'a PermitsWord,
    pub(crate) cells: &'a [AtomicU64],
    pub(crate) hint: &'a AtomicU32,
}

/// What a cell says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Free,
    Absent,
    Held(Id),
}

/// The living holders that were met.
struct Census {
    living: Vec<Id>,
    slots: [u64; 16],
}

impl Census {
    fn new() -> Census {
        Census { living: Vec::new(), slots: [0; 16] }
    }

    fn standing(&mut self, lives: &impl Lives, cell: u64) -> Standing {
        match holder(cell) {
            _ if cell == ABSENT => Standing::Absent,
            Some(id) if self.met(id) => Standing::Held(id),
            Some(id) if !lives.is_dead(id) => {
                self.slots[id.slot() as usize / 64] |= 1 << (id.slot() % 64);
                self.living.push(id);
                Standing::Held(id)
            }
            _ => Standing::Free,
        }
    }

    fn met(&self, id: Id) -> bool {
        self.slots[id.slot() as usize / 64] & 1 << (id.slot() % 64) != 0 && self.living.contains(&id)
    }

    /// Without this one.
    fn others(mut self, me: Id) -> Vec<Id> {
        self.living.retain(|id| *id != me);
        self.living
    }
}

fn holder(cell: u64) -> Option<Id> {
    Id::of_word((cell & u64::from(u32::MAX)) as u32)
}

fn held_by(holder: Holder) -> u64 {
    u64::from(holder.thread) << 32 | u64::from(holder.id.bits())
}

/// SeqCst: who frees a cell and then sees no sleeper, and who announces a sleep and then sees no free cell, cannot both be.
fn exchange(cell: &AtomicU64, from: u64, to: u64) -> bool {
    cell.compare_exchange(from, to, Ordering::SeqCst, Ordering::Relaxed).is_ok()
}

impl Permits<'_> {
    /// Makes so many permits, before anybody else has them. The other cells are for those that a release makes.
    pub(crate) fn init(&self, permits: usize) {
        for (index, cell) in self.cells.iter().enumerate() {
            cell.store(if index < permits { FREE } else { ABSENT }, Ordering::Relaxed);
        }
    }

    /// Takes a permit if there is a free one, or one of the dead.
    #[inline]
    pub(crate) fn try_acquire(&self, lives: &impl Lives, me: Holder) -> bool {
        self.acquire_at_once(me) || self.look(lives, me).is_none()
    }

    /// Takes the permit that was taken last, if it is free.
    #[inline]
    pub(crate) fn acquire_at_once(&self, me: Holder) -> bool {
        let hint = self.cells.get(self.hint.load(Ordering::Relaxed) as usize);
        hint.is_some_and(|cell| exchange(cell, FREE, held_by(me)))
    }

    /// Takes a permit, waiting for one. Newcomers may overtake whoever sleeps.
    pub(crate) fn acquire(
        &self,
        lives: &impl Lives,
        me: Holder,
        waiter: &mut impl Waiter,
    ) -> Result<(), End> {
        if self.try_acquire(lives, me) {
            return Ok(());
        }
        let mut wait = Wait::new(waiter);
        loop {
            if self.look(lives, me).is_none() {
                return Ok(());
            }
            wait.ended()?;
            if wait.spins() {
                continue;
            }
            let word = self.word.word.load(Ordering::SeqCst);
            let seen = word | WAITERS;
            if seen != word
                && self.word.word.compare_exchange(word, seen, Ordering::SeqCst, Ordering::Relaxed).is_err()
            {
                continue;
            }
            // Whoever frees a permit from now on sees that somebody sleeps.
            let Some(census) = self.look(lives, me) else { return Ok(()) };
            wait.sleep(lives, &self.word.word, seen, &census.others(me.id));
        }
    }

    /// Takes a permit, or tells who has them.
    #[cold]
    fn look(&self, lives: &impl Lives, me: Holder) -> Option<Census> {
        let hint = self.hint.load(Ordering::Relaxed) as usize;
        let mut census = Census::new();
        let free = |(_, cell): &(usize, &AtomicU64)| {
            cell.load(Ordering::Relaxed) == FREE && exchange(cell, FREE, held_by(me))
        };
        let free_or_dead = |(_, cell): &(usize, &AtomicU64)| {
            loop {
                let seen = cell.load(Ordering::SeqCst);
                if census.standing(lives, seen) != Standing::Free {
                    return false;
                }
                if exchange(cell, seen, held_by(me)) {
                    return true;
                }
            }
        };
        match self.from(hint).find(free).or_else(|| self.from(hint).find(free_or_dead)) {
            Some((index, _)) => {
                self.hint.store(index as u32, Ordering::Relaxed);
                None
            }
            None => Some(census),
        }
    }

    /// All cells, beginning with the hinted one.
    fn from(&self, hint: usize) -> impl Iterator<Item = (usize, &AtomicU64)> {
        let (before, after) = self.cells.split_at(hint.min(self.cells.len()));
        let after = after.iter().enumerate().map(move |(index, cell)| (before.len() + index, cell));
        after.chain(before.iter().enumerate())
    }

    /// Gives back the permit that was taken last, if it is this thread's.
    #[inline]
    pub(crate) fn release_at_once(&self, me: Holder) -> bool {
        let hint = self.cells.get(self.hint.load(Ordering::Relaxed) as usize);
        let is_free = hint.is_some_and(|cell| exchange(cell, held_by(me), FREE));
        if is_free {
            self.tell();
        }
        is_free
    }

    /// Gives back a permit of this process; or if it has none, somebody else's; or if all are free, makes one.
    pub(crate) fn release(&self, lives: &impl Lives, me: Id) -> Result<(), Over> {
        let hint = self.hint.load(Ordering::Relaxed) as usize;
        let frees = |cell: &AtomicU64, which: &mut dyn FnMut(u64) -> bool| {
            let seen = cell.load(Ordering::Relaxed);
            which(seen) && exchange(cell, seen, FREE)
        };
        let mut census = Census::new();
        let mut own = |seen| holder(seen) == Some(me);
        let mut held = |seen| matches!(census.standing(lives, seen), Standing::Held(_));
        let mut absent = |seen| seen == ABSENT;
        let freed = self
            .from(hint)
            .find(|(_, cell)| frees(cell, &mut own))
            .or_else(|| self.from(hint).find(|(_, cell)| frees(cell, &mut held)))
            .or_else(|| self.from(hint).find(|(_, cell)| frees(cell, &mut absent)));
        let (index, _) = freed.ok_or(Over)?;
        self.hint.store(index as u32, Ordering::Relaxed);
        self.tell();
        Ok(())
    }

    /// A permit is free: wakes a sleeper, if there is one.
    #[inline]
    fn tell(&self) {
        if self.word.word.load(Ordering::SeqCst) & WAITERS != 0
            && primitive::add_and_wake(&self.word.word, CHANGE, 1) == 0
        {
            self.wake_all();
        }
    }

    /// How many are free.
    pub(crate) fn value(&self, lives: &impl Lives) -> u32 {
        let mut census = Census::new();
        let mut free =
            |cell: &&AtomicU64| census.standing(lives, cell.load(Ordering::Acquire)) == Standing::Free;
        self.cells.iter().filter(|cell| free(cell)).count() as u32
    }

    /// How many there are, free or not.
    pub(crate) fn count(&self) -> u32 {
        self.cells.iter().filter(|cell| cell.load(Ordering::Acquire) != ABSENT).count() as u32
    }

    /// Who has them, dead or alive.
    pub(crate) fn holders(&self) -> impl Iterator<Item = Holder> {
        self.cells.iter().filter_map(|cell| {
            let seen = cell.load(Ordering::Acquire);
            Some(Holder { id: holder(seen)?, thread: (seen >> 32) as u32 })
        })
    }

    /// Has every sleeper look again, and announce itself again.
    #[cold]
    fn wake_all(&self) {
        if self.word.word.load(Ordering::SeqCst) & WAITERS != 0 {
            primitive::clear_bit_and_wake(&self.word.word, WAITERS.trailing_zeros(), u32::MAX);
        }
    }

    /// Frees what one of the dead held, and has everybody look again. May be done twice.
    pub(crate) fn repair(&self, dead: Id) {
        for cell in self.cells {
            let seen = cell.load(Ordering::Acquire);
            if holder(seen) == Some(dead) {
                exchange(cell, seen, FREE);
            }
        }
        self.wake_all();
    }
}

//! Who a participant is, and whether it lives: what the state machines of `sync` need to know of the process table.

use std::num::NonZeroU32;

use crate::primitive::{AtomicU32, Ordering};

/// A participant in one incarnation of its slot: what stands in lock words. Never reused while anything in the arena names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Id(NonZeroU32);

impl Id {
    /// The bits of a word that an id takes; the four above are the word's own.
    pub(crate) const MASK: u32 = (1 << 28) - 1;
    const SLOT_BITS: u32 = 10;
    /// Slots are numbered below this.
    pub(crate) const SLOTS: u32 = (1 << Id::SLOT_BITS) - 1;

    /// The participant of a slot; only 18 bits of the incarnation count.
    pub(crate) const fn new(slot: u32, incarnation: u32) -> Option<Id> {
        if slot >= Id::SLOTS {
            return None;
        }
        match NonZeroU32::new((incarnation << Id::SLOT_BITS | (slot + 1)) & Id::MASK) {
            Some(bits) => Some(Id(bits)),
            None => None,
        }
    }

    /// The participant that a word names, whatever its flags; `None` for nobody.
    pub(crate) fn of_word(word: u32) -> Option<Id> {
        if (word & Id::SLOTS) == 0 { None } else { NonZeroU32::new(word & Id::MASK).map(Id) }
    }

    /// The participant whose [`bits`](Id::bits) a thread has noted; `None` for 0.
    #[inline]
    pub(crate) fn of_note(bits: u32) -> Option<Id> {
        NonZeroU32::new(bits).map(Id)
    }

    /// As it stands in a word.
    pub(crate) fn bits(self) -> u32 {
        self.0.get()
    }

    /// Its slot's number.
    pub(crate) fn slot(self) -> u32 {
        (self.0.get() & Id::SLOTS) - 1
    }
}

/// What the kernel sets in a life word when its process ends (futex(2)).
pub(crate) const OWNER_DIED: u32 = 0x4000_0000;
/// What a sleeper sets there, so that the kernel wakes one.
pub(crate) const WAITERS: u32 = 0x8000_0000;

/// What is known of a participant.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Life<'a> {
    /// It has ended, or never was.
    Dead,
    /// It lived a moment ago. This is its life word: a sleeper calls [`watch`] and then sleeps on it.
    Alive(&'a AtomicU32),
}

/// Tells who lives.
pub(crate) trait Lives {
    /// What is known of this participant.
    fn life(&self, id: Id) -> Life<'_>;

    /// Nothing has been heard of this participant for a while: looks whether it has ended without a sign.
    fn suspect(&self, id: Id) {
        let _ = id;
    }

    /// Nothing has happened for a while: cleans up after the dead whom nobody else has noticed.
    fn tidy(&self) {}

    /// True if it has ended.
    fn is_dead(&self, id: Id) -> bool {
        matches!(self.life(id), Life::Dead)
    }
}

/// Announces a sleeper in a life word: the value to sleep on; `None` if that process has ended.
pub(crate) fn watch(life: &AtomicU32) -> Option<u32> {
    let mut seen = life.load(Ordering::Acquire);
    loop {
        if seen & OWNER_DIED != 0 {
            return None;
        }
        if seen & WAITERS != 0 {
            return Some(seen);
        }
        match life.compare_exchange(seen, seen | WAITERS, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => return Some(seen | WAITERS),
            Err(now) => seen = now,
        }
    }
}

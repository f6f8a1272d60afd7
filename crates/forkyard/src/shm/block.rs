//! A block: what an object lies in, and who holds it. A state machine.
//!
//! README.md beside this file has the states. `state` changes by CAS; whoever has brought it to `Building` or `Freeing` owns the block and
//! writes the rest. `holders` has a bit for each participant, which only that one sets (or its parent before a fork) and clears (or its reaper).
//!
//! Killed here: `Building` and `Freeing` name the owner, whose reaper frees the block; a holder's bit is cleared by its reaper;
//! an object that nobody holds, because its last holder was killed on its way to `Freeing`, is freed by that one's reaper.

use super::life::Id;
use crate::primitive::{AtomicU32, AtomicU64, Ordering};

/// Bytes of the text that says where an object was made.
pub(crate) const MADE_AT: usize = 40;

/// The start of a block.
#[repr(C, align(64))]
#[derive(Default)]
pub(crate) struct Block {
    state: AtomicU64,
    /// What the payload is: a number of the caller's.
    kind: AtomicU32,
    made_at_len: AtomicU32,
    /// Bytes of the payload.
    len: AtomicU64,
    made_at: [AtomicU64; MADE_AT / 8],
    holders: [AtomicU64; 16],
}

/// What a block is: its word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Nobody's.
    Free,
    /// This participant is making something there.
    Building(Id),
    /// There is an object of this generation.
    Live(u32),
    /// This participant is freeing it.
    Freeing(Id),
    /// No word of ours: somebody scribbled.
    Garbled,
}

impl State {
    fn word(self) -> u64 {
        match self {
            State::Free => 0,
            State::Building(id) => 1 | u64::from(id.bits()) << 4,
            State::Live(generation) => 2 | u64::from(generation) << 32,
            State::Freeing(id) => 3 | u64::from(id.bits()) << 4,
            State::Garbled => u64::MAX,
        }
    }

    fn of_word(word: u64) -> State {
        match (word & 15, Id::of_word((word >> 4) as u32)) {
            (0, _) if word == 0 => State::Free,
            (1, Some(id)) => State::Building(id),
            (2, _) => State::Live((word >> 32) as u32),
            (3, Some(id)) => State::Freeing(id),
            _ => State::Garbled,
        }
    }
}

impl Block {
    /// What it is.
    pub(crate) fn state(&self) -> State {
        State::of_word(self.state.load(Ordering::SeqCst))
    }

    /// Stores its state: by whoever owns it.
    pub(crate) fn set(&self, to: State) {
        self.state.store(to.word(), Ordering::SeqCst);
    }

    /// Changes its state, unless somebody else has.
    pub(crate) fn change(&self, from: State, to: State) -> bool {
        self.state.compare_exchange(from.word(), to.word(), Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }

    /// What the payload is.
    pub(crate) fn kind(&self) -> u32 {
        self.kind.load(Ordering::Relaxed)
    }

    /// Bytes of the payload, as they were asked for.
    pub(crate) fn len(&self) -> u64 {
        self.len.load(Ordering::Relaxed)
    }

    /// Notes what it is: by its builder.
    pub(crate) fn describe(&self, kind: u32, len: u64, made_at: &str) {
        // The end of a long path says more than its beginning.
        let start = made_at.len().saturating_sub(MADE_AT);
        let text = made_at.as_bytes().get(start..).unwrap_or_default();
        for (cell, part) in self.made_at.iter().zip(text.chunks(8)) {
            let mut bytes = [0; 8];
            bytes[..part.len()].copy_from_slice(part);
            cell.store(u64::from_le_bytes(bytes), Ordering::Relaxed);
        }
        self.made_at_len.store(text.len() as u32, Ordering::Relaxed);
        self.len.store(len, Ordering::Relaxed);
        self.kind.store(kind, Ordering::Relaxed);
    }

    /// Where the object was made: the end of `file:line`.
    pub(crate) fn made_at(&self) -> String {
        let bytes: Vec<u8> =
            self.made_at.iter().flat_map(|cell| cell.load(Ordering::Relaxed).to_le_bytes()).collect();
        let len = (self.made_at_len.load(Ordering::Relaxed) as usize).min(bytes.len());
        String::from_utf8_lossy(&bytes[..len]).into_owned()
    }

    /// Notes that a participant holds the object.
    pub(crate) fn hold(&self, slot: u32) {
        if let Some(word) = self.holders.get(slot as usize / 64) {
            word.fetch_or(1 << (slot % 64), Ordering::SeqCst);
        }
    }

    /// True if this participant holds the object.
    pub(crate) fn is_held_by(&self, slot: u32) -> bool {
        self.holders
            .get(slot as usize / 64)
            .is_some_and(|word| word.load(Ordering::SeqCst) & 1 << (slot % 64) != 0)
    }

    /// The participants that hold the object.
    pub(crate) fn holders(&self) -> impl Iterator<Item = u32> {
        (0u32..).zip(&self.holders).flat_map(|(index, word)| {
            let mut bits = word.load(Ordering::SeqCst);
            std::iter::from_fn(move || {
                let bit = bits.trailing_zeros();
                (bit < 64).then(|| {
                    bits &= bits - 1;
                    index * 64 + bit
                })
            })
        })
    }

    /// True if any participant holds the object.
    pub(crate) fn is_held(&self) -> bool {
        self.holders.iter().any(|word| word.load(Ordering::SeqCst) != 0)
    }

    /// Notes that a participant no longer holds the object. True if nobody does: the caller owns the block now, and frees it.
    pub(crate) fn release(&self, slot: u32, generation: u32, me: Id) -> bool {
        if let Some(word) = self.holders.get(slot as usize / 64) {
            word.fetch_and(!(1 << (slot % 64)), Ordering::SeqCst);
        }
        while !self.is_held() {
            if !self.change(State::Live(generation), State::Freeing(me)) {
                return false;
            }
            // Whoever has come meanwhile looks at the state after its bit is set, and this looks at the bits after the state is.
            if !self.is_held() {
                return true;
            }
            self.set(State::Live(generation));
        }
        false
    }

    /// Holds the object if it is of this generation. Otherwise nothing is changed; `Err(true)`: but the block is the caller's to free.
    pub(crate) fn hold_if(&self, slot: u32, generation: u32, me: Id) -> Result<(), bool> {
        if self.state() != State::Live(generation) {
            return Err(false);
        }
        self.hold(slot);
        if self.state() == State::Live(generation) { Ok(()) } else { Err(self.release(slot, generation, me)) }
    }
}

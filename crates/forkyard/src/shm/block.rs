//! A block: what an object lies in, and who holds it. A state machine.
//!
//! README.md beside this file has the states. `state` changes by CAS; whoever has brought it to `Building` or `Freeing` owns the block and
//! writes the rest. `holders` has a bit for each participant, which only that one sets (or its parent before a fork) and clears (or its reaper).
//! `Live` counts changes: whoever has made the object known where it was not (a bit, a message) adds one after that. So who finds it
//! nowhere, and the count as it was before that search, frees it by one CAS, and nobody has come meanwhile.
//!
//! Killed here: `Building`, `Freeing` and `Sent` name the owner, whose reaper frees the block; a holder's bit is cleared by its reaper;
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
    /// Of a message: the first is how many handles it carries.
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
    /// It is this participant's, under this generation, and somebody else has made it.
    Sent(Id, u32),
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
            State::Sent(id, generation) => 4 | u64::from(id.bits()) << 4 | u64::from(generation) << 32,
            State::Garbled => u64::MAX,
        }
    }

    fn of_word(word: u64) -> State {
        match (word & 15, Id::of_word((word >> 4) as u32)) {
            (0, _) if word == 0 => State::Free,
            (1, Some(id)) => State::Building(id),
            (2, _) => State::Live((word >> 32) as u32),
            (3, Some(id)) => State::Freeing(id),
            (4, Some(id)) => State::Sent(id, (word >> 32) as u32),
            _ => State::Garbled,
        }
    }
}

/// In the word of `Live`: handles of the object have been in messages.
const TRAVELS: u64 = 1 << 4;
/// The changes are counted from here up to the generation.
const CHANGE: u64 = 1 << 5;
const CHANGES: u64 = (1 << 32) - CHANGE;

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
        for (index, cell) in self.made_at.iter().enumerate() {
            let part = text.get(index * 8..).unwrap_or_default();
            let part = &part[..part.len().min(8)];
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

    /// How many handles a message carries.
    pub(crate) fn carries(&self) -> u64 {
        self.made_at[0].load(Ordering::SeqCst)
    }

    /// Notes how many handles a message carries: by its owner.
    pub(crate) fn set_carries(&self, count: u64) {
        self.made_at[0].store(count, Ordering::SeqCst);
    }

    /// Says that the object is known in one more place, perhaps in a message. False: it is not of this generation any more.
    pub(crate) fn announce(&self, generation: u32, in_message: bool) -> bool {
        let mut word = self.state.load(Ordering::SeqCst);
        while State::of_word(word) == State::Live(generation) {
            let next = (word & !CHANGES) | (word.wrapping_add(CHANGE) & CHANGES);
            let next = if in_message { next | TRAVELS } else { next };
            match self.state.compare_exchange(word, next, Ordering::SeqCst, Ordering::SeqCst) {
                Ok(_) => return true,
                Err(now) => word = now,
            }
        }
        false
    }

    /// Holds the object if it is of this generation; otherwise nothing is changed.
    pub(crate) fn hold_if(&self, slot: u32, generation: u32) -> bool {
        if self.state() != State::Live(generation) {
            return false;
        }
        self.hold(slot);
        let held = self.announce(generation, false);
        if !held {
            self.let_go(slot);
        }
        held
    }

    /// Notes that a participant no longer holds the object. Whoever does asks [`claim`](Block::claim) then.
    pub(crate) fn let_go(&self, slot: u32) {
        if let Some(word) = self.holders.get(slot as usize / 64) {
            word.fetch_and(!(1 << (slot % 64)), Ordering::SeqCst);
        }
    }

    /// What [`claim`](Block::claim) compares with, before a search for whoever knows the object. `None`: it is not of this generation.
    pub(crate) fn look(&self, generation: u32) -> Option<Look> {
        let word = self.state.load(Ordering::SeqCst);
        (State::of_word(word) == State::Live(generation)).then_some(Look(word))
    }

    /// Takes the object over to free it, if nobody holds it and nobody has got to know it since that look. If this fails somebody else
    /// holds it, or frees it, and asks when that one lets go.
    pub(crate) fn claim(&self, look: Look, me: Id) -> bool {
        let freeing = State::Freeing(me).word();
        !self.is_held()
            && self.state.compare_exchange(look.0, freeing, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }
}

/// An object's word as somebody saw it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Look(u64);

impl Look {
    /// True if messages may carry handles of it.
    pub(crate) fn travels(self) -> bool {
        self.0 & TRAVELS != 0
    }
}

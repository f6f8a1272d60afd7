//! Blocks: what objects lie in, and who holds them.
//!
//! README.md beside this file has the states. `state` changes by CAS; whoever has brought it to `Building` or `Freeing` owns the block and
//! writes the rest. `holders` has a bit for each participant, which only that one sets (or its parent before a fork) and clears (or its reaper).
//!
//! Killed here: `Building` and `Freeing` name the owner, whose reaper frees the block; a holder's bit is cleared by its reaper.

use std::ptr::NonNull;

use forkyard_sys::Errno;

use super::arena::Arena;
use super::chunk::{CHUNK, CLASSES, Use, blocks_in};
use super::life::Id;
use super::safe::ShmAtomic;
use crate::primitive::{AtomicU32, AtomicU64, Ordering, fence};

/// Bytes before the payload.
pub(crate) const HEADER: u64 = size_of::<Block>() as u64;
/// Bytes of the text that says where an object was made.
pub(crate) const MADE_AT: usize = 40;

/// The start of a block.
#[repr(C, align(64))]
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

// SAFETY: atomics only, `repr(C)` without gaps, all-zero is a free block.
#[allow(unsafe_code)]
unsafe impl ShmAtomic for Block {}
const _: () = assert!(size_of::<Block>() == 192);

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

    fn is_held(&self) -> bool {
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

/// A block in the arena.
#[derive(Clone, Copy)]
pub(crate) struct Found {
    pub(crate) offset: u64,
    pub(crate) block: &'static Block,
    /// Bytes from its start to its end.
    pub(crate) size: u64,
}

impl Found {
    /// Where the payload begins, and how long it is.
    pub(crate) fn payload(&self, arena: &'static Arena) -> Option<(NonNull<u8>, usize)> {
        let len = self.block.len().min(self.size - HEADER);
        Some((arena.range(self.offset + HEADER, len)?, len as usize))
    }
}

impl Arena {
    /// The block that begins at this offset, if one does.
    pub(super) fn block_at(&'static self, offset: u64) -> Option<Found> {
        let index = self.chunk_of(offset)?;
        let inside = offset - self.chunk_at(index);
        let size = match self.table().get(index as usize)?.get() {
            Use::Blocks(class) => {
                let size = u64::from(CLASSES[class as usize]);
                (inside.is_multiple_of(size) && inside / size < u64::from(blocks_in(class)))
                    .then_some(size)?
            }
            Use::Run(count) if inside == 0 && u64::from(index) + u64::from(count) <= self.chunks().into() => {
                u64::from(count) * CHUNK
            }
            _ => return None,
        };
        Some(Found { offset, block: self.at(offset)?, size })
    }

    /// Takes a block with room for so many bytes of payload, all zero. It is in `Building`. `ENOSPC`: the arena is full.
    pub(super) fn take(&'static self, payload: u64, me: Id) -> forkyard_sys::Result<Found> {
        let size = payload.checked_add(HEADER).ok_or(Errno::NOSPC)?;
        match CLASSES.iter().position(|&class| u64::from(class) >= size) {
            Some(class) => self.take_small(class as u32, me),
            None => self.take_run(size, me),
        }
    }

    fn take_small(&'static self, class: u32, me: Id) -> forkyard_sys::Result<Found> {
        let hint = &self.header().hints[class as usize];
        loop {
            let table = self.table();
            let start = (hint.load(Ordering::Relaxed) as usize).min(table.len());
            let order = (start..table.len()).chain(0..start);
            for index in order {
                if table[index].get() != Use::Blocks(class) {
                    continue;
                }
                if let Some(found) = self.take_in(index as u32, class, me) {
                    if index != start {
                        hint.store(index as u32, Ordering::Relaxed);
                    }
                    return Ok(found);
                }
            }
            let index = self.claim_chunk(me)?.ok_or(Errno::NOSPC)?;
            hint.store(index, Ordering::Relaxed);
            if let Some(entry) = self.table().get(index as usize) {
                entry.set(Use::Blocks(class));
            }
        }
    }

    /// A block of this chunk, if there is a free one.
    fn take_in(&'static self, index: u32, class: u32, me: Id) -> Option<Found> {
        let entry = self.table().get(index as usize)?;
        let (size, count) = (u64::from(CLASSES[class as usize]), blocks_in(class));
        let mut next = 0;
        while let Some(number) = entry.free_block(next, count) {
            next = number + 1;
            let offset = self.chunk_at(index) + u64::from(number) * size;
            let block: &Block = self.at(offset)?;
            if block.state() != State::Free || !block.change(State::Free, State::Building(me)) {
                continue;
            }
            fence(Ordering::SeqCst);
            if entry.get() != Use::Blocks(class) {
                // Somebody closes the chunk, or has closed it; this block was not there any more.
                block.change(State::Building(me), State::Free);
                return None;
            }
            entry.mark(number, true);
            return Some(Found { offset, block, size });
        }
        None
    }

    fn take_run(&'static self, size: u64, me: Id) -> forkyard_sys::Result<Found> {
        let count = u32::try_from(size.div_ceil(CHUNK)).map_err(|_| Errno::NOSPC)?;
        let first = self.claim_run(me, count)?.ok_or(Errno::NOSPC)?;
        let offset = self.chunk_at(first);
        let block: &Block = self.at(offset).ok_or(Errno::NOSPC)?;
        block.set(State::Building(me));
        self.announce_run(first, count);
        Ok(Found { offset, block, size: u64::from(count) * CHUNK })
    }

    /// Frees a block that the caller owns: it is in `Building` or `Freeing` of this participant.
    pub(super) fn free(&'static self, found: Found, me: Id) {
        let Some(index) = self.chunk_of(found.offset) else { return };
        let Some(entry) = self.table().get(index as usize) else { return };
        match entry.get() {
            Use::Run(count) if entry.change(Use::Run(count), Use::Claimed(me)) => {
                self.release_chunks(index, count)
            }
            Use::Blocks(class) | Use::Closing(_, class) => {
                self.zero(found.offset + 8, found.size - 8);
                let number = ((found.offset - self.chunk_at(index)) / found.size) as u32;
                entry.mark(number, false);
                found.block.set(State::Free);
                // One empty chunk of each class stays.
                let hint = self.header().hints[class as usize].load(Ordering::Relaxed);
                if hint != index && entry.is_empty() {
                    self.close_chunk(index, class, me);
                }
            }
            _ => {}
        }
    }

    fn close_chunk(&'static self, index: u32, class: u32, me: Id) {
        let Some(entry) = self.table().get(index as usize) else { return };
        let is_free = |number: u32| {
            let offset = self.chunk_at(index) + u64::from(number) * u64::from(CLASSES[class as usize]);
            self.at::<Block>(offset).is_some_and(|block| block.state() == State::Free)
        };
        if entry.close(me, class, || (0..blocks_in(class)).all(is_free)) {
            self.release_chunks(index, 1);
        }
    }

    /// Calls `visit` with each block that is not free.
    pub(super) fn for_each_block(&'static self, mut visit: impl FnMut(Found)) {
        for (index, entry) in (0u32..).zip(self.table()) {
            let start = self.chunk_at(index);
            let (size, count) = match entry.get() {
                Use::Blocks(class) | Use::Closing(_, class) => {
                    (u64::from(CLASSES[class as usize]), blocks_in(class))
                }
                Use::Run(count) => (u64::from(count) * CHUNK, 1),
                _ => continue,
            };
            for number in 0..u64::from(count) {
                let offset = start + number * size;
                match self.at::<Block>(offset) {
                    Some(block) if block.state() != State::Free => visit(Found { offset, block, size }),
                    _ => {}
                }
            }
        }
    }

    /// Frees what a dead participant was making or freeing, and what nobody else holds. Only one reaper of it runs at a time; each
    /// step may be done again.
    pub(super) fn reap_blocks(&'static self, dead: Id, me: Id) {
        self.for_each_block(|found| {
            let block = found.block;
            let owned = match block.state() {
                state @ (State::Building(id) | State::Freeing(id)) if id == dead => {
                    block.change(state, State::Freeing(me))
                }
                State::Live(generation) if block.is_held_by(dead.slot()) => {
                    block.release(dead.slot(), generation, me)
                }
                _ => false,
            };
            if owned {
                self.free(found, me);
            }
        });
    }
}

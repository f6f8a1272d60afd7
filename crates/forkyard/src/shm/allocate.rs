//! Taking blocks of the arena, and giving them back.
//!
//! Killed here: see block.rs and entry.rs, whose steps these are; nothing is kept anywhere else but hints.

use std::ptr::NonNull;

use forkyard_sys::Errno;

use super::arena::Arena;
use super::block::{Block, State};
use super::chunk::{CHUNK, blocks_in};
use super::entry::{CLASSES, Entry, Use};
use super::kind::Kind;
use super::life::Id;
use super::safe::ShmAtomic;
use crate::primitive::Ordering;

/// Bytes before the payload.
pub(crate) const HEADER: u64 = size_of::<Block>() as u64;

// SAFETY: atomics only, `repr(C)` without gaps, all-zero is a free block.
#[allow(unsafe_code)]
unsafe impl ShmAtomic for Block {}
const _: () = assert!(size_of::<Block>() == 192);

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
            // Whoever closes a chunk finds the block that is in use there, and opens it again.
            Use::Blocks(class) | Use::Closing(_, class) => {
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
            let mut idle = None;
            for index in order {
                match table[index].get() {
                    Use::Blocks(of) if of == class => {
                        if let Some(found) = self.take_in(index as u32, class, me) {
                            if index != start {
                                hint.store(index as u32, Ordering::Relaxed);
                            }
                            return Ok(found);
                        }
                    }
                    Use::Idle(of) if of == class => idle = Some(index as u32),
                    _ => {}
                }
            }
            if let Some(index) = idle {
                if self.reopen_chunk(index, class, me)? {
                    hint.store(index, Ordering::Relaxed);
                }
                continue;
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
        let _visit = self.visit(me);
        if entry.get() != Use::Blocks(class) {
            return None;
        }
        let mut next = 0;
        while let Some(number) = entry.free_block(next, count) {
            next = number + 1;
            let offset = self.chunk_at(index) + u64::from(number) * size;
            let block: &Block = self.at(offset)?;
            if entry.take(block, number, class, me) {
                return Some(Found { offset, block, size });
            }
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
        super::hooks::dispose(found);
        match entry.get() {
            Use::Run(count) if entry.change(Use::Run(count), Use::Claimed(me)) => {
                self.release_chunks(index, count)
            }
            Use::Blocks(class) | Use::Closing(_, class) => {
                self.zero(found.offset + 8, found.size - 8);
                let number = ((found.offset - self.chunk_at(index)) / found.size) as u32;
                entry.mark(number, false);
                found.block.set(State::Free);
                self.close_if_empty(index, class, me);
            }
            _ => {}
        }
    }

    /// Gives a chunk of blocks back if all of them are free; but one empty chunk of each class stays.
    pub(super) fn close_if_empty(&'static self, index: u32, class: u32, me: Id) {
        let (Some(entry), Some(hint)) =
            (self.table().get(index as usize), self.header().hints.get(class as usize))
        else {
            return;
        };
        if hint.load(Ordering::Relaxed) == index || !entry.is_empty() {
            return;
        }
        if entry.close(me, class, || self.seal(index, class, me)) {
            self.retire_chunk(index, class, me);
        }
    }

    /// Brings all blocks of a chunk from `Free` to `Freeing`, or none.
    fn seal(&'static self, index: u32, class: u32, me: Id) -> bool {
        let size = u64::from(CLASSES[class as usize]);
        let block = |number: u32| self.at::<Block>(self.chunk_at(index) + u64::from(number) * size);
        let count = blocks_in(class);
        let is_sealed =
            |number: &u32| block(*number).is_some_and(|b| b.change(State::Free, State::Freeing(me)));
        let sealed = (0..count).take_while(is_sealed).count() as u32;
        if sealed < count {
            (0..sealed).filter_map(block).for_each(|block| block.set(State::Free));
        }
        sealed == count
    }

    /// Calls `visit` with each block that is not free.
    pub(super) fn for_each_block(&'static self, mut visit: impl FnMut(Found)) {
        self.find_block(|offset, size, block| {
            visit(Found { offset, block, size });
            None::<()>
        });
    }

    /// Calls `visit` with each block that is not free, where it begins and how large it is, until it has found what it looks for.
    pub(super) fn find_block<'a, R>(
        &'a self,
        visit: impl FnMut(u64, u64, &'a Block) -> Option<R>,
    ) -> Option<R> {
        self.find_block_where(|_, _| true, visit)
    }

    /// The same with those that somebody has finished taking, without a look at the others.
    pub(super) fn find_taken<'a, R>(
        &'a self,
        visit: impl FnMut(u64, u64, &'a Block) -> Option<R>,
    ) -> Option<R> {
        self.find_block_where(
            |entry, number| matches!(entry.get(), Use::Run(_)) || entry.is_marked(number),
            visit,
        )
    }

    fn find_block_where<'a, R>(
        &'a self,
        is_wanted: impl Fn(&Entry, u32) -> bool,
        mut visit: impl FnMut(u64, u64, &'a Block) -> Option<R>,
    ) -> Option<R> {
        for (index, entry) in (0u32..).zip(self.table()) {
            let start = self.chunk_at(index);
            let (size, count) = match entry.get() {
                Use::Blocks(class) | Use::Closing(_, class) => {
                    (u64::from(CLASSES[class as usize]), blocks_in(class))
                }
                Use::Run(count) => (u64::from(count) * CHUNK, 1),
                _ => continue,
            };
            for number in (0..count).filter(|&number| is_wanted(entry, number)) {
                let offset = start + u64::from(number) * size;
                if let Some(block) = self.at::<Block>(offset)
                    && block.state() != State::Free
                    && let Some(found) = visit(offset, size, block)
                {
                    return Some(found);
                }
            }
        }
        None
    }

    /// Frees what a dead participant was making or freeing, and what nobody else holds. Only one reaper of it runs at a time; each
    /// step may be done again.
    pub(super) fn reap_blocks(&'static self, dead: Id, me: Id) {
        let _visit = self.visit(me);
        let mut unheld = Vec::new();
        self.for_each_block(|found| {
            let block = found.block;
            match block.state() {
                state @ (State::Building(id) | State::Freeing(id) | State::Sent(id, _))
                    if id == dead && block.change(state, State::Freeing(me)) =>
                {
                    self.free(found, me);
                }
                // A message has no holders: it is its queue's.
                State::Live(generation) if block.kind() != Kind::Message as u32 => {
                    if block.is_held_by(dead.slot()) {
                        block.let_go(dead.slot());
                    }
                    unheld.extend(
                        block
                            .look(generation)
                            .filter(|_| !block.is_held())
                            .map(|look| (found, generation, look)),
                    );
                }
                _ => {}
            }
        });
        // Also what somebody was on the way to free who was killed there.
        let carried = unheld.iter().any(|(_, _, look)| look.travels()).then(|| self.carried());
        for (found, generation, look) in unheld {
            let is_carried = carried.as_ref().is_some_and(|all| all.contains(&(found.offset, generation)));
            if !is_carried && found.block.claim(look, me) {
                self.free(found, me);
            }
        }
    }
}

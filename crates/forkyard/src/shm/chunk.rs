//! The chunk table: what each 64 KiB of the arena are used for.
//!
//! entry.rs has the state machine of one chunk; here are runs of them, and their memory.
//!
//! Killed here: claimed chunks name who has claimed them, whose reaper gives them back.

use super::arena::Arena;
use super::entry::{CLASSES, Entry, Use};
use super::life::Id;
use super::safe::ShmAtomic;

/// Bytes of a chunk.
pub(crate) const CHUNK: u64 = 64 * 1024;

// SAFETY: atomics only, `repr(C)`, all-zero is a free chunk.
#[allow(unsafe_code)]
unsafe impl ShmAtomic for Entry {}
const _: () = assert!(size_of::<Entry>() == 64);

/// Blocks of a class in one chunk.
pub(crate) fn blocks_in(class: u32) -> u32 {
    (CHUNK / u64::from(CLASSES[class as usize])) as u32
}

impl Arena {
    /// Claims a free chunk with memory, all zero. `Ok(None)`: the arena is full.
    pub(super) fn claim_chunk(&self, me: Id) -> forkyard_sys::Result<Option<u32>> {
        self.claim_run(me, 1)
    }

    /// Claims so many free chunks in a row, with memory, all zero; the first one's number. `Ok(None)`: there are not so many.
    pub(super) fn claim_run(&self, me: Id, count: u32) -> forkyard_sys::Result<Option<u32>> {
        let mut first: u32 = 0;
        // First fit: what lies together is given back together.
        loop {
            let table = self.table();
            let Some(end) = first.checked_add(count).filter(|&end| end <= self.chunks()) else {
                return Ok(None);
            };
            if end as usize > table.len() {
                if !self.extend_table()? {
                    return Ok(None);
                }
                continue;
            }
            let run = &table[first as usize..end as usize];
            let claimed = run.iter().take_while(|entry| entry.claim(me, || self.nobody_visits())).count();
            if claimed == run.len() {
                let committed = self.commit(self.chunk_at(first), u64::from(count) * CHUNK);
                return match committed {
                    Ok(()) => Ok(Some(first)),
                    Err(errno) => {
                        self.release_chunks(first, count);
                        Err(errno)
                    }
                };
            }
            run[..claimed].iter().for_each(|entry| entry.set(Use::Free));
            first += claimed as u32 + 1;
        }
    }

    /// Announces claimed chunks as one run.
    pub(super) fn announce_run(&self, first: u32, count: u32) {
        let table = self.table();
        for part in first + 1..first + count {
            if let Some(entry) = table.get(part as usize) {
                entry.set(Use::Part(first));
            }
        }
        if let Some(entry) = table.get(first as usize) {
            entry.set(Use::Run(count));
        }
    }

    /// Gives claimed chunks and their memory back, the first one last: it says of the others whose they are.
    pub(super) fn release_chunks(&self, first: u32, count: u32) {
        let table = self.table();
        self.punch(self.chunk_at(first), u64::from(count) * CHUNK);
        for index in (first..first + count).rev() {
            let Some(entry) = table.get(index as usize) else { continue };
            entry.unmark();
            entry.set(Use::Free);
        }
    }

    /// Takes the memory of a chunk that the caller has closed away. It is kept for its class until a moment when nobody looks.
    pub(super) fn retire_chunk(&self, index: u32, class: u32, me: Id) {
        let Some(entry) = self.table().get(index as usize) else { return };
        self.punch(self.chunk_at(index), CHUNK);
        entry.unmark();
        entry.set(Use::Idle(class));
        if entry.claim(me, || self.nobody_visits()) {
            entry.set(Use::Free);
        }
    }

    /// Opens a chunk that was kept for its class. False: somebody else has used it.
    pub(super) fn reopen_chunk(&self, index: u32, class: u32, me: Id) -> forkyard_sys::Result<bool> {
        let Some(entry) = self.table().get(index as usize) else { return Ok(false) };
        if !entry.change(Use::Idle(class), Use::Turning(me, class)) {
            return Ok(false);
        }
        let committed = self.commit(self.chunk_at(index), CHUNK);
        entry.set(if committed.is_ok() { Use::Blocks(class) } else { Use::Idle(class) });
        committed.map(|()| true)
    }

    /// Frees what a dead participant had claimed. Only one reaper of it runs at a time.
    pub(super) fn reap_chunks(&'static self, dead: Id, me: Id) {
        let table = self.table();
        for (index, entry) in (0..).zip(table) {
            match entry.get() {
                Use::Claimed(id) if id == dead => {
                    let parts = table[index as usize + 1..]
                        .iter()
                        .take_while(|e| e.get() == Use::Part(index))
                        .count();
                    self.release_chunks(index, parts as u32 + 1);
                }
                Use::Closing(id, class) if id == dead => {
                    entry.set(Use::Blocks(class));
                    self.close_if_empty(index, class, me);
                }
                Use::Turning(id, class) if id == dead => self.retire_chunk(index, class, me),
                // The dead may have emptied it, and been about to close it.
                Use::Blocks(class) => self.close_if_empty(index, class, me),
                _ => {}
            }
        }
    }
}

//! What a participant's threads wait for: for the search for deadlocks, for the reaper, and for people.
//!
//! A cell is taken by a thread's CAS on `thread` and written by that thread alone; `object` is stored last and cleared first.
//! Readers take what they find as a hint, and look twice where it matters.
//!
//! Killed here: the cells go with the participant's page.

use super::life::Id;
use super::participant::{Me, page_of};
use crate::primitive::{AtomicU32, AtomicU64, Ordering};

/// Most waiting threads of one process that are known; of more, the others wait all the same.
const CELLS: usize = 64;

#[repr(C)]
struct Cell {
    /// The thread id; 0: free.
    thread: AtomicU32,
    unused: AtomicU32,
    /// The offset of the object's block; 0: none yet.
    object: AtomicU64,
    since: AtomicU64,
    ticket: AtomicU64,
}

/// A participant's cells.
#[repr(C)]
pub(super) struct Cells([Cell; CELLS]);

impl Cells {
    /// Forgets all of them: in a page that has just been taken, or is about to be given back.
    pub(super) fn clear(&self) {
        for cell in &self.0 {
            cell.object.store(0, Ordering::Relaxed);
            cell.thread.store(0, Ordering::Relaxed);
        }
    }
}

/// A thread that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WaitInfo {
    pub(crate) thread: u32,
    /// The offset of what it waits for.
    pub(crate) object: u64,
    /// Which of the things that one may wait for there; 0 where there is one.
    pub(crate) end: u8,
    /// Since when: nanoseconds on the monotonic clock.
    pub(crate) since_ns: u64,
    /// The later a wait began in the family, the higher; no two are equal.
    pub(crate) ticket: u64,
}

/// Says that the calling thread waits, until it is dropped.
#[derive(Debug)]
pub(crate) struct Waiting(Option<&'static Cell>);

impl std::fmt::Debug for Cell {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} waits for {}", self.thread.load(Ordering::Relaxed), self.object.load(Ordering::Relaxed))
    }
}

/// Says that the calling thread waits for the object of this block.
pub(crate) fn waiting(me: Me, object: u64) -> Waiting {
    waiting_at(me, object, 0)
}

/// The same, and for what of several things there, numbered below 64.
pub(crate) fn waiting_at(me: Me, object: u64, end: u8) -> Waiting {
    let Some(page) = page_of(me.id) else { return Waiting(None) };
    let free = |cell: &&Cell| {
        cell.thread.load(Ordering::Relaxed) == 0
            && cell.thread.compare_exchange(0, me.thread, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    };
    let cell = page.waits.0.iter().find(free);
    if let (Some(cell), Some(arena)) = (cell, super::arena::existing()) {
        let ticket = arena.header().ticket.fetch_add(1, Ordering::Relaxed) + 1;
        cell.ticket.store(ticket, Ordering::Relaxed);
        cell.since.store(forkyard_sys::time::monotonic_ns(), Ordering::Relaxed);
        // Blocks begin at multiples of 64.
        cell.object.store(object | (u64::from(end) % 64), Ordering::Release);
    }
    Waiting(cell)
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if let Some(cell) = self.0 {
            cell.object.store(0, Ordering::Release);
            cell.thread.store(0, Ordering::Release);
        }
    }
}

/// The threads of this participant that wait, as far as they are known.
pub(crate) fn waits_of(id: Id) -> impl Iterator<Item = WaitInfo> {
    page_of(id).into_iter().flat_map(|page| &page.waits.0).filter_map(|cell| {
        let object = cell.object.load(Ordering::Acquire);
        let info = WaitInfo {
            thread: cell.thread.load(Ordering::Relaxed),
            object: object & !63,
            end: (object % 64) as u8,
            since_ns: cell.since.load(Ordering::Relaxed),
            ticket: cell.ticket.load(Ordering::Relaxed),
        };
        (object != 0 && info.thread != 0).then_some(info)
    })
}

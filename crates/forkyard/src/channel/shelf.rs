//! Parcels that a queue keeps for its next messages: their memory is there already, and warm; and chunks of small ones do not become empty, and
//! are not given back to the kernel, between one message and the next.
//!
//! A cell says which parcel it keeps, or 0. The parcel is `Live` and belongs to nobody else. It is put on the shelf before it becomes `Live`, and
//! taken before it is removed; so a cell may name a parcel that is not there, but no parcel is there without a cell.
//!
//! Killed here: the reaper frees the parcel, and clears cells that name none.

use crate::primitive::{AtomicU64, Ordering};
use crate::shm::{Id, Parcel, ParcelName};

/// How many parcels a queue keeps at most.
const KEPT: usize = 32;
/// How many bytes of them, if all are of one size; a larger one is not kept.
const BYTES: u64 = 10 << 20;
/// A parcel is not used for a message of less than this part of it.
const SPARSE: u64 = 4;

/// A queue's shelf. All zero is an empty one.
#[repr(C, align(64))]
#[derive(Debug, Default)]
pub(crate) struct Shelf([AtomicU64; KEPT]);

/// Blocks begin at multiples of it. What lies behind the first 256 GiB of an arena has no word, and is not kept.
const UNIT: u64 = 64;

fn word(name: ParcelName) -> u64 {
    (name.offset / UNIT) << 32 | u64::from(name.generation)
}

fn name(word: u64) -> ParcelName {
    ParcelName { offset: (word >> 32) * UNIT, generation: word as u32 }
}

impl Shelf {
    /// A parcel of so many bytes, if one is there. The bytes are what the last message left.
    pub(crate) fn take(&self, len: usize, me: Id) -> Option<Parcel> {
        self.0.iter().find_map(|cell| {
            let seen = cell.load(Ordering::Acquire);
            let parcel = (seen != 0).then(|| Parcel::reuse(name(seen), len, SPARSE, me))??;
            let _ = cell.compare_exchange(seen, 0, Ordering::AcqRel, Ordering::Relaxed);
            Some(parcel)
        })
    }

    /// Keeps a parcel that was read, or frees it.
    pub(crate) fn keep(&self, mut parcel: Parcel) {
        parcel.unload();
        let kept = usize::try_from(BYTES / parcel.size()).unwrap_or(0).min(KEPT);
        if kept == 0 || !parcel.is_own() || parcel.name().offset / UNIT > u64::from(u32::MAX) {
            return;
        }
        let mine = word(parcel.renew());
        let free = |cell: &AtomicU64| {
            cell.load(Ordering::Relaxed) == 0
                && cell.compare_exchange(0, mine, Ordering::AcqRel, Ordering::Relaxed).is_ok()
        };
        let cells = &self.0[..kept];
        let is_kept = cells.iter().any(free) || {
            // What lies there may be of a size that nobody wants any more: one of them makes room.
            let any = &cells[(mine as u32).wrapping_mul(0x9e37_79b9) as usize % kept];
            Self::discard(any, parcel.owner());
            free(any)
        };
        if is_kept {
            parcel.hand_over();
            parcel.forget();
        }
    }

    fn discard(cell: &AtomicU64, me: Id) {
        let seen = cell.load(Ordering::Acquire);
        if seen != 0 && Parcel::take(name(seen), 0, me).is_some() {
            let _ = cell.compare_exchange(seen, 0, Ordering::AcqRel, Ordering::Relaxed);
        }
    }

    /// Clears the cells of parcels that are not there, and that nobody is about to bring or to take.
    pub(crate) fn repair(&self) {
        for cell in &self.0 {
            let seen = cell.load(Ordering::Acquire);
            if seen != 0 && !Parcel::is_somebodys(name(seen)) {
                let _ = cell.compare_exchange(seen, 0, Ordering::AcqRel, Ordering::Relaxed);
            }
        }
    }

    /// Frees what is there: its queue is being freed.
    pub(crate) fn clear(&self, me: Id) {
        self.0.iter().for_each(|cell| Self::discard(cell, me));
    }
}

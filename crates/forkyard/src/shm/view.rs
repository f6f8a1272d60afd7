//! A parcel's bytes in a mapping of their own, where this process may write without changing what lies in shared memory.
//!
//! Nobody writes to a parcel that lies in a place of a queue, or belongs to somebody who reads it; so what this process did not write itself reads as what
//! is there. That is over when the parcel is given back: whoever makes a view sees to it that its parcel outlives it.
//!
//! Killed here: a mapping goes with its process.

use forkyard_sys::memfd;
use forkyard_sys::mmap::Mapping;

use super::allocate::HEADER;
use super::arena;
use super::parcel::{ParcelName, find};

const PAGE: u64 = 4096;

/// A parcel's bytes.
#[derive(Debug)]
pub(crate) struct View {
    mapping: Mapping,
    /// The bytes begin so far behind the start of the mapping.
    start: usize,
    len: usize,
}

impl View {
    /// A view of the parcel of this name, of that length. `None`: there is none, or no room for another mapping.
    pub(crate) fn new(name: ParcelName, len: u64) -> Option<View> {
        let arena = arena::existing()?;
        let found = find(arena, name)?;
        let (_, room) = found.payload(arena)?;
        let len = usize::try_from(len).ok().filter(|&len| len > 0 && len <= room)?;
        // The descriptor is no use if somebody has closed it, and its number is something else's.
        if memfd::sealed_size(arena.fd()).ok().flatten() != Some(arena.size()) {
            return None;
        }
        let offset = found.offset + HEADER;
        let start = (offset % PAGE) as usize;
        let mapping = Mapping::private(arena.fd(), offset - start as u64, start + len).ok()?;
        Some(View { mapping, start, len })
    }

    /// Where the bytes are.
    pub(crate) fn address(&self) -> *mut u8 {
        self.mapping.address().as_ptr().wrapping_add(self.start)
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Makes all of it this process's own memory, as if it had written everywhere: forks have it too from now on, whatever becomes of
    /// the parcel.
    pub(crate) fn detach(&self) {
        // Without memory for it a page stays the parcel's; the kernel kills for less.
        let _ = self.mapping.commit(0, self.mapping.len());
    }
}

//! What is known of one chunk: a state machine.
//!
//! README.md beside this file has the states and what a death leaves of each. The word changes by CAS only; who has made
//! it `Claimed`, `Closing` or `Turning` may also store to it, and to the `Part`s behind it.

use super::block::{Block, State};
use super::life::Id;
use crate::primitive::{AtomicU64, Ordering, fence};

/// Bytes of the blocks of each class, header included.
pub(crate) const CLASSES: [u32; 11] = [256, 320, 384, 512, 768, 1024, 2048, 4096, 8192, 16384, 32768];

/// What is known of one chunk.
#[repr(C, align(64))]
#[derive(Default)]
pub(crate) struct Entry {
    word: AtomicU64,
    /// Which blocks are taken: a bit is written only by whoever has that block in `Building` or `Freeing`, so a bit is never wrong for
    /// longer than that.
    taken: [AtomicU64; 4],
    unused: [AtomicU64; 3],
}

/// What a chunk is used for: a word of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Use {
    /// Nothing; it has no memory.
    Free,
    /// This participant is about to use it, or to give it back.
    Claimed(Id),
    /// Blocks of a class.
    Blocks(u32),
    /// One block, of so many chunks from here on.
    Run(u32),
    /// Part of the run that begins at that chunk.
    Part(u32),
    /// This participant looks whether all blocks of this class are free, to give it back.
    Closing(Id, u32),
    /// It has no memory, and is kept for this class: somebody may still look at it as one of its chunks.
    Idle(u32),
    /// This participant takes its memory away or brings it back, or makes it a chunk for everything.
    Turning(Id, u32),
    /// No word of ours: somebody scribbled.
    Garbled,
}

impl Use {
    fn word(self) -> u64 {
        let (kind, argument) = match self {
            Use::Free => (0, 0),
            Use::Claimed(id) => (1, u64::from(id.bits())),
            Use::Blocks(class) => (2, class.into()),
            Use::Run(count) => (3, count.into()),
            Use::Part(head) => (4, head.into()),
            Use::Closing(id, class) => (5, u64::from(id.bits()) | u64::from(class) << 32),
            Use::Idle(class) => (6, class.into()),
            Use::Turning(id, class) => (7, u64::from(id.bits()) | u64::from(class) << 32),
            Use::Garbled => (255, 0),
        };
        kind | argument << 8
    }

    fn of_word(word: u64) -> Use {
        let argument = word >> 8;
        let number = argument as u32;
        let class = (argument >> 32) as u32;
        match (word & 0xff, Id::of_word(number)) {
            (0, _) if argument == 0 => Use::Free,
            (1, Some(id)) => Use::Claimed(id),
            (2, _) if (number as usize) < CLASSES.len() => Use::Blocks(number),
            (3, _) if number > 0 => Use::Run(number),
            (4, _) => Use::Part(number),
            (5, Some(id)) if (class as usize) < CLASSES.len() => Use::Closing(id, class),
            (6, _) if (number as usize) < CLASSES.len() => Use::Idle(number),
            (7, Some(id)) if (class as usize) < CLASSES.len() => Use::Turning(id, class),
            _ => Use::Garbled,
        }
    }
}

impl Entry {
    /// What the chunk is used for.
    pub(crate) fn get(&self) -> Use {
        Use::of_word(self.word.load(Ordering::SeqCst))
    }

    /// Stores what it is used for: by whoever has claimed it.
    pub(crate) fn set(&self, to: Use) {
        self.word.store(to.word(), Ordering::SeqCst);
    }

    /// Changes what it is used for, unless somebody else has.
    pub(crate) fn change(&self, from: Use, to: Use) -> bool {
        self.word.compare_exchange(from.word(), to.word(), Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }

    /// Notes that a block is taken, or free.
    pub(crate) fn mark(&self, block: u32, taken: bool) {
        let (Some(word), bit) = (self.taken.get(block as usize / 64), 1 << (block % 64)) else { return };
        if taken {
            word.fetch_or(bit, Ordering::AcqRel);
        } else {
            word.fetch_and(!bit, Ordering::AcqRel);
        }
    }

    /// Notes that no block is taken: by whoever has claimed the chunk.
    pub(crate) fn unmark(&self) {
        for word in &self.taken {
            word.store(0, Ordering::Relaxed);
        }
    }

    /// A block that is not taken, at or after this one. A hint.
    pub(crate) fn free_block(&self, from: u32, count: u32) -> Option<u32> {
        (from / 64..4).find_map(|index| {
            let taken = self.taken[index as usize].load(Ordering::Acquire);
            let passed = if index == from / 64 { (1u64 << (from % 64)) - 1 } else { 0 };
            let free = (!(taken | passed)).trailing_zeros();
            (free < 64).then_some(index * 64 + free).filter(|&block| block < count)
        })
    }

    /// True if this block is taken, and not only just being taken.
    pub(crate) fn is_marked(&self, block: u32) -> bool {
        self.taken
            .get(block as usize / 64)
            .is_some_and(|word| word.load(Ordering::Acquire) >> (block % 64) & 1 != 0)
    }

    /// True if no block is taken. A hint.
    pub(crate) fn is_empty(&self) -> bool {
        self.taken.iter().all(|word| word.load(Ordering::Acquire) == 0)
    }

    /// Takes a free block of a chunk of blocks of this class; false if it is not free, or the chunk is being closed. The caller is
    /// counted as a visitor from before it knew that the chunk is of this class.
    pub(crate) fn take(&self, block: &Block, number: u32, class: u32, me: Id) -> bool {
        if block.state() != State::Free || !block.change(State::Free, State::Building(me)) {
            return false;
        }
        // Whoever closes the chunk changes the word first and seals the blocks then; this looks the other way round.
        fence(Ordering::SeqCst);
        if self.get() != Use::Blocks(class) {
            block.change(State::Building(me), State::Free);
            return false;
        }
        self.mark(number, true);
        true
    }

    /// Closes a chunk of blocks if `seal` can bring all of them from `Free` to `Freeing`: then nobody takes one any more. True if the chunk
    /// is the caller's to turn now.
    pub(crate) fn close(&self, me: Id, class: u32, seal: impl FnOnce() -> bool) -> bool {
        if !self.change(Use::Blocks(class), Use::Closing(me, class)) {
            return false;
        }
        fence(Ordering::SeqCst);
        let sealed = seal();
        self.set(if sealed { Use::Turning(me, class) } else { Use::Blocks(class) });
        sealed
    }

    /// Claims a chunk that nothing uses. One that was of a class before only if `nobody_visits`: whoever comes after that was asked
    /// sees that it is no longer of its class.
    pub(crate) fn claim(&self, me: Id, nobody_visits: impl FnOnce() -> bool) -> bool {
        match self.get() {
            Use::Free => self.change(Use::Free, Use::Claimed(me)),
            Use::Idle(class) if self.change(Use::Idle(class), Use::Turning(me, class)) => {
                fence(Ordering::SeqCst);
                let alone = nobody_visits();
                self.set(if alone { Use::Claimed(me) } else { Use::Idle(class) });
                alone
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{CLASSES, Use};
    use crate::shm::Id;

    #[test]
    fn every_use_is_told_from_its_word() {
        let id = Id::new(1022, 0x3_ffff).unwrap();
        let uses = [
            Use::Free,
            Use::Claimed(id),
            Use::Blocks(CLASSES.len() as u32 - 1),
            Use::Run(1 << 20),
            Use::Part(0),
            Use::Closing(id, 3),
            Use::Idle(3),
            Use::Turning(id, 3),
        ];
        for this in uses {
            assert_eq!(Use::of_word(this.word()), this);
        }
        assert_eq!(Use::of_word(u64::MAX), Use::Garbled);
        assert_eq!(Use::of_word(2 | 99 << 8), Use::Garbled);
    }
}

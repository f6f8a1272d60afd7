//! The words of a queue: what a cell and what a place says.

use crate::shm::Id;

/// A place in one use of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Spot {
    /// Its number.
    pub(crate) place: u32,
    /// Which message of those that lay there; a cell has its low bits.
    pub(crate) version: u32,
}

/// What a cell says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cell {
    /// It was never used.
    Unused,
    /// The message of its position in this lap lies there.
    Full { lap: u32, spot: Spot },
    /// There is none at its position in this lap, and there will be none behind it.
    Closed { lap: u32 },
    /// There is none at its position in this lap, nor behind it: the queue goes on in the next segment.
    Moved { lap: u32 },
    /// No word of ours: somebody scribbled.
    Garbled,
}

/// What a cell is to a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Age {
    /// Of an earlier lap, so there is nothing at the position yet.
    Older,
    /// Of the position.
    Same,
    /// Of a later lap, so the position was passed.
    Newer,
}

const VERSION_BITS: u32 = 18;
const PLACE_BITS: u32 = 22;
const LAP_BITS: u32 = 22;
const LAP_MASK: u32 = (1 << LAP_BITS) - 1;

impl Cell {
    /// Places are numbered below this.
    pub(crate) const MOST_PLACES: u32 = 1 << PLACE_BITS;

    #[inline]
    pub(crate) fn word(self) -> u64 {
        let (tag, lap, spot) = match self {
            Cell::Unused => return 0,
            Cell::Full { lap, spot } => (1, lap, spot),
            Cell::Closed { lap } => (2, lap, Spot { place: 0, version: 0 }),
            Cell::Moved { lap } => (2, lap, Spot { place: 0, version: 1 }),
            Cell::Garbled => return u64::MAX,
        };
        let version = spot.version & ((1 << VERSION_BITS) - 1);
        let place = spot.place & (Cell::MOST_PLACES - 1);
        tag | u64::from(version) << 2
            | u64::from(place) << (2 + VERSION_BITS)
            | u64::from(lap & LAP_MASK) << (2 + VERSION_BITS + PLACE_BITS)
    }

    #[inline]
    pub(crate) fn of_word(word: u64) -> Cell {
        let lap = (word >> (2 + VERSION_BITS + PLACE_BITS)) as u32;
        match word & 3 {
            0 => Cell::Unused,
            1 => {
                let version = (word >> 2) as u32 & ((1 << VERSION_BITS) - 1);
                let place = (word >> (2 + VERSION_BITS)) as u32 & (Cell::MOST_PLACES - 1);
                Cell::Full { lap, spot: Spot { place, version } }
            }
            2 if word & 4 == 0 => Cell::Closed { lap },
            2 => Cell::Moved { lap },
            _ => Cell::Garbled,
        }
    }

    /// What it is to its position in this lap.
    #[inline]
    pub(crate) fn age(self, lap: u32) -> Age {
        let (Cell::Full { lap: own, .. } | Cell::Closed { lap: own } | Cell::Moved { lap: own }) = self
        else {
            return Age::Older;
        };
        match own.wrapping_sub(lap) & LAP_MASK {
            0 => Age::Same,
            ahead if ahead < 1 << (LAP_BITS - 1) => Age::Newer,
            _ => Age::Older,
        }
    }
}

impl Spot {
    /// True if the place's version is that of a cell.
    #[inline]
    pub(crate) fn is(self, version: u32) -> bool {
        (self.version ^ version) & ((1 << VERSION_BITS) - 1) == 0
    }
}

/// What may be with a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Nobody's.
    Free,
    /// This producer's; once a cell names it, its message.
    Written(Id),
    /// This consumer has taken its message.
    Read(Id),
    /// Its message was taken by somebody who died.
    Back,
    /// No word of ours.
    Garbled,
}

/// What a place's word says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) version: u32,
    pub(crate) state: State,
}

impl Place {
    #[inline]
    pub(crate) fn word(self) -> u64 {
        let low = match self.state {
            State::Free => 0,
            State::Written(id) => 1 << 28 | id.bits(),
            State::Read(id) => 2 << 28 | id.bits(),
            State::Back => 3 << 28,
            State::Garbled => u32::MAX,
        };
        u64::from(low) | u64::from(self.version) << 32
    }

    #[inline]
    pub(crate) fn of_word(word: u64) -> Place {
        let low = word as u32;
        let state = match (low >> 28, Id::of_word(low)) {
            (0, None) => State::Free,
            (1, Some(id)) => State::Written(id),
            (2, Some(id)) => State::Read(id),
            (3, None) => State::Back,
            _ => State::Garbled,
        };
        Place { version: (word >> 32) as u32, state }
    }
}

#[cfg(test)]
mod tests {
    use super::{Age, Cell, Place, Spot, State};
    use crate::shm::Id;

    #[test]
    fn every_cell_and_every_place_is_told_from_its_word() {
        let spot = Spot { place: Cell::MOST_PLACES - 1, version: (1 << 18) - 1 };
        let ends = [Cell::Closed { lap: (1 << 22) - 1 }, Cell::Moved { lap: 7 }];
        for cell in [Cell::Unused, Cell::Full { lap: 3, spot }, ends[0], ends[1]] {
            assert_eq!(Cell::of_word(cell.word()), cell);
        }
        assert_eq!(Cell::of_word(u64::MAX), Cell::Garbled);
        let last = Cell::Closed { lap: (1 << 22) - 1 };
        assert_eq!([last.age((1 << 22) - 1), last.age(0), last.age(5)], [Age::Same, Age::Older, Age::Older]);
        assert_eq!(Cell::Closed { lap: 1 }.age((1 << 22) - 1), Age::Newer);
        let id = Id::new(1022, 0x3_ffff).unwrap();
        for state in [State::Free, State::Written(id), State::Read(id), State::Back] {
            let place = Place { version: u32::MAX, state };
            assert_eq!(Place::of_word(place.word()), place);
        }
        assert_eq!(Place::of_word(u64::MAX).state, State::Garbled);
    }
}

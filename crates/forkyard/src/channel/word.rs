//! The words of a queue: what a cell and what a place says.

use crate::shm::Id;

/// A position in the order of messages: what its cell says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cell {
    /// There will be the message of this position.
    Empty(u64),
    /// The message lies there.
    Full(Spot),
    /// There will be none at this position, and none behind it.
    Closed(u64),
    /// No word of ours: somebody scribbled.
    Garbled,
}

/// A place in one use of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Spot {
    /// Its number.
    pub(crate) place: u32,
    /// Which message of those that lay there.
    pub(crate) version: u32,
}

impl Cell {
    /// Places are numbered below this.
    pub(crate) const MOST_PLACES: u32 = 1 << 24;

    #[inline]
    pub(crate) fn word(self) -> u64 {
        match self {
            Cell::Empty(position) => position << 2,
            Cell::Full(spot) => {
                1 | u64::from(spot.version) << 2 | u64::from(spot.place % Cell::MOST_PLACES) << 34
            }
            Cell::Closed(position) => 2 | position << 2,
            Cell::Garbled => u64::MAX,
        }
    }

    #[inline]
    pub(crate) fn of_word(word: u64) -> Cell {
        match word & 3 {
            0 => Cell::Empty(word >> 2),
            1 => Cell::Full(Spot {
                place: (word >> 34) as u32 % Cell::MOST_PLACES,
                version: (word >> 2) as u32,
            }),
            2 => Cell::Closed(word >> 2),
            _ => Cell::Garbled,
        }
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
    use super::{Cell, Place, Spot, State};
    use crate::shm::Id;

    #[test]
    fn every_cell_and_every_place_is_told_from_its_word() {
        let spot = Spot { place: Cell::MOST_PLACES - 1, version: u32::MAX };
        for cell in [Cell::Empty(0), Cell::Empty(u64::MAX >> 2), Cell::Full(spot), Cell::Closed(7)] {
            assert_eq!(Cell::of_word(cell.word()), cell);
        }
        assert_eq!(Cell::of_word(u64::MAX), Cell::Garbled);
        let id = Id::new(1022, 0x3_ffff).unwrap();
        for state in [State::Free, State::Written(id), State::Read(id), State::Back] {
            let place = Place { version: u32::MAX, state };
            assert_eq!(Place::of_word(place.word()), place);
        }
        assert_eq!(Place::of_word(u64::MAX).state, State::Garbled);
    }
}

//! The state machine of a queue: who may write where, in which order messages are, and who has taken which.
//!
//! README.md beside this file has the table of its steps, and what a death after each leaves. What lies in a place is its user's: it is
//! written between `claim` and `commit` and read between `take` and `release`.

use super::bell::Bell;
use super::word::{Cell, Place, Spot, State};
use crate::primitive::{AtomicU32, AtomicU64, Ordering};
use crate::shm::Id;

/// What changes with every message. Each line is written by producers, or by consumers, or rarely.
#[repr(C)]
#[derive(Debug, Default)]
pub(crate) struct Counters {
    /// The first position without a message, or one before it. By producers.
    tail: AtomicU64,
    unused_tail: [u64; 15],
    /// The first position whose message was not taken, or one before it. By consumers.
    head: AtomicU64,
    unused_head: [u64; 15],
    /// Rung when there is a message.
    pub(crate) items: Bell,
    /// Rung when there is room.
    pub(crate) room: Bell,
    /// Not 0: there may be places in `Back`.
    back: AtomicU32,
    unused: [u32; 29],
}

/// Where the words of a queue are, and how many. The counts never change, and do not lie in shared memory.
pub(crate) trait Words {
    fn counters(&self) -> &Counters;
    /// The cell of a position; there are more of them than the capacity.
    fn cell(&self, position: u64) -> &AtomicU64;
    fn cells(&self) -> u64;
    /// A place's word, if there is a place of this number.
    fn place(&self, number: u32) -> Option<&AtomicU64>;
    fn places(&self) -> u32;
    /// The most messages at a time.
    fn capacity(&self) -> u64;
    /// A head that was seen earlier, and where to keep the next one.
    fn seen_head(&self) -> &std::sync::atomic::AtomicU64;
}

/// What came of committing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum Committed {
    Done,
    Full,
    Closed,
    /// Somebody scribbled.
    Garbled,
}

/// What came of taking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum Taken {
    /// The caller has this place's message, and releases it.
    Message(Spot),
    Empty,
    /// Empty, and closed.
    Closed,
    Garbled,
}

/// A queue's state machine over its words.
#[derive(Clone, Debug)]
pub(crate) struct Ring<W>(pub(crate) W);

impl<W: Words> Ring<W> {
    /// Writes the first words of a queue that is being made; all else is zero.
    pub(crate) fn init(&self) {
        for position in 0..self.0.cells() {
            self.0.cell(position).store(Cell::Empty(position).word(), Ordering::Relaxed);
        }
        self.0.counters().items.calm();
        self.0.counters().room.calm();
    }

    fn tail(&self) -> &AtomicU64 {
        &self.0.counters().tail
    }

    fn head(&self) -> &AtomicU64 {
        &self.0.counters().head
    }

    /// Moves a counter on from this position.
    fn pass(counter: &AtomicU64, position: u64) {
        let _ = counter.compare_exchange(position, position + 1, Ordering::SeqCst, Ordering::Relaxed);
    }

    /// Takes a place to write in. `None`: all are taken.
    #[inline]
    pub(crate) fn claim(&self, me: Id) -> Option<Spot> {
        let places = self.0.places();
        // Places become free in the order in which they were taken, or nearly so.
        let start = (self.tail().load(Ordering::Relaxed) as u32) % places;
        (start..places).chain(0..start).find_map(|number| {
            let word = self.0.place(number)?;
            let seen = word.load(Ordering::SeqCst);
            let Place { version, state: State::Free } = Place::of_word(seen) else { return None };
            let mine = Place { version, state: State::Written(me) }.word();
            word.compare_exchange(seen, mine, Ordering::Acquire, Ordering::Relaxed).ok()?;
            Some(Spot { place: number, version })
        })
    }

    /// Gives a claimed place's message its position.
    #[inline]
    pub(crate) fn commit(&self, spot: Spot) -> Committed {
        loop {
            let position = match self.room() {
                Ok(position) => position,
                Err(refused) => return refused,
            };
            let cell = self.0.cell(position);
            let (empty, full) = (Cell::Empty(position).word(), Cell::Full(spot).word());
            if cell.compare_exchange(empty, full, Ordering::SeqCst, Ordering::Relaxed).is_ok() {
                Self::pass(self.tail(), position);
                return Committed::Done;
            }
        }
    }

    /// The position at which the next message would be, if there may be one.
    #[inline]
    pub(crate) fn room(&self) -> Result<u64, Committed> {
        loop {
            let position = self.tail().load(Ordering::SeqCst);
            let is_room = |head: u64| (position.wrapping_sub(head) as i64) < self.0.capacity() as i64;
            let seen = self.0.seen_head();
            if !is_room(seen.load(Ordering::Relaxed)) {
                let head = self.head().load(Ordering::SeqCst);
                seen.store(head, Ordering::Relaxed);
                if !is_room(head) {
                    if self.pass_head() {
                        continue;
                    }
                    let word = self.0.cell(position).load(Ordering::SeqCst);
                    let is_closed = Cell::of_word(word) == Cell::Closed(position);
                    return Err(if is_closed { Committed::Closed } else { Committed::Full });
                }
            }
            match Cell::of_word(self.0.cell(position).load(Ordering::Acquire)) {
                Cell::Empty(there) if there == position => return Ok(position),
                Cell::Closed(there) if there == position => return Err(Committed::Closed),
                // The tail is behind: of this position, or of a later one in the same cell.
                Cell::Full(_) => Self::pass(self.tail(), position),
                Cell::Empty(there) | Cell::Closed(there) if there > position => {
                    Self::pass(self.tail(), position);
                }
                _ => return Err(Committed::Garbled),
            }
        }
    }

    /// Moves the head on if what is there was taken; true if it has moved.
    #[cold]
    fn pass_head(&self) -> bool {
        let position = self.head().load(Ordering::SeqCst);
        let cell = self.0.cell(position);
        let word = cell.load(Ordering::SeqCst);
        match Cell::of_word(word) {
            Cell::Full(spot) => {
                if self.head().load(Ordering::SeqCst) != position {
                    return true;
                }
                match self.0.place(spot.place).map(|place| Place::of_word(place.load(Ordering::SeqCst))) {
                    Some(Place { version, state: State::Written(_) }) if version == spot.version => {
                        return false;
                    }
                    _ => self.pass_cell(position, word),
                }
            }
            Cell::Empty(there) | Cell::Closed(there) if there > position => {}
            _ => return false,
        }
        Self::pass(self.head(), position);
        true
    }

    /// Empties a cell whose message was taken, for the next lap.
    fn pass_cell(&self, position: u64, word: u64) {
        let next = Cell::Empty(position + self.0.cells()).word();
        let _ = self.0.cell(position).compare_exchange(word, next, Ordering::SeqCst, Ordering::Relaxed);
    }

    /// Gives back a claimed place.
    #[cold]
    pub(crate) fn abandon(&self, spot: Spot, me: Id) {
        self.free(spot, State::Written(me));
    }

    /// Takes the next message.
    #[inline]
    pub(crate) fn take(&self, me: Id) -> Taken {
        if self.0.counters().back.load(Ordering::SeqCst) != 0
            && let Some(spot) = self.take_back(me)
        {
            return Taken::Message(spot);
        }
        loop {
            let position = self.head().load(Ordering::SeqCst);
            let word = self.0.cell(position).load(Ordering::SeqCst);
            match Cell::of_word(word) {
                Cell::Full(spot) => {
                    // What was read is the cell of this position, and not of one a lap later, if the head is still there: the
                    // later one is committed after the head has moved.
                    if self.head().load(Ordering::SeqCst) != position {
                        continue;
                    }
                    let mine = self.take_place(spot, me);
                    self.pass_cell(position, word);
                    Self::pass(self.head(), position);
                    if mine {
                        return Taken::Message(spot);
                    }
                }
                Cell::Empty(there) if there == position => return Taken::Empty,
                Cell::Closed(there) if there == position => return Taken::Closed,
                Cell::Empty(there) | Cell::Closed(there) if there > position => {
                    Self::pass(self.head(), position);
                }
                _ => return Taken::Garbled,
            }
        }
    }

    /// Takes a committed message, unless somebody has.
    #[inline]
    fn take_place(&self, spot: Spot, me: Id) -> bool {
        let Some(word) = self.0.place(spot.place) else { return false };
        let seen = word.load(Ordering::Acquire);
        match Place::of_word(seen) {
            Place { version, state: State::Written(_) } if version == spot.version => {
                let mine = Place { version, state: State::Read(me) }.word();
                word.compare_exchange(seen, mine, Ordering::AcqRel, Ordering::Relaxed).is_ok()
            }
            _ => false,
        }
    }

    /// Takes a message that somebody had taken who died.
    #[cold]
    fn take_back(&self, me: Id) -> Option<Spot> {
        let back = &self.0.counters().back;
        back.store(0, Ordering::SeqCst);
        (0..self.0.places()).find_map(|number| {
            let word = self.0.place(number)?;
            let seen = word.load(Ordering::SeqCst);
            let Place { version, state: State::Back } = Place::of_word(seen) else { return None };
            // There may be more of them.
            back.store(1, Ordering::SeqCst);
            let mine = Place { version, state: State::Read(me) }.word();
            word.compare_exchange(seen, mine, Ordering::AcqRel, Ordering::Relaxed).ok()?;
            Some(Spot { place: number, version })
        })
    }

    /// Gives back the place of a message that the caller has taken: from now on it was delivered. False: the caller was found dead, and
    /// the message is somebody else's.
    #[inline]
    pub(crate) fn release(&self, spot: Spot, me: Id) -> bool {
        self.free(spot, State::Read(me))
    }

    fn free(&self, spot: Spot, state: State) -> bool {
        let Some(word) = self.0.place(spot.place) else { return false };
        let from = Place { version: spot.version, state }.word();
        let to = Place { version: spot.version.wrapping_add(1), state: State::Free }.word();
        word.compare_exchange(from, to, Ordering::SeqCst, Ordering::Relaxed).is_ok()
    }

    /// Ends the queue behind its last message. True if it was open.
    pub(crate) fn close(&self) -> bool {
        loop {
            let position = self.tail().load(Ordering::SeqCst);
            let cell = self.0.cell(position);
            let word = cell.load(Ordering::SeqCst);
            match Cell::of_word(word) {
                Cell::Empty(there) if there == position => {
                    let closed = Cell::Closed(position).word();
                    if cell.compare_exchange(word, closed, Ordering::SeqCst, Ordering::Relaxed).is_ok() {
                        return true;
                    }
                }
                Cell::Closed(there) if there == position => return false,
                Cell::Garbled => return false,
                _ => Self::pass(self.tail(), position),
            }
        }
    }

    /// True if it was closed.
    pub(crate) fn is_closed(&self) -> bool {
        matches!(self.room(), Err(Committed::Closed))
    }

    /// How many messages there are, as far as one can tell while others go on.
    pub(crate) fn len(&self) -> u64 {
        while self.pass_head() {}
        let _ = self.room();
        let tail = self.tail().load(Ordering::SeqCst);
        tail.saturating_sub(self.head().load(Ordering::SeqCst)).min(self.0.capacity())
    }

    /// Has everybody look at the queue again.
    pub(crate) fn ring_all(&self) {
        self.0.counters().items.ring_all();
        self.0.counters().room.ring_all();
    }

    /// Repairs what a dead participant left. `discard` gets each place whose message was never committed, and `restore` each whose message
    /// goes back, before it does. Only one repair of it runs at a time, and it may be done again.
    pub(crate) fn repair(&self, dead: Id, mut discard: impl FnMut(u32), mut restore: impl FnMut(u32)) {
        let mut any_back = false;
        for number in 0..self.0.places() {
            let Some(word) = self.0.place(number) else { continue };
            let seen = word.load(Ordering::SeqCst);
            let Place { version, state } = Place::of_word(seen);
            let spot = Spot { place: number, version };
            match state {
                // A cell is passed after its place was taken: a place that is in no cell now, and still written, never was.
                State::Written(id)
                    if id == dead && !self.is_committed(spot) && word.load(Ordering::SeqCst) == seen =>
                {
                    discard(number);
                    self.free(spot, state);
                }
                State::Read(id) if id == dead => {
                    restore(number);
                    let back = Place { version, state: State::Back }.word();
                    let _ = word.compare_exchange(seen, back, Ordering::SeqCst, Ordering::Relaxed);
                    any_back = true;
                }
                State::Back => any_back = true,
                _ => {}
            }
        }
        if any_back {
            self.0.counters().back.store(1, Ordering::SeqCst);
        }
        self.ring_all();
    }

    fn is_committed(&self, spot: Spot) -> bool {
        let full = Cell::Full(spot).word();
        (0..self.0.cells()).any(|position| self.0.cell(position).load(Ordering::SeqCst) == full)
    }
}

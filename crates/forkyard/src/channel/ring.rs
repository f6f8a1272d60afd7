//! The state machine of a queue: who may write where, in which order messages are, and who has taken which.
//!
//! README.md beside this file has the table of its steps, and what a death after each leaves. What lies in a place is its user's: it is
//! written between `claim` and `commit` and read between `take` and `release`.

use std::sync::atomic::AtomicU64 as PrivateU64;

use super::bell::Bell;
use super::word::{Age, Cell, Place, Spot, State};
use crate::primitive::{AtomicU32, AtomicU64, Ordering, fence};
use crate::shm::Id;

/// What changes as messages come and go. Each line is written by producers, or by consumers, or rarely.
#[repr(C)]
#[derive(Debug, Default)]
pub(crate) struct Counters {
    /// A position before which all cells are full, or were. By producers, now and then.
    tail: AtomicU64,
    unused_tail: [u64; 15],
    /// A position before which all messages were taken. By consumers, now and then.
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

/// What a handle knows of its queue. Each of these only grows, and stays true for ever.
#[derive(Debug, Default)]
pub(crate) struct Known {
    produced: Producing,
    consumed: Consuming,
}

#[derive(Debug, Default)]
#[repr(align(64))]
struct Producing {
    /// All cells before this one are full, or were.
    tail: PrivateU64,
    /// All messages before this one were taken.
    head: PrivateU64,
}

#[derive(Debug, Default)]
#[repr(align(64))]
struct Consuming {
    /// All messages before this one were taken.
    head: PrivateU64,
    /// All cells before this one are full, or were.
    tail: PrivateU64,
}

/// A place is brought so many positions before it is wanted.
const AHEAD: u64 = 6;

/// Where the words of a queue are, and how many. The counts never change, and do not lie in shared memory.
pub(crate) trait Words {
    fn counters(&self) -> &Counters;
    /// The cell of a position.
    fn cell(&self, position: u64) -> &AtomicU64;
    /// There are so many cells, as a power of two: more than the capacity.
    fn cells_log2(&self) -> u32;
    /// A place's word, if there is a place of this number.
    fn place(&self, number: u32) -> Option<&AtomicU64>;
    fn places(&self) -> u32;
    /// The most messages at a time.
    fn capacity(&self) -> u64;
    /// The most bytes at a time, if there is such a bound.
    fn most_bytes(&self) -> Option<u64>;
    /// Where a place says how many bytes were put before its message, if there is a bound: its claimer writes it, and the message's length.
    fn start(&self, number: u32) -> Option<&AtomicU64>;
    /// Where a place says which position its message had, once it was taken.
    fn position(&self, number: u32) -> Option<&AtomicU64>;
    /// Bytes of the message in a place.
    fn size(&self, number: u32) -> u64;
    fn known(&self) -> &Known;
    /// Has a place brought here that is wanted soon.
    fn prefetch(&self, number: u32);
}

/// What came of committing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum Committed {
    Done,
    Full,
    Closed,
    /// The queue goes on in the next segment.
    Moved,
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
    /// Empty, and the queue goes on in the next segment.
    Moved,
    Garbled,
}

/// The position of a message that was not taken, or whose taker was killed on its way: the last that it took.
const UNKNOWN: u64 = u64::MAX;

/// A queue's state machine over its words.
#[derive(Clone, Debug)]
pub(crate) struct Ring<W>(pub(crate) W);

/// A position that has no message yet, and what its cell says.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Gap {
    position: u64,
    word: u64,
}

impl<W: Words> Ring<W> {
    /// Writes the first words of a queue that is being made; all else is zero.
    pub(crate) fn init(&self) {
        self.0.counters().items.calm();
        self.0.counters().room.calm();
    }

    fn tail(&self) -> &AtomicU64 {
        &self.0.counters().tail
    }

    fn head(&self) -> &AtomicU64 {
        &self.0.counters().head
    }

    #[inline]
    fn lap(&self, position: u64) -> u32 {
        (position >> self.0.cells_log2()) as u32
    }

    /// Others need to know of every so many positions only.
    #[inline]
    fn is_mark(&self, position: u64) -> bool {
        let step = (self.0.capacity() / 16).clamp(1, 64).next_power_of_two();
        position & (step - 1) == 0
    }

    /// Moves a counter on to this position.
    fn advance(counter: &AtomicU64, position: u64) {
        let mut seen = counter.load(Ordering::SeqCst);
        while seen < position {
            match counter.compare_exchange(seen, position, Ordering::SeqCst, Ordering::SeqCst) {
                Ok(_) => return,
                Err(now) => seen = now,
            }
        }
    }

    /// Takes a place to write in. `None`: all are taken.
    #[inline]
    pub(crate) fn claim(&self, gap: Gap, me: Id) -> Option<Spot> {
        let places = self.0.places();
        // Places become free in the order in which they were taken, or nearly so.
        let start = (gap.position as u32) % places;
        let head = self.0.known().produced.head.load(Ordering::Relaxed);
        // Before it was released it is better left to its consumer.
        if gap.position.wrapping_sub(head).saturating_add(AHEAD) < self.0.capacity() {
            self.prefetch_behind(start);
        }
        (start..places).chain(0..start).find_map(|number| {
            let word = self.0.place(number)?;
            let seen = word.load(Ordering::SeqCst);
            let Place { version, state: State::Free } = Place::of_word(seen) else { return None };
            let mine = Place { version, state: State::Written(me) }.word();
            word.compare_exchange(seen, mine, Ordering::Acquire, Ordering::Relaxed).ok()?;
            self.note_position(number, UNKNOWN);
            Some(Spot { place: number, version })
        })
    }

    #[inline]
    fn prefetch_behind(&self, number: u32) {
        let wanted = number + AHEAD as u32;
        self.0.prefetch(if wanted < self.0.places() { wanted } else { wanted - self.0.places() });
    }

    /// Notes the position of a message in a place that the caller has: for the order in which messages are taken back.
    #[inline]
    fn note_position(&self, number: u32, position: u64) {
        if let Some(word) = self.0.position(number) {
            word.store(position, Ordering::Relaxed);
        }
    }

    /// Gives a claimed place's message its position, which is this one unless somebody else has it by now.
    #[inline]
    pub(crate) fn commit(&self, spot: Spot, mut gap: Gap) -> Committed {
        loop {
            if self.0.most_bytes().is_some_and(|most| !self.is_light(spot, gap, most)) {
                return Committed::Full;
            }
            let Gap { position, word } = gap;
            let full = Cell::Full { lap: self.lap(position), spot }.word();
            let cell = self.0.cell(position);
            if cell.compare_exchange(word, full, Ordering::SeqCst, Ordering::Relaxed).is_ok() {
                self.0.known().produced.tail.store(position.wrapping_add(1), Ordering::Relaxed);
                if self.is_mark(position) {
                    Self::advance(self.tail(), position.wrapping_add(1));
                }
                return Committed::Done;
            }
            gap = match self.room() {
                Ok(gap) => gap,
                Err(refused) => return refused,
            };
        }
    }

    /// Notes how many bytes were put before a message, and tells whether it may be put there.
    #[cold]
    fn is_light(&self, spot: Spot, gap: Gap, most: u64) -> bool {
        let Some(start) = self.0.start(spot.place) else { return false };
        let before = self.end_before(gap.position);
        start.store(before, Ordering::Relaxed);
        match self.first_waiting(gap.position) {
            Some(first) => before.wrapping_sub(first).saturating_add(self.0.size(spot.place)) <= most,
            // A message larger than the bound is put alone.
            None => true,
        }
    }

    /// How many bytes were put up to this position; from any number on, if nothing is there before it.
    fn end_before(&self, position: u64) -> u64 {
        let Some(last) = position.checked_sub(1) else { return 0 };
        self.read_place(last, |number| {
            let start = self.0.start(number)?.load(Ordering::Relaxed);
            Some(start.wrapping_add(self.0.size(number)))
        })
        .unwrap_or(0)
    }

    /// How many bytes were put before the first message that waits before this position. `None`: there is none.
    fn first_waiting(&self, position: u64) -> Option<u64> {
        loop {
            let head = self.pass_head();
            if head >= position {
                return None;
            }
            let start = self.read_place(head, |number| Some(self.0.start(number)?.load(Ordering::Relaxed)));
            // It was taken meanwhile, unless somebody scribbled.
            if start.is_some() || self.pass_head() == head {
                return start;
            }
        }
    }

    /// Reads the place of a position's message; `None` if it was released.
    fn read_place<R>(&self, position: u64, read: impl FnOnce(u32) -> Option<R>) -> Option<R> {
        let says = Cell::of_word(self.0.cell(position).load(Ordering::SeqCst));
        let (Age::Same, Cell::Full { spot, .. }) = (says.age(self.lap(position)), says) else { return None };
        let is_there = || {
            let word = self.0.place(spot.place).map_or(0, |word| word.load(Ordering::SeqCst));
            spot.is(Place::of_word(word).version)
        };
        if !is_there() {
            return None;
        }
        let told = read(spot.place);
        fence(Ordering::SeqCst);
        told.filter(|_| is_there())
    }

    /// How many bytes there are, as far as one can tell while others go on; in a queue that counts them.
    pub(crate) fn bytes(&self) -> u64 {
        let position = self.walk().0.position;
        let end = self.end_before(position);
        self.first_waiting(position).map_or(0, |first| end.wrapping_sub(first))
    }

    /// Where the next message would be, if there may be one.
    #[inline]
    pub(crate) fn room(&self) -> Result<Gap, Committed> {
        let gap = self.end()?;
        let is_room = |head: u64| (gap.position.wrapping_sub(head) as i64) < self.0.capacity() as i64;
        let known = &self.0.known().produced.head;
        if is_room(known.load(Ordering::Relaxed)) || is_room(self.pass_head()) {
            return Ok(gap);
        }
        Err(Committed::Full)
    }

    /// The first position without a message, if there may ever be one.
    #[inline]
    fn end(&self) -> Result<Gap, Committed> {
        match self.walk() {
            (gap, says @ Cell::Closed { .. }) if says.age(self.lap(gap.position)) == Age::Same => {
                Err(Committed::Closed)
            }
            (gap, says @ Cell::Moved { .. }) if says.age(self.lap(gap.position)) == Age::Same => {
                Err(Committed::Moved)
            }
            (_, Cell::Garbled) => Err(Committed::Garbled),
            (gap, _) => Ok(gap),
        }
    }

    /// Walks to the first position without a message; with what its cell says.
    #[inline]
    fn walk(&self) -> (Gap, Cell) {
        let known = self.0.known().produced.tail.load(Ordering::Relaxed);
        let mut position = known.max(self.tail().load(Ordering::SeqCst));
        let (begin, mut steps) = (position, 0);
        loop {
            let word = self.0.cell(position).load(Ordering::SeqCst);
            if self.is_astray(&mut steps, position) {
                return (Gap { position, word }, Cell::Garbled);
            }
            let says = Cell::of_word(word);
            match (says.age(self.lap(position)), says) {
                (Age::Same, Cell::Full { .. }) => position = position.wrapping_add(1),
                // The next lap began after all of this one was taken.
                (Age::Newer, _) => position = self.behind(position),
                _ => {
                    if position != begin {
                        Self::advance(self.tail(), position);
                    }
                    return (Gap { position, word }, says);
                }
            }
        }
    }

    /// Where to go on behind a position that was passed.
    fn behind(&self, position: u64) -> u64 {
        self.head().load(Ordering::SeqCst).max(position.wrapping_add(1))
    }

    /// True if a walk has come to where no message can be, so that it would perhaps never end: somebody scribbled. It is asked at every step.
    #[inline]
    fn is_astray(&self, steps: &mut u64, position: u64) -> bool {
        let cells = 1 << self.0.cells_log2();
        *steps += 1;
        if *steps <= cells {
            return false;
        }
        *steps = 0;
        let head = self.head().load(Ordering::SeqCst);
        head > i64::MAX as u64 || position.wrapping_sub(head) as i64 > cells as i64
    }

    /// Moves the head on to the first message that was not taken: where it is now.
    #[cold]
    fn pass_head(&self) -> u64 {
        let begin = self.head().load(Ordering::SeqCst);
        let mut position = begin;
        loop {
            let says = Cell::of_word(self.0.cell(position).load(Ordering::SeqCst));
            match (says.age(self.lap(position)), says) {
                (Age::Same, Cell::Full { spot, .. }) if !self.is_waiting(spot) => {
                    position = position.wrapping_add(1)
                }
                _ => break,
            }
        }
        if position != begin {
            Self::advance(self.head(), position);
        }
        // Somebody else may have moved it further.
        let head = self.head().load(Ordering::SeqCst);
        self.0.known().produced.head.store(head, Ordering::Relaxed);
        head
    }

    /// True if a committed message was not taken yet.
    fn is_waiting(&self, spot: Spot) -> bool {
        let place = self.0.place(spot.place).map(|word| Place::of_word(word.load(Ordering::SeqCst)));
        matches!(place, Some(Place { version, state: State::Written(_) }) if spot.is(version))
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
        let known = &self.0.known().consumed.head;
        let begin = known.load(Ordering::Relaxed).max(self.head().load(Ordering::SeqCst));
        let (mut position, mut steps) = (begin, 0);
        let nothing = loop {
            let cell = self.0.cell(position);
            let word = cell.load(Ordering::SeqCst);
            if self.is_astray(&mut steps, position) {
                break Taken::Garbled;
            }
            let says = Cell::of_word(word);
            match (says.age(self.lap(position)), says) {
                (Age::Same, Cell::Full { spot, .. }) => {
                    let taken = self.take_place(spot, me, || cell.load(Ordering::SeqCst) == word);
                    let next = position.wrapping_add(1);
                    if let Some(spot) = taken {
                        self.note_position(spot.place, position);
                        // Before it is committed it is better left to its producer.
                        if self.0.capacity() > AHEAD
                            && position.saturating_add(AHEAD) < self.committed(position)
                        {
                            self.prefetch_behind(spot.place);
                        }
                        known.store(next, Ordering::Relaxed);
                        // Others have taken messages too: they are told at once.
                        if position != begin || self.is_mark(position) {
                            Self::advance(self.head(), next);
                        }
                        return Taken::Message(spot);
                    }
                    position = next;
                }
                (Age::Newer, _) => position = self.behind(position),
                (Age::Same, Cell::Closed { .. }) => break Taken::Closed,
                (Age::Same, Cell::Moved { .. }) => break Taken::Moved,
                (_, Cell::Garbled) => break Taken::Garbled,
                _ => break Taken::Empty,
            }
        };
        if position != begin {
            known.store(position, Ordering::Relaxed);
            Self::advance(self.head(), position);
        }
        nothing
    }

    /// A position before which all were committed, looked up now and then.
    #[inline]
    fn committed(&self, position: u64) -> u64 {
        let known = &self.0.known().consumed.tail;
        let tail = known.load(Ordering::Relaxed);
        if position & 7 != 0 || position.saturating_add(AHEAD) < tail {
            return tail;
        }
        let tail = self.tail().load(Ordering::Relaxed);
        known.store(tail, Ordering::Relaxed);
        tail
    }

    /// Takes a committed message, unless somebody has. `is_current`: its cell still says what it did.
    #[inline]
    fn take_place(&self, spot: Spot, me: Id, is_current: impl FnOnce() -> bool) -> Option<Spot> {
        let word = self.0.place(spot.place)?;
        let seen = word.load(Ordering::SeqCst);
        let Place { version, state: State::Written(_) } = Place::of_word(seen) else { return None };
        // The cell has some bits of the version only; a place with the others is not met before the cell has changed.
        if !spot.is(version) || !is_current() {
            return None;
        }
        let mine = Place { version, state: State::Read(me) }.word();
        word.compare_exchange(seen, mine, Ordering::SeqCst, Ordering::Relaxed).ok()?;
        Some(Spot { place: spot.place, version })
    }

    /// Takes a message that somebody had taken who died: the first of them.
    #[cold]
    pub(crate) fn take_back(&self, me: Id) -> Option<Spot> {
        let back = &self.0.counters().back;
        back.store(0, Ordering::SeqCst);
        loop {
            let (word, seen, spot) = self.first_back()?;
            // There may be more of them.
            back.store(1, Ordering::SeqCst);
            let mine = Place { version: spot.version, state: State::Read(me) }.word();
            if word.compare_exchange(seen, mine, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
                return Some(spot);
            }
        }
    }

    fn first_back(&self) -> Option<(&AtomicU64, u64, Spot)> {
        let all = (0..self.0.places()).filter_map(|number| {
            let word = self.0.place(number)?;
            let seen = word.load(Ordering::SeqCst);
            let Place { version, state: State::Back } = Place::of_word(seen) else { return None };
            let position = self.0.position(number)?.load(Ordering::Relaxed);
            Some((position, (word, seen, Spot { place: number, version })))
        });
        all.min_by_key(|(position, _)| *position).map(|(_, first)| first)
    }

    /// True if this handle has taken nothing since it took that message, and the ring goes on behind it: all that its release may bring
    /// about is found by the next take.
    #[inline]
    pub(crate) fn goes_on_behind(&self, spot: Spot) -> bool {
        let position = self.0.position(spot.place).map_or(UNKNOWN, |word| word.load(Ordering::Relaxed));
        let next = position.wrapping_add(1);
        if position == UNKNOWN || self.0.known().consumed.head.load(Ordering::Relaxed) != next {
            return false;
        }
        let says = Cell::of_word(self.0.cell(next).load(Ordering::SeqCst));
        says.age(self.lap(next)) != Age::Same || matches!(says, Cell::Full { .. })
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

    /// Gives back a message that the caller has taken, to whoever takes one next. False: it was released.
    pub(crate) fn give_back(&self, spot: Spot, me: Id) -> bool {
        let Some(word) = self.0.place(spot.place) else { return false };
        let from = Place { version: spot.version, state: State::Read(me) }.word();
        let to = Place { version: spot.version, state: State::Back }.word();
        let back = word.compare_exchange(from, to, Ordering::SeqCst, Ordering::Relaxed).is_ok();
        if back {
            self.0.counters().back.store(1, Ordering::SeqCst);
        }
        back
    }

    /// True if every message that was put was released.
    pub(crate) fn is_finished(&self) -> bool {
        // What was taken keeps its place until it is released.
        self.len() == 0
            && (0..self.0.places()).all(|number| {
                let place = self.0.place(number).map(|word| Place::of_word(word.load(Ordering::SeqCst)));
                !matches!(place, Some(Place { state: State::Read(_) | State::Back, .. }))
            })
    }

    /// Ends the queue behind its last message, unless it has an end: that is told.
    pub(crate) fn close(&self) -> Committed {
        self.finish(|lap| Cell::Closed { lap })
    }

    /// Has the queue go on in the next segment, which everybody finds by now, unless it has an end: that is told.
    pub(crate) fn move_on(&self) -> Committed {
        self.finish(|lap| Cell::Moved { lap })
    }

    /// The same if there is no message.
    pub(crate) fn move_on_if_empty(&self) -> bool {
        match self.end() {
            Ok(gap) => gap.position == self.pass_head() && self.finish_at(gap, |lap| Cell::Moved { lap }),
            Err(_) => false,
        }
    }

    fn finish(&self, end: impl Fn(u32) -> Cell) -> Committed {
        loop {
            match self.end() {
                Ok(gap) if self.finish_at(gap, &end) => return Committed::Done,
                Ok(_) => {}
                Err(has) => return has,
            }
        }
    }

    fn finish_at(&self, gap: Gap, end: impl Fn(u32) -> Cell) -> bool {
        let cell = self.0.cell(gap.position);
        let word = end(self.lap(gap.position)).word();
        let done = cell.compare_exchange(gap.word, word, Ordering::SeqCst, Ordering::Relaxed).is_ok();
        if done {
            Self::advance(self.tail(), gap.position);
        }
        done
    }

    /// What a message would meet: `Done`, `Closed` or `Moved`; a full queue is not asked for.
    pub(crate) fn state(&self) -> Committed {
        self.end().map_or_else(|has| has, |_| Committed::Done)
    }

    /// How many messages there are, as far as one can tell while others go on.
    pub(crate) fn len(&self) -> u64 {
        let head = self.pass_head();
        self.walk().0.position.saturating_sub(head).min(self.0.capacity())
    }

    /// The first position whose message waits, and the first one without a message; for whoever looks and may not write here.
    pub(crate) fn seen(&self) -> (u64, u64) {
        let full = |position: u64| {
            let says = Cell::of_word(self.0.cell(position).load(Ordering::SeqCst));
            match (says.age(self.lap(position)), says) {
                (Age::Same, Cell::Full { spot, .. }) => Some(spot),
                _ => None,
            }
        };
        let cells = 1 << self.0.cells_log2();
        let (head, tail) = (self.head().load(Ordering::SeqCst), self.tail().load(Ordering::SeqCst));
        let on = |begin: u64| (0..cells).map(move |step| begin.wrapping_add(step));
        let is_taken = |&position: &u64| full(position).is_some_and(|spot| !self.is_waiting(spot));
        let end = |count: usize, begin: u64| begin.wrapping_add(count as u64);
        let head = end(on(head).take_while(is_taken).count(), head);
        let tail = end(on(tail).take_while(|&position| full(position).is_some()).count(), tail);
        (head, tail.max(head))
    }

    /// Bytes of a position's message, if it waits.
    pub(crate) fn size_at(&self, position: u64) -> Option<u64> {
        self.read_place(position, |number| Some(self.0.size(number)))
    }

    /// How many messages were got, and are not finished.
    pub(crate) fn taken(&self) -> u64 {
        let is_taken = |number: &u32| {
            let place = self.0.place(*number).map(|word| Place::of_word(word.load(Ordering::SeqCst)));
            matches!(place, Some(Place { state: State::Read(_) | State::Back, .. }))
        };
        (0..self.0.places()).filter(is_taken).count() as u64
    }

    /// Has everybody look at the queue again.
    pub(crate) fn ring_all(&self) {
        self.0.counters().items.ring_all();
        self.0.counters().room.ring_all();
    }

    /// Repairs what a dead participant left. `discard` gets each place whose message was never committed, and `restore` each whose message
    /// goes back, before it does. Only one repair of it runs at a time, and it may be done again. True if messages go back.
    pub(crate) fn repair(
        &self,
        dead: Id,
        mut discard: impl FnMut(u32),
        mut restore: impl FnMut(u32),
    ) -> bool {
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
        any_back
    }

    fn is_committed(&self, spot: Spot) -> bool {
        (0..1 << self.0.cells_log2()).any(|position| {
            let says = Cell::of_word(self.0.cell(position).load(Ordering::SeqCst));
            matches!(says, Cell::Full { spot: Spot { place, version }, .. }
                if place == spot.place && spot.is(version))
        })
    }
}

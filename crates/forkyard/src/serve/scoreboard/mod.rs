//! The scoreboard: what the master and its children tell each other without a system call.
//!
//! One sealed memfd of 128-byte lines of atomic words, in this order: one line of facts, one of the master's
//! counters, one of the children's, some for signals and histograms; a line per child and a line per connection, in turn.
//!
//! | words | written by | read by |
//! |---|---|---|
//! | facts, `accepted` … of the master | master | everybody |
//! | `served` … of the children, histograms | children, by `fetch_add` | master, page |
//! | child line | the child; `started`, and all of it while nobody has the slot: master | master, page |
//! | connection `tag` | master: free → handed, anything → free. Child: handed → serving → done, by CAS | both |
//! | connection peer, `accepted` | master, before the tag says handed | page |
//!
//! A tag names number, state and child in one word, so a claim is one CAS, and a child that wakes too late (stopped,
//! given up by the master) fails it and lets the connection go. Whatever is read here is a number between its
//! bounds or is ignored: a child that scribbles spoils figures and its own connection, and no memory (D9).
//!
//! Killed here: a child leaves its line and tag as they were, and the master frees both when it reaps. A killed
//! master leaves nothing: the memory goes with the last mapping.

mod reader;
#[cfg(test)]
mod tests;

use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering, fence};

use forkyard_sys::Result;
use forkyard_sys::time::monotonic_ns;

use super::peer::Peer;
use crate::shm::Table;

pub(super) use reader::Reader;

/// A way to read the monotonic clock.
pub(super) type Clock = fn() -> u64;

/// One line of the table.
pub(super) type Line = [AtomicU64; 16];

const FACTS: usize = 0;
const MASTER: usize = 1;
const CHILDREN: usize = 2;
const SIGNALS: usize = 3; // 65 words: 5 lines
const WAIT: usize = 8; // 32 words: 2 lines
const SERVICE: usize = 10; // 32 words: 2 lines
const WORKERS: usize = 12;

/// Buckets of a histogram; bucket `b` counts times below `2^b` microseconds, the last one all others.
const BUCKETS: usize = 32;

/// What is known about the server as a whole: words of the first line.
#[derive(Clone, Copy)]
#[repr(usize)]
pub(super) enum Fact {
    /// `1 + children << 32 | connections`: how many lines of each kind. Never changes.
    Shape,
    /// The master's pid.
    Pid,
    /// The zygote's pid, 0 while there is none.
    Zygote,
    /// 0 process, 1 prefork.
    Mode,
    /// When it started, by the monotonic clock.
    Started,
    /// Reloads and upgrades.
    Generation,
    /// Which [`Bell`]s the master wants to hear.
    Bell,
    /// How many lines of children have ever been used, from the first on.
    ChildLines,
    /// How many lines of connections have.
    ConnectionLines,
}

/// What a child may have to tell the master at once: bits of a word.
#[derive(Clone, Copy)]
#[repr(u64)]
pub(super) enum Bell {
    /// It has claimed a connection, of which the master still holds a copy.
    Claimed = 1,
    /// It has finished a connection, for which another one waits.
    Finished = 2,
}

/// The master's counters: words of the second line.
#[derive(Clone, Copy)]
#[repr(usize)]
pub(super) enum Count {
    Accepted,
    Pending,
    Parked,
    Deferred,
    Lost,
    Timeouts,
    Started,
    Restarted,
    Failed,
    Backoffs,
    /// Served by children whose own line is gone, or known from before an upgrade.
    ServedBefore,
}

/// The children's common counters: words of the third line.
#[derive(Clone, Copy)]
#[repr(usize)]
pub(super) enum Shared {
    Served,
    Timeouts,
    /// Requests of children that have ended.
    Requests,
}

/// Words of a child's line.
#[derive(Clone, Copy)]
#[repr(usize)]
pub(super) enum Cell {
    /// A [`ChildState`].
    State,
    Pid,
    /// When the master started it.
    Started,
    /// Index + 1 of the connection it claimed last.
    Connection,
    /// Connections claimed.
    Taken,
    /// Connections finished.
    Finished,
    Requests,
}

/// How far a child is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub(super) enum ChildState {
    Free = 0,
    Starting = 1,
    Idle = 2,
    Busy = 3,
    Leaving = 4,
}

impl ChildState {
    fn of(number: u64) -> ChildState {
        match number {
            1 => ChildState::Starting,
            2 => ChildState::Idle,
            3 => ChildState::Busy,
            4 => ChildState::Leaving,
            _ => ChildState::Free,
        }
    }

    fn name(self) -> &'static str {
        match self {
            ChildState::Free => "free",
            ChildState::Starting => "starting",
            ChildState::Idle => "idle",
            ChildState::Busy => "busy",
            ChildState::Leaving => "leaving",
        }
    }
}

// Words of a connection's line: the tag, two times, three of the peer.
const TAG: usize = 0;
const ACCEPTED: usize = 1;
const CLAIMED: usize = 2;
const PEER: usize = 3;

/// Whose a connection is. In a word: number (40 bits), state (4), child (20).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tag {
    pub(super) number: u64,
    pub(super) state: ConnectionState,
    pub(super) child: u32,
}

/// How far a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub(super) enum ConnectionState {
    Free = 0,
    /// The master has handed it off, or holds it back.
    Handed = 1,
    /// A child has claimed it.
    Serving = 2,
    /// The child has finished it.
    Done = 3,
}

impl Tag {
    const NUMBERS: u64 = 1 << 40;

    fn word(self) -> u64 {
        (self.number % Tag::NUMBERS) << 24 | (self.state as u64) << 20 | u64::from(self.child & 0xF_FFFF)
    }

    fn of(word: u64) -> Tag {
        let state = match word >> 20 & 0xF {
            1 => ConnectionState::Handed,
            2 => ConnectionState::Serving,
            3 => ConnectionState::Done,
            _ => ConnectionState::Free,
        };
        Tag { number: word >> 24, state, child: (word & 0xF_FFFF) as u32 }
    }
}

/// A process's view of the scoreboard.
#[derive(Debug)]
pub(super) struct Board {
    lines: Table<Line>,
    children: usize,
    connections: usize,
}

impl Board {
    /// Makes one with room for so many children and connections.
    pub(super) fn create(children: usize, connections: usize) -> Result<Board> {
        let lines = Table::create("forkyard-scoreboard", WORKERS + children + connections)?;
        lines.commit(0)?;
        let board = Board { lines, children, connections };
        board.set_fact(Fact::Shape, (1 + children as u64) << 32 | connections as u64);
        Ok(board)
    }

    /// Maps the one that the master made.
    pub(super) fn attach(fd: OwnedFd, writable: bool) -> Result<Board> {
        let lines: Table<Line> = Table::attach(fd, writable)?;
        let shape = lines.get(FACTS).map_or(0, |line| line[Fact::Shape as usize].load(Ordering::Acquire));
        let room = lines.capacity().saturating_sub(WORKERS);
        let children = usize::try_from((shape >> 32).saturating_sub(1)).unwrap_or(0).min(room);
        let connections = usize::try_from(shape & 0xFFFF_FFFF).unwrap_or(0).min(room - children);
        Ok(Board { lines, children, connections })
    }

    /// To hand to others.
    pub(super) fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.lines.fd()
    }

    /// Takes memory for the line of a child, which is used from now on.
    pub(super) fn commit_child(&self, slot: usize) -> Result<()> {
        self.lines.commit(self.child_line(slot))?;
        self.set_fact(Fact::ChildLines, self.fact(Fact::ChildLines).max(slot as u64 + 1));
        Ok(())
    }

    /// Takes memory for the line of a connection, which is used from now on.
    pub(super) fn commit_connection(&self, index: usize) -> Result<()> {
        self.lines.commit(self.connection_line(index))?;
        self.set_fact(Fact::ConnectionLines, self.fact(Fact::ConnectionLines).max(index as u64 + 1));
        Ok(())
    }

    /// A number of used lines, within what there is.
    fn used(&self, fact: Fact, most: usize) -> usize {
        usize::try_from(self.fact(fact)).map_or(most, |used| used.min(most))
    }

    /// Lines of children and of connections alternate as far as both go, so that a child finds what it needs near by.
    fn child_line(&self, slot: usize) -> usize {
        let both = self.children.min(self.connections);
        WORKERS + slot + slot.min(both)
    }

    fn connection_line(&self, index: usize) -> usize {
        let both = self.children.min(self.connections);
        WORKERS + index + if index < both { index + 1 } else { both }
    }

    fn word(&self, line: usize, word: usize) -> Option<&AtomicU64> {
        self.lines.get(line + word / 16).map(|line| &line[word % 16])
    }

    fn add(&self, line: usize, word: usize, n: u64) {
        if let Some(word) = self.word(line, word) {
            word.fetch_add(n, Ordering::Relaxed);
        }
    }

    fn load(&self, line: usize, word: usize) -> u64 {
        self.word(line, word).map_or(0, |word| word.load(Ordering::Relaxed))
    }

    fn store(&self, line: usize, word: usize, value: u64) {
        if let Some(word) = self.word(line, word) {
            word.store(value, Ordering::Relaxed);
        }
    }

    pub(super) fn set_fact(&self, fact: Fact, value: u64) {
        self.store(FACTS, fact as usize, value);
    }

    pub(super) fn fact(&self, fact: Fact) -> u64 {
        self.load(FACTS, fact as usize)
    }

    pub(super) fn count(&self, count: Count, n: u64) {
        // One writer: no locked instruction needed.
        self.store(MASTER, count as usize, self.load(MASTER, count as usize).wrapping_add(n));
    }

    pub(super) fn set_count(&self, count: Count, value: u64) {
        self.store(MASTER, count as usize, value);
    }

    pub(super) fn counted(&self, count: Count) -> u64 {
        self.load(MASTER, count as usize)
    }

    pub(super) fn count_shared(&self, count: Shared, n: u64) {
        self.add(CHILDREN, count as usize, n);
    }

    pub(super) fn counted_shared(&self, count: Shared) -> u64 {
        self.load(CHILDREN, count as usize)
    }

    pub(super) fn count_signal(&self, signal: usize, n: u64) {
        self.add(SIGNALS, signal.min(64), n);
    }

    pub(super) fn signal_count(&self, signal: usize) -> u64 {
        self.load(SIGNALS, signal)
    }

    /// Notes how long a connection waited for its child.
    pub(super) fn note_wait(&self, ns: u64) {
        self.add(WAIT, bucket(ns), 1);
    }

    /// Notes how long a connection was served.
    pub(super) fn note_service(&self, ns: u64) {
        self.add(SERVICE, bucket(ns), 1);
    }

    /// Whether the master wants to hear of this, which was stored before the call.
    pub(super) fn bell_wanted(&self, bell: Bell) -> bool {
        // Pairs with the fence in `want_bells`: either we see the wish, or the master sees our tag.
        fence(Ordering::SeqCst);
        self.fact(Fact::Bell) & bell as u64 != 0
    }

    /// Says which bells the master wants to hear; it looks at the tags after saying so.
    pub(super) fn want_bells(&self, wanted: u64) {
        if self.fact(Fact::Bell) != wanted {
            self.set_fact(Fact::Bell, wanted);
            fence(Ordering::SeqCst);
        }
    }

    /// All counters and histograms, those of living children's requests included.
    pub(super) fn export(&self) -> Vec<u64> {
        let mut words: Vec<u64> = (MASTER * 16..WORKERS * 16).map(|word| self.load(0, word)).collect();
        let live: u64 =
            (0..self.used(Fact::ChildLines, self.children)).map(|slot| self.cell(slot, Cell::Requests)).sum();
        words[(CHILDREN - MASTER) * 16 + Shared::Requests as usize] += live;
        words
    }

    /// Goes on from exported counters.
    pub(super) fn import(&self, words: &[u64]) {
        for (word, value) in (MASTER * 16..WORKERS * 16).zip(words) {
            self.store(0, word, *value);
        }
    }

    pub(super) fn cell(&self, slot: usize, cell: Cell) -> u64 {
        if slot < self.children { self.load(self.child_line(slot), cell as usize) } else { 0 }
    }

    pub(super) fn set_cell(&self, slot: usize, cell: Cell, value: u64) {
        if slot < self.children {
            self.store(self.child_line(slot), cell as usize, value);
        }
    }

    pub(super) fn child_state(&self, slot: usize) -> ChildState {
        ChildState::of(self.cell(slot, Cell::State))
    }

    pub(super) fn set_child_state(&self, slot: usize, state: ChildState) {
        self.set_cell(slot, Cell::State, state as u64);
    }

    /// Empties the line of a child that is to be started, or has ended.
    pub(super) fn clear_child(&self, slot: usize) {
        for word in 0..16 {
            if slot < self.children {
                self.store(self.child_line(slot), word, 0);
            }
        }
    }

    fn tag_word(&self, index: usize) -> Option<&AtomicU64> {
        if index < self.connections { self.word(self.connection_line(index), TAG) } else { None }
    }

    pub(super) fn tag(&self, index: usize) -> Tag {
        Tag::of(self.tag_word(index).map_or(0, |word| word.load(Ordering::Acquire)))
    }

    /// Master: announces a connection that is about to be handed off.
    pub(super) fn announce(&self, index: usize, number: u64, accepted: u64, peer: &Peer) {
        let line = self.connection_line(index);
        self.store(line, ACCEPTED, accepted);
        self.store(line, CLAIMED, 0);
        for (i, word) in peer.words().into_iter().enumerate() {
            self.store(line, PEER + i, word);
        }
        self.set_tag(index, Tag { number, state: ConnectionState::Handed, child: 0 });
    }

    /// Master: sets a tag whatever it was.
    pub(super) fn set_tag(&self, index: usize, tag: Tag) {
        if let Some(word) = self.tag_word(index) {
            word.store(tag.word(), Ordering::Release);
        }
    }

    /// Goes from one tag to another; false if it is a third.
    pub(super) fn change_tag(&self, index: usize, from: Tag, to: Tag) -> bool {
        self.tag_word(index).is_some_and(|word| {
            word.compare_exchange(from.word(), to.word(), Ordering::AcqRel, Ordering::Acquire).is_ok()
        })
    }

    /// Child: claims a connection; false if the master has given it up.
    pub(super) fn claim(&self, index: usize, number: u64, slot: u32, accepted: u64, clock: Clock) -> bool {
        let from = Tag { number, state: ConnectionState::Handed, child: 0 };
        if !self.change_tag(index, from, Tag { state: ConnectionState::Serving, child: slot, ..from }) {
            return false;
        }
        let now = clock();
        self.store(self.connection_line(index), CLAIMED, now);
        self.note_wait(now.saturating_sub(accepted));
        let slot = slot as usize;
        self.set_cell(slot, Cell::Connection, index as u64 + 1);
        self.set_cell(slot, Cell::Taken, self.cell(slot, Cell::Taken) + 1);
        true
    }

    /// Master: notes how long a connection was served whose process could not say so.
    pub(super) fn note_end(&self, index: usize) {
        let claimed = self.load(self.connection_line(index), CLAIMED);
        if claimed > 0 {
            self.note_service(monotonic_ns().saturating_sub(claimed));
        }
    }

    /// Child: says that the connection is over.
    pub(super) fn finish(&self, index: usize, number: u64, slot: u32, timed_out: bool, clock: Clock) {
        let claimed = self.load(self.connection_line(index), CLAIMED);
        self.note_service(clock().saturating_sub(claimed));
        self.count_shared(if timed_out { Shared::Timeouts } else { Shared::Served }, 1);
        let from = Tag { number, state: ConnectionState::Serving, child: slot };
        self.change_tag(index, from, Tag { state: ConnectionState::Done, ..from });
        let slot = slot as usize;
        self.set_cell(slot, Cell::Finished, self.cell(slot, Cell::Finished) + 1);
    }
}

fn bucket(ns: u64) -> usize {
    let us = ns / 1000;
    ((u64::BITS - us.leading_zeros()) as usize).min(BUCKETS - 1)
}

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
mod words;

use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering, fence};

use forkyard_sys::Result;
use forkyard_sys::time::monotonic_ns;

use super::peer::Peer;
use crate::shm::Table;

pub(super) use reader::Reader;
use words::{ACCEPTED, BUCKETS, CHILDREN, CLAIMED, FACTS, MASTER, PEER, SERVICE, SIGNALS, WAIT, WORKERS};
pub(super) use words::{
    Bell, CONNECTION, Cell, ChildState, Clock, ConnectionState, Count, Fact, Line, PACKET, QUIT, RELIEVE,
    RETURN, Shared, Tag, Words,
};

/// A process's view of the scoreboard.
#[derive(Debug)]
pub(super) struct Board {
    lines: Table<Line>,
    children: usize,
    connections: usize,
}

impl Words for Board {
    fn shape(&self) -> (usize, usize) {
        (self.children, self.connections)
    }

    fn word(&self, line: usize, word: usize) -> Option<&AtomicU64> {
        self.lines.get(line + word / 16).map(|line| &line[word % 16])
    }
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
        let (children, connections) = words::shape(shape, lines.capacity());
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

    /// Its length in bytes.
    pub(super) fn len(&self) -> usize {
        self.lines.capacity() * size_of::<Line>()
    }

    /// A number of used lines, within what there is.
    fn used(&self, fact: Fact, most: usize) -> usize {
        usize::try_from(self.fact(fact)).map_or(most, |used| used.min(most))
    }

    pub(super) fn set_fact(&self, fact: Fact, value: u64) {
        self.store(FACTS, fact as usize, value);
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

    pub(super) fn counted_shared(&self, count: Shared) -> u64 {
        self.load(CHILDREN, count as usize)
    }

    pub(super) fn count_signal(&self, signal: usize, n: u64) {
        self.add(SIGNALS, signal.min(64), n);
    }

    pub(super) fn signal_count(&self, signal: usize) -> u64 {
        self.load(SIGNALS, signal)
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

    /// Empties the line of a child that is to be started, or has ended.
    pub(super) fn clear_child(&self, slot: usize) {
        for word in 0..16 {
            if slot < self.children {
                self.store(self.child_line(slot), word, 0);
            }
        }
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

    /// When a connection was claimed first.
    pub(super) fn claimed_at(&self, index: usize) -> u64 {
        self.load(self.connection_line(index), CLAIMED)
    }

    /// Master: takes back its claim for a child that could not be started.
    pub(super) fn unclaim(&self, index: usize, number: u64) {
        self.set_tag(index, Tag { number, state: ConnectionState::Handed, child: 0 });
    }

    /// Master: notes how long a connection was served whose process could not say so.
    pub(super) fn note_end(&self, index: usize) {
        let claimed = self.load(self.connection_line(index), CLAIMED);
        if claimed > 0 {
            self.note_service(monotonic_ns().saturating_sub(claimed));
        }
    }
}

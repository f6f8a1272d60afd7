//! What both sides of the scoreboard know: which word means what, and what a child does to them.
//!
//! Compiled twice: into the library, and into the small program that serves a connection with a built-in handler
//! (`small/program.rs`), which has no standard library. So nothing here allocates, and nothing outside `core` is used.

use core::sync::atomic::{AtomicU64, Ordering, fence};

/// A way to read the monotonic clock.
pub(crate) type Clock = fn() -> u64;

/// One line of the table.
pub(crate) type Line = [AtomicU64; 16];

pub(crate) const FACTS: usize = 0;
pub(crate) const MASTER: usize = 1;
pub(crate) const CHILDREN: usize = 2;
pub(crate) const SIGNALS: usize = 3; // 65 words: 5 lines
pub(crate) const WAIT: usize = 8; // 32 words: 2 lines
pub(crate) const SERVICE: usize = 10; // 32 words: 2 lines
pub(crate) const WORKERS: usize = 12;

/// Buckets of a histogram; bucket `b` counts times below `2^b` microseconds, the last one all others.
pub(crate) const BUCKETS: usize = 32;

/// What is known about the server as a whole: words of the first line.
#[derive(Clone, Copy)]
#[repr(usize)]
pub(crate) enum Fact {
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
pub(crate) enum Bell {
    /// It has claimed a connection, of which the master still holds a copy.
    Claimed = 1,
    /// It has finished a connection, for which another one waits.
    Finished = 2,
}

/// The master's counters: words of the second line.
#[derive(Clone, Copy)]
#[repr(usize)]
pub(crate) enum Count {
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
pub(crate) enum Shared {
    Served,
    Timeouts,
    /// Requests of children that have ended.
    Requests,
}

/// Words of a child's line.
#[derive(Clone, Copy)]
#[repr(usize)]
pub(crate) enum Cell {
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
    /// Packets taken out of a lane of its own.
    Received,
    /// Connections claimed and then given back to the master.
    Returned,
    /// When it last found that it had been busy all the time; 0 for never.
    Busy,
}

/// How far a child is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub(crate) enum ChildState {
    Free = 0,
    Starting = 1,
    Idle = 2,
    Busy = 3,
    Leaving = 4,
}

impl ChildState {
    pub(crate) fn of(number: u64) -> ChildState {
        match number {
            1 => ChildState::Starting,
            2 => ChildState::Idle,
            3 => ChildState::Busy,
            4 => ChildState::Leaving,
            _ => ChildState::Free,
        }
    }

    pub(crate) fn name(self) -> &'static str {
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
pub(crate) const TAG: usize = 0;
pub(crate) const ACCEPTED: usize = 1;
pub(crate) const CLAIMED: usize = 2;
pub(crate) const PEER: usize = 3;

/// Whose a connection is. In a word: number (40 bits), state (4), child (20).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tag {
    pub(crate) number: u64,
    pub(crate) state: ConnectionState,
    pub(crate) child: u32,
}

/// How far a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub(crate) enum ConnectionState {
    Free = 0,
    /// The master has handed it off, or holds it back.
    Handed = 1,
    /// A child has claimed it.
    Serving = 2,
    /// The child has finished it.
    Done = 3,
}

impl Tag {
    pub(crate) const NUMBERS: u64 = 1 << 40;

    pub(crate) fn word(self) -> u64 {
        (self.number % Tag::NUMBERS) << 24 | (self.state as u64) << 20 | u64::from(self.child & 0xF_FFFF)
    }

    pub(crate) fn of(word: u64) -> Tag {
        let state = match word >> 20 & 0xF {
            1 => ConnectionState::Handed,
            2 => ConnectionState::Serving,
            3 => ConnectionState::Done,
            _ => ConnectionState::Free,
        };
        Tag { number: word >> 24, state, child: (word & 0xF_FFFF) as u32 }
    }
}

/// Bytes of a packet in a lane: eight words, of which the first says what it is.
pub(crate) const PACKET: usize = 64;
/// A packet's first word: one child is to leave.
pub(crate) const QUIT: u64 = 1;
/// A packet's first word: a connection; then come its line, its number and when it was accepted (0: a worker has served it already).
pub(crate) const CONNECTION: u64 = 2;
/// A packet's first word: the worker is to give back half of the connections that wait for it.
pub(crate) const RELIEVE: u64 = 3;
/// A packet's first word, from a worker to the master: a connection that it gives back; then come its line and its number.
pub(crate) const RETURN: u64 = 4;

/// How many lines of children and of connections there are, as [`Fact::Shape`] tells, in a table of so many lines.
pub(crate) fn shape(word: u64, lines: usize) -> (usize, usize) {
    let room = lines.saturating_sub(WORKERS);
    let children = usize::try_from((word >> 32).saturating_sub(1)).unwrap_or(0).min(room);
    let connections = usize::try_from(word & 0xFFFF_FFFF).unwrap_or(0).min(room - children);
    (children, connections)
}

/// The words themselves, and a child's part in them.
pub(crate) trait Words {
    /// How many lines of children and of connections there are.
    fn shape(&self) -> (usize, usize);

    /// A word counted from the start of a line; `None` beyond the last one.
    fn word(&self, line: usize, word: usize) -> Option<&AtomicU64>;

    /// Lines of children and of connections alternate as far as both go, so that a child finds what it needs near by.
    fn child_line(&self, slot: usize) -> usize {
        let both = self.shape().0.min(self.shape().1);
        WORKERS + slot + slot.min(both)
    }

    fn connection_line(&self, index: usize) -> usize {
        let both = self.shape().0.min(self.shape().1);
        WORKERS + index + if index < both { index + 1 } else { both }
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

    fn fact(&self, fact: Fact) -> u64 {
        self.load(FACTS, fact as usize)
    }

    fn count_shared(&self, count: Shared, n: u64) {
        self.add(CHILDREN, count as usize, n);
    }

    /// Notes how long a connection waited for its child.
    fn note_wait(&self, ns: u64) {
        self.add(WAIT, bucket(ns), 1);
    }

    /// Notes how long a connection was served.
    fn note_service(&self, ns: u64) {
        self.add(SERVICE, bucket(ns), 1);
    }

    /// Whether the master wants to hear of this, which was stored before the call.
    fn bell_wanted(&self, bell: Bell) -> bool {
        // Pairs with the fence in `want_bells`: either we see the wish, or the master sees our tag.
        fence(Ordering::SeqCst);
        self.fact(Fact::Bell) & bell as u64 != 0
    }

    fn cell(&self, slot: usize, cell: Cell) -> u64 {
        if slot < self.shape().0 { self.load(self.child_line(slot), cell as usize) } else { 0 }
    }

    fn set_cell(&self, slot: usize, cell: Cell, value: u64) {
        if slot < self.shape().0 {
            self.store(self.child_line(slot), cell as usize, value);
        }
    }

    fn child_state(&self, slot: usize) -> ChildState {
        ChildState::of(self.cell(slot, Cell::State))
    }

    fn set_child_state(&self, slot: usize, state: ChildState) {
        self.set_cell(slot, Cell::State, state as u64);
    }

    fn tag_word(&self, index: usize) -> Option<&AtomicU64> {
        if index < self.shape().1 { self.word(self.connection_line(index), TAG) } else { None }
    }

    /// Goes from one tag to another; false if it is a third.
    fn change_tag(&self, index: usize, from: Tag, to: Tag) -> bool {
        self.tag_word(index).is_some_and(|word| {
            word.compare_exchange(from.word(), to.word(), Ordering::AcqRel, Ordering::Acquire).is_ok()
        })
    }

    /// Child: claims a connection; false if the master has given it up. `accepted` is 0 if another child has served it before.
    fn claim(&self, index: usize, number: u64, slot: u32, accepted: u64, clock: Clock) -> bool {
        let from = Tag { number, state: ConnectionState::Handed, child: 0 };
        if !self.change_tag(index, from, Tag { state: ConnectionState::Serving, child: slot, ..from }) {
            return false;
        }
        if accepted > 0 {
            let now = clock();
            self.store(self.connection_line(index), CLAIMED, now);
            self.note_wait(now.saturating_sub(accepted));
        }
        let slot = slot as usize;
        self.set_cell(slot, Cell::Connection, index as u64 + 1);
        self.set_cell(slot, Cell::Taken, self.cell(slot, Cell::Taken) + 1);
        true
    }

    /// Child: says that the connection is over.
    fn finish(&self, index: usize, number: u64, slot: u32, timed_out: bool, clock: Clock) {
        let claimed = self.load(self.connection_line(index), CLAIMED);
        self.note_service(clock().saturating_sub(claimed));
        self.count_shared(if timed_out { Shared::Timeouts } else { Shared::Served }, 1);
        let from = Tag { number, state: ConnectionState::Serving, child: slot };
        self.change_tag(index, from, Tag { state: ConnectionState::Done, ..from });
        let slot = slot as usize;
        self.set_cell(slot, Cell::Finished, self.cell(slot, Cell::Finished) + 1);
    }
}

pub(crate) fn bucket(ns: u64) -> usize {
    let us = ns / 1000;
    ((u64::BITS - us.leading_zeros()) as usize).min(BUCKETS - 1)
}

//! The children that the master knows of: slots of the scoreboard, pidfds, lanes.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use forkyard_sys::epoll::Epoll;
use forkyard_sys::exec::{Launch, Spawned};
use forkyard_sys::wait::{self, ExitStatus};
use forkyard_sys::{Result, net, pidfd};

use super::super::handoff::{self, Handed, Packet};
use super::super::scoreboard::Board;
use crate::process::template::Started;

/// A child of the master.
pub(super) struct Child {
    pub(super) pid: u32,
    pidfd: OwnedFd,
    /// Its slot of the process's outcome board; `None` for one from before an upgrade.
    pub(super) outcome: Option<u32>,
    /// The generation it belongs to; 0 is from before an upgrade.
    pub(super) generation: u64,
    /// Its own lane, if it has one.
    lane: Lane,
    /// Connections that came down its own lane and are not over, when they were last counted.
    pub(super) unfinished: usize,
    /// It did not take what it was sent in time: what it had done by then.
    pub(super) stuck: Option<(u64, u64)>,
    /// The worker that gets the connections which it gives back.
    pub(super) gives_to: Option<u32>,
    /// Requests it had answered when loads were last compared.
    pub(super) seen: u64,
    /// Connections it was ever sent down its own lane, and after how many it is replaced.
    pub(super) handed: u64,
    pub(super) most: u64,
    /// It will get no connection any more.
    pub(super) leaving: bool,
    /// The master ended it because a connection took too long.
    pub(super) timed_out: bool,
    /// The execution of its program, until the master has seen how that came out.
    pub(super) launch: Option<Launch>,
    /// Its program could not be executed.
    pub(super) refused: bool,
}

/// The lane of one child.
enum Lane {
    /// It shares its generation's.
    Common,
    /// Its own: the master's end.
    Open(OwnedFd),
    /// Nothing more is sent either way; what it gave back before that may still be in there.
    Ended(OwnedFd),
    Closed,
}

impl Child {
    pub(super) fn new(started: Started, generation: u64, lane: Option<OwnedFd>, most: u64) -> Child {
        Child {
            pid: started.pid.as_raw_nonzero().get().unsigned_abs(),
            pidfd: started.pidfd,
            outcome: Some(started.slot),
            generation,
            lane: lane.map_or(Lane::Common, Lane::Open),
            unfinished: 0,
            stuck: None,
            gives_to: None,
            seen: 0,
            handed: 0,
            most,
            leaving: false,
            timed_out: false,
            launch: None,
            refused: false,
        }
    }

    /// A program that serves one connection.
    pub(super) fn executed(spawned: Spawned, launch: Option<Launch>, generation: u64) -> Child {
        let pid = spawned.pid.as_raw_nonzero().get().unsigned_abs();
        Child { generation, leaving: false, launch, ..Child::adopted(pid, spawned.pidfd) }
    }

    /// One that serves what it was given before an upgrade.
    pub(super) fn adopted(pid: u32, pidfd: OwnedFd) -> Child {
        Child {
            pid,
            pidfd,
            outcome: None,
            generation: 0,
            lane: Lane::Common,
            unfinished: 0,
            stuck: None,
            gives_to: None,
            seen: 0,
            handed: 0,
            most: 0,
            leaving: true,
            timed_out: false,
            launch: None,
            refused: false,
        }
    }

    pub(super) fn pidfd(&self) -> &OwnedFd {
        &self.pidfd
    }

    /// True if it has a lane of its own that is open.
    pub(super) fn is_open(&self) -> bool {
        matches!(self.lane, Lane::Open(_))
    }

    /// True if it has, or had, a lane of its own.
    pub(super) fn has_lane(&self) -> bool {
        !matches!(self.lane, Lane::Common)
    }

    /// Sends a connection down its own lane.
    pub(super) fn send(&mut self, handed: &Handed) -> Result<()> {
        let Lane::Open(to) = &self.lane else { return Err(forkyard_sys::Errno::PIPE) };
        handoff::send(to.as_fd(), handed)?;
        self.handed += 1;
        Ok(())
    }

    /// No more connections down its own lane.
    pub(super) fn retire(&mut self) {
        if let Lane::Open(to) = std::mem::replace(&mut self.lane, Lane::Closed) {
            // Both ways at once: what it would give back from now on stays with it.
            let _ = net::hang_up(&to);
            self.lane = Lane::Ended(to);
            self.leaving = true;
        }
    }

    /// The master's end of its own lane, while that may hold something.
    pub(super) fn lane(&self) -> Option<BorrowedFd<'_>> {
        match &self.lane {
            Lane::Open(to) | Lane::Ended(to) => Some(to.as_fd()),
            Lane::Common | Lane::Closed => None,
        }
    }

    /// A connection that it has given back: fd, line, number. A lane that is over is watched no longer.
    pub(super) fn take_returned(&mut self, epoll: &Epoll) -> Option<(OwnedFd, u32, u64)> {
        let mut ends = 0;
        while let Ok(packet) = handoff::receive(self.lane()?, false) {
            match packet {
                Packet::Returned(fd, index, number) => return Some((fd, index, number)),
                Packet::Nothing => return None,
                // The end of a worker that had not taken everything is told before what it sent.
                Packet::End if ends == 0 => ends += 1,
                Packet::End => {
                    // ENOENT: that is done already.
                    let _ = self.lane().map(|lane| epoll.remove(lane));
                    if matches!(self.lane, Lane::Ended(_)) {
                        self.lane = Lane::Closed;
                    }
                    return None;
                }
                _ => {}
            }
        }
        None
    }

    /// Asks it to give connections back, for another worker.
    pub(super) fn relieve(&mut self, to: u32) {
        if let Lane::Open(lane) = &self.lane {
            // No room: it is asked again while it says that it is busy.
            if handoff::send_relieve(lane.as_fd()).is_ok() {
                self.gives_to = Some(to);
            }
        }
    }

    /// Sends it a signal, unless it has ended.
    pub(super) fn signal(&self, signal: i32) {
        // ESRCH: it has ended, and will be reaped.
        let _ = pidfd::send_signal(self.pidfd.as_fd(), signal);
    }

    /// Its status, if it has ended.
    pub(super) fn try_reap(&self) -> Option<ExitStatus> {
        // ECHILD: somebody else's wait took the status, which is unknown then; it has ended all the same.
        wait::try_reap(self.pidfd.as_fd()).unwrap_or(Some(ExitStatus::UNKNOWN))
    }
}

/// Children by slot of the scoreboard.
pub(super) struct Children {
    slots: Vec<Option<Child>>,
    free: Vec<u32>,
    committed: usize,
    count: usize,
}

impl Children {
    pub(super) fn new(most: usize) -> Children {
        let free = (0..u32::try_from(most).unwrap_or(u32::MAX)).rev().collect();
        Children { slots: (0..most).map(|_| None).collect(), free, committed: 0, count: 0 }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.count
    }

    /// A slot for another one, with memory on the scoreboard; `None` if there is none.
    pub(super) fn reserve(&mut self, board: &Board) -> Option<u32> {
        let slot = self.free.pop()?;
        if slot as usize >= self.committed {
            if board.commit_child(slot as usize).is_err() {
                self.free.push(slot);
                return None;
            }
            self.committed = slot as usize + 1;
        }
        Some(slot)
    }

    /// Gives a reserved slot back.
    pub(super) fn give_back(&mut self, slot: u32) {
        self.free.push(slot);
    }

    /// Puts a child into a reserved slot.
    pub(super) fn insert(&mut self, slot: u32, child: Child) {
        if let Some(place) = self.slots.get_mut(slot as usize) {
            *place = Some(child);
            self.count += 1;
        }
    }

    pub(super) fn get(&self, slot: u32) -> Option<&Child> {
        self.slots.get(slot as usize)?.as_ref()
    }

    pub(super) fn get_mut(&mut self, slot: u32) -> Option<&mut Child> {
        self.slots.get_mut(slot as usize)?.as_mut()
    }

    pub(super) fn remove(&mut self, slot: u32) -> Option<Child> {
        let child = self.slots.get_mut(slot as usize)?.take()?;
        self.free.push(slot);
        self.count -= 1;
        Some(child)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &Child)> {
        self.slots.iter().enumerate().filter_map(|(slot, child)| Some((slot as u32, child.as_ref()?)))
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (u32, &mut Child)> {
        self.slots.iter_mut().enumerate().filter_map(|(slot, child)| Some((slot as u32, child.as_mut()?)))
    }
}

//! The built-in handlers in a prefork worker: many connections at once, by epoll.
//!
//! The worker has a lane of its own. It reads, changes in place and writes, without allocating, as long as
//! the client takes what is sent; what it does not take is kept, and nothing more is read from it meanwhile.
//! When the lane ends, the worker serves the connections it has and leaves.
//!
//! Killed here: its connections end with it, and the master frees every line that it had claimed.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use forkyard_sys::epoll::{Epoll, Interest};
use forkyard_sys::time::monotonic_ns;
use forkyard_sys::{Errno, Result, net};

use super::builtin::{Change, Over, ROOM};
use super::child::Desk;
use super::handoff::{self, Handed, Packet};
use super::scoreboard::{Cell, ChildState};

/// Key of the lane; a connection's key is its place plus one.
const LANE: u64 = 0;
const EVENTS: usize = 256;
/// Connections taken from the lane before those in service get their turn.
const TAKEN_AT_ONCE: usize = 16;

/// A connection in service.
struct Link {
    fd: OwnedFd,
    index: usize,
    number: u64,
    /// When it was claimed, and when something last happened; only kept if there are time-outs.
    since: u64,
    active: u64,
    /// What the client has not taken yet.
    unsent: Vec<u8>,
}

struct Worker<'a> {
    desk: &'a Desk<'a>,
    change: Change,
    epoll: Epoll,
    links: Vec<Option<Link>>,
    free: Vec<usize>,
    requests: u64,
    now: u64,
}

/// Serves what comes through the lane until it ends and nothing is left to serve.
pub(super) fn serve(desk: &Desk<'_>, lane: BorrowedFd<'_>, change: Change) -> Result<()> {
    let epoll = Epoll::new()?;
    epoll.add(lane, LANE, Interest::IN)?;
    let (links, free) = (Vec::new(), Vec::new());
    let mut worker = Worker { desk, change, epoll, links, free, requests: 0, now: 0 };
    worker.run(lane)
}

impl Worker<'_> {
    fn run(&mut self, lane: BorrowedFd<'_>) -> Result<()> {
        let mut ready = Vec::with_capacity(EVENTS);
        let mut buffer = Vec::with_capacity(ROOM);
        let tick = self.desk.tick();
        let mut open = true;
        self.desk.enter(ChildState::Idle);
        while open || self.links.len() > self.free.len() {
            self.epoll.wait(&mut ready, tick)?;
            if tick.is_some() {
                self.now = monotonic_ns();
            }
            for event in &ready {
                match usize::try_from(event.data.u64()).unwrap_or(0).checked_sub(1) {
                    Some(place) => self.attend(place, &mut buffer),
                    None => open = open && self.take(lane)?,
                }
            }
            if tick.is_some() {
                self.end_overdue();
            }
        }
        Ok(())
    }

    /// Takes new connections from the lane; false when it has ended.
    fn take(&mut self, lane: BorrowedFd<'_>) -> Result<bool> {
        for _ in 0..TAKEN_AT_ONCE {
            match handoff::receive(lane, false)? {
                Packet::Connection(handed) => self.begin(handed)?,
                Packet::Nothing => break,
                Packet::Quit | Packet::End => {
                    self.desk.enter(ChildState::Leaving);
                    self.epoll.remove(lane)?;
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    fn begin(&mut self, handed: Handed) -> Result<()> {
        let index = handed.index as usize;
        if !self.desk.claim(index, handed.number, handed.accepted) {
            return Ok(());
        }
        let place = self.free.pop().unwrap_or_else(|| {
            self.links.push(None);
            self.links.len() - 1
        });
        let link = Link {
            fd: handed.fd,
            index,
            number: handed.number,
            since: self.now,
            active: self.now,
            unsent: Vec::new(),
        };
        self.epoll.add(&link.fd, place as u64 + 1, Interest::IN)?;
        self.links[place] = Some(link);
        self.desk.enter(if self.desk.leaving() { ChildState::Leaving } else { ChildState::Busy });
        Ok(())
    }

    /// Something can be read from, or sent to, this connection.
    fn attend(&mut self, place: usize, buffer: &mut Vec<u8>) {
        let Some(Some(link)) = self.links.get_mut(place) else { return };
        link.active = self.now;
        let key = place as u64 + 1;
        let going_on = if link.unsent.is_empty() {
            link.answer(self.change, buffer, &self.epoll, key)
        } else {
            link.send_rest(&self.epoll, key)
        };
        match going_on {
            Ok(answered) => {
                self.requests += u64::from(answered);
                self.desk.set(Cell::Requests, self.requests);
            }
            Err(_) => self.end(place, Over::Finished),
        }
    }

    fn end(&mut self, place: usize, over: Over) {
        let Some(link) = self.links.get_mut(place).and_then(Option::take) else { return };
        // Closed first: whoever hears that it is over may count on it.
        drop(link.fd);
        self.free.push(place);
        self.desk.finish(link.index, link.number, over);
        if self.links.len() == self.free.len() && !self.desk.leaving() {
            self.desk.enter(ChildState::Idle);
        }
    }

    /// Ends connections whose idle or total time is over.
    fn end_overdue(&mut self) {
        let passed = |since: u64, most: Option<Duration>| {
            most.is_some_and(|most| u128::from(self.now.saturating_sub(since)) > most.as_nanos())
        };
        let settings = self.desk.settings;
        let overdue: Vec<usize> = (0..self.links.len())
            .filter(|&place| {
                self.links[place].as_ref().is_some_and(|link| {
                    passed(link.active, settings.idle) || passed(link.since, settings.total)
                })
            })
            .collect();
        for place in overdue {
            self.end(place, Over::TimedOut);
        }
    }
}

/// The connection is over.
struct Finished;

impl Link {
    /// Reads once and answers; true if it did.
    fn answer(
        &mut self,
        change: Change,
        buffer: &mut Vec<u8>,
        epoll: &Epoll,
        key: u64,
    ) -> std::result::Result<bool, Finished> {
        match net::receive_into(&self.fd, buffer, false) {
            Ok(0) => return Err(Finished),
            Ok(_) => {}
            Err(Errno::AGAIN) => return Ok(false),
            Err(_) => return Err(Finished),
        }
        change.apply(buffer);
        let sent = match net::send(&self.fd, buffer, false) {
            Ok(sent) => sent,
            Err(Errno::AGAIN) => 0,
            Err(_) => return Err(Finished),
        };
        if sent < buffer.len() {
            self.unsent.extend_from_slice(&buffer[sent..]);
            epoll.modify(self.fd.as_fd(), key, Interest::OUT).map_err(|_| Finished)?;
        }
        Ok(true)
    }

    /// Sends what the client did not take before.
    fn send_rest(&mut self, epoll: &Epoll, key: u64) -> std::result::Result<bool, Finished> {
        match net::send(&self.fd, &self.unsent, false) {
            Ok(sent) => drop(self.unsent.drain(..sent)),
            Err(Errno::AGAIN) => {}
            Err(_) => return Err(Finished),
        }
        if self.unsent.is_empty() {
            epoll.modify(self.fd.as_fd(), key, Interest::IN).map_err(|_| Finished)?;
        }
        Ok(false)
    }
}

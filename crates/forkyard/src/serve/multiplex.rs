//! The built-in handlers in a prefork worker: many connections at once, by epoll.
//!
//! The worker has a lane of its own. It reads, changes in place and writes, without allocating, as long as
//! the client takes what is sent; what it does not take is kept, and nothing more is read from it meanwhile.
//! When the lane ends, the worker serves the connections it has and leaves.
//!
//! A worker that has had no time to sleep for a while says so (`Pace`). Asked for it, it gives connections back: every second one
//! of those for which something has come, after answering it, so that what was read is never lost.
//!
//! Killed here: its connections end with it, and the master frees every line that it had claimed.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use forkyard_sys::epoll::{Epoll, Interest, Ready};
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
/// After so many events a look at the kernel is made without waiting: if it finds something, there was no time to sleep.
const SAMPLED: usize = 16;
/// For how long a worker has to be busy to say so, at least and at most.
const WINDOW_NS: std::ops::RangeInclusive<u64> = 100_000_000..=1_000_000_000;
/// How often it has to have looked in that time.
const SAMPLES: u32 = 4;

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
    received: u64,
    returned: u64,
    /// What comes next is to be given back, by half.
    relieved: bool,
    pace: Pace,
    now: u64,
    /// When it last looked for connections that are overdue.
    checked: u64,
}

/// Whether the worker has had something to do whenever it looked.
#[derive(Default)]
struct Pace {
    events: usize,
    samples: u32,
    empty: u32,
    since: u64,
}

/// Serves what comes through the lane until it ends and nothing is left to serve.
pub(super) fn serve(desk: &Desk<'_>, lane: BorrowedFd<'_>, change: Change) -> Result<()> {
    let epoll = Epoll::new()?;
    epoll.add(lane, LANE, Interest::IN)?;
    let (links, free) = (Vec::new(), Vec::new());
    let pace = Pace::default();
    let mut worker = Worker {
        desk,
        change,
        epoll,
        links,
        free,
        requests: 0,
        received: 0,
        returned: 0,
        relieved: false,
        pace,
        now: 0,
        checked: 0,
    };
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
            self.look(&mut ready, tick)?;
            if tick.is_some() {
                self.now = monotonic_ns();
            }
            let relieved = std::mem::take(&mut self.relieved) && open;
            for (at, event) in ready.iter().enumerate() {
                match usize::try_from(event.data.u64()).unwrap_or(0).checked_sub(1) {
                    Some(place) => {
                        self.attend(place, &mut buffer);
                        if relieved && at % 2 == 1 {
                            self.give_back(place, lane);
                        }
                    }
                    None => open = open && self.take(lane)?,
                }
            }
            if tick.is_some_and(|tick| u128::from(self.now - self.checked) >= tick.as_nanos()) {
                self.checked = self.now;
                self.end_overdue();
            }
        }
        Ok(())
    }

    /// Waits for something to do, and finds out now and then whether that takes any time.
    fn look(&mut self, ready: &mut Vec<Ready>, tick: Option<Duration>) -> Result<()> {
        let several = self.links.len() > self.free.len() + 1;
        if several && self.pace.is_due(ready.len()) {
            self.epoll.wait(ready, Some(Duration::ZERO))?;
            let now = monotonic_ns();
            if self.pace.note(!ready.is_empty(), now) {
                self.desk.tell_busy(now);
            }
            if !ready.is_empty() {
                return Ok(());
            }
        }
        self.epoll.wait(ready, tick)
    }

    /// Takes new connections from the lane; false when it has ended.
    fn take(&mut self, lane: BorrowedFd<'_>) -> Result<bool> {
        for _ in 0..TAKEN_AT_ONCE {
            let packet = handoff::receive(lane, false)?;
            self.received += 1;
            match packet {
                Packet::Connection(handed) => self.begin(handed),
                Packet::Relieve => self.relieved = true,
                Packet::Returned(..) => {}
                Packet::Nothing => {
                    self.received -= 1;
                    break;
                }
                Packet::Quit | Packet::End => {
                    self.desk.enter(ChildState::Leaving);
                    self.epoll.remove(lane)?;
                    return Ok(false);
                }
            }
        }
        self.desk.set(Cell::Received, self.received);
        Ok(true)
    }

    fn begin(&mut self, handed: Handed) {
        let index = handed.index as usize;
        if !self.desk.claim(index, handed.number, handed.accepted) {
            return;
        }
        let place = self.free.pop().unwrap_or_else(|| {
            self.links.push(None);
            self.links.len() - 1
        });
        let link = Link {
            fd: handed.fd,
            index,
            number: handed.number,
            since: if handed.accepted > 0 { self.now } else { self.desk.claimed_at(index) },
            active: self.now,
            unsent: Vec::new(),
        };
        let watched = self.epoll.add(&link.fd, place as u64 + 1, Interest::IN);
        self.links[place] = Some(link);
        if watched.is_err() {
            // No memory for it, or another worker gave back something that is no socket: one connection, not all.
            return self.end(place, Over::Finished);
        }
        self.desk.enter(if self.desk.leaving() { ChildState::Leaving } else { ChildState::Busy });
    }

    /// Gives a connection back to the master, unless something is still to be sent on it.
    fn give_back(&mut self, place: usize, lane: BorrowedFd<'_>) {
        let Some(Some(link)) = self.links.get(place) else { return };
        let number = u32::try_from(link.index).ok().filter(|_| link.unsent.is_empty());
        // Refused if the lane is over or full: then it stays here.
        if number.is_none_or(|index| handoff::send_back(lane, link.fd.as_fd(), index, link.number).is_err()) {
            return;
        }
        // Its other copy keeps it open, so closing alone would not do. ENOENT cannot be.
        let _ = self.epoll.remove(&link.fd);
        self.links[place] = None;
        self.free.push(place);
        self.returned += 1;
        self.desk.set(Cell::Returned, self.returned);
        self.idle_if_empty();
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
        // Closed first: whoever hears that it is over may count on it. Somebody else may have a copy, so it is not left to that to end the watch.
        let _ = self.epoll.remove(&link.fd);
        drop(link.fd);
        self.free.push(place);
        self.desk.finish(link.index, link.number, over);
        self.idle_if_empty();
    }

    fn idle_if_empty(&self) {
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

impl Pace {
    fn is_due(&mut self, events: usize) -> bool {
        self.events += events;
        let due = self.events >= SAMPLED;
        if due {
            self.events = 0;
        }
        due
    }

    /// Notes what a look found; true if a window is over in which next to none found nothing.
    fn note(&mut self, found: bool, now: u64) -> bool {
        if self.samples == 0 || now.saturating_sub(self.since) > *WINDOW_NS.end() {
            *self = Pace { since: now, ..Pace::default() };
        }
        self.samples += 1;
        self.empty += u32::from(!found);
        if now.saturating_sub(self.since) < *WINDOW_NS.start() || self.samples < SAMPLES {
            return false;
        }
        let busy = 8 * self.empty <= self.samples;
        *self = Pace::default();
        busy
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

#[cfg(test)]
mod tests {
    use super::{Pace, SAMPLED, WINDOW_NS};

    #[test]
    fn a_worker_is_busy_that_finds_something_almost_whenever_it_looks() {
        let told = |empty: fn(u64) -> bool| {
            let mut pace = Pace::default();
            (0..64).filter(|&at| pace.note(!empty(at), at * WINDOW_NS.start() / 10)).count()
        };
        assert_eq!(told(|_| false), 5, "once a window");
        assert_eq!(told(|at| at % 16 == 0), 5);
        assert_eq!(told(|at| at % 4 == 0), 0);
        assert_eq!(told(|_| true), 0);
    }

    #[test]
    fn a_long_sleep_is_not_a_busy_time() {
        let mut pace = Pace::default();
        assert!((0..3).all(|at| !pace.note(true, at)));
        assert!((0..3).all(|at| !pace.note(true, 10 * WINDOW_NS.end() + at)));
    }

    #[test]
    fn the_look_after_many_events_is_a_sample_and_few_have_to_add_up() {
        let mut pace = Pace::default();
        assert!(pace.is_due(10 * SAMPLED));
        assert_eq!((0..10 * SAMPLED).filter(|_| pace.is_due(1)).count(), 10);
    }
}

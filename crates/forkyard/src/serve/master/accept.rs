//! Taking connections in, and handing them to children.

use std::time::Instant;

use forkyard_sys::time::monotonic_ns;
use forkyard_sys::{Errno, net};

use super::super::event::Event;
use super::super::handoff::Handed;
use super::super::peer::Peer;
use super::super::scoreboard::{ConnectionState, Count};
use super::connections::Admission;
use super::stop::Phase;
use super::{Master, limit};
use crate::error::Error;

/// Connections accepted from one listener before others get their turn.
pub(super) const AT_ONCE: usize = 16;

impl Master {
    /// Accepts up to `most` connections; the number accepted.
    pub(super) fn accept_from(&mut self, index: usize, most: usize) -> usize {
        for done in 0..most {
            if !self.has_room() {
                return done;
            }
            let Some(listener) = self.listeners.get(index) else { return done };
            match net::accept(listener) {
                Ok((fd, end)) => {
                    self.accepts.succeeded();
                    match self.connections.admit(fd, Peer::from(end), monotonic_ns()) {
                        Admission::Admitted(handed) => self.hand_off_new(handed),
                        Admission::Parked | Admission::Refused => {}
                    }
                }
                Err(Errno::AGAIN) => return done,
                Err(errno) if limit::is_met(errno) => {
                    self.accepts.failed(Instant::now());
                    self.board.count(Count::Backoffs, 1);
                    self.report(&Event::BackedOff(Error::os("accept a connection", errno)));
                    return done;
                }
                // That one client went away before it was accepted.
                Err(_) => {}
            }
        }
        most
    }

    /// True while another connection may be accepted, also after a closer look at who has finished.
    pub(super) fn has_room(&mut self) -> bool {
        if !self.connections.has_room() {
            self.find_finished();
        }
        self.connections.has_room()
    }

    fn hand_off_new(&mut self, handed: Handed) {
        if self.connections.pending.is_empty() {
            self.hand_off(handed);
        } else {
            self.connections.pending.push_back(handed);
        }
    }

    /// Hands off what waits, as far as there are children for it.
    pub(super) fn hand_off_pending(&mut self) {
        while let Some(handed) = self.connections.pending.pop_front() {
            if !self.hand_off(handed) {
                return;
            }
        }
    }

    /// Hands a connection to a child; false if there is none, and the connection is the first pending one.
    fn hand_off(&mut self, handed: Handed) -> bool {
        let (index, number) = (handed.index as usize, handed.number);
        let sent = if self.shared { self.send_shared(&handed) } else { self.send_to_least(&handed) };
        match sent {
            Some((generation, child)) => {
                let now = monotonic_ns();
                self.connections.hand_off(index, now, generation, child);
                if let Some(total) = self.config.total_timeout.filter(|_| self.shared) {
                    let at = now.saturating_add(u64::try_from(total.as_nanos()).unwrap_or(u64::MAX));
                    self.overdue.push_back((at, index, number));
                }
                true
            }
            None => {
                self.connections.pending.push_front(handed);
                false
            }
        }
    }

    fn send_shared(&mut self, handed: &Handed) -> Option<(u64, Option<u32>)> {
        if self.current()?.idle() == 0 && !self.settings.once {
            self.find_finished();
        }
        let generation = self.current()?;
        if generation.idle() == 0 {
            return None;
        }
        // No room in the lane for now: the connection stays pending, and is tried again.
        generation.send(handed).ok()?;
        Some((generation.id, None))
    }

    /// Sends to the worker with the fewest connections.
    fn send_to_least(&mut self, handed: &Handed) -> Option<(u64, Option<u32>)> {
        self.note_finished_of_workers();
        let open = self.children.iter_mut().filter(|(_, child)| child.is_open());
        let (slot, child) = open.min_by_key(|(_, child)| child.unfinished)?;
        child.send(handed).ok()?;
        let generation = child.generation;
        if child.most > 0 && child.handed >= child.most {
            child.retire();
        }
        Some((generation, Some(slot)))
    }

    /// Finds connections that are over without their child having ended, and those whose line was spoilt.
    pub(super) fn find_finished(&mut self) {
        let over: Vec<usize> = self
            .connections
            .handed()
            .filter(|(index, entry)| {
                let tag = self.board.tag(*index);
                match tag.state {
                    _ if tag.number != entry.number => true,
                    ConnectionState::Done | ConnectionState::Free => true,
                    ConnectionState::Serving => self.children.get(tag.child).is_none(),
                    ConnectionState::Handed => false,
                }
            })
            .map(|(index, _)| index)
            .collect();
        for index in over {
            self.connection_over(index);
        }
    }

    /// Frees a connection's line and the place that it took.
    pub(super) fn connection_over(&mut self, index: usize) {
        let Some(entry) = self.connections.end(index) else { return };
        self.starts.hurry();
        self.accepts.hurry();
        let Some((_, generation)) = entry.handed else { return };
        match entry.child {
            Some(slot) => {
                if let Some(child) = self.children.get_mut(slot) {
                    child.unfinished = child.unfinished.saturating_sub(1);
                }
            }
            None => {
                if let Some(generation) = self.generation(generation) {
                    generation.unfinished = generation.unfinished.saturating_sub(1);
                }
            }
        }
    }

    /// Asks children to say when a connection is over, exactly while somebody waits for that.
    pub(super) fn keep_bell(&mut self) {
        let waiting = !self.connections.pending.is_empty()
            || self.connections.parked() > 0
            || !self.connections.has_room()
            || self.phase != Phase::Running;
        let wanted = waiting && !self.settings.once;
        if wanted {
            // The wish first, then the look: what ends in between rings.
            self.board.want_bell(true);
            self.find_finished();
        } else if self.board.fact(super::Fact::Bell) != 0 {
            self.board.want_bell(false);
        }
    }

    /// Gives up packets that nobody will claim: their receiver was killed between receiving and claiming.
    pub(super) fn give_up_unclaimed(&mut self) {
        if self.give_up_at.is_none_or(|at| at > Instant::now()) {
            return;
        }
        self.give_up_at = None;
        let unclaimed: Vec<usize> = self
            .connections
            .handed()
            .map(|(index, _)| index)
            .filter(|index| self.board.tag(*index).state == ConnectionState::Handed)
            .collect();
        for index in unclaimed {
            let tag = self.board.tag(index);
            let free = super::super::scoreboard::Tag { state: ConnectionState::Free, ..tag };
            if tag.state == ConnectionState::Handed && self.board.change_tag(index, tag, free) {
                self.board.count(Count::Lost, 1);
                self.connection_over(index);
            }
        }
    }
}

//! Taking connections in, and handing them to children.

use std::time::Instant;

use forkyard_sys::time::monotonic_ns;
use forkyard_sys::{Errno, net};

use super::super::event::Event;
use super::super::handoff::Handed;
use super::super::peer::Peer;
use super::super::scoreboard::{Bell, ConnectionState, Count};
use super::connections::Admission;
use super::generation::Generation;
use super::stop::Phase;
use super::{Master, limit};
use crate::error::Error;

/// Connections accepted from one listener before others get their turn.
pub(super) const AT_ONCE: usize = 16;
/// How long a packet may stay unclaimed before it is sent again. A child needs microseconds.
pub(super) const UNCLAIMED_NS: u64 = 100_000_000;

impl Master {
    /// Accepts up to `most` connections; the number accepted.
    pub(super) fn accept_from(&mut self, index: usize, most: usize) -> usize {
        for done in 0..most {
            if !self.has_room() {
                return done;
            }
            // Connections must not take the last descriptors: then no child could be started for them.
            if let Some(Err(error)) = self.current().map(Generation::keep_room) {
                self.defer_accepting(error);
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
                    self.defer_accepting(Error::os("accept a connection", errno));
                    return done;
                }
                // That one client went away before it was accepted.
                Err(_) => {}
            }
        }
        most
    }

    fn defer_accepting(&mut self, error: Error) {
        self.accepts.failed(Instant::now());
        self.board.count(Count::Backoffs, 1);
        self.report(&Event::BackedOff(error));
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
        if self.is_taken(&handed) {
            if self.connections.get(index).is_some_and(|entry| entry.number == number) {
                self.connections.keep_copy(handed);
            }
            return true;
        }
        if self.program.is_some() {
            let waits = self.execute(handed);
            let done = waits.is_none();
            self.connections.pending.extend(waits);
            self.connections.pending.rotate_right(usize::from(!done));
            return done;
        }
        let sent = if self.shared { self.send_shared(&handed) } else { self.send_to_worker(&handed) };
        let Some((generation, child)) = sent else {
            let waits = if self.executes_at_need() { self.execute_small(handed) } else { Some(handed) };
            let done = waits.is_none();
            if let Some(handed) = waits {
                self.connections.pending.push_front(handed);
            }
            return done;
        };
        let now = monotonic_ns();
        self.connections.hand_off(handed, now, generation, child);
        self.limit_time(index, number, now);
        true
    }

    /// Has a connection ended when its total time is over.
    pub(super) fn limit_time(&mut self, index: usize, number: u64, handed: u64) {
        // Workers that multiplex keep the time themselves.
        if let Some(total) = self.config.total_timeout.filter(|_| self.shared) {
            let at = handed.saturating_add(u64::try_from(total.as_nanos()).unwrap_or(u64::MAX));
            let place = self.overdue.partition_point(|(other, ..)| *other <= at);
            self.overdue.insert(place, (at, index, number));
        }
    }

    /// True if a pending connection, which was handed off once before, was claimed then after all, or is over.
    fn is_taken(&mut self, handed: &Handed) -> bool {
        let index = handed.index as usize;
        if self.connections.get(index).is_none_or(|entry| entry.number != handed.number) {
            return true;
        }
        let tag = self.board.tag(index);
        if tag.state == ConnectionState::Handed {
            return false;
        }
        let claimer = self.children.get_mut(tag.child).map(|child| (child.generation, child.has_lane()));
        let (generation, own) = claimer.unwrap_or((0, false));
        self.connections.was_claimed(index, monotonic_ns(), generation, own.then_some(tag.child));
        if let Some(generation) = self.generation(generation).filter(|_| !own) {
            generation.unfinished += 1;
        }
        true
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

    /// Sends to the worker that `workers.rs` chooses.
    fn send_to_worker(&mut self, handed: &Handed) -> Option<(u64, Option<u32>)> {
        let slot = self.worker_for(handed)?;
        let child = self.children.get_mut(slot)?;
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
        if entry.child.is_some() {
            return;
        }
        if let Some(generation) = self.generation(generation) {
            generation.unfinished = generation.unfinished.saturating_sub(1);
        }
    }

    /// Asks children to say when a connection is over, exactly while somebody waits for that; and when one is
    /// claimed, if the master is about to sleep with a copy of it.
    pub(super) fn set_bells(&mut self, sleeping: bool) {
        let waiting = !self.connections.pending.is_empty()
            || self.connections.parked() > 0
            || !self.connections.has_room()
            || self.connections.has_copies()
            || self.phase != Phase::Running;
        let mut wanted = 0;
        if waiting && !self.settings.once {
            wanted |= Bell::Finished as u64;
        }
        if sleeping && self.connections.has_unclaimed() {
            wanted |= Bell::Claimed as u64;
        }
        self.board.want_bells(wanted);
        // The wish first, then the look: what happens in between rings.
        if wanted & Bell::Finished as u64 != 0 {
            self.find_finished();
        }
        if wanted & Bell::Claimed as u64 != 0 {
            self.connections.drop_claimed();
        }
    }

    /// Hands off again what no child has claimed for too long: its receiver was stopped, perhaps. One child more makes
    /// sure that there is somebody to take it.
    pub(super) fn hurry_unclaimed(&mut self) {
        let Some(since) = self.connections.unclaimed_since() else { return };
        if monotonic_ns().saturating_sub(since) < UNCLAIMED_NS {
            return;
        }
        self.connections.drop_claimed();
        if !self.shared {
            return self.hurry_workers();
        }
        if self.connections.unclaimed_since() == Some(since) && self.may_start() {
            self.take_back(None);
            if let Err(error) = self.start_common(1) {
                self.back_off(error);
            }
        }
    }

    /// Makes what was handed off and not claimed pending again; the lane that it was sent down is emptied or gone.
    pub(super) fn take_back(&mut self, child: Option<u32>) {
        if !self.connections.has_unclaimed() {
            return;
        }
        if child.is_none() {
            for generation in &mut self.generations {
                generation.empty_lane();
            }
        }
        for id in self.connections.take_back(child) {
            if let Some(generation) = self.generation(id).filter(|_| child.is_none()) {
                generation.unfinished = generation.unfinished.saturating_sub(1);
            }
        }
    }

    /// After the last child: whatever is still on the books was lost.
    pub(super) fn give_up_rest(&mut self) {
        self.find_finished();
        let indices: Vec<usize> = self.connections.handed().map(|(index, _)| index).collect();
        for index in indices {
            self.board.count(Count::Lost, 1);
            self.connection_over(index);
        }
    }
}

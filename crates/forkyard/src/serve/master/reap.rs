//! Starting children, and seeing them end.

use std::time::{Duration, Instant};

use forkyard_sys::epoll::Interest;
use forkyard_sys::socket;
use forkyard_sys::time::monotonic_ns;
use forkyard_sys::wait::{Ending, ExitStatus};

use super::super::config::Mode;
use super::super::event::Event;
use super::super::scoreboard::{Cell, ChildState, ConnectionState, Count, Fact, Shared, Words};
use super::children::Child;
use super::generation::Generation;
use super::stop::Phase;
use super::{Key, Master};
use crate::error::{Error, Kind, Result};
use crate::process::runtime;

/// Children started before the loop looks at its events again.
pub(super) const STARTS_AT_ONCE: usize = 8;
const SIGTERM: i32 = 15;
const SIGKILL: i32 = 9;
/// A zygote that lived so long did not die of itself.
const ZYGOTE_LASTED: Duration = Duration::from_secs(1);
/// From TERM to KILL for a connection that took too long.
const TERM_TO_KILL_NS: u64 = 2_000_000_000;

impl Master {
    /// Makes a new generation the current one; the one before retires.
    pub(super) fn add_generation(&mut self) -> Result<()> {
        let id = self.next_generation;
        let new = Generation::new(id, &self.board, &self.bell, &self.settings, self.shared)?;
        self.next_generation += 1;
        if let Some(old) = self.generations.last_mut() {
            old.retire();
        }
        for (_, child) in self.children.iter_mut() {
            child.retire();
        }
        self.generations.retain(|generation| generation.living > 0);
        self.generations.push(new);
        self.board.set_fact(Fact::Zygote, 0);
        self.prepare_program()?;
        self.watch_zygote()
    }

    /// Has the death of the current zygote reported, which may be another one than before.
    fn watch_zygote(&mut self) -> Result<()> {
        let zygote = self.generations.last().and_then(Generation::zygote).unwrap_or(0);
        if u64::from(zygote) == self.board.fact(Fact::Zygote) {
            return Ok(());
        }
        self.board.set_fact(Fact::Zygote, u64::from(zygote));
        if zygote == 0 {
            self.zygote_died = true;
            return Ok(());
        }
        self.zygote_since = Instant::now();
        if std::mem::take(&mut self.zygote_died) {
            self.board.count(Count::Restarted, 1);
            self.report(&Event::ZygoteRevived { pid: zygote });
        }
        let Some(pidfd) = self.generations.last().and_then(Generation::pidfd) else { return Ok(()) };
        let watched = self.epoll.add(pidfd, Key::Zygote.word(), Interest::IN);
        watched.map_err(|errno| Error::os("watch the server's zygote", errno))
    }

    /// A zygote has died. If it is the current one, another takes its place; children notice nothing.
    pub(super) fn zygote_event(&mut self) {
        let Some((current, old)) = self.generations.split_last_mut() else { return };
        for generation in old {
            generation.lose_dead_zygote();
        }
        if current.lose_dead_zygote() {
            self.zygote_died = true;
            self.board.set_fact(Fact::Zygote, 0);
            // One that keeps dying is not made faster and faster.
            if self.zygote_since.elapsed() < ZYGOTE_LASTED {
                self.zygotes.failed(Instant::now());
            } else {
                self.zygotes.succeeded();
            }
        }
    }

    /// Makes the current generation's zygote again, if it has died.
    pub(super) fn keep_zygote(&mut self) -> Result<()> {
        if self.zygotes.pending(Instant::now()).is_some() || self.phase != Phase::Running {
            return Ok(());
        }
        match self.generations.last_mut() {
            Some(current) if current.is_open() && current.zygote().is_none() => {
                current.revive()?;
                self.watch_zygote()
            }
            _ => Ok(()),
        }
    }

    /// True if children should be there that are not.
    pub(super) fn has_missing(&self) -> bool {
        self.missing() > 0
    }

    fn missing(&self) -> usize {
        if self.program.is_some() {
            return 0;
        }
        let Some(current) = self.generations.last() else { return 0 };
        let pending = self.connections.pending.len();
        let running = self.phase == Phase::Running;
        match self.config.mode {
            Mode::Process => {
                let wanted = if running { self.target + pending } else { pending };
                wanted.saturating_sub(current.idle())
            }
            Mode::Prefork => {
                let there = match self.shared {
                    true => current.living.saturating_sub(current.quits),
                    false => self.children.iter().filter(|(_, child)| child.is_open()).count(),
                };
                let wanted = if running { self.target } else { self.target.min(pending) };
                wanted.saturating_sub(there)
            }
        }
    }

    /// True while children may be started: a stop that waits for the last pending connections still may.
    pub(super) fn may_start(&self) -> bool {
        matches!(self.phase, Phase::Running | Phase::Draining(_))
    }

    /// Starts children that should be there, at most so many.
    pub(super) fn start_missing(&mut self, most: usize) -> Result<()> {
        let now = Instant::now();
        if self.starts.pending(now).is_some() || self.zygotes.pending(now).is_some() {
            return Ok(());
        }
        let missing = self.missing().min(most);
        if missing == 0 {
            return Ok(());
        }
        if !self.generations.last().is_some_and(Generation::is_open) {
            // A connection came back from a child that died while the last generation was leaving.
            self.add_generation()?;
        }
        if self.shared { self.start_common(missing) } else { (0..missing).try_for_each(|_| self.start_own()) }
    }

    /// Starts children on the common lane.
    pub(super) fn start_common(&mut self, count: usize) -> Result<()> {
        let mut births = Vec::with_capacity(count);
        for _ in 0..count {
            match self.prepare_slot() {
                Ok(slot) => births.push((slot, self.requests_for_one())),
                Err(error) if births.is_empty() => return Err(error),
                Err(_) => break,
            }
        }
        let count = births.len();
        // What waits is sent first: a child that finds its packet there need not sleep and be woken.
        if let Some(generation) = self.generations.last_mut() {
            generation.coming = count;
        }
        self.hand_off_pending();
        let Some(generation) = self.generations.last_mut() else { return Ok(()) };
        generation.coming = 0;
        let (started, error) = generation.start_many(&births);
        for &(slot, _) in births.iter().skip(started.len()).rev() {
            self.forget_slot(slot);
        }
        self.note_zygote_of_start()?;
        for (child, (slot, _)) in started.into_iter().zip(births) {
            self.launches.extend(child.launch.is_some().then_some(slot));
            self.watch_child(slot, child)?;
        }
        self.settle_launches();
        error.map_or(Ok(()), Err)
    }

    /// Starts a worker with a lane of its own.
    fn start_own(&mut self) -> Result<()> {
        let (to, from) = socket::pair().map_err(|errno| Error::os("make a worker's lane", errno))?;
        let slot = self.prepare_slot()?;
        let most = self.requests_for_one();
        let Some(generation) = self.generations.last_mut() else { return Ok(()) };
        let id = generation.id;
        match generation.start_with_lane(slot, from) {
            Ok(started) => {
                self.note_zygote_of_start()?;
                self.watch_child(slot, Child::new(started, id, Some(to), most))
            }
            Err(error) => {
                self.forget_slot(slot);
                Err(error)
            }
        }
    }

    pub(super) fn prepare_slot(&mut self) -> Result<u32> {
        let Some(slot) = self.children.reserve(&self.board) else {
            let why = "there are too many children already".to_owned();
            return Err(Error::new("start a child of the server", Kind::Invalid(why)));
        };
        let place = slot as usize;
        self.board.clear_child(place);
        self.board.set_child_state(place, ChildState::Starting);
        self.board.set_cell(place, Cell::Started, monotonic_ns());
        Ok(slot)
    }

    pub(super) fn forget_slot(&mut self, slot: u32) {
        self.board.clear_child(slot as usize);
        self.children.give_back(slot);
    }

    pub(super) fn watch_child(&mut self, slot: u32, child: Child) -> Result<()> {
        self.board.set_cell(slot as usize, Cell::Pid, u64::from(child.pid));
        let mut watched = self.epoll.add(child.pidfd(), Key::Child(slot).word(), Interest::IN);
        if let Some(lane) = child.lane() {
            watched = watched.and_then(|()| self.epoll.add(lane, Key::Lane(slot).word(), Interest::IN));
        }
        self.children.insert(slot, child);
        self.board.count(Count::Started, 1);
        watched.map_err(|errno| Error::os("watch a child of the server", errno))
    }

    /// The zygote may have been found dead by a start, and been made anew for it.
    pub(super) fn note_zygote_of_start(&mut self) -> Result<()> {
        let before = self.board.fact(Fact::Zygote);
        let now = self.generations.last().and_then(Generation::zygote).map_or(0, u64::from);
        self.zygote_died |= before != 0 && before != now;
        self.watch_zygote()
    }

    /// After how many connections the next worker is to be replaced; 0 for never.
    fn requests_for_one(&self) -> u64 {
        let Some(most) = self.config.max_requests.filter(|_| self.config.mode == Mode::Prefork) else {
            return 0;
        };
        // Spread, not secrecy, is what is wanted of this number.
        let mut x = monotonic_ns() ^ self.board.counted(Count::Started).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        x = (x ^ (x >> 31)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        x ^= x >> 29;
        most.saturating_add(x % self.config.max_requests_jitter.saturating_add(1))
    }

    /// A child's pidfd is readable: it has ended.
    pub(super) fn child_event(&mut self, slot: u32) {
        let Some(status) = self.children.get(slot).and_then(Child::try_reap) else { return };
        self.settle_launch(slot);
        // What it gave back lives on.
        self.take_returned(slot, usize::MAX);
        let Some(child) = self.children.remove(slot) else { return };
        // The zygote may hold a duplicate, so closing alone would not do. ENOENT: it was never watched.
        let _ = self.epoll.remove(child.pidfd());
        let _ = child.lane().map(|lane| self.epoll.remove(lane));
        if let (Some(outcome), Ok(runtime)) = (child.outcome, runtime::get()) {
            runtime.board.release(outcome);
        }
        let place = slot as usize;
        let state = self.board.child_state(place);
        let taken = self.board.cell(place, Cell::Taken);
        self.board.count_shared(Shared::Requests, self.board.cell(place, Cell::Requests));
        let number = self.end_claims(slot, &child, &status);
        // It may have received what nobody has claimed, or been the only one that was woken for it.
        self.take_back(child.has_lane().then_some(slot));
        self.board.clear_child(place);
        if let Some(generation) = self.generation(child.generation) {
            generation.living = generation.living.saturating_sub(1);
            if state == ChildState::Leaving {
                generation.quits = generation.quits.saturating_sub(1);
            }
        }
        self.note_end(&child, status, number, taken > 0);
        let current = self.generations.last().map_or(0, |generation| generation.id);
        self.generations.retain(|generation| generation.living > 0 || generation.id == current);
    }

    /// Frees what a dead child had claimed; the number of a connection that it took down.
    fn end_claims(&mut self, slot: u32, child: &Child, status: &ExitStatus) -> Option<u64> {
        let mine = |master: &Master, index: usize| {
            let tag = master.board.tag(index);
            let entry = master.connections.get(index)?;
            let claimed = matches!(tag.state, ConnectionState::Serving | ConnectionState::Done);
            let serving = tag.state == ConnectionState::Serving;
            (claimed && tag.child == slot && tag.number == entry.number).then_some((serving, tag.number))
        };
        let last = self.board.cell(slot as usize, Cell::Connection).checked_sub(1);
        let last = last.and_then(|index| usize::try_from(index).ok());
        let indices: Vec<usize> = match last.filter(|&index| mine(self, index).is_some()) {
            // It had one at a time: this one.
            Some(index) if self.shared && child.generation != 0 => vec![index],
            _ => self.connections.handed().map(|(index, _)| index).collect(),
        };
        let mut lost = None;
        for index in indices {
            let Some((serving, number)) = mine(self, index) else { continue };
            if serving {
                if child.refused {
                    // Told already, and counted when its status is looked at.
                } else if child.timed_out {
                    self.board.count(Count::Timeouts, 1);
                } else if matches!(status.ending(), Ending::Exited(_))
                    && (self.settings.once || child.generation == 0)
                {
                    // A program, a handler that called exit, or a child that writes on another scoreboard:
                    // its end is the connection's.
                    self.board.count(Count::ServedBefore, 1);
                    self.board.note_end(index);
                } else {
                    self.board.count(Count::Lost, 1);
                    lost = lost.or(Some(number));
                }
            }
            self.connection_over(index);
        }
        lost
    }

    /// Counts an end, and says so if it was not meant.
    fn note_end(&mut self, child: &Child, status: ExitStatus, connection: Option<u64>, had_claimed: bool) {
        if had_claimed {
            self.starts.succeeded();
        }
        self.starts_may_go_on();
        let unexpected = match status.ending() {
            Ending::Signaled { signal, .. } => {
                self.board.count_signal(usize::try_from(signal).unwrap_or(0), 1);
                true
            }
            Ending::Exited(0) => false,
            Ending::Exited(_) => {
                self.board.count(Count::Failed, 1);
                !self.settings.once || !had_claimed
            }
            Ending::Unknown => false,
        };
        if !unexpected || child.timed_out || !self.may_start() {
            return;
        }
        if self.config.mode == Mode::Prefork {
            self.board.count(Count::Restarted, 1);
        }
        if !had_claimed {
            self.starts.failed(Instant::now());
        }
        let pid = child.pid;
        self.report(&Event::ChildDied { pid, status, connection });
    }

    /// A process has gone: what a limit on processes kept from starting may start now.
    fn starts_may_go_on(&mut self) {
        self.accepts.hurry();
    }

    /// Ends the processes of connections that take too long: TERM, then KILL.
    pub(super) fn end_overdue(&mut self) {
        let now = monotonic_ns();
        while let Some((at, index, number)) = self.overdue.front().copied().filter(|(at, ..)| *at <= now) {
            self.overdue.pop_front();
            let tag = self.board.tag(index);
            let same = self.connections.get(index).is_some_and(|entry| entry.number == number);
            if !same || tag.number != number || tag.state != ConnectionState::Serving {
                continue;
            }
            let Some(child) = self.children.get_mut(tag.child) else { continue };
            child.signal(if child.timed_out { SIGKILL } else { SIGTERM });
            if !child.timed_out {
                child.timed_out = true;
                let again = (at.max(now) + TERM_TO_KILL_NS, index, number);
                let place = self.overdue.partition_point(|(other, ..)| *other <= again.0);
                self.overdue.insert(place, again);
            }
        }
    }

    /// Fresh children from a fresh zygote; the old ones finish what they serve.
    pub(super) fn reload(&mut self) {
        if self.phase != Phase::Running {
            return;
        }
        match self.add_generation() {
            Ok(()) => {
                let generation = self.board.fact(Fact::Generation) + 1;
                self.board.set_fact(Fact::Generation, generation);
                self.report(&Event::Reloaded { generation });
            }
            Err(error) => self.back_off(error),
        }
    }

    /// Keeps another number of workers, or spares, from now on.
    pub(super) fn set_target(&mut self, target: usize) {
        let target = target.clamp(1, super::super::config::MOST);
        if target == self.target || self.phase != Phase::Running {
            return;
        }
        self.target = target;
        self.report(&Event::Workers(target));
        while self.surplus() > 0 {
            if self.shared {
                match self.current() {
                    Some(current) => current.send_quit(),
                    None => return,
                }
            } else {
                self.count_unfinished();
                let open = self.children.iter_mut().filter(|(_, child)| child.is_open());
                match open.min_by_key(|(_, child)| child.unfinished) {
                    Some((_, child)) => child.retire(),
                    None => return,
                }
            }
        }
    }

    fn surplus(&self) -> usize {
        let there = match (self.config.mode, self.shared, self.generations.last()) {
            (_, _, None) => 0,
            (Mode::Process, _, Some(current)) => current.idle(),
            (Mode::Prefork, true, Some(current)) => current.living.saturating_sub(current.quits),
            (Mode::Prefork, false, _) => self.children.iter().filter(|(_, child)| child.is_open()).count(),
        };
        there.saturating_sub(self.target)
    }
}

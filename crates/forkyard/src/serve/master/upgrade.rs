//! The upgrade in place: a trial run, then this image makes way; and the other side, taking over.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use forkyard_sys::epoll::Interest;
use forkyard_sys::exec::Spawned;
use forkyard_sys::{Errno, handover, mask, wait};

use super::super::event::Event;
use super::super::handoff::Handed;
use super::super::peer::Peer;
use super::super::scoreboard::{Cell, ChildState, ConnectionState, Fact, Words};
use super::super::upgrade::{self, KeptChild, KeptConnection, Served, State};
use super::children::Child;
use super::stop::Phase;
use super::{Key, Master};
use crate::error::{Error, Kind, Result};

/// How long the trial run may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often connections and counts are read, at most, for two readings that agree.
const READINGS: usize = 100;
const SIGKILL: i32 = 9;

/// A trial run of the program's file.
pub(super) struct Probe {
    process: Spawned,
    until: Instant,
}

impl Probe {
    pub(super) fn until(&self) -> Instant {
        self.until
    }
}

impl Master {
    /// Begins the upgrade with a trial run.
    pub(super) fn upgrade(&mut self) {
        if self.phase != Phase::Running || self.probe.is_some() {
            return;
        }
        match self.begin_probe() {
            Ok(probe) => self.probe = Some(probe),
            Err(error) => self.report(&Event::UpgradeFailed(error)),
        }
    }

    fn begin_probe(&mut self) -> Result<Probe> {
        if !handover::in_first_thread() {
            let why = "the server does not run in the process's first thread, the only one that exec leaves"
                .to_owned();
            return Err(Error::new("upgrade", Kind::Invalid(why)));
        }
        let process = upgrade::probe()?;
        let watched = self.epoll.add(&process.pidfd, Key::Probe.word(), Interest::IN);
        let probe = Probe { process, until: Instant::now() + PATIENCE };
        match watched {
            Ok(()) => Ok(probe),
            Err(errno) => {
                probe.end();
                Err(Error::os("watch the trial run", errno))
            }
        }
    }

    /// The trial run has ended, or takes too long.
    pub(super) fn probe_event(&mut self) {
        let Some(probe) = &self.probe else { return };
        let status = match wait::try_reap(probe.process.pidfd.as_fd()) {
            Ok(None) if probe.until > Instant::now() => return,
            Ok(None) => None,
            Ok(Some(status)) => Some(status),
            Err(_) => Some(wait::ExitStatus::UNKNOWN),
        };
        let Some(probe) = self.probe.take() else { return };
        // ENOENT cannot be: it was watched.
        let _ = self.epoll.remove(&probe.process.pidfd);
        match status {
            Some(status) if status.success() => self.replace_program(),
            Some(status) => {
                let why = format!("its trial run did not come as far as opening listeners: {status}");
                let error = Error::new("try the program's file", Kind::Invalid(why));
                self.report(&Event::UpgradeFailed(error));
            }
            None => {
                probe.end();
                self.report(&Event::UpgradeFailed(Error::new("try the program's file", Kind::TimedOut)));
            }
        }
    }

    /// Leaves everything to the program's file. Comes back only if that could not be executed.
    fn replace_program(&mut self) {
        // Whoever hears of it may block signals for the time being.
        let mask = mask::current();
        self.report(&Event::Upgrading);
        self.end_page();
        self.retire_all();
        let slots: Vec<u32> = self.children.iter().map(|(slot, _)| slot).collect();
        slots.into_iter().for_each(|slot| self.take_returned(slot, usize::MAX));
        for generation in &mut self.generations {
            generation.end_zygote();
        }
        self.find_finished();
        self.connections.reclaim();
        let state = self.state(mask);
        let mut fds: Vec<BorrowedFd<'_>> = self.listeners.iter().map(AsFd::as_fd).collect();
        fds.extend(self.page.as_ref().map(|page| page.listener.as_fd()));
        fds.extend(self.children.iter().map(|(_, child)| child.pidfd().as_fd()));
        fds.extend(self.connections.held().iter().map(|held| held.fd.as_fd()));
        let error = upgrade::replace(&state, &fds);
        self.connections.announce_held();
        self.report(&Event::UpgradeFailed(error));
        if let Err(error) = self.add_generation() {
            self.back_off(error);
        }
    }

    fn state(&self, mask: u64) -> State {
        let page = self.page.as_ref().zip(self.config.status);
        let page = page.map(|(page, asked)| (asked.to_string(), page.listener.as_fd()));
        let mut state = State::new(mask, &self.listeners, page);
        state.next_number = self.connections.next_number();
        state.generation = self.board.fact(Fact::Generation);
        state.started = self.board.fact(Fact::Started);
        let serving = || -> Vec<(usize, u32)> {
            let tags = self.connections.handed().map(|(index, _)| (index, self.board.tag(index)));
            let serving = tags.filter(|(_, tag)| tag.state == ConnectionState::Serving);
            serving.map(|(index, tag)| (index, tag.child)).collect()
        };
        // What is over is among the counts, what is not will be counted by the next image: read while none of it changes.
        let (mut before, mut served) = (Vec::new(), serving());
        for _ in 0..READINGS {
            if before == served && !state.counts.is_empty() {
                break;
            }
            state.counts = self.board.export();
            before = std::mem::replace(&mut served, serving());
        }
        for (slot, child) in self.children.iter() {
            let own = served.iter().filter(|(_, child)| *child == slot);
            let own = own.filter_map(|&(index, _)| self.connections.get(index));
            let serving = own.map(|entry| Served {
                number: entry.number,
                peer: entry.peer.words(),
                accepted: entry.accepted,
                handed: entry.handed.map_or(0, |(at, _)| at),
            });
            let pidfd = upgrade::number(child.pidfd().as_fd());
            state.children.push(KeptChild { pid: child.pid, pidfd, connections: serving.collect() });
        }
        for held in self.connections.held() {
            state.held.push(KeptConnection {
                fd: upgrade::number(held.fd.as_fd()),
                number: held.number,
                peer: held.peer.words(),
                accepted: held.accepted,
            });
        }
        state
    }

    /// Takes over what the image before this one left, if it left anything.
    pub(super) fn take_over(&mut self) -> Result<()> {
        let Some(state) = upgrade::take() else { return Ok(()) };
        upgrade::let_signals_through(&state);
        self.board.import(&state.counts);
        self.board.set_fact(Fact::Started, state.started);
        self.board.set_fact(Fact::Generation, state.generation + 1);
        self.connections.count_from(state.next_number);
        for child in state.children {
            self.adopt(child)?;
        }
        for held in state.held {
            let fd = handover::take(held.fd).map_err(|e| Error::os("take over a connection", e))?;
            self.connections.readmit(fd, held.number, Peer::from_words(held.peer), held.accepted);
        }
        Ok(())
    }

    /// Takes over a child: it is this process's still.
    fn adopt(&mut self, kept: KeptChild) -> Result<()> {
        let what = "take over a child";
        let pidfd = handover::take(kept.pidfd).map_err(|e| Error::os(what, e))?;
        let slot = self.children.reserve(&self.board).ok_or_else(|| Error::os(what, Errno::NOMEM))?;
        let place = slot as usize;
        self.board.clear_child(place);
        self.board.set_cell(place, Cell::Pid, u64::from(kept.pid));
        self.board.set_cell(place, Cell::Taken, kept.connections.len() as u64);
        self.board.set_child_state(place, ChildState::Leaving);
        self.board.set_cell(place, Cell::Started, forkyard_sys::time::monotonic_ns());
        for one in kept.connections {
            let peer = Peer::from_words(one.peer);
            let Some(index) = self.connections.adopt(one.number, peer, one.accepted, one.handed, slot) else {
                continue;
            };
            self.board.set_cell(place, Cell::Connection, index as u64 + 1);
            self.limit_time(index, one.number, one.handed);
        }
        let watched = self.epoll.add(&pidfd, Key::Child(slot).word(), Interest::IN);
        self.children.insert(slot, Child::adopted(kept.pid, pidfd));
        watched.map_err(|e| Error::os(what, e))
    }
}

impl Probe {
    /// Ends a trial run that is not wanted any more.
    pub(super) fn end(self) {
        // ESRCH: it has ended by itself.
        let _ = forkyard_sys::pidfd::send_signal(self.process.pidfd.as_fd(), SIGKILL);
        let _ = wait::reap(self.process.pidfd.as_fd());
    }
}

impl super::connections::Connections {
    /// Takes in again a connection that the image before this one had accepted.
    fn readmit(&mut self, fd: std::os::fd::OwnedFd, number: u64, peer: Peer, accepted: u64) {
        if let Some(handed) = self.enter(fd, number, peer, accepted) {
            let handed: Handed = self.count_in(handed);
            self.pending.push_back(handed);
        }
    }
}

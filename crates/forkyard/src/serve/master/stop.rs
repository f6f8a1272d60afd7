//! Stopping: drain up to the grace period, then TERM, then KILL.

use std::time::{Duration, Instant};

use super::super::event::Event;
use super::Master;

const SIGTERM: i32 = 15;
const SIGKILL: i32 = 9;
/// From TERM to KILL.
const TERM_TO_KILL: Duration = Duration::from_secs(2);
/// From KILL to giving up on a child that does not even die (it hangs in the kernel).
const KILL_TO_GONE: Duration = Duration::from_secs(5);
/// Connections taken from a backlog before it is closed.
const MOST_FROM_BACKLOG: usize = 4096;

/// How long a stop waits for children to execute their programs; one that is stopped itself may take longer.
const LAUNCH: Duration = Duration::from_millis(100);

/// Where a server is on its way from running to over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Running,
    /// No listener any more; connections finish until then (`None`: however long they take).
    Draining(Option<Instant>),
    /// Children got TERM, and get KILL then.
    Terminating(Instant),
    /// Children got KILL.
    Killing(Instant),
}

impl Phase {
    /// When the next phase begins by itself.
    pub(super) fn deadline(self) -> Option<Instant> {
        match self {
            Phase::Running => None,
            Phase::Draining(at) => at,
            Phase::Terminating(at) | Phase::Killing(at) => Some(at),
        }
    }
}

impl Master {
    /// Begins the graceful stop.
    pub(super) fn stop(&mut self, grace: Duration) {
        if self.phase != Phase::Running {
            return;
        }
        // Who has connected already shall not find the connection reset.
        for index in 0..self.listeners.len() {
            let mut left = MOST_FROM_BACKLOG;
            loop {
                let accepted = self.accept_from(index, left.min(super::accept::AT_ONCE));
                left -= accepted;
                if accepted < super::accept::AT_ONCE || left == 0 {
                    break;
                }
            }
        }
        self.phase = Phase::Draining(Instant::now().checked_add(grace));
        self.close_listeners();
        // Nobody had to know of those that are over already.
        self.find_finished();
        let left = self.connections.admitted();
        self.report(&Event::Draining(left));
    }

    /// Ends everything now.
    pub(super) fn stop_now(&mut self) {
        self.close_listeners();
        self.kill();
    }

    fn close_listeners(&mut self) {
        if self.listening {
            for listener in &self.listeners {
                // It is closed next, which does the same.
                let _ = self.epoll.remove(listener);
            }
            self.listening = false;
        }
        self.wait_for_launches();
        self.listeners.clear();
    }

    /// A child that has not executed its program yet has the listeners open, and as long as one has, connections are not refused.
    fn wait_for_launches(&self) {
        let until = Instant::now() + LAUNCH;
        let launches = self.launches.iter().filter_map(|&slot| self.children.get(slot)?.launch.as_ref());
        launches.for_each(|launch| {
            launch.wait_until(until);
        });
    }

    /// Goes to the next phase when its time has come.
    pub(super) fn advance_phase(&mut self) {
        let nobody_waits = self.connections.pending.is_empty() && self.connections.parked() == 0;
        if nobody_waits && matches!(self.phase, Phase::Draining(_)) {
            self.retire_all();
        }
        if self.phase.deadline().is_none_or(|at| at > Instant::now()) {
            return;
        }
        match self.phase {
            Phase::Running => {}
            Phase::Draining(_) => {
                self.phase = Phase::Terminating(Instant::now() + TERM_TO_KILL);
                self.give_up_all();
                self.signal_all(SIGTERM);
            }
            Phase::Terminating(_) => self.kill(),
            Phase::Killing(_) => {
                // Nothing more can be done about them; is_over says so.
            }
        }
    }

    fn kill(&mut self) {
        if !matches!(self.phase, Phase::Killing(_)) {
            self.phase = Phase::Killing(Instant::now() + KILL_TO_GONE);
            self.give_up_all();
            self.signal_all(SIGKILL);
        }
    }

    fn give_up_all(&mut self) {
        self.connections.drop_held();
        self.retire_all();
    }

    pub(super) fn retire_all(&mut self) {
        for generation in &mut self.generations {
            if generation.is_open() {
                generation.retire();
            }
        }
        for (_, child) in self.children.iter_mut() {
            child.retire();
        }
    }

    fn signal_all(&mut self, signal: i32) {
        let children = self.children.len();
        for (_, child) in self.children.iter() {
            child.signal(signal);
        }
        if children > 0 {
            self.report(&Event::Ending { signal, children });
        }
    }

    /// True when nothing is left to wait for.
    pub(super) fn is_over(&self) -> bool {
        match self.phase {
            Phase::Running => false,
            Phase::Killing(at) => self.children.len() == 0 || at <= Instant::now(),
            Phase::Draining(_) | Phase::Terminating(_) => {
                self.children.len() == 0 && self.connections.pending.is_empty()
            }
        }
    }

    /// Leaves no child behind, also when the loop ended by an error.
    pub(super) fn end_children(&mut self) {
        self.close_listeners();
        self.retire_all();
        if self.children.len() > 0 && !matches!(self.phase, Phase::Killing(_)) {
            self.kill();
            let slots: Vec<u32> = self.children.iter().map(|(slot, _)| slot).collect();
            for slot in slots {
                if let Some(child) = self.children.get(slot) {
                    // It has been killed, so this does not wait for long.
                    let _ = forkyard_sys::wait::wait_ended(std::os::fd::AsFd::as_fd(child.pidfd()));
                }
                self.child_event(slot);
            }
        }
        for generation in &mut self.generations {
            generation.sweep();
        }
    }
}

//! The handle through which a running server is told what to do, from any thread.
//!
//! A command is queued and the master is woken by an eventfd; it acts in its own loop, in order. If the master
//! is killed, commands go nowhere: there is nobody left to act.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use forkyard_sys::epoll::EventFd;

use super::stats::Stats;
use crate::error::{Error, Result};

/// Tells a running server what to do. Cheap to clone; every clone speaks to the same server.
#[derive(Clone)]
pub struct Control(Arc<Inner>);

struct Inner {
    queue: Mutex<VecDeque<Command>>,
    wake: EventFd,
    stats: Mutex<Option<super::scoreboard::Reader>>,
}

/// What the master is asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Command {
    /// Drain up to this long (or the configured grace), then TERM, then KILL.
    Stop(Option<Duration>),
    /// End everything at once.
    StopNow,
    /// A fresh zygote and fresh children; the old ones finish what they serve.
    Reload,
    /// One worker (or spare) more.
    AddWorker,
    /// One worker (or spare) less, never below one.
    RemoveWorker,
    /// Replace the program in place, with its listeners kept.
    Upgrade,
}

impl Control {
    pub(super) fn new() -> Result<Control> {
        let wake = EventFd::new().map_err(|errno| Error::os("make the server's control", errno))?;
        Ok(Control(Arc::new(Inner { queue: Mutex::default(), wake, stats: Mutex::default() })))
    }

    /// Stops accepting, lets connections finish for the configured grace period, then TERM, then KILL.
    /// A second call with a stop under way changes nothing; [`stop_now`](Control::stop_now) hurries it.
    pub fn stop(&self) {
        self.send(Command::Stop(None));
    }

    /// The same with another grace period.
    pub fn stop_timeout(&self, grace: Duration) {
        self.send(Command::Stop(Some(grace)));
    }

    /// Ends every child by KILL and returns from `run`.
    pub fn stop_now(&self) {
        self.send(Command::StopNow);
    }

    /// Starts fresh children from a fresh zygote; the old ones finish the connections they serve.
    pub fn reload(&self) {
        self.send(Command::Reload);
    }

    /// One worker more; in process mode, one spare more.
    pub fn add_worker(&self) {
        self.send(Command::AddWorker);
    }

    /// One worker less, once it has finished what it serves; never fewer than one.
    pub fn remove_worker(&self) {
        self.send(Command::RemoveWorker);
    }

    /// Executes the program's file anew in this process, with its arguments, keeping the listeners: no
    /// connection is refused. The program must call [`Server`](super::Server) again as it did the first time.
    pub fn upgrade(&self) {
        self.send(Command::Upgrade);
    }

    /// What the server is doing; `None` before `run` and after it.
    #[must_use]
    pub fn stats(&self) -> Option<Stats> {
        lock(&self.0.stats).as_ref().map(super::scoreboard::Reader::stats)
    }

    pub(super) fn publish(&self, reader: Option<super::scoreboard::Reader>) {
        *lock(&self.0.stats) = reader;
    }

    pub(super) fn wake(&self) -> &EventFd {
        &self.0.wake
    }

    /// The oldest command not yet acted on.
    pub(super) fn take(&self) -> Option<Command> {
        lock(&self.0.queue).pop_front()
    }

    fn send(&self, command: Command) {
        lock(&self.0.queue).push_back(command);
        self.0.wake.notify();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl std::fmt::Debug for Control {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Control")
    }
}

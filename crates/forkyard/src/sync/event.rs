//! Event: set or not, and anybody may wait until it is.
//!
//! # Safety
//! What lies in shared memory is made of atomics.
#![allow(unsafe_code)]

use std::panic::Location;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::base::Patience;
use super::describe::Description;
use super::ended::told;
use super::word::event::EventWord;
use crate::error::Result;
use crate::shm::{self, Family, Kind, Payload, Shared};
use crate::time::Deadline;

// SAFETY: atomics only, `repr(C)`, all-zero is not set.
unsafe impl Payload for EventWord {
    const KIND: Kind = Kind::Event;
}

/// Something that happens once, or again and again: threads of any process wait until it is set.
///
/// A handle is cheap to clone and travels in the arguments of a task. The event is there as long as somebody has a handle.
///
/// Killed here: who is killed in [`set`](Event::set) has set the event and woken all who wait, or has done nothing. Nobody waits
/// for a waiter, so a dead one holds up nobody.
///
/// ```
/// use forkyard::{process, sync::Event};
///
/// #[forkyard::task]
/// fn first(done: Event) {
///     done.set().unwrap();
/// }
///
/// let done = Event::new()?;
/// let child = process::spawn(first, (done.clone(),))?;
/// done.wait()?;
/// child.join()?;
/// # Ok::<(), forkyard::Error>(())
/// ```
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Event {
    shared: Shared<EventWord>,
}

impl Event {
    /// Makes an event, which is not set.
    ///
    /// # Errors
    /// There is no room in the family's shared memory, or this process cannot take part in it.
    #[track_caller]
    pub fn new() -> Result<Event> {
        Ok(Event { shared: Shared::new(0, Location::caller(), |_, _| {})? })
    }

    /// True if it is set.
    #[must_use]
    pub fn is_set(&self) -> bool {
        self.shared.is_set()
    }

    /// Sets it: all who wait go on, and who comes later does not wait.
    ///
    /// # Errors
    /// This process cannot take part in the family.
    pub fn set(&self) -> Result<()> {
        shm::me()?;
        self.shared.set();
        Ok(())
    }

    /// Makes it not set. Whoever was woken by a set goes on all the same.
    ///
    /// # Errors
    /// As those of [`set`](Event::set).
    pub fn clear(&self) -> Result<()> {
        shm::me()?;
        self.shared.clear();
        Ok(())
    }

    /// Waits until it is set.
    ///
    /// # Errors
    /// As those of [`set`](Event::set).
    pub fn wait(&self) -> Result<()> {
        self.wait_as(None, false)
    }

    /// The same, for at most so long.
    ///
    /// # Errors
    /// [`is_timeout`](crate::Error::is_timeout), and those of [`wait`](Event::wait).
    pub fn wait_timeout(&self, timeout: Duration) -> Result<()> {
        self.wait_as(Deadline::after(timeout).timeout(), false)
    }

    /// The same, until then at most.
    ///
    /// # Errors
    /// As those of [`wait_timeout`](Event::wait_timeout).
    pub fn wait_deadline(&self, deadline: Instant) -> Result<()> {
        self.wait_as(Some(deadline), false)
    }

    /// [`is_set`](Event::is_set), under the name that belongs to the others.
    ///
    /// # Errors
    /// As those of [`set`](Event::set).
    pub fn try_wait(&self) -> Result<bool> {
        shm::me()?;
        Ok(self.is_set())
    }

    /// As [`wait_deadline`](Event::wait_deadline), and ended by a signal handler with `EINTR`.
    #[doc(hidden)]
    pub fn wait_interruptible(&self, deadline: Option<Instant>) -> Result<()> {
        self.wait_as(deadline, true)
    }

    fn wait_as(&self, until: Option<Instant>, interruptible: bool) -> Result<()> {
        let mut patience = Patience::new::<()>(self.shared.offset(), until, false)?;
        patience.interruptible = interruptible;
        let result = self.shared.wait(&Family, &mut patience);
        told(result, &mut patience, || format!("wait for the {:?}", self.shared))
    }
}

/// What it says to people.
pub(super) fn describe(shared: &EventWord) -> Description {
    Description { owners: Vec::new(), facts: vec![("set", shared.is_set().into())] }
}

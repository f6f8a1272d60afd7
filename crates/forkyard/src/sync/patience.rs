//! How a call of the public types waits: until when, and what others can know of it meanwhile.

use std::time::Instant;

use forkyard_sys::Errno;

use super::raw::Waiter;
use super::word::End;
use crate::error::{Error, Kind, Result};
use crate::shm::{self, Me};
use crate::time::Deadline;

/// For how long a caller waits, and whether a signal ends it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    until: Option<Instant>,
    interruptible: bool,
}

impl Patience {
    /// Until the deadline, whatever signals come.
    pub(crate) fn until(deadline: Deadline) -> Patience {
        Patience { until: deadline.timeout(), interruptible: false }
    }

    /// Until a signal handler runs, too: for callers that have handlers of their own to run then.
    pub(crate) fn interruptible(self) -> Patience {
        Patience { interruptible: true, ..self }
    }

    /// As a wait of this thread for the object whose block begins there.
    pub(crate) fn waiting(self, me: Me, object: u64) -> Waits {
        Waits { patience: self, me, object, announced: None }
    }
}

/// A wait, which stands in its participant's page while it sleeps.
#[derive(Debug)]
pub(crate) struct Waits {
    patience: Patience,
    me: Me,
    object: u64,
    announced: Option<shm::Waiting>,
}

impl Waiter for Waits {
    fn until(&self) -> Option<Instant> {
        self.patience.until
    }

    fn interruptible(&self) -> bool {
        self.patience.interruptible
    }

    fn sleeps(&mut self) {
        self.announced = Some(shm::waiting(self.me, self.object));
    }
}

/// What the caller of a wait is told.
pub(crate) fn told<T>(result: std::result::Result<T, End>, what: impl FnOnce() -> String) -> Result<T> {
    result.map_err(|end| match end {
        End::Interrupted => Error::os(what(), Errno::INTR),
        End::TimedOut | End::GaveUp => Error::new(what(), Kind::TimedOut),
    })
}

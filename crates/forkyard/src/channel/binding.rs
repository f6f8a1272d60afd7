//! What bindings for other languages need of a queue: waits that end for a signal handler, messages that stay in the queue while they are
//! decoded, and large ones that are read for as long as somebody looks at them.
//!
//! Killed here: as any consumer between take and release (README.md), up to the moment when the decoded message is told to be delivered.

use std::sync::OnceLock;
use std::time::Instant;

use super::bytes::{ByteQueue, Loan};
use super::core::{Core, Wait};
use super::error::{GetError, PutError};
use super::lease::Lease;
use crate::error::Result;
use crate::shm::{self, Parcel};
use crate::time::Deadline;

/// How long a call waits.
#[derive(Clone, Copy, Debug)]
pub enum Patience {
    /// Not at all.
    Look,
    /// Until then, or for ever; or until a signal handler has something to do, and then it fails with `EINTR`.
    Until(Option<Instant>),
}

impl From<Patience> for Wait {
    fn from(patience: Patience) -> Wait {
        match patience {
            Patience::Look => Wait::Not,
            Patience::Until(until) => Wait::Interruptible(until.map_or(Deadline::NEVER, Deadline::from)),
        }
    }
}

/// A message that was taken and is not delivered yet. Dropped, or if its process dies, it goes back.
#[derive(Debug)]
pub struct Taken<'a> {
    lease: Lease<&'a Core>,
}

/// A large message's bytes, in a mapping of this process's own: what is written there changes nothing for others.
#[derive(Debug)]
pub struct View {
    view: shm::View,
    /// What lies behind it, once it was delivered, and the queue that may want its memory again.
    parcel: OnceLock<(Parcel, Core)>,
}

impl Drop for View {
    fn drop(&mut self) {
        if let Some((parcel, queue)) = self.parcel.take() {
            queue.header().shelf.keep(parcel);
        }
    }
}

impl View {
    /// Where the bytes are, as long as this is there.
    #[must_use]
    pub fn address(&self) -> *mut u8 {
        self.view.address()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.view.len()
    }

    /// Never true.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Makes the bytes this process's own memory, so that a fork has them as well.
    pub fn detach(&self) {
        self.view.detach();
    }
}

impl Taken<'_> {
    /// Reads the message.
    ///
    /// # Errors
    /// Somebody scribbled.
    #[inline]
    pub fn read<R>(&self, read: impl FnOnce(&[u8]) -> R) -> Result<R> {
        self.lease.read(read)
    }

    /// The bytes of a large message, mapped; they are there at least until this is dropped without [`deliver`](Taken::deliver).
    #[must_use]
    pub fn map(&self) -> Option<View> {
        let (name, len) = self.lease.parcel()?;
        Some(View { view: shm::View::new(name, len)?, parcel: OnceLock::new() })
    }

    /// Says that the message was delivered.
    #[inline]
    pub fn finish(self) {
        self.lease.finish();
    }

    /// The same, of a message with a view, which may be looked at from now on.
    pub fn deliver(self, view: &View) {
        if let (_, Some(parcel)) = self.lease.deliver() {
            // If there is one already it is another message's.
            let _ = view.parcel.set((parcel, self.lease.queue().clone()));
        }
    }
}

impl ByteQueue {
    /// Takes the next message, if there is one: the shortest look that there is.
    ///
    /// # Errors
    /// As those of [`try_get`](ByteQueue::try_get).
    #[doc(hidden)]
    #[inline]
    pub fn glance(&self) -> std::result::Result<Option<Taken<'_>>, GetError> {
        let lease = self.core().lease_now(shm::me().map_err(GetError::Failed)?.id)?;
        Ok(lease.map(|lease| Taken { lease }))
    }

    /// Takes the next message.
    ///
    /// # Errors
    /// As those of [`get_deadline`](ByteQueue::get_deadline), or `EINTR`.
    #[doc(hidden)]
    #[inline]
    pub fn take(&self, patience: Patience) -> std::result::Result<Taken<'_>, GetError> {
        Ok(Taken { lease: self.core().lease_here(patience.into())? })
    }

    /// Waits until there are fewer messages than so many, which others may put meanwhile: of a queue that itself has no bound.
    ///
    /// # Errors
    /// As those of [`put_deadline`](ByteQueue::put_deadline), or `EINTR`.
    #[doc(hidden)]
    pub fn wait_for_fewer(&self, than: usize, patience: Patience) -> std::result::Result<(), PutError<()>> {
        let core = self.core();
        let are_fewer = || Ok((core.len() < than).then_some(()));
        let me = match shm::me() {
            Ok(me) => me,
            Err(error) => return Err(PutError::Failed((), error)),
        };
        core.wait(&core.header().counters.room, me, patience.into(), are_fewer)
            .map_err(|refused| PutError::of((), refused))
    }

    /// Waits until every message that was put was delivered, and `also` is true: which is asked again after
    /// [`tell_joiners`](ByteQueue::tell_joiners), and after a death.
    ///
    /// # Errors
    /// As those of [`get_deadline`](ByteQueue::get_deadline), or `EINTR`.
    #[doc(hidden)]
    pub fn wait_until_done(
        &self,
        also: impl Fn() -> bool,
        patience: Patience,
    ) -> std::result::Result<(), GetError> {
        let core = self.core();
        let me = shm::me().map_err(GetError::Failed)?;
        // In this order: what leaves the queue is somebody's before.
        let is_done = || Ok((core.is_finished() && also()).then_some(()));
        Ok(core.wait(&core.header().finished, me, patience.into(), is_done)?)
    }

    /// Has those look again who wait until all is done.
    #[doc(hidden)]
    pub fn tell_joiners(&self) {
        self.core().header().finished.ring(u32::MAX);
    }

    /// Puts a message.
    ///
    /// # Errors
    /// As those of [`put_deadline`](ByteQueue::put_deadline), or `EINTR`.
    #[doc(hidden)]
    pub fn put_patiently<'a>(
        &self,
        message: &'a [u8],
        patience: Patience,
    ) -> std::result::Result<(), PutError<&'a [u8]>> {
        self.put_waiting(message, patience.into())
    }

    /// Puts a message that was written in a loan.
    ///
    /// # Errors
    /// As those of [`send_deadline`](ByteQueue::send_deadline), or `EINTR`.
    #[doc(hidden)]
    pub fn send_patiently(&self, loan: Loan, patience: Patience) -> std::result::Result<(), PutError<Loan>> {
        self.send_waiting(loan, patience.into())
    }
}

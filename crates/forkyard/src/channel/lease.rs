//! A message that was taken and stays in its place until it is finished.
//!
//! Killed here: as any consumer between take and release.

use std::sync::Arc;

use super::core::{Core, Refused, Wait, garbled};
use super::layout::{INLINE, Layout};
use super::ring::{Committed, Ring, Taken};
use super::segment::Link;
use super::word::Spot;
use crate::error::{Error, Kind, Result};
use crate::shm::{self, Family, Id, Parcel, ParcelName};
use crate::sync::sleep;
use crate::time::Deadline;

/// A message that this process has taken. Dropped, it goes back.
#[derive(Debug)]
pub(crate) struct Lease {
    core: Core,
    /// Where it lies, unless that is the queue itself.
    link: Option<Arc<Link>>,
    spot: Spot,
    owner: Id,
}

impl Lease {
    fn ring(&self) -> &Ring<Layout> {
        self.link.as_ref().map_or_else(|| self.core.ring(), |link| &link.ring)
    }

    /// Reads the message.
    pub(crate) fn read<R>(&self, read: impl FnOnce(&[u8]) -> R) -> Result<R> {
        let layout = &self.ring().0;
        if let Some((name, len)) = layout.parcel(self.spot.place) {
            let Some(parcel) = Parcel::take(name, len, self.owner) else { return Err(garbled()) };
            return Ok(read(Borrowed(Some(parcel)).bytes()));
        }
        let mut few = [0; INLINE];
        let len = layout.len(self.spot.place);
        if let Some(bytes) = few.get_mut(..len) {
            layout.read(self.spot.place, bytes);
            return Ok(read(bytes));
        }
        let mut many = vec![0; len];
        layout.read(self.spot.place, &mut many);
        Ok(read(&many))
    }

    /// The queue that it is of.
    pub(super) fn queue(&self) -> &Core {
        &self.core
    }

    /// The parcel that it lies in, if it is a large one, and its length.
    pub(super) fn parcel(&self) -> Option<(ParcelName, u64)> {
        self.ring().0.parcel(self.spot.place)
    }

    /// Says that it was delivered. False: it is no longer this process's.
    pub(crate) fn finish(&self) -> bool {
        let (finished, parcel) = self.deliver();
        if let Some(parcel) = parcel {
            self.core.header().shelf.keep(parcel);
        }
        finished
    }

    /// The same; the caller keeps the parcel.
    pub(super) fn deliver(&self) -> (bool, Option<Parcel>) {
        if shm::joined() != Some(self.owner) {
            return (false, None);
        }
        let ring = self.ring();
        let parcel =
            ring.0.parcel(self.spot.place).and_then(|(name, len)| Parcel::take(name, len, self.owner));
        let finished = ring.release(self.spot, self.owner);
        if finished {
            self.core.make_room();
            self.core.header().finished.ring(u32::MAX);
            let state = ring.state();
            if state == Committed::Moved {
                self.core.walker().retire();
            }
            if state != Committed::Done && self.core.is_closed() {
                // That was perhaps the last one that others waited for.
                self.core.header().counters.items.ring(u32::MAX);
            }
        }
        (finished, parcel)
    }
}

/// A parcel that belongs to its place again afterwards, also after a panic.
struct Borrowed(Option<Parcel>);

impl Borrowed {
    fn bytes(&self) -> &[u8] {
        self.0.as_ref().map_or(&[], Parcel::bytes)
    }
}

impl Drop for Borrowed {
    fn drop(&mut self) {
        if let Some(parcel) = self.0.take() {
            parcel.hand_over();
            parcel.forget();
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        // After it was finished this does nothing.
        if shm::joined() == Some(self.owner) && self.ring().give_back(self.spot, self.owner) {
            if self.link.is_some() {
                self.core.header().chain.set_aside();
            }
            self.core.header().counters.items.ring(1);
        }
    }
}

impl Core {
    /// Takes the next message, and leaves it where it is.
    pub(crate) fn lease(&self, wait: Wait) -> std::result::Result<Lease, Refused> {
        let me = shm::me()?;
        let take = || match self.take(me.id)? {
            (link, Taken::Message(spot)) => Ok(Some(Lease { core: self.clone(), link, spot, owner: me.id })),
            (_, Taken::Empty) => Ok(None),
            // What somebody else is at work on may come back.
            (_, Taken::Closed) if !self.is_finished() => Ok(None),
            (_, Taken::Closed) => Err(Refused::Closed),
            (_, Taken::Moved | Taken::Garbled) => Err(garbled().into()),
        };
        match take()? {
            Some(lease) => Ok(lease),
            None => self.wait(&self.header().counters.items, me, wait, take),
        }
    }

    /// Waits until every message that was put is finished.
    pub(crate) fn join(&self, until: Deadline) -> Result<()> {
        let me = shm::me()?;
        let bell = &self.header().finished;
        loop {
            let seen = bell.announce();
            if self.is_finished() {
                return Ok(());
            }
            if until.has_passed() {
                return Err(Error::new("join a queue", Kind::TimedOut));
            }
            let _waiting = shm::waiting(me, self.offset());
            // Whyever it ends, the next look tells.
            let _ = sleep(&Family, bell.word(), seen, &[], until.timeout());
        }
    }
}

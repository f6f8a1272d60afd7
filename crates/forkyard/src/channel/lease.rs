//! A message that was taken and stays in its place until it is finished.
//!
//! Killed here: as any consumer between take and release.

use std::borrow::Borrow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::core::{Core, JOIN, Message, Refused, Wait, garbled};
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
pub(crate) struct Lease<C: Borrow<Core> = Box<Core>> {
    core: C,
    /// Where it lies, unless that is the queue itself.
    link: Option<Arc<Link>>,
    spot: Spot,
    owner: Id,
    /// It was delivered.
    is_over: AtomicBool,
}

impl<C: Borrow<Core>> Lease<C> {
    fn new(core: C, link: Option<Arc<Link>>, spot: Spot, owner: Id) -> Lease<C> {
        Lease { core, link, spot, owner, is_over: AtomicBool::new(false) }
    }

    /// The same message, taken by another handle of the queue.
    fn of<D: Borrow<Core>>(mut self, core: D) -> Lease<D> {
        let (link, is_over) = (self.link.take(), self.is_over.swap(true, Ordering::Relaxed));
        Lease { core, link, spot: self.spot, owner: self.owner, is_over: AtomicBool::new(is_over) }
    }

    fn ring(&self) -> &Ring<Layout> {
        self.link.as_ref().map_or_else(|| self.core.borrow().ring(), |link| &link.ring)
    }

    /// Reads the message.
    #[inline]
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

    /// True if it is of this queue.
    pub(super) fn is_of(&self, core: &Core) -> bool {
        self.queue().offset() == core.offset()
    }

    /// The queue that it is of.
    pub(super) fn queue(&self) -> &Core {
        self.core.borrow()
    }

    /// The parcel that it lies in, if it is a large one, and its length.
    pub(super) fn parcel(&self) -> Option<(ParcelName, u64)> {
        self.ring().0.parcel(self.spot.place)
    }

    /// Says that it was delivered. False: it is no longer this process's.
    #[inline]
    pub(crate) fn finish(&self) -> bool {
        let (finished, parcel) = self.deliver();
        if let Some(parcel) = parcel {
            self.queue().header().shelf.keep(parcel);
        }
        finished
    }

    /// The same; the caller keeps the parcel.
    #[inline]
    pub(super) fn deliver(&self) -> (bool, Option<Parcel>) {
        let goes_on = self.ring().goes_on_behind(self.spot);
        let (finished, parcel) = self.release();
        if finished {
            // To ask for the state is to read what producers write. Others may sleep who wait for the end.
            let goes_on = goes_on && self.queue().header().counters.items.is_quiet();
            let state = if goes_on { Committed::Done } else { self.ring().state() };
            self.queue().were_delivered(1, state);
        }
        (finished, parcel)
    }

    /// The same, and tells nobody.
    #[inline]
    fn release(&self) -> (bool, Option<Parcel>) {
        if shm::joined() != Some(self.owner) {
            return (false, None);
        }
        let ring = self.ring();
        let parcel =
            ring.0.parcel(self.spot.place).and_then(|(name, len)| Parcel::take(name, len, self.owner));
        self.is_over.store(true, Ordering::Relaxed);
        (ring.release(self.spot, self.owner), parcel)
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

impl<C: Borrow<Core>> Drop for Lease<C> {
    fn drop(&mut self) {
        if !self.is_over.load(Ordering::Relaxed)
            && shm::joined() == Some(self.owner)
            && self.ring().give_back(self.spot, self.owner)
        {
            if self.link.is_some() {
                self.queue().header().chain.set_aside();
            }
            self.queue().header().counters.items.ring(1);
        }
    }
}

impl Core {
    /// Tells others that so many messages were delivered, the last of a segment in this state.
    #[inline]
    fn were_delivered(&self, count: usize, state: Committed) {
        self.make_room(u32::try_from(count).unwrap_or(u32::MAX));
        self.header().finished.ring(u32::MAX);
        if state == Committed::Moved {
            self.walker().retire();
        }
        if state != Committed::Done && self.is_closed() {
            // That was perhaps the last one that others waited for.
            self.header().counters.items.ring(u32::MAX);
        }
    }

    /// Gets as many messages as there are, up to `most`, decoded: all of them are taken and decoded, and then delivered one after the other.
    pub(crate) fn get_many<T>(
        &self,
        wait: Wait,
        most: usize,
        mut decode: impl FnMut(&[u8]) -> Result<T>,
    ) -> std::result::Result<Vec<T>, Refused> {
        let read = |lease: &Lease<&Core>| lease.read(&mut decode).and_then(|decoded| decoded);
        let (leases, values) = self.lease_many(wait, most, read)?;
        let parcels: Vec<_> = leases.iter().filter_map(|lease| lease.release().1).collect();
        self.were_released(&leases);
        parcels.into_iter().for_each(|parcel| self.header().shelf.keep(parcel));
        Ok(values)
    }

    /// The same of bytes: large messages stay where they lie.
    pub(crate) fn get_many_messages(
        &self,
        wait: Wait,
        most: usize,
    ) -> std::result::Result<Vec<Message>, Refused> {
        let read = |lease: &Lease<&Core>| match lease.parcel() {
            Some(_) => Ok(None),
            None => lease.read(Message::of).map(Some),
        };
        let (leases, messages) = self.lease_many(wait, most, read)?;
        let release = |(lease, message): (&Lease<&Core>, Option<Message>)| {
            let parcel = lease.release().1;
            message.or(parcel.map(Message::Parcel))
        };
        let got: Vec<_> = leases.iter().zip(messages).filter_map(release).collect();
        self.were_released(&leases);
        if got.len() < leases.len() { Err(garbled().into()) } else { Ok(got) }
    }

    /// Tells others of those that were released.
    fn were_released<C: Borrow<Core>>(&self, leases: &[Lease<C>]) {
        if let Some(last) = leases.last() {
            self.were_delivered(leases.len(), last.ring().state());
        }
    }

    /// Says that these of this queue were delivered, and tells others once. False: some are no longer this process's.
    pub(crate) fn finish_many(&self, leases: &[Lease]) -> bool {
        let released: Vec<_> = leases.iter().map(Lease::release).collect();
        self.were_released(leases);
        let finished = released.iter().all(|(finished, _)| *finished);
        released
            .into_iter()
            .filter_map(|(_, parcel)| parcel)
            .for_each(|parcel| self.header().shelf.keep(parcel));
        finished
    }

    /// Takes as many messages as there are, up to `most`, and reads them where they are.
    fn lease_many<T>(
        &self,
        wait: Wait,
        most: usize,
        mut read: impl FnMut(&Lease<&Core>) -> Result<T>,
    ) -> std::result::Result<(Vec<Lease<&Core>>, Vec<T>), Refused> {
        let me = shm::me()?;
        let (mut leases, mut values) = (Vec::new(), Vec::new());
        let mut fill = || {
            while values.len() < most {
                match self.take(me.id)? {
                    (link, Taken::Message(spot)) => {
                        let lease = Lease::new(self, link, spot, me.id);
                        match read(&lease) {
                            Ok(value) => {
                                values.push(value);
                                leases.push(lease);
                            }
                            Err(error) if values.is_empty() => {
                                // Nobody else could read it either.
                                lease.finish();
                                return Err(error.into());
                            }
                            // It goes back: the next call tells of it.
                            Err(_) => break,
                        }
                    }
                    (_, Taken::Empty) => break,
                    (_, Taken::Closed) if !values.is_empty() => break,
                    (_, Taken::Closed) if shm::any_dead() && crate::sync::reap() => {}
                    (_, Taken::Closed) => return Err(Refused::Closed),
                    (_, Taken::Moved | Taken::Garbled) => return Err(garbled().into()),
                }
            }
            Ok((!values.is_empty()).then_some(()))
        };
        if most > 0 && fill()?.is_none() {
            self.wait(&self.header().counters.items, me, wait, fill)?;
        }
        Ok((leases, values))
    }

    /// Takes the next message, and leaves it where it is.
    pub(crate) fn lease(&self, wait: Wait) -> std::result::Result<Lease, Refused> {
        let lease = self.lease_here(wait)?;
        Ok(lease.of(Box::new(self.clone())))
    }

    /// The same, for no longer than this handle is there.
    pub(crate) fn lease_here(&self, wait: Wait) -> std::result::Result<Lease<&Core>, Refused> {
        let me = shm::me()?;
        match self.lease_now(me.id)? {
            Some(lease) => Ok(lease),
            None => self.wait(&self.header().counters.items, me, wait, || self.lease_now(me.id)),
        }
    }

    /// Takes the next message, if there is one, and leaves it where it is.
    #[inline]
    pub(super) fn lease_now(&self, me: Id) -> std::result::Result<Option<Lease<&Core>>, Refused> {
        match self.take(me)? {
            (link, Taken::Message(spot)) => Ok(Some(Lease::new(self, link, spot, me))),
            (_, Taken::Empty) => Ok(None),
            // What somebody else is at work on may come back.
            (_, Taken::Closed) if !self.is_finished() => Ok(None),
            (_, Taken::Closed) => Err(Refused::Closed),
            (_, Taken::Moved | Taken::Garbled) => Err(garbled().into()),
        }
    }

    /// Waits until every message that was put is finished.
    pub(crate) fn join(&self, until: Deadline) -> Result<()> {
        let me = shm::me()?;
        let bell = &self.header().finished;
        let mut waiting = None;
        loop {
            let seen = bell.announce();
            if self.is_finished() {
                return Ok(());
            }
            if until.has_passed() {
                return Err(Error::new("join a queue", Kind::TimedOut));
            }
            waiting.get_or_insert_with(|| shm::waiting_at(me, self.offset(), JOIN));
            // Whyever it ends, the next look tells.
            let _ = sleep(&Family, bell.word(), seen, &[], until.timeout());
        }
    }
}

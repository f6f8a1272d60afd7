//! A queue of bytes: what all kinds of queues are made of.

use std::fmt;
use std::panic::Location;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::bell::Bell;
use super::chain::{Garbled, MOST, Segment, Walker};
use super::layout::{Header, INLINE, Layout, Shape};
use super::links::Links;
use super::patience::Patience;
use super::ring::{Committed, Ring, Taken, Words};
use super::segment::{FEW, FEWEST, Finder, Link};
use super::word::Spot;
use crate::codec;
use crate::error::{Error, Kind, Result};
use crate::primitive::{self, Ordering};
use crate::shm::{self, Family, Id, Keep, Me, Parcel, Shared};
use crate::sync::{Slept, attention, sleep};
use crate::time::Deadline;

/// What somebody waits to do at a queue: for people.
pub(super) const GET: u8 = 1;
pub(super) const PUT: u8 = 2;
pub(super) const JOIN: u8 = 3;

/// So many spins there are between two looks at most.
const LOOK_EVERY: u32 = 16;

/// How long a call waits.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Wait {
    /// Not at all.
    Not,
    /// Until then.
    Until(Deadline),
    /// Until then, or until a signal handler of the program's own language has something to do.
    Interruptible(Deadline),
}

/// Why nothing was put or got.
#[derive(Debug)]
pub(crate) enum Refused {
    /// The queue is full, or empty.
    NotNow,
    Closed,
    TimedOut,
    /// A signal came.
    Interrupted,
    Failed(Error),
}

impl From<Error> for Refused {
    fn from(error: Error) -> Refused {
        Refused::Failed(error)
    }
}

impl From<Garbled> for Refused {
    fn from(Garbled: Garbled) -> Refused {
        garbled().into()
    }
}

/// What is put: it is written into a claimed place, and perhaps into another one after that one was of no use.
trait Content {
    fn write(&self, layout: &Layout, place: u32);
    /// The place that it was written into is given back.
    fn recall(&self) {}
}

impl Content for &[u8] {
    #[inline]
    fn write(&self, layout: &Layout, place: u32) {
        layout.write(place, self);
    }
}

impl Content for Parcel {
    fn write(&self, layout: &Layout, place: u32) {
        layout.write_parcel(place, self);
        self.hand_over();
    }

    fn recall(&self) {
        Parcel::recall(self);
    }
}

/// A message that is copied by words, not by bytes.
#[derive(Debug)]
#[repr(C, align(8))]
pub(crate) struct Short {
    len: usize,
    bytes: [u8; INLINE],
}

/// A message that was got.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "the large one is the common one")]
pub(crate) enum Message {
    Short(Short),
    Long(Vec<u8>),
    Parcel(Parcel),
}

impl Default for Message {
    fn default() -> Message {
        Message::Short(Short { len: 0, bytes: [0; INLINE] })
    }
}

impl Message {
    /// A message of a copy of these bytes.
    pub(super) fn of(bytes: &[u8]) -> Message {
        let mut short = Short { len: bytes.len(), bytes: [0; INLINE] };
        match short.bytes.get_mut(..bytes.len()) {
            Some(room) => {
                room.copy_from_slice(bytes);
                Message::Short(short)
            }
            None => Message::Long(bytes.to_vec()),
        }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        match self {
            Message::Short(short) => &short.bytes[..short.len],
            Message::Long(bytes) => bytes,
            Message::Parcel(parcel) => parcel.bytes(),
        }
    }
}

/// What came of getting.
enum Got {
    Message(Result<()>),
    Nothing(Taken),
}

/// One of this process's handles of a queue.
#[derive(Clone, Debug)]
pub(crate) struct Core {
    ring: Ring<Layout>,
    shared: Shared<Header>,
    /// None: it has a bound, and all of it is in that ring.
    links: Option<Links>,
    /// Of those who wait for something to get, and for room.
    patience: [Patience; 2],
}

impl Core {
    /// Makes a queue for so many messages, or for any number; those of so many bytes at most lie in it, the others beside it.
    pub(crate) fn new(capacity: Option<usize>, inline: usize, made_at: &Location<'_>) -> Result<Core> {
        Core::counting(capacity, inline, 0, made_at)
    }

    /// The same for at most so many bytes, if that is not 0 and there is a capacity.
    pub(crate) fn counting(
        capacity: Option<usize>,
        inline: usize,
        bytes: u64,
        made_at: &Location<'_>,
    ) -> Result<Core> {
        let first = capacity.unwrap_or(FEWEST);
        let refused = |why| Error::new("make a queue", Kind::Invalid(why));
        if !(1..=Shape::MOST).contains(&(first as u64)) {
            return Err(refused(format!(
                "{first} messages is not a capacity; say one from 1 to {}",
                Shape::MOST
            )));
        }
        let too_long = || {
            refused(format!(
                "{first} messages of {inline} bytes in the queue itself are more than fit anywhere"
            ))
        };
        let shape = Shape::counting(first, inline, bytes).ok_or_else(too_long)?;
        let tail = shape.tail().ok_or_else(too_long)?;
        let make = |header: &Header, tail| header.make(shape, capacity.is_some(), tail);
        Core::over(Shared::new(tail, made_at, make)?)
    }

    fn over(shared: Shared<Header>) -> Result<Core> {
        let layout = Layout::of(&shared, shared.tail()).ok_or_else(garbled)?;
        let links = shared.chain.is_used().then(Links::default);
        Ok(Core { ring: Ring(layout), shared, links, patience: Default::default() })
    }

    /// The most messages at a time.
    pub(crate) fn capacity(&self) -> usize {
        if self.links.is_some() { usize::MAX } else { self.ring.0.shape().capacity() }
    }

    /// True if there is no room for more.
    pub(crate) fn is_full(&self) -> bool {
        let is_heavy = |most| self.ring.bytes() >= most;
        self.links.is_none()
            && (self.len() >= self.capacity() || self.ring.0.most_bytes().is_some_and(is_heavy))
    }

    /// For people.
    pub(crate) fn describe(&self, what: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (len, made_at) = (self.len(), self.made_at());
        match self.capacity() {
            usize::MAX => write!(f, "{what}({len}, made at {made_at})"),
            capacity => write!(f, "{what}({len} of {capacity}, made at {made_at})"),
        }
    }

    /// The ring in the queue itself.
    pub(super) fn ring(&self) -> &Ring<Layout> {
        &self.ring
    }

    pub(super) fn header(&self) -> &Header {
        &self.shared
    }

    /// The segments of a queue without a bound.
    pub(super) fn walker(&self) -> Walker<Finder<'_>> {
        Walker(Finder { header: &self.shared, name: self.shared.name(), root: &self.ring.0 })
    }

    /// The block that it lies in: its name in the family.
    pub(super) fn offset(&self) -> u64 {
        self.shared.offset()
    }

    pub(crate) fn made_at(&self) -> String {
        self.shared.made_at()
    }

    /// Puts a message of these bytes.
    #[inline]
    pub(crate) fn put(&self, bytes: &[u8], wait: Wait) -> std::result::Result<(), Refused> {
        self.put_first(bytes, 1, wait)
    }

    /// The same, when as many messages as `work` says are put one after the other: as many consumers are woken at once.
    #[inline]
    pub(crate) fn put_first(&self, bytes: &[u8], work: u32, wait: Wait) -> std::result::Result<(), Refused> {
        let me = shm::me()?;
        if bytes.len() > self.ring.0.shape().inline() {
            return self.put_large(me, bytes, &[], wait);
        }
        self.put_content(me, &bytes, work, wait)
    }

    #[inline]
    fn put_content(
        &self,
        me: Me,
        content: &impl Content,
        work: u32,
        wait: Wait,
    ) -> std::result::Result<(), Refused> {
        // Whoever finds room at once has not waited, and learns nothing of waiting.
        if self.put_now(me.id, content)? {
            self.shared.counters.items.ring(work);
            return Ok(());
        }
        self.put_waiting(me, content, wait)
    }

    #[cold]
    fn put_waiting(&self, me: Me, content: &impl Content, wait: Wait) -> std::result::Result<(), Refused> {
        let attempt = || self.put_now(me.id, content).map(|done| done.then_some(()));
        self.wait(&self.shared.counters.room, me, wait, attempt)?;
        self.shared.counters.items.ring(1);
        Ok(())
    }

    /// Puts a message of these bytes with handles in it, however short it is.
    #[cold]
    pub(crate) fn put_carrying(
        &self,
        bytes: &[u8],
        handles: &[Keep],
        wait: Wait,
    ) -> std::result::Result<(), Refused> {
        self.put_large(shm::me()?, bytes, handles, wait)
    }

    fn put_large(
        &self,
        me: Me,
        bytes: &[u8],
        handles: &[Keep],
        wait: Wait,
    ) -> std::result::Result<(), Refused> {
        // Not for nothing: the queue may be full, or closed.
        if self.links.is_none() {
            match self.ring.room() {
                Err(Committed::Full) if matches!(wait, Wait::Not) => return Err(Refused::NotNow),
                Ok(_) | Err(Committed::Full) => {}
                Err(refused) => return told(refused).map(drop),
            }
        }
        let mut parcel = self.parcel(Parcel::len_carrying(bytes.len(), handles.len()), me.id)?;
        parcel.carry(handles, bytes.len());
        parcel.bytes_mut().copy_from_slice(bytes);
        self.put_parcel(me, parcel, wait).map_err(|(refused, _)| refused)
    }

    /// Memory for a message of so many bytes, whatever they are.
    pub(crate) fn parcel(&self, len: usize, me: Id) -> Result<Parcel> {
        match self.shared.shelf.take(len, me) {
            Some(parcel) => Ok(parcel),
            None => Parcel::new(len, me),
        }
    }

    /// Keeps the memory of a message that was read for the next one.
    pub(crate) fn keep(&self, message: Message) {
        if let Message::Parcel(parcel) = message {
            self.shared.shelf.keep(parcel);
        }
    }

    /// Puts a message that lies in shared memory already.
    pub(crate) fn put_parcel(
        &self,
        me: Me,
        parcel: Parcel,
        wait: Wait,
    ) -> std::result::Result<(), (Refused, Parcel)> {
        if let Err(refused) = self.put_content(me, &parcel, 1, wait) {
            return Err((refused, parcel));
        }
        parcel.forget();
        Ok(())
    }

    /// False: it is full.
    #[inline]
    fn put_now(&self, me: Id, content: &impl Content) -> std::result::Result<bool, Refused> {
        let Some(links) = &self.links else { return told(put_in(&self.ring, me, content)) };
        match links.producing.with(|link| put_in(&link.ring, me, content)) {
            Some(Committed::Done) => Ok(true),
            _ => self.put_further(links, me, content),
        }
    }

    /// Puts it into the segment where there is room, or into a new one.
    #[cold]
    fn put_further(
        &self,
        links: &Links,
        me: Id,
        content: &impl Content,
    ) -> std::result::Result<bool, Refused> {
        let walker = self.walker();
        let mut at = links.producing.get().map_or_else(|| walker.last(), Ok)?;
        for _ in 0..MOST {
            match put_in(&at.ring, me, content) {
                Committed::Done => {
                    self.shared.chain.note_last(at.name());
                    links.producing.set(&at);
                    return Ok(true);
                }
                Committed::Full => walker.grow(&at, at.larger())?,
                Committed::Moved => at = walker.behind(&at)?,
                refused => return told(refused),
            }
        }
        Err(garbled().into())
    }

    /// Gets the next message.
    #[inline]
    pub(crate) fn get(&self, wait: Wait, into: &mut Message) -> std::result::Result<(), Refused> {
        let me = shm::me()?;
        match self.get_now(me.id, into)? {
            Some(()) => Ok(()),
            None => self.wait(&self.shared.counters.items, me, wait, || self.get_now(me.id, into)),
        }
    }

    #[inline]
    fn get_now(&self, me: Id, into: &mut Message) -> std::result::Result<Option<()>, Refused> {
        loop {
            let got = match &self.links {
                None => get_in(&self.ring, me, into),
                Some(links) => self.get_linked(links, me, into)?,
            };
            match got {
                Got::Message(read) => {
                    self.make_room(1);
                    return read.map(Some).map_err(Refused::Failed);
                }
                Got::Nothing(Taken::Empty) => return Ok(None),
                Got::Nothing(Taken::Closed) if shm::any_dead() && crate::sync::reap() => {}
                Got::Nothing(Taken::Closed) => return Err(Refused::Closed),
                Got::Nothing(_) => return Err(garbled().into()),
            }
        }
    }

    /// Tells producers that so many messages were released.
    #[inline]
    pub(super) fn make_room(&self, count: u32) {
        // There may be room for one that is shorter than the one that has waited for longest.
        let all = self.ring.0.most_bytes().is_some();
        self.shared.counters.room.ring(if all { u32::MAX } else { count });
    }

    #[inline]
    fn get_linked(&self, links: &Links, me: Id, into: &mut Message) -> std::result::Result<Got, Refused> {
        if self.shared.chain.has_aside()
            && let Some(read) = self.get_aside(me, into)
        {
            return Ok(Got::Message(read));
        }
        match links.consuming.with(|link| get_in(&link.ring, me, into)) {
            Some(Got::Nothing(Taken::Moved)) | None => {}
            Some(got) => return Ok(got),
        }
        loop {
            return Ok(match self.take_further(links, me)? {
                (link, Taken::Message(spot)) => match deliver(&link.ring, spot, me, into) {
                    Some(read) => Got::Message(read),
                    None => continue,
                },
                (_, nothing) => Got::Nothing(nothing),
            });
        }
    }

    #[cold]
    fn get_aside(&self, me: Id, into: &mut Message) -> Option<Result<()>> {
        let walker = self.walker();
        while let Some((link, spot)) = walker.take_aside(me) {
            let read = deliver(&link.ring, spot, me, into);
            walker.retire();
            if read.is_some() {
                return read;
            }
        }
        None
    }

    /// Takes the next message, in the segment where it is.
    #[cold]
    fn take_further(&self, links: &Links, me: Id) -> std::result::Result<(Arc<Link>, Taken), Refused> {
        let walker = self.walker();
        let mut at = links.consuming.get().map_or_else(|| walker.first(), Ok)?;
        let taken = walker.take(&mut at, me);
        links.consuming.set(&at);
        if !self.shared.chain.is_first(at.name()) {
            walker.retire();
        }
        Ok((at, taken))
    }

    /// Takes the next message, and tells the segment where it lies.
    pub(super) fn take(&self, me: Id) -> std::result::Result<(Option<Arc<Link>>, Taken), Refused> {
        let Some(links) = &self.links else { return Ok((None, self.ring.take(me))) };
        if let Some((link, spot)) = self.walker().take_aside(me) {
            return Ok((Some(link), Taken::Message(spot)));
        }
        match links.consuming.with(|link| (Some(Arc::clone(link)), link.ring.take(me))) {
            Some((_, Taken::Moved)) | None => {}
            Some(taken) => return Ok(taken),
        }
        self.take_further(links, me).map(|(link, taken)| (Some(link), taken))
    }

    /// Before a consumer sleeps or gives up: lets go of memory that a queue without a bound has no use for. `leaves`: a large segment, too.
    #[cold]
    fn tidy(&self, leaves: impl FnOnce(&Links) -> bool) {
        let Some(links) = &self.links else { return };
        let (walker, chain) = (self.walker(), &self.shared.chain);
        let Some(link) = links.consuming.get() else { return };
        if link.ring.0.capacity() > FEW
            && leaves(links)
            // Without memory for a small one the large one stays.
            && walker.shrink(&link, FEW).unwrap_or(false)
            && let Ok(next) = walker.behind(&link)
        {
            chain.note_last(next.name());
            links.consuming.set(&next);
            links.producing.forget(&link);
        }
        if !chain.is_first(link.name()) || link.ring.state() == Committed::Moved {
            drop(link);
            walker.retire();
        }
    }

    /// Makes attempts until one succeeds or fails, or the time is up; sleeps in between.
    #[cold]
    pub(super) fn wait<R>(
        &self,
        bell: &Bell,
        me: Me,
        wait: Wait,
        mut attempt: impl FnMut() -> std::result::Result<Option<R>, Refused>,
    ) -> std::result::Result<R, Refused> {
        let (until, interruptible) = match wait {
            // What lies in a queue as put by somebody who then died is found without the reaper, what such a one took is not.
            Wait::Not => {
                let done = attempt()?;
                if done.is_none() {
                    self.tidy(|_| true);
                }
                return done.ok_or(Refused::NotNow);
            }
            Wait::Until(until) => (until, false),
            Wait::Interruptible(until) => (until, true),
        };
        let is_for_room = std::ptr::eq(bell, &raw const self.shared.counters.room);
        let patience = &self.patience[usize::from(is_for_room)];
        let most = patience.spins();
        let (mut spun, mut pause) = (0, 1);
        while spun < most && (spun < primitive::SPINS || !until.has_passed()) {
            if let Some(done) = attempt()? {
                patience.was_right(most);
                return Ok(done);
            }
            // Longer and longer: who looks takes the words away from whoever is at work on them.
            (0..pause).for_each(|_| primitive::spin_loop());
            spun += pause;
            pause = (2 * pause).min(LOOK_EVERY);
        }
        patience.was_wrong(most);
        // Where many messages come between two sleeps a large segment is not left at each: it would be made anew at once.
        self.tidy(|links| links.consuming.with(|link| !links.is_busy(link.ring.seen().0, FEW)) == Some(true));
        let mut waiting = None;
        loop {
            // Before it announces itself, again if it was woken: nobody is to call it in vain.
            if let Some(done) = attempt()? {
                return Ok(done);
            }
            let seen = bell.announce();
            if let Some(done) = attempt()? {
                return Ok(done);
            }
            if until.has_passed() {
                return Err(Refused::TimedOut);
            }
            let end = match bell {
                _ if is_for_room => PUT,
                bell if std::ptr::eq(bell, &raw const self.shared.finished) => JOIN,
                _ => GET,
            };
            waiting.get_or_insert_with(|| shm::waiting_at(me, self.shared.offset(), end));
            match sleep(&Family, bell.word(), seen, &[], until.timeout()) {
                Slept::TimedOut => return attempt()?.ok_or(Refused::TimedOut),
                Slept::Interrupted if interruptible => return Err(Refused::Interrupted),
                Slept::Slice if interruptible && attention() => return Err(Refused::Interrupted),
                _ => {}
            }
        }
    }

    /// Ends the queue behind its last message. True if it was open.
    pub(crate) fn close(&self) -> bool {
        let closed = self.at_end(Ring::close) == Committed::Done;
        self.ring.ring_all();
        closed
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.at_end(Ring::state) == Committed::Closed
    }

    /// Asks the last segment.
    fn at_end(&self, ask: impl Fn(&Ring<Layout>) -> Committed) -> Committed {
        let Some(links) = &self.links else { return ask(&self.ring) };
        let walker = self.walker();
        let mut at = links.producing.get().map_or_else(|| walker.last(), Ok);
        for _ in 0..MOST {
            let Ok(link) = at else { break };
            match ask(&link.ring) {
                Committed::Moved => at = walker.behind(&link),
                told => return told,
            }
        }
        Committed::Garbled
    }

    pub(crate) fn len(&self) -> usize {
        let Some(links) = &self.links else { return self.ring.len() as usize };
        let is_only = |link: &Arc<Link>| {
            self.shared.chain.is_first(link.name()) && link.next().load(Ordering::SeqCst) == 0
        };
        let len = |link: &Arc<Link>| is_only(link).then(|| link.ring.len() as usize);
        if let Some(len) = [&links.consuming, &links.producing].into_iter().find_map(|slot| slot.with(len)?) {
            return len;
        }
        let all = self.walker().all().unwrap_or_default();
        all.iter().map(|link| link.ring.len() as usize).sum()
    }

    /// True if every message that was put was released.
    pub(super) fn is_finished(&self) -> bool {
        let Some(_) = &self.links else { return self.ring.is_finished() };
        // What is garbled is waited for by nobody.
        let all = self.walker().all().unwrap_or_default();
        all.iter().all(|link| link.ring.is_finished())
    }
}

/// Puts it into a ring.
#[inline]
fn put_in(ring: &Ring<Layout>, me: Id, content: &impl Content) -> Committed {
    let gap = match ring.room() {
        Ok(gap) => gap,
        Err(refused) => return refused,
    };
    let Some(spot) = ring.claim(gap, me) else { return Committed::Full };
    content.write(&ring.0, spot.place);
    let committed = ring.commit(spot, gap);
    if committed != Committed::Done {
        // Before its place is another message's.
        content.recall();
        ring.abandon(spot, me);
    }
    committed
}

/// Gets the next message of a ring.
#[inline(always)]
fn get_in(ring: &Ring<Layout>, me: Id, into: &mut Message) -> Got {
    loop {
        let spot = match ring.take(me) {
            Taken::Message(spot) => spot,
            nothing => return Got::Nothing(nothing),
        };
        if let Some(read) = deliver(ring, spot, me, into) {
            return Got::Message(read);
        }
    }
}

/// Reads a message that was taken, and releases it. `None`: it is somebody else's by now.
#[inline(always)]
fn deliver(ring: &Ring<Layout>, spot: Spot, me: Id, into: &mut Message) -> Option<Result<()>> {
    let read = unpack(&ring.0, spot, me, into);
    ring.release(spot, me).then_some(read)
}

/// Reads a message into an empty one.
#[inline(always)]
fn unpack(layout: &Layout, spot: Spot, me: Id, into: &mut Message) -> Result<()> {
    let place = spot.place;
    if let Some((name, len)) = layout.parcel(place) {
        *into = Parcel::take(name, len, me).map(Message::Parcel).ok_or_else(garbled)?;
        return Ok(());
    }
    let len = layout.len(place);
    match into {
        Message::Short(short) if len <= INLINE => {
            short.len = len;
            layout.read_short(place, len, &mut short.bytes);
        }
        _ => {
            let mut bytes = vec![0; len];
            layout.read(place, &mut bytes);
            *into = Message::Long(bytes);
        }
    }
    Ok(())
}

/// What a commit says; false: it is full.
#[inline]
fn told(committed: Committed) -> std::result::Result<bool, Refused> {
    match committed {
        Committed::Done => Ok(true),
        Committed::Full => Ok(false),
        Committed::Closed => Err(Refused::Closed),
        Committed::Moved | Committed::Garbled => Err(garbled().into()),
    }
}

#[cold]
pub(super) fn garbled() -> Error {
    let why = "another process has overwritten the queue in shared memory";
    Error::new("use a queue", Kind::Protocol(why.to_owned()))
}

impl Serialize for Core {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        self.shared.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Core {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Core, D::Error> {
        Core::over(Shared::deserialize(deserializer)?)
            .map_err(|error| de::Error::custom(codec::refuse(error)))
    }
}

#[cfg(test)]
mod tests;

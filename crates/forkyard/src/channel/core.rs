//! A queue of bytes: what all kinds of queues are made of.

use std::panic::Location;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::bell::Bell;
use super::layout::{Header, INLINE, Layout, Shape};
use super::ring::{Committed, Ring, Taken, Words};
use super::word::Spot;
use crate::error::{Error, Kind, Result};
use crate::primitive;
use crate::shm::{self, Family, Id, Me, Parcel, Shared};
use crate::sync::{Slept, attention, sleep};
use crate::time::Deadline;

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

/// A message that was got.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "the large one is the common one")]
pub(crate) enum Message {
    Short([u8; INLINE], usize),
    Long(Vec<u8>),
    Parcel(Parcel),
}

impl Default for Message {
    fn default() -> Message {
        Message::Long(Vec::new())
    }
}

impl Message {
    pub(crate) fn bytes(&self) -> &[u8] {
        match self {
            Message::Short(bytes, len) => &bytes[..*len],
            Message::Long(bytes) => bytes,
            Message::Parcel(parcel) => parcel.bytes(),
        }
    }
}

/// One of this process's handles of a queue.
#[derive(Clone, Debug)]
pub(crate) struct Core {
    ring: Ring<Layout>,
    shared: Shared<Header>,
}

impl Core {
    /// Makes a queue for so many messages; those of so many bytes at most lie in it, the others beside it.
    pub(crate) fn new(capacity: usize, inline: usize, made_at: &Location<'_>) -> Result<Core> {
        let refused = || {
            let why = format!("{capacity} messages is not a capacity; say one from 1 to {}", Shape::MOST);
            Error::new("make a queue", Kind::Invalid(why))
        };
        let shape = Shape::new(capacity, inline).ok_or_else(refused)?;
        let tail = shape.tail().ok_or_else(refused)?;
        Core::over(Shared::new(tail, made_at, |header, tail| Layout::make(shape, header, tail))?)
    }

    fn over(shared: Shared<Header>) -> Result<Core> {
        let (tail, len) = shared.tail();
        let layout = Layout::of(&shared, tail, len).ok_or_else(garbled)?;
        Ok(Core { ring: Ring(layout), shared })
    }

    pub(crate) fn shape(&self) -> Shape {
        self.ring.0.shape()
    }

    pub(super) fn ring(&self) -> &Ring<Layout> {
        &self.ring
    }

    pub(super) fn layout(&self) -> &Layout {
        &self.ring.0
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
        let me = shm::me()?;
        if bytes.len() > self.shape().inline() {
            return self.put_large(me, bytes, wait);
        }
        if self.put_inline(me.id, bytes)? {
            self.ring.0.counters().items.ring(1);
            return Ok(());
        }
        self.wait_for_room(me, wait, || self.put_inline(me.id, bytes))
    }

    #[cold]
    fn wait_for_room(
        &self,
        me: Me,
        wait: Wait,
        mut attempt: impl FnMut() -> std::result::Result<bool, Refused>,
    ) -> std::result::Result<(), Refused> {
        let attempt = || attempt().map(|done| done.then_some(()));
        self.wait(&self.ring.0.counters().room, me, wait, attempt)?;
        self.ring.0.counters().items.ring(1);
        Ok(())
    }

    /// False: it is full.
    #[inline]
    fn put_inline(&self, me: Id, bytes: &[u8]) -> std::result::Result<bool, Refused> {
        self.put_place(me, |place| self.ring.0.write(place, bytes))
    }

    fn put_large(&self, me: Me, bytes: &[u8], wait: Wait) -> std::result::Result<(), Refused> {
        // Not for nothing: the queue may be full, or closed.
        match self.ring.room() {
            Err(Committed::Full) if matches!(wait, Wait::Not) => return Err(Refused::NotNow),
            Ok(_) | Err(Committed::Full) => {}
            Err(refused) => return told(refused).map(drop),
        }
        let mut parcel = self.parcel(bytes.len(), me.id)?;
        parcel.bytes_mut().copy_from_slice(bytes);
        self.put_parcel(me, parcel, wait).map_err(|(refused, _)| refused)
    }

    /// Memory for a message of so many bytes, whatever they are.
    pub(crate) fn parcel(&self, len: usize, me: Id) -> Result<Parcel> {
        match self.ring.0.shelf().take(len, me) {
            Some(parcel) => Ok(parcel),
            None => Parcel::new(len, me),
        }
    }

    /// Keeps the memory of a message that was read for the next one.
    pub(crate) fn keep(&self, message: Message) {
        if let Message::Parcel(parcel) = message {
            self.ring.0.shelf().keep(parcel);
        }
    }

    /// Puts a message that lies in shared memory already.
    pub(crate) fn put_parcel(
        &self,
        me: Me,
        parcel: Parcel,
        wait: Wait,
    ) -> std::result::Result<(), (Refused, Parcel)> {
        let attempt = || {
            let done = self.put_place(me.id, |place| {
                self.ring.0.write_parcel(place, &parcel);
                parcel.hand_over();
            });
            if !matches!(done, Ok(true)) {
                parcel.recall();
            }
            done
        };
        match self.wait_for_room(me, wait, attempt) {
            Ok(()) => {
                parcel.forget();
                Ok(())
            }
            Err(refused) => Err((refused, parcel)),
        }
    }

    #[inline]
    fn put_place(&self, me: Id, write: impl FnOnce(u32)) -> std::result::Result<bool, Refused> {
        let gap = match self.ring.room() {
            Ok(gap) => gap,
            Err(refused) => return told(refused),
        };
        let Some(spot) = self.ring.claim(gap, me) else { return Ok(false) };
        write(spot.place);
        match self.ring.commit(spot, gap) {
            Committed::Done => Ok(true),
            refused => {
                self.ring.abandon(spot, me);
                told(refused)
            }
        }
    }

    /// Gets the next message.
    #[inline]
    pub(crate) fn get(&self, wait: Wait) -> std::result::Result<Message, Refused> {
        let me = shm::me()?;
        match self.get_now(me.id)? {
            Some(message) => Ok(message),
            None => self.wait(&self.ring.0.counters().items, me, wait, || self.get_now(me.id)),
        }
    }

    #[inline]
    fn get_now(&self, me: Id) -> std::result::Result<Option<Message>, Refused> {
        loop {
            let spot = match self.ring.take(me) {
                Taken::Message(spot) => spot,
                Taken::Empty => return Ok(None),
                Taken::Closed if shm::any_dead() && crate::sync::reap() => continue,
                Taken::Closed => return Err(Refused::Closed),
                Taken::Garbled => return Err(garbled().into()),
            };
            let message = self.unpack(spot, me);
            if self.ring.release(spot, me) {
                self.ring.0.counters().room.ring(1);
                return message.map(Some).map_err(Refused::Failed);
            }
        }
    }

    #[inline]
    fn unpack(&self, spot: Spot, me: Id) -> Result<Message> {
        let place = spot.place;
        if let Some((name, len)) = self.ring.0.parcel(place) {
            return Parcel::take(name, len, me).map(Message::Parcel).ok_or_else(garbled);
        }
        let len = self.ring.0.len(place);
        if len <= INLINE {
            let mut bytes = [0; INLINE];
            self.ring.0.read(place, &mut bytes[..len]);
            return Ok(Message::Short(bytes, len));
        }
        let mut bytes = vec![0; len];
        self.ring.0.read(place, &mut bytes);
        Ok(Message::Long(bytes))
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
            Wait::Not => return attempt()?.ok_or(Refused::NotNow),
            Wait::Until(until) => (until, false),
            Wait::Interruptible(until) => (until, true),
        };
        for _ in 0..primitive::SPINS {
            if let Some(done) = attempt()? {
                return Ok(done);
            }
            primitive::spin_loop();
        }
        let mut waiting = None;
        loop {
            let seen = bell.announce();
            if let Some(done) = attempt()? {
                return Ok(done);
            }
            if until.has_passed() {
                return Err(Refused::TimedOut);
            }
            waiting.get_or_insert_with(|| shm::waiting(me, self.shared.offset()));
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
        let closed = self.ring.close();
        self.ring.ring_all();
        closed
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.ring.is_closed()
    }

    pub(crate) fn len(&self) -> usize {
        self.ring.len() as usize
    }
}

/// What a commit says; false: it is full.
#[cold]
fn told(committed: Committed) -> std::result::Result<bool, Refused> {
    match committed {
        Committed::Done => Ok(true),
        Committed::Full => Ok(false),
        Committed::Closed => Err(Refused::Closed),
        Committed::Garbled => Err(garbled().into()),
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
        Core::over(Shared::deserialize(deserializer)?).map_err(|error| de::Error::custom(error.to_string()))
    }
}

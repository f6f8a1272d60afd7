//! Queues of values.

use std::fmt;
use std::iter::FusedIterator;
use std::marker::PhantomData;
use std::panic::Location;
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::core::{Core, Message, Refused, Wait};
use super::encode::{Encoded, refused};
use super::error::{GetError, PutError};
use super::layout::INLINE;
use super::ready::{End, Ready};
use crate::error::Result;
use crate::shm::Collecting;
use crate::time::Deadline;

/// A queue of values between processes and threads: any number of producers, and of consumers that compete.
///
/// Each value goes to one consumer. Values are encoded by [`put`](Queue::put), in its caller; those that need more than 104 bytes lie in a
/// piece of shared memory of their own. A handle travels in the arguments of a task, and is cloned within a process; the queue and what
/// is in it go with the last handle.
///
/// A value may have handles of shared objects in it, queues and locks and whatever else is shared. The object is there as long as the value is in
/// the queue, also when whoever put it has ended: so a request can bring the queue for its answer. What is only in a queue that is
/// only in itself stays until the family ends.
///
/// A value that nobody could decode is refused by `put`, as far as that shows while it is encoded: one that leaves out a field (serde's
/// `skip_serializing_if`), does not know its length (`flatten`), or announces another one. What does not show, a type with serde's `untagged` or `tag`, is
/// an error for its consumer, and so is a type that is not the producer's.
///
/// Order: values of one producer are got in the order in which it put them.
///
/// Killed here: a value whose put returned is in the queue, or was got; one whose put did not is there or not, whole. A consumer that is
/// killed before its get returned loses nothing: the value goes to the next one. Nobody waits for the dead, or for a producer that was stopped.
#[doc(alias = "mq_open")]
#[doc(alias = "channel")]
pub struct Queue<T> {
    core: Core,
    values: PhantomData<fn(T) -> T>,
}

impl<T> Clone for Queue<T> {
    fn clone(&self) -> Queue<T> {
        Queue { core: self.core.clone(), values: PhantomData }
    }
}

impl<T> Queue<T> {
    #[cfg(feature = "tokio")]
    pub(super) fn core(&self) -> &Core {
        &self.core
    }

    pub(super) fn over(core: Core) -> Queue<T> {
        Queue { core, values: PhantomData }
    }

    /// A queue for at most so many values at a time.
    ///
    /// # Errors
    /// The capacity is 0, or there is no memory for it.
    #[track_caller]
    pub fn bounded(capacity: usize) -> Result<Queue<T>> {
        Ok(Queue { core: Core::new(Some(capacity), INLINE, Location::caller())?, values: PhantomData })
    }

    /// The same; values of up to `inline` encoded bytes lie in the queue itself, which takes so much memory for each, and is the fastest for
    /// values of a few KiB.
    ///
    /// # Errors
    /// As for [`bounded`](Queue::bounded).
    #[track_caller]
    pub fn with_inline(capacity: usize, inline: usize) -> Result<Queue<T>> {
        Ok(Queue { core: Core::new(Some(capacity), inline, Location::caller())?, values: PhantomData })
    }

    /// A queue for any number of values: it takes more memory while there are many, and gives it back.
    ///
    /// # Errors
    /// There is no memory for it.
    #[track_caller]
    pub fn unbounded() -> Result<Queue<T>> {
        Ok(Queue { core: Core::new(None, INLINE, Location::caller())?, values: PhantomData })
    }

    /// How many values there are, while others may put and get more.
    #[must_use]
    #[doc(alias = "qsize")]
    pub fn len(&self) -> usize {
        self.core.len()
    }

    /// True if there is no value.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// True if there is no room for more.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.core.is_full()
    }

    /// The most values at a time; `usize::MAX` if there is no bound.
    #[must_use]
    #[doc(alias = "maxsize")]
    pub fn capacity(&self) -> usize {
        self.core.capacity()
    }

    /// Ends the queue behind the last value: nothing is put any more, and consumers are told when they have got everything.
    /// True if it was open.
    pub fn close(&self) -> bool {
        self.core.close()
    }

    /// A descriptor that tells when to look again for something to get: for poll and epoll.
    ///
    /// # Errors
    /// No descriptor left, or no thread.
    pub fn ready_to_get(&self) -> Result<Ready> {
        Ready::new(&self.core, End::Get)
    }

    /// The same for room to put something.
    ///
    /// # Errors
    /// As for `ready_to_get`.
    pub fn ready_to_put(&self) -> Result<Ready> {
        Ready::new(&self.core, End::Put)
    }

    /// True if it was closed.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.core.is_closed()
    }
}

impl<T: Serialize> Queue<T> {
    /// Puts a value, waiting for room. When this has returned the value is in the queue, whatever becomes of this process.
    ///
    /// # Errors
    /// With the value: the queue was closed; the value cannot be encoded; there is no memory for it.
    #[doc(alias = "send")]
    pub fn put(&self, value: T) -> std::result::Result<(), PutError<T>> {
        put_encoded(&self.core, value, 1, Wait::Until(Deadline::NEVER))
    }

    /// Puts a value if there is room now.
    ///
    /// # Errors
    /// As for [`put`](Queue::put), or [`PutError::Full`].
    #[doc(alias = "put_nowait")]
    pub fn try_put(&self, value: T) -> std::result::Result<(), PutError<T>> {
        put_encoded(&self.core, value, 1, Wait::Not)
    }

    /// Puts a value, waiting for room for so long at most.
    ///
    /// # Errors
    /// As for [`put`](Queue::put), or [`PutError::TimedOut`].
    pub fn put_timeout(&self, value: T, timeout: Duration) -> std::result::Result<(), PutError<T>> {
        put_encoded(&self.core, value, 1, Wait::Until(Deadline::after(timeout)))
    }

    /// Puts a value, waiting for room until then.
    ///
    /// # Errors
    /// As for [`put`](Queue::put), or [`PutError::TimedOut`].
    pub fn put_deadline(&self, value: T, deadline: Instant) -> std::result::Result<(), PutError<T>> {
        put_encoded(&self.core, value, 1, Wait::Until(deadline.into()))
    }

    /// Puts all of these, one after the other, waiting for room. As many consumers are woken at once as there will be work for.
    ///
    /// Killed here: some of the first ones are in the queue.
    ///
    /// # Errors
    /// As for [`put`](Queue::put), with the value that was not put; those before it were.
    pub fn put_many(&self, values: impl IntoIterator<Item = T>) -> std::result::Result<(), PutError<T>> {
        self.put_many_waiting(values, Wait::Until(Deadline::NEVER))
    }

    /// The same, as many as there is room for now.
    ///
    /// # Errors
    /// As for [`put_many`](Queue::put_many), or [`PutError::Full`].
    pub fn try_put_many(&self, values: impl IntoIterator<Item = T>) -> std::result::Result<(), PutError<T>> {
        self.put_many_waiting(values, Wait::Not)
    }

    /// The same, waiting for so long at most.
    ///
    /// # Errors
    /// As for [`put_many`](Queue::put_many), or [`PutError::TimedOut`].
    pub fn put_many_timeout(
        &self,
        values: impl IntoIterator<Item = T>,
        timeout: Duration,
    ) -> std::result::Result<(), PutError<T>> {
        self.put_many_waiting(values, Wait::Until(Deadline::after(timeout)))
    }

    /// The same, waiting until then.
    ///
    /// # Errors
    /// As for [`put_many`](Queue::put_many), or [`PutError::TimedOut`].
    pub fn put_many_deadline(
        &self,
        values: impl IntoIterator<Item = T>,
        deadline: Instant,
    ) -> std::result::Result<(), PutError<T>> {
        self.put_many_waiting(values, Wait::Until(deadline.into()))
    }

    fn put_many_waiting(
        &self,
        values: impl IntoIterator<Item = T>,
        wait: Wait,
    ) -> std::result::Result<(), PutError<T>> {
        put_all(values, |value, work| put_encoded(&self.core, value, work, wait))
    }
}

impl<T: DeserializeOwned> Queue<T> {
    /// Gets the next value, waiting for one.
    ///
    /// # Errors
    /// The queue was closed and is empty; or what was got is no `T`, and is gone.
    #[doc(alias = "recv")]
    pub fn get(&self) -> std::result::Result<T, GetError> {
        self.get_waiting(Wait::Until(Deadline::NEVER))
    }

    /// Gets the next value if there is one now.
    ///
    /// # Errors
    /// As for [`get`](Queue::get), or [`GetError::Empty`].
    #[doc(alias = "get_nowait")]
    pub fn try_get(&self) -> std::result::Result<T, GetError> {
        self.get_waiting(Wait::Not)
    }

    /// Gets the next value, waiting for so long at most.
    ///
    /// # Errors
    /// As for [`get`](Queue::get), or [`GetError::TimedOut`].
    pub fn get_timeout(&self, timeout: Duration) -> std::result::Result<T, GetError> {
        self.get_waiting(Wait::Until(Deadline::after(timeout)))
    }

    /// Gets the next value, waiting until then.
    ///
    /// # Errors
    /// As for [`get`](Queue::get), or [`GetError::TimedOut`].
    pub fn get_deadline(&self, deadline: Instant) -> std::result::Result<T, GetError> {
        self.get_waiting(Wait::Until(deadline.into()))
    }

    #[inline]
    fn get_waiting(&self, wait: Wait) -> std::result::Result<T, GetError> {
        let mut message = Message::default();
        self.core.get(wait, &mut message)?;
        let value = decode(message.bytes());
        self.core.keep(message);
        value.map_err(GetError::Failed)
    }

    /// Gets as many values as there are, up to `most`, waiting for the first one. What is no `T` is told of when it is the first.
    ///
    /// Killed here: none of them was got, or, at the very end, some of the first ones.
    ///
    /// # Errors
    /// As for [`get`](Queue::get), if there is none before.
    pub fn get_many(&self, most: usize) -> std::result::Result<Vec<T>, GetError> {
        self.get_many_waiting(most, Wait::Until(Deadline::NEVER))
    }

    /// The same, as many as there are now.
    ///
    /// # Errors
    /// As for [`get_many`](Queue::get_many), or [`GetError::Empty`].
    pub fn try_get_many(&self, most: usize) -> std::result::Result<Vec<T>, GetError> {
        self.get_many_waiting(most, Wait::Not)
    }

    /// The same, waiting for the first one for so long at most.
    ///
    /// # Errors
    /// As for [`get_many`](Queue::get_many), or [`GetError::TimedOut`].
    pub fn get_many_timeout(&self, most: usize, timeout: Duration) -> std::result::Result<Vec<T>, GetError> {
        self.get_many_waiting(most, Wait::Until(Deadline::after(timeout)))
    }

    /// The same, waiting for the first one until then.
    ///
    /// # Errors
    /// As for [`get_many`](Queue::get_many), or [`GetError::TimedOut`].
    pub fn get_many_deadline(&self, most: usize, deadline: Instant) -> std::result::Result<Vec<T>, GetError> {
        self.get_many_waiting(most, Wait::Until(deadline.into()))
    }

    fn get_many_waiting(&self, most: usize, wait: Wait) -> std::result::Result<Vec<T>, GetError> {
        Ok(self.core.get_many(wait, most, decode)?)
    }

    /// Gets values until the queue is closed and empty. What is no `T` ends it too.
    pub fn iter(&self) -> Iter<'_, T> {
        Iter { queue: self }
    }
}

#[inline]
fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    postcard::from_bytes(bytes).map_err(|error| refused("decode a message of a queue", error))
}

/// Puts all of these by a call that is told for how many consumers there will be work.
pub(super) fn put_all<T, E>(
    values: impl IntoIterator<Item = T>,
    put: impl Fn(T, u32) -> std::result::Result<(), E>,
) -> std::result::Result<(), E> {
    let mut values = values.into_iter();
    while let Some(value) = values.next() {
        put(value, work_left(&values))?;
    }
    Ok(())
}

/// For how many consumers there will be work, with the one that was just taken from these.
pub(super) fn work_left(values: &impl Iterator) -> u32 {
    u32::try_from(values.size_hint().0).unwrap_or(u32::MAX).saturating_add(1)
}

/// Encodes a value, and puts it, the first of as many as `work` says.
#[inline]
pub(super) fn put_encoded<T: Serialize>(
    core: &Core,
    value: T,
    work: u32,
    wait: Wait,
) -> std::result::Result<(), PutError<T>> {
    let collecting = Collecting::begin();
    let done = match Encoded::new(&value) {
        Ok(encoded) => match collecting.end() {
            None => core.put_first(encoded.bytes(), work, wait),
            Some(handles) => core.put_carrying(encoded.bytes(), &handles, wait),
        },
        Err(error) => Err(Refused::Failed(error)),
    };
    done.map_err(|refused| PutError::of(value, refused))
}

/// Gets the values of a queue until it is closed and empty.
#[derive(Debug)]
pub struct Iter<'a, T> {
    queue: &'a Queue<T>,
}

impl<T: DeserializeOwned> Iterator for Iter<'_, T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        self.queue.get().ok()
    }
}

impl<T: DeserializeOwned> FusedIterator for Iter<'_, T> {}

impl<'a, T: DeserializeOwned> IntoIterator for &'a Queue<T> {
    type Item = T;
    type IntoIter = Iter<'a, T>;

    fn into_iter(self) -> Iter<'a, T> {
        self.iter()
    }
}

impl<T> fmt::Debug for Queue<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.core.describe("Queue", f)
    }
}

impl<T> Serialize for Queue<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        self.core.serialize(serializer)
    }
}

impl<'de, T> Deserialize<'de> for Queue<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Queue<T>, D::Error> {
        Ok(Queue { core: Core::deserialize(deserializer)?, values: PhantomData })
    }
}

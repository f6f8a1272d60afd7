//! Queues of work: what was got stays in the queue until it is finished.
//!
//! A value that was got keeps its place, in the name of its consumer (README.md: `Read`), and finishing it is the release.
//!
//! Killed here: what a consumer had not finished goes to the next one. So `join` waits for work, and never for the dead.

use std::fmt;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::panic::Location;
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::core::{Core, Wait};
use super::encode::refused;
use super::error::{GetError, PutError};
use super::layout::INLINE;
use super::lease::Lease;
use super::queue::{put_all, put_encoded};
use super::ready::{End, Ready};
use crate::error::{Error, Kind, Result};
use crate::time::Deadline;

/// A queue of values that are work to do, which is over when somebody has said so: [`join`](JoinableQueue::join) waits for that.
///
/// What was got and is not finished takes up room, and goes to another consumer if its own one dies, or drops it. So a value may be got
/// more than once, but is finished once.
pub struct JoinableQueue<T> {
    core: Core,
    values: PhantomData<fn(T) -> T>,
}

impl<T> Clone for JoinableQueue<T> {
    fn clone(&self) -> JoinableQueue<T> {
        JoinableQueue { core: self.core.clone(), values: PhantomData }
    }
}

/// A value that was got and is to be finished. Dropped instead, or if its process dies, it goes back into the queue, before all others.
pub struct Work<T> {
    value: T,
    lease: Lease,
}

impl<T> Work<T> {
    /// Says that it is done: nobody will get it again. Returns the value.
    ///
    /// # Errors
    /// This process is a fork of the one that got it.
    #[doc(alias = "task_done")]
    pub fn finish(self) -> Result<T> {
        if self.lease.finish() {
            return Ok(self.value);
        }
        Err(not_own())
    }
}

#[cold]
fn not_own() -> Error {
    let why = "it was got by another process, of which this one is a copy".to_owned();
    Error::new("finish a piece of work", Kind::Invalid(why))
}

impl<T> Deref for Work<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> DerefMut for Work<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.value
    }
}

impl<T: fmt::Debug> fmt::Debug for Work<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Work").field(&self.value).finish()
    }
}

impl<T> JoinableQueue<T> {
    pub(super) fn over(core: Core) -> JoinableQueue<T> {
        JoinableQueue { core, values: PhantomData }
    }

    #[cfg(feature = "tokio")]
    pub(super) fn core(&self) -> &Core {
        &self.core
    }

    /// A queue for at most so many values at a time.
    ///
    /// # Errors
    /// The capacity is 0, or there is no memory for it.
    #[track_caller]
    pub fn bounded(capacity: usize) -> Result<JoinableQueue<T>> {
        Ok(JoinableQueue {
            core: Core::new(Some(capacity), INLINE, Location::caller())?,
            values: PhantomData,
        })
    }

    /// A queue for any number of values, got or not: it takes more memory while there are many, and gives it back.
    ///
    /// # Errors
    /// There is no memory for it.
    #[track_caller]
    pub fn unbounded() -> Result<JoinableQueue<T>> {
        Ok(JoinableQueue { core: Core::new(None, INLINE, Location::caller())?, values: PhantomData })
    }

    /// Says that all of these are done, as [`Work::finish`] does of one: who waits is told once. Returns the values.
    ///
    /// Killed here: some of the first ones are done, and the others go to other consumers.
    ///
    /// # Errors
    /// Some are of another queue, and nothing is finished; or this process is a fork of the one that got them.
    #[doc(alias = "task_done_many")]
    pub fn finish_many(&self, work: impl IntoIterator<Item = Work<T>>) -> Result<Vec<T>> {
        let (values, leases): (Vec<_>, Vec<_>) =
            work.into_iter().map(|work| (work.value, work.lease)).unzip();
        if leases.iter().any(|lease| !lease.is_of(&self.core)) {
            let why = "some of it is of another queue".to_owned();
            return Err(Error::new("finish pieces of work", Kind::Invalid(why)));
        }
        if self.core.finish_many(&leases) { Ok(values) } else { Err(not_own()) }
    }

    /// Waits until all work that was put is finished.
    ///
    /// # Errors
    /// This process cannot use the family's memory.
    pub fn join(&self) -> Result<()> {
        self.core.join(Deadline::NEVER)
    }

    /// The same, for so long at most.
    ///
    /// # Errors
    /// As for [`join`](JoinableQueue::join), or the time is up.
    pub fn join_timeout(&self, timeout: Duration) -> Result<()> {
        self.core.join(Deadline::after(timeout))
    }

    /// The same, until then.
    ///
    /// # Errors
    /// As for [`join`](JoinableQueue::join), or the time is up.
    pub fn join_deadline(&self, deadline: Instant) -> Result<()> {
        self.core.join(deadline.into())
    }

    /// True if all work that was put is finished: [`join`](JoinableQueue::join) would not wait.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.core.is_finished()
    }

    /// How many values there are that nobody has got.
    #[must_use]
    pub fn len(&self) -> usize {
        self.core.len()
    }

    /// True if somebody has got every value.
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
    pub fn capacity(&self) -> usize {
        self.core.capacity()
    }

    /// True if it was closed.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.core.is_closed()
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

    /// The same for the end of all work; [`is_finished`](JoinableQueue::is_finished) tells whether it has come.
    ///
    /// # Errors
    /// As for `ready_to_get`.
    pub fn ready_to_join(&self) -> Result<Ready> {
        Ready::new(&self.core, End::Join)
    }

    /// Ends the queue behind the last value; as [`Queue::close`](super::Queue::close). Consumers are told when all work is finished: until
    /// then some of it may come back.
    pub fn close(&self) -> bool {
        self.core.close()
    }
}

impl<T: Serialize> JoinableQueue<T> {
    /// Puts a value, waiting for room; as [`Queue::put`](super::Queue::put).
    ///
    /// # Errors
    /// With the value: the queue was closed; the value cannot be encoded; there is no memory for it.
    pub fn put(&self, value: T) -> std::result::Result<(), PutError<T>> {
        put_encoded(&self.core, value, 1, Wait::Until(Deadline::NEVER))
    }

    /// Puts a value if there is room now.
    ///
    /// # Errors
    /// As for [`put`](JoinableQueue::put), or [`PutError::Full`].
    pub fn try_put(&self, value: T) -> std::result::Result<(), PutError<T>> {
        put_encoded(&self.core, value, 1, Wait::Not)
    }

    /// Puts a value, waiting for room for so long at most.
    ///
    /// # Errors
    /// As for [`put`](JoinableQueue::put), or [`PutError::TimedOut`].
    pub fn put_timeout(&self, value: T, timeout: Duration) -> std::result::Result<(), PutError<T>> {
        put_encoded(&self.core, value, 1, Wait::Until(Deadline::after(timeout)))
    }

    /// Puts a value, waiting for room until then.
    ///
    /// # Errors
    /// As for [`put`](JoinableQueue::put), or [`PutError::TimedOut`].
    pub fn put_deadline(&self, value: T, deadline: Instant) -> std::result::Result<(), PutError<T>> {
        put_encoded(&self.core, value, 1, Wait::Until(deadline.into()))
    }

    /// Puts all of these, one after the other, waiting for room. As many consumers are woken at once as there will be work for.
    ///
    /// Killed here: some of the first ones are in the queue.
    ///
    /// # Errors
    /// As for [`put`](JoinableQueue::put), with the value that was not put; those before it were.
    pub fn put_many(&self, values: impl IntoIterator<Item = T>) -> std::result::Result<(), PutError<T>> {
        self.put_many_waiting(values, Wait::Until(Deadline::NEVER))
    }

    /// The same, as many as there is room for now.
    ///
    /// # Errors
    /// As for [`put_many`](JoinableQueue::put_many), or [`PutError::Full`].
    pub fn try_put_many(&self, values: impl IntoIterator<Item = T>) -> std::result::Result<(), PutError<T>> {
        self.put_many_waiting(values, Wait::Not)
    }

    /// The same, waiting for so long at most.
    ///
    /// # Errors
    /// As for [`put_many`](JoinableQueue::put_many), or [`PutError::TimedOut`].
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
    /// As for [`put_many`](JoinableQueue::put_many), or [`PutError::TimedOut`].
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

impl<T: DeserializeOwned> JoinableQueue<T> {
    /// Gets the next piece of work, waiting for one.
    ///
    /// # Errors
    /// The queue was closed and is empty; or what was got is no `T`, and stays with this process.
    pub fn get(&self) -> std::result::Result<Work<T>, GetError> {
        self.get_waiting(Wait::Until(Deadline::NEVER))
    }

    /// Gets the next one if there is one now.
    ///
    /// # Errors
    /// As for [`get`](JoinableQueue::get), or [`GetError::Empty`].
    pub fn try_get(&self) -> std::result::Result<Work<T>, GetError> {
        self.get_waiting(Wait::Not)
    }

    /// Gets the next one, waiting for so long at most.
    ///
    /// # Errors
    /// As for [`get`](JoinableQueue::get), or [`GetError::TimedOut`].
    pub fn get_timeout(&self, timeout: Duration) -> std::result::Result<Work<T>, GetError> {
        self.get_waiting(Wait::Until(Deadline::after(timeout)))
    }

    /// Gets the next one, waiting until then.
    ///
    /// # Errors
    /// As for [`get`](JoinableQueue::get), or [`GetError::TimedOut`].
    pub fn get_deadline(&self, deadline: Instant) -> std::result::Result<Work<T>, GetError> {
        self.get_waiting(Wait::Until(deadline.into()))
    }

    /// Gets as many pieces of work as there are, up to `most`, waiting for the first one.
    ///
    /// Killed here: all of them go to others, until they are finished.
    ///
    /// # Errors
    /// As for [`get`](JoinableQueue::get), if there is none before.
    pub fn get_many(&self, most: usize) -> std::result::Result<Vec<Work<T>>, GetError> {
        self.get_many_waiting(most, Wait::Until(Deadline::NEVER))
    }

    /// The same, as many as there are now.
    ///
    /// # Errors
    /// As for [`get_many`](JoinableQueue::get_many), or [`GetError::Empty`].
    pub fn try_get_many(&self, most: usize) -> std::result::Result<Vec<Work<T>>, GetError> {
        self.get_many_waiting(most, Wait::Not)
    }

    /// The same, waiting for the first one for so long at most.
    ///
    /// # Errors
    /// As for [`get_many`](JoinableQueue::get_many), or [`GetError::TimedOut`].
    pub fn get_many_timeout(
        &self,
        most: usize,
        timeout: Duration,
    ) -> std::result::Result<Vec<Work<T>>, GetError> {
        self.get_many_waiting(most, Wait::Until(Deadline::after(timeout)))
    }

    /// The same, waiting for the first one until then.
    ///
    /// # Errors
    /// As for [`get_many`](JoinableQueue::get_many), or [`GetError::TimedOut`].
    pub fn get_many_deadline(
        &self,
        most: usize,
        deadline: Instant,
    ) -> std::result::Result<Vec<Work<T>>, GetError> {
        self.get_many_waiting(most, Wait::Until(deadline.into()))
    }

    fn get_many_waiting(&self, most: usize, wait: Wait) -> std::result::Result<Vec<Work<T>>, GetError> {
        let mut work = Vec::new();
        while work.len() < most {
            let is_first = work.is_empty();
            match self.core.lease(if is_first { wait } else { Wait::Not }) {
                Err(refused) if is_first => return Err(refused.into()),
                // There are no more.
                Err(_) => break,
                Ok(lease) => match Self::decoded(&lease) {
                    Ok(value) => work.push(Work { value, lease }),
                    Err(error) if is_first => return Err(Self::useless(&lease, error)),
                    // It goes back: the next call tells of it.
                    Err(_) => break,
                },
            }
        }
        Ok(work)
    }

    fn get_waiting(&self, wait: Wait) -> std::result::Result<Work<T>, GetError> {
        let lease = self.core.lease(wait)?;
        match Self::decoded(&lease) {
            Ok(value) => Ok(Work { value, lease }),
            Err(error) => Err(Self::useless(&lease, error)),
        }
    }

    fn decoded(lease: &Lease) -> Result<T> {
        let decoded = lease.read(|bytes| postcard::from_bytes(bytes))?;
        decoded.map_err(|error| refused("decode a message of a queue", error))
    }

    /// Nobody else could read it either.
    #[cold]
    fn useless(lease: &Lease, error: Error) -> GetError {
        lease.finish();
        GetError::Failed(error)
    }
}

impl<T> fmt::Debug for JoinableQueue<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JoinableQueue({} to get, made at {})", self.len(), self.core.made_at())
    }
}

impl<T> Serialize for JoinableQueue<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        self.core.serialize(serializer)
    }
}

impl<'de, T> Deserialize<'de> for JoinableQueue<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<JoinableQueue<T>, D::Error> {
        Ok(JoinableQueue { core: Core::deserialize(deserializer)?, values: PhantomData })
    }
}

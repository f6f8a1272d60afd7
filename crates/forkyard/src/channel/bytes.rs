//! Queues of bytes, which a consumer may read where they lie.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::panic::Location;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::core::{Core, Message, Wait};
use super::error::{GetError, PutError};
use super::layout::INLINE;
use super::queue::put_all;
use super::ready::{End, Ready};
use crate::error::Result;
use crate::shm::{self, Parcel};
use crate::time::Deadline;

/// A queue of messages of any bytes, of any length: a [`Queue`](super::Queue) without the encoding.
///
/// A message of more than 104 bytes, or of what [`with_inline`](ByteQueue::with_inline) says, lies in shared memory of its own: it is written
/// there once, by [`put`](ByteQueue::put) or by whoever fills a [`loan`](ByteQueue::loan), and read where it lies.
#[derive(Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ByteQueue {
    core: Core,
}

/// Bytes of shared memory to write a message in, which then goes into a queue as it is. Dropped instead, it is given back; so it is
/// if its process is killed.
#[derive(Debug)]
pub struct Loan {
    parcel: Parcel,
}

impl Deref for Loan {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.parcel.bytes()
    }
}

impl DerefMut for Loan {
    fn deref_mut(&mut self) -> &mut [u8] {
        self.parcel.bytes_mut()
    }
}

/// A message that was got, where it lies. Its memory is given back when this is dropped, or when its process is killed.
/// In a fork of its process it is empty.
#[derive(Debug)]
pub struct Sample {
    message: Message,
    /// Where its memory may be wanted for another message.
    queue: Option<Box<Core>>,
}

impl Deref for Sample {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.message.bytes()
    }
}

impl Drop for Sample {
    fn drop(&mut self) {
        if let Some(queue) = &self.queue {
            queue.keep(std::mem::take(&mut self.message));
        }
    }
}

impl ByteQueue {
    pub(super) fn over(core: Core) -> ByteQueue {
        ByteQueue { core }
    }

    /// A queue for at most so many messages at a time.
    ///
    /// # Errors
    /// The capacity is 0, or there is no memory for it.
    #[track_caller]
    pub fn bounded(capacity: usize) -> Result<ByteQueue> {
        Ok(ByteQueue { core: Core::new(Some(capacity), INLINE, Location::caller())? })
    }

    /// The same; messages of up to `inline` bytes lie in the queue itself, which takes so much memory for each, and is the
    /// fastest for messages of a few KiB.
    ///
    /// # Errors
    /// As for [`bounded`](ByteQueue::bounded).
    #[track_caller]
    pub fn with_inline(capacity: usize, inline: usize) -> Result<ByteQueue> {
        Ok(ByteQueue { core: Core::new(Some(capacity), inline, Location::caller())? })
    }

    /// A queue for any number of messages: it takes more memory while there are many, and gives it back.
    ///
    /// # Errors
    /// There is no memory for it.
    #[track_caller]
    pub fn unbounded() -> Result<ByteQueue> {
        Ok(ByteQueue { core: Core::new(None, INLINE, Location::caller())? })
    }

    /// Puts a message, waiting for room. When this has returned the message is in the queue, whatever becomes of this process.
    ///
    /// # Errors
    /// With the message: the queue was closed; there is no memory for it.
    pub fn put<'a>(&self, message: &'a [u8]) -> std::result::Result<(), PutError<&'a [u8]>> {
        self.put_waiting(message, Wait::Until(Deadline::NEVER))
    }

    /// Puts a message if there is room now.
    ///
    /// # Errors
    /// As for [`put`](ByteQueue::put), or [`PutError::Full`].
    pub fn try_put<'a>(&self, message: &'a [u8]) -> std::result::Result<(), PutError<&'a [u8]>> {
        self.put_waiting(message, Wait::Not)
    }

    /// Puts a message, waiting for room for so long at most.
    ///
    /// # Errors
    /// As for [`put`](ByteQueue::put), or [`PutError::TimedOut`].
    pub fn put_timeout<'a>(
        &self,
        message: &'a [u8],
        timeout: Duration,
    ) -> std::result::Result<(), PutError<&'a [u8]>> {
        self.put_waiting(message, Wait::Until(Deadline::after(timeout)))
    }

    /// Puts a message, waiting for room until then.
    ///
    /// # Errors
    /// As for [`put`](ByteQueue::put), or [`PutError::TimedOut`].
    pub fn put_deadline<'a>(
        &self,
        message: &'a [u8],
        deadline: Instant,
    ) -> std::result::Result<(), PutError<&'a [u8]>> {
        self.put_waiting(message, Wait::Until(deadline.into()))
    }

    /// Puts all of these, one after the other, waiting for room. As many consumers are woken at once as there will be work for.
    ///
    /// Killed here: some of the first ones are in the queue.
    ///
    /// # Errors
    /// As for [`put`](ByteQueue::put), with the message that was not put; those before it were.
    pub fn put_many<'a>(
        &self,
        messages: impl IntoIterator<Item = &'a [u8]>,
    ) -> std::result::Result<(), PutError<&'a [u8]>> {
        self.put_many_waiting(messages, Wait::Until(Deadline::NEVER))
    }

    /// The same, as many as there is room for now.
    ///
    /// # Errors
    /// As for [`put_many`](ByteQueue::put_many), or [`PutError::Full`].
    pub fn try_put_many<'a>(
        &self,
        messages: impl IntoIterator<Item = &'a [u8]>,
    ) -> std::result::Result<(), PutError<&'a [u8]>> {
        self.put_many_waiting(messages, Wait::Not)
    }

    /// The same, waiting for so long at most.
    ///
    /// # Errors
    /// As for [`put_many`](ByteQueue::put_many), or [`PutError::TimedOut`].
    pub fn put_many_timeout<'a>(
        &self,
        messages: impl IntoIterator<Item = &'a [u8]>,
        timeout: Duration,
    ) -> std::result::Result<(), PutError<&'a [u8]>> {
        self.put_many_waiting(messages, Wait::Until(Deadline::after(timeout)))
    }

    /// The same, waiting until then.
    ///
    /// # Errors
    /// As for [`put_many`](ByteQueue::put_many), or [`PutError::TimedOut`].
    pub fn put_many_deadline<'a>(
        &self,
        messages: impl IntoIterator<Item = &'a [u8]>,
        deadline: Instant,
    ) -> std::result::Result<(), PutError<&'a [u8]>> {
        self.put_many_waiting(messages, Wait::Until(deadline.into()))
    }

    fn put_many_waiting<'a>(
        &self,
        messages: impl IntoIterator<Item = &'a [u8]>,
        wait: Wait,
    ) -> std::result::Result<(), PutError<&'a [u8]>> {
        put_all(messages, |message, work| self.put_first(message, work, wait))
    }

    pub(super) fn put_first<'a>(
        &self,
        message: &'a [u8],
        work: u32,
        wait: Wait,
    ) -> std::result::Result<(), PutError<&'a [u8]>> {
        self.core.put_first(message, work, wait).map_err(|refused| PutError::of(message, refused))
    }

    /// What it is made of.
    pub(super) fn core(&self) -> &Core {
        &self.core
    }

    #[inline]
    pub(super) fn put_waiting<'a>(
        &self,
        message: &'a [u8],
        wait: Wait,
    ) -> std::result::Result<(), PutError<&'a [u8]>> {
        self.core.put(message, wait).map_err(|refused| PutError::of(message, refused))
    }

    /// Memory for a message of so many bytes, whatever they are, to [`send`](ByteQueue::send) when it is written.
    ///
    /// # Errors
    /// There is no memory for it.
    pub fn loan(&self, len: usize) -> Result<Loan> {
        Ok(Loan { parcel: self.core.parcel(len, shm::me()?.id)? })
    }

    /// Puts a message that was written in a loan, without a copy, waiting for room.
    ///
    /// # Errors
    /// With the loan: the queue was closed.
    pub fn send(&self, loan: Loan) -> std::result::Result<(), PutError<Loan>> {
        self.send_waiting(loan, Wait::Until(Deadline::NEVER))
    }

    /// The same, if there is room now.
    ///
    /// # Errors
    /// As for [`send`](ByteQueue::send), or [`PutError::Full`].
    pub fn try_send(&self, loan: Loan) -> std::result::Result<(), PutError<Loan>> {
        self.send_waiting(loan, Wait::Not)
    }

    /// The same, waiting for room for so long at most.
    ///
    /// # Errors
    /// As for [`send`](ByteQueue::send), or [`PutError::TimedOut`].
    pub fn send_timeout(&self, loan: Loan, timeout: Duration) -> std::result::Result<(), PutError<Loan>> {
        self.send_waiting(loan, Wait::Until(Deadline::after(timeout)))
    }

    /// The same, waiting for room until then.
    ///
    /// # Errors
    /// As for [`send`](ByteQueue::send), or [`PutError::TimedOut`].
    pub fn send_deadline(&self, loan: Loan, deadline: Instant) -> std::result::Result<(), PutError<Loan>> {
        self.send_waiting(loan, Wait::Until(deadline.into()))
    }

    pub(super) fn send_waiting(&self, loan: Loan, wait: Wait) -> std::result::Result<(), PutError<Loan>> {
        let me = match shm::me() {
            Ok(me) => me,
            Err(error) => return Err(PutError::Failed(loan, error)),
        };
        self.core
            .put_parcel(me, loan.parcel, wait)
            .map_err(|(refused, parcel)| PutError::of(Loan { parcel }, refused))
    }

    /// Gets the next message, waiting for one.
    ///
    /// # Errors
    /// The queue was closed and is empty.
    pub fn get(&self) -> std::result::Result<Sample, GetError> {
        self.get_waiting(Wait::Until(Deadline::NEVER))
    }

    /// Gets the next message if there is one now.
    ///
    /// # Errors
    /// As for [`get`](ByteQueue::get), or [`GetError::Empty`].
    pub fn try_get(&self) -> std::result::Result<Sample, GetError> {
        self.get_waiting(Wait::Not)
    }

    /// Gets the next message, waiting for so long at most.
    ///
    /// # Errors
    /// As for [`get`](ByteQueue::get), or [`GetError::TimedOut`].
    pub fn get_timeout(&self, timeout: Duration) -> std::result::Result<Sample, GetError> {
        self.get_waiting(Wait::Until(Deadline::after(timeout)))
    }

    /// Gets the next message, waiting until then.
    ///
    /// # Errors
    /// As for [`get`](ByteQueue::get), or [`GetError::TimedOut`].
    pub fn get_deadline(&self, deadline: Instant) -> std::result::Result<Sample, GetError> {
        self.get_waiting(Wait::Until(deadline.into()))
    }

    #[inline]
    fn get_waiting(&self, wait: Wait) -> std::result::Result<Sample, GetError> {
        let mut sample = Sample { message: Message::default(), queue: None };
        self.core.get(wait, &mut sample.message)?;
        if let Message::Parcel(_) = sample.message {
            sample.queue = Some(Box::new(self.core.clone()));
        }
        Ok(sample)
    }

    fn sample(&self, message: Message) -> Sample {
        let is_large = matches!(message, Message::Parcel(_));
        Sample { message, queue: is_large.then(|| Box::new(self.core.clone())) }
    }

    /// Gets as many messages as there are, up to `most`, waiting for the first one.
    ///
    /// Killed here: none of them was got, or, at the very end, some of the first ones.
    ///
    /// # Errors
    /// As for [`get`](ByteQueue::get), if there is none before.
    pub fn get_many(&self, most: usize) -> std::result::Result<Vec<Sample>, GetError> {
        self.get_many_waiting(most, Wait::Until(Deadline::NEVER))
    }

    /// The same, as many as there are now.
    ///
    /// # Errors
    /// As for [`get_many`](ByteQueue::get_many), or [`GetError::Empty`].
    pub fn try_get_many(&self, most: usize) -> std::result::Result<Vec<Sample>, GetError> {
        self.get_many_waiting(most, Wait::Not)
    }

    /// The same, waiting for the first one for so long at most.
    ///
    /// # Errors
    /// As for [`get_many`](ByteQueue::get_many), or [`GetError::TimedOut`].
    pub fn get_many_timeout(
        &self,
        most: usize,
        timeout: Duration,
    ) -> std::result::Result<Vec<Sample>, GetError> {
        self.get_many_waiting(most, Wait::Until(Deadline::after(timeout)))
    }

    /// The same, waiting for the first one until then.
    ///
    /// # Errors
    /// As for [`get_many`](ByteQueue::get_many), or [`GetError::TimedOut`].
    pub fn get_many_deadline(
        &self,
        most: usize,
        deadline: Instant,
    ) -> std::result::Result<Vec<Sample>, GetError> {
        self.get_many_waiting(most, Wait::Until(deadline.into()))
    }

    fn get_many_waiting(&self, most: usize, wait: Wait) -> std::result::Result<Vec<Sample>, GetError> {
        let messages = self.core.get_many_messages(wait, most)?;
        Ok(messages.into_iter().map(|message| self.sample(message)).collect())
    }

    /// How many messages there are, while others may put and get more.
    #[must_use]
    pub fn len(&self) -> usize {
        self.core.len()
    }

    /// True if there is no message.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// True if there is no room for more.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.core.is_full()
    }

    /// The most messages at a time; `usize::MAX` if there is no bound.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.core.capacity()
    }

    /// Ends the queue behind the last message: nothing is put any more, and consumers are told when they have got everything.
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

impl fmt::Debug for ByteQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.core.describe("ByteQueue", f)
    }
}

//! Queues with more than one bound.

use std::panic::Location;

use super::bytes::ByteQueue;
use super::core::Core;
use super::joinable::JoinableQueue;
use super::layout::INLINE;
use super::queue::Queue;
use crate::error::{Error, Kind, Result};

/// Messages that a queue is for that is bounded by bytes only: one for each so many of them, but not fewer or more than these.
const BYTES_EACH: u64 = 256;
const FEWEST: u64 = 16;
const MOST: u64 = 16 << 10;

/// Says what a queue is to be like.
///
/// ```
/// use forkyard::channel::QueueBuilder;
///
/// let queue = QueueBuilder::new().items(100).bytes(1 << 20).queue()?;
/// queue.put("a message".to_owned())?;
/// # Ok::<(), forkyard::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct QueueBuilder {
    items: Option<usize>,
    bytes: Option<u64>,
    inline: Option<usize>,
}

impl QueueBuilder {
    /// A queue without a bound.
    #[must_use]
    pub fn new() -> QueueBuilder {
        QueueBuilder::default()
    }

    /// At most so many messages at a time.
    #[must_use]
    pub fn items(mut self, most: usize) -> QueueBuilder {
        self.items = Some(most);
        self
    }

    /// At most so many bytes of messages at a time, as they are encoded. A message of more is put when there is no other.
    ///
    /// Unless [`items`](QueueBuilder::items) says how many messages there may be, it is one for each 256 bytes, from 16 to 16384.
    #[must_use]
    pub fn bytes(mut self, most: u64) -> QueueBuilder {
        self.bytes = Some(most);
        self
    }

    /// Messages of up to so many bytes lie in the queue itself; as [`Queue::with_inline`].
    #[must_use]
    pub fn inline(mut self, bytes: usize) -> QueueBuilder {
        self.inline = Some(bytes);
        self
    }

    /// Makes a queue of values.
    ///
    /// # Errors
    /// A bound is 0, or there is no memory for it.
    #[track_caller]
    pub fn queue<T>(&self) -> Result<Queue<T>> {
        self.core(Location::caller()).map(Queue::over)
    }

    /// Makes a queue of bytes.
    ///
    /// # Errors
    /// A bound is 0, or there is no memory for it.
    #[track_caller]
    pub fn byte_queue(&self) -> Result<ByteQueue> {
        self.core(Location::caller()).map(ByteQueue::over)
    }

    /// Makes a queue of work.
    ///
    /// # Errors
    /// A bound is 0, or there is no memory for it.
    #[track_caller]
    pub fn joinable_queue<T>(&self) -> Result<JoinableQueue<T>> {
        self.core(Location::caller()).map(JoinableQueue::over)
    }

    fn core(&self, made_at: &Location<'_>) -> Result<Core> {
        let inline = self.inline.unwrap_or(INLINE);
        let Some(bytes) = self.bytes else { return Core::new(self.items, inline, made_at) };
        if bytes == 0 {
            let why = "0 bytes is not a bound; say one byte at least".to_owned();
            return Err(Error::new("make a queue", Kind::Invalid(why)));
        }
        let items = self.items.unwrap_or((bytes / BYTES_EACH).clamp(FEWEST, MOST) as usize);
        Core::counting(Some(items), inline, bytes, made_at)
    }
}

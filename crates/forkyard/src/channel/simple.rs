//! The queue with the fewest words.

use std::fmt;
use std::panic::Location;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::core::Core;
use super::error::{GetError, PutError};
use super::layout::INLINE;
use super::queue::Queue;
use crate::error::Result;

/// A queue of any number of values, with put and get: a [`Queue`] without a bound, and without waits that end.
///
/// Killed here: as [`Queue`].
#[doc(alias = "multiprocessing.SimpleQueue")]
pub struct SimpleQueue<T>(Queue<T>);

impl<T> Clone for SimpleQueue<T> {
    fn clone(&self) -> SimpleQueue<T> {
        SimpleQueue(self.0.clone())
    }
}

impl<T> SimpleQueue<T> {
    /// An empty queue.
    ///
    /// # Errors
    /// There is no memory for it.
    #[track_caller]
    pub fn new() -> Result<SimpleQueue<T>> {
        Core::new(None, INLINE, Location::caller()).map(|core| SimpleQueue(Queue::over(core)))
    }

    /// How many values there are, while others may put and get more.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// True if there is no value.
    #[must_use]
    #[doc(alias = "empty")]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Ends the queue behind the last value; as [`Queue::close`]. True if it was open.
    pub fn close(&self) -> bool {
        self.0.close()
    }

    /// True if it was closed.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.0.is_closed()
    }
}

impl<T: Serialize> SimpleQueue<T> {
    /// Puts a value. When this has returned the value is in the queue, whatever becomes of this process.
    ///
    /// # Errors
    /// With the value: the queue was closed; the value cannot be encoded; there is no memory for it.
    pub fn put(&self, value: T) -> std::result::Result<(), PutError<T>> {
        self.0.put(value)
    }
}

impl<T: DeserializeOwned> SimpleQueue<T> {
    /// Gets the next value, waiting for one.
    ///
    /// # Errors
    /// The queue was closed and is empty; or what was got is no `T`, and is gone.
    pub fn get(&self) -> std::result::Result<T, GetError> {
        self.0.get()
    }
}

impl<T> fmt::Debug for SimpleQueue<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SimpleQueue").field(&self.0).finish()
    }
}

impl<T> Serialize for SimpleQueue<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de, T> Deserialize<'de> for SimpleQueue<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<SimpleQueue<T>, D::Error> {
        Queue::deserialize(deserializer).map(SimpleQueue)
    }
}

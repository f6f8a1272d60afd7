//! Queues for tasks of tokio: what would sleep waits for the queue's descriptor instead (ready.rs).
//!
//! All tasks that wait at one end share its descriptor, and whoever stops waiting has the others look again: so none relies on another one that
//! may be dropped.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::ready::{End, Ready};
use super::{GetError, PutError, Queue};
use crate::error::{Error, Result};

/// A [`Queue`] whose calls are `async`. It needs tokio's reactor; producers and consumers elsewhere need not know.
///
/// Calls may be dropped at any time: a value was put, or not; and none is got that nobody receives.
pub struct AsyncQueue<T> {
    queue: Queue<T>,
    get: Side,
    put: Side,
}

/// The tasks that wait at one end.
struct Side {
    ready: AsyncFd<Ready>,
    waiting: AtomicUsize,
}

/// A task that waits.
struct Waiting<'a>(&'a Side);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if self.0.waiting.fetch_sub(1, Ordering::SeqCst) > 1 {
            // What told this one may be for another one.
            self.0.ready.get_ref().notify();
        }
    }
}

impl Side {
    fn new(ready: Ready) -> Result<Side> {
        #[allow(deprecated, reason = "what is sound of it: it owns its descriptor, which never changes")]
        let ready = AsyncFd::with_interest(ready, Interest::READABLE);
        let ready = ready.map_err(|error| Error::io("watch a queue", &error))?;
        Ok(Side { ready, waiting: AtomicUsize::new(0) })
    }

    /// Makes attempts until one is done. `None`: not yet.
    async fn until<R>(&self, mut attempt: impl FnMut() -> Option<R>) -> Result<R> {
        if let Some(done) = attempt() {
            return Ok(done);
        }
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let _waiting = Waiting(self);
        loop {
            self.ready.get_ref().arm();
            if let Some(done) = attempt() {
                return Ok(done);
            }
            let ready = self.ready.readable().await;
            ready.map_err(|error| Error::io("wait for a queue", &error))?.clear_ready();
        }
    }
}

impl<T> Queue<T> {
    /// The same queue for tasks of tokio.
    ///
    /// # Errors
    /// No descriptor left, or no thread.
    ///
    /// # Panics
    /// Outside of a runtime whose I/O is enabled.
    pub fn to_async(&self) -> Result<AsyncQueue<T>> {
        let side = |end| Side::new(Ready::new(self.core(), end)?);
        Ok(AsyncQueue { queue: self.clone(), get: side(End::Get)?, put: side(End::Put)? })
    }
}

impl<T> AsyncQueue<T> {
    /// The queue itself.
    pub fn queue(&self) -> &Queue<T> {
        &self.queue
    }
}

impl<T: Serialize> AsyncQueue<T> {
    /// Puts a value, waiting for room; as [`Queue::put`].
    ///
    /// # Errors
    /// As for [`Queue::put`].
    pub async fn put(&self, value: T) -> std::result::Result<(), PutError<T>> {
        let mut unsent = Some(value);
        let attempt = || match self.queue.try_put(unsent.take()?) {
            Err(PutError::Full(value)) => {
                unsent = Some(value);
                None
            }
            done => Some(done),
        };
        match self.put.until(attempt).await {
            Ok(done) => done,
            Err(error) => match unsent {
                Some(value) => Err(PutError::Failed(value, error)),
                None => Ok(()),
            },
        }
    }
}

impl<T: DeserializeOwned> AsyncQueue<T> {
    /// Gets the next value, waiting for one; as [`Queue::get`].
    ///
    /// # Errors
    /// As for [`Queue::get`].
    pub async fn get(&self) -> std::result::Result<T, GetError> {
        let attempt = || match self.queue.try_get() {
            Err(GetError::Empty) => None,
            done => Some(done),
        };
        self.get.until(attempt).await.unwrap_or_else(|error| Err(GetError::Failed(error)))
    }
}

impl<T> fmt::Debug for AsyncQueue<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Async{:?}", self.queue)
    }
}

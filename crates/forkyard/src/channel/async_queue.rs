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

use super::bytes::{Loan, Sample};
use super::core::Wait;
use super::joinable::Work;
use super::queue::{put_encoded, work_left};
use super::ready::Ready;
use super::{ByteQueue, GetError, JoinableQueue, PutError, Queue};
use crate::error::{Error, Result};

/// A [`Queue`] whose calls are `async`.
pub type AsyncQueue<T> = Async<Queue<T>>;
/// A [`ByteQueue`] whose calls are `async`.
pub type AsyncByteQueue = Async<ByteQueue>;
/// A [`JoinableQueue`] whose calls are `async`.
pub type AsyncJoinableQueue<T> = Async<JoinableQueue<T>>;

/// A queue whose calls are `async`: an [`AsyncQueue`], an [`AsyncByteQueue`] or an [`AsyncJoinableQueue`]. It needs tokio's reactor;
/// producers and consumers elsewhere need not know. What does not wait is asked of the [`queue`](Async::queue) itself.
///
/// Calls may be dropped at any time: a value was put, or not; and none is got that nobody receives. So tokio's time-outs are those of these
/// calls, too.
pub struct Async<Q> {
    queue: Q,
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
    fn new(ready: Result<Ready>) -> Result<Side> {
        #[allow(deprecated, reason = "what is sound of it: it owns its descriptor, which never changes")]
        let ready = AsyncFd::with_interest(ready?, Interest::READABLE);
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

    /// Makes attempts to put it, which hand it back while there is no room.
    async fn put<T>(
        &self,
        value: T,
        mut attempt: impl FnMut(T) -> std::result::Result<(), PutError<T>>,
    ) -> std::result::Result<(), PutError<T>> {
        let mut unsent = Some(value);
        let attempt = || match attempt(unsent.take()?) {
            Err(PutError::Full(value)) => {
                unsent = Some(value);
                None
            }
            done => Some(done),
        };
        match self.until(attempt).await {
            Ok(done) => done,
            Err(error) => match unsent {
                Some(value) => Err(PutError::Failed(value, error)),
                None => Ok(()),
            },
        }
    }

    /// Puts all of these by attempts that are told for how many consumers there will be work.
    async fn put_all<T>(
        &self,
        values: impl IntoIterator<Item = T>,
        attempt: impl Fn(T, u32) -> std::result::Result<(), PutError<T>>,
    ) -> std::result::Result<(), PutError<T>> {
        let mut values = values.into_iter();
        while let Some(value) = values.next() {
            let work = work_left(&values);
            self.put(value, |value| attempt(value, work)).await?;
        }
        Ok(())
    }

    /// Makes attempts to get something while there is nothing.
    async fn get<R>(
        &self,
        mut attempt: impl FnMut() -> std::result::Result<R, GetError>,
    ) -> std::result::Result<R, GetError> {
        let attempt = || match attempt() {
            Err(GetError::Empty) => None,
            done => Some(done),
        };
        self.until(attempt).await.unwrap_or_else(|error| Err(GetError::Failed(error)))
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
        Async::over(self.clone(), self.ready_to_get(), self.ready_to_put())
    }
}

impl ByteQueue {
    /// The same queue for tasks of tokio.
    ///
    /// # Errors
    /// No descriptor left, or no thread.
    ///
    /// # Panics
    /// Outside of a runtime whose I/O is enabled.
    pub fn to_async(&self) -> Result<AsyncByteQueue> {
        Async::over(self.clone(), self.ready_to_get(), self.ready_to_put())
    }
}

impl<T> JoinableQueue<T> {
    /// The same queue for tasks of tokio.
    ///
    /// # Errors
    /// No descriptor left, or no thread.
    ///
    /// # Panics
    /// Outside of a runtime whose I/O is enabled.
    pub fn to_async(&self) -> Result<AsyncJoinableQueue<T>> {
        Async::over(self.clone(), self.ready_to_get(), self.ready_to_put())
    }
}

impl<Q> Async<Q> {
    fn over(queue: Q, get: Result<Ready>, put: Result<Ready>) -> Result<Async<Q>> {
        Ok(Async { queue, get: Side::new(get)?, put: Side::new(put)? })
    }

    /// The queue itself.
    pub fn queue(&self) -> &Q {
        &self.queue
    }
}

/// The calls of a queue of values, and what it gives its consumers.
macro_rules! calls {
    ($queue:ident, $got:ty, $what:literal, $whats:literal) => {
        impl<T: Serialize> Async<$queue<T>> {
            #[doc = concat!("Puts a value, waiting for room; as [`", stringify!($queue), "::put`].")]
            ///
            /// # Errors
            #[doc = concat!("As for [`", stringify!($queue), "::put`].")]
            pub async fn put(&self, value: T) -> std::result::Result<(), PutError<T>> {
                self.put.put(value, |value| self.queue.try_put(value)).await
            }

            #[doc = concat!("Puts all of these, one after the other, waiting for room; as [`", stringify!($queue), "::put_many`]. \
                Dropped, it has put some of the first ones.")]
            ///
            /// # Errors
            #[doc = concat!("As for [`", stringify!($queue), "::put_many`].")]
            pub async fn put_many(
                &self,
                values: impl IntoIterator<Item = T>,
            ) -> std::result::Result<(), PutError<T>> {
                let core = self.queue.core();
                self.put.put_all(values, |value, work| put_encoded(core, value, work, Wait::Not)).await
            }
        }

        impl<T: DeserializeOwned> Async<$queue<T>> {
            #[doc = concat!("Gets the next ", $what, ", waiting for one; as [`", stringify!($queue), "::get`].")]
            ///
            /// # Errors
            #[doc = concat!("As for [`", stringify!($queue), "::get`].")]
            pub async fn get(&self) -> std::result::Result<$got, GetError> {
                self.get.get(|| self.queue.try_get()).await
            }

            #[doc = concat!("Gets as many ", $whats, " as there are, up to `most`, waiting for the first one; as [`", stringify!($queue), "::get_many`].")]
            ///
            /// # Errors
            #[doc = concat!("As for [`", stringify!($queue), "::get_many`].")]
            pub async fn get_many(&self, most: usize) -> std::result::Result<Vec<$got>, GetError> {
                self.get.get(|| self.queue.try_get_many(most)).await
            }
        }
    };
}

calls!(Queue, T, "value", "values");
calls!(JoinableQueue, Work<T>, "piece of work", "pieces of work");

impl Async<ByteQueue> {
    /// Puts a message, waiting for room; as [`ByteQueue::put`].
    ///
    /// # Errors
    /// As for [`ByteQueue::put`].
    pub async fn put<'a>(&self, message: &'a [u8]) -> std::result::Result<(), PutError<&'a [u8]>> {
        self.put.put(message, |message| self.queue.try_put(message)).await
    }

    /// Puts all of these, one after the other, waiting for room; as [`ByteQueue::put_many`]. Dropped, it has put some of the first ones.
    ///
    /// # Errors
    /// As for [`ByteQueue::put_many`].
    pub async fn put_many<'a>(
        &self,
        messages: impl IntoIterator<Item = &'a [u8]>,
    ) -> std::result::Result<(), PutError<&'a [u8]>> {
        self.put.put_all(messages, |message, work| self.queue.put_first(message, work, Wait::Not)).await
    }

    /// Puts a message that was written in a loan, waiting for room; as [`ByteQueue::send`]. Dropped, it gives the loan back.
    ///
    /// # Errors
    /// As for [`ByteQueue::send`].
    pub async fn send(&self, loan: Loan) -> std::result::Result<(), PutError<Loan>> {
        self.put.put(loan, |loan| self.queue.try_send(loan)).await
    }

    /// Gets the next message, waiting for one; as [`ByteQueue::get`].
    ///
    /// # Errors
    /// As for [`ByteQueue::get`].
    pub async fn get(&self) -> std::result::Result<Sample, GetError> {
        self.get.get(|| self.queue.try_get()).await
    }

    /// Gets as many messages as there are, up to `most`, waiting for the first one; as [`ByteQueue::get_many`].
    ///
    /// # Errors
    /// As for [`ByteQueue::get_many`].
    pub async fn get_many(&self, most: usize) -> std::result::Result<Vec<Sample>, GetError> {
        self.get.get(|| self.queue.try_get_many(most)).await
    }
}

impl<T> Async<JoinableQueue<T>> {
    /// Waits until all work that was put is finished; as [`JoinableQueue::join`].
    ///
    /// # Errors
    /// No descriptor left, or no thread.
    ///
    /// # Panics
    /// Outside of a runtime whose I/O is enabled.
    pub async fn join(&self) -> Result<()> {
        let finished = || self.queue.is_finished().then_some(());
        if finished().is_some() {
            return Ok(());
        }
        // Few ask for it, so nobody else pays for a descriptor.
        Side::new(self.queue.ready_to_join())?.until(finished).await
    }
}

impl<Q: fmt::Debug> fmt::Debug for Async<Q> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Async{:?}", self.queue)
    }
}

//! Queues and connections between processes and between threads. README.md beside this file tells how queues survive the death of whoever
//! uses them.
//!
//! ```
//! use forkyard::channel::Queue;
//! use forkyard::process;
//!
//! #[forkyard::task]
//! fn square(numbers: Queue<u64>, squares: Queue<u64>) {
//!     for number in &numbers {
//!         squares.put(number * number).unwrap();
//!     }
//! }
//!
//! let (numbers, squares) = (Queue::bounded(100)?, Queue::bounded(100)?);
//! let child = process::spawn(square, (numbers.clone(), squares.clone()))?;
//! numbers.put_many(1..=3)?;
//! numbers.close();
//! child.join()?;
//! assert_eq!(squares.get_many(10)?, [1, 4, 9]);
//! # Ok::<(), forkyard::Error>(())
//! ```

#[cfg(feature = "tokio")]
mod async_queue;
mod bell;
mod binding;
mod builder;
mod bytes;
mod chain;
mod connection;
mod core;
mod describe;
mod encode;
mod error;
mod joinable;
mod layout;
mod lease;
mod links;
mod patience;
mod queue;
mod ready;
mod repair;
mod ring;
mod segment;
mod shelf;
mod simple;
mod word;

#[cfg(feature = "tokio")]
pub use async_queue::{Async, AsyncByteQueue, AsyncJoinableQueue, AsyncQueue};
pub use builder::QueueBuilder;
pub use bytes::{ByteQueue, Loan, Sample};
pub use connection::{Address, AuthKey, Client, Connection, Listener, connect, pipe, pipe_one_way, wait};
#[cfg(feature = "tokio")]
pub use connection::{AsyncConnection, AsyncListener};
pub use error::{GetError, PutError};
pub use joinable::{JoinableQueue, Work};
pub use queue::{Iter, Queue};
pub use ready::Ready;
pub use simple::SimpleQueue;

pub(crate) use describe::{describe, end_name};

/// What bindings for other languages need beside what is public.
#[doc(hidden)]
pub mod private {
    pub use super::binding::{Patience, Taken, View};
}

/// Tells the layers below how to clean up after whoever used a queue: before anything else runs in this process.
pub(crate) fn set_hooks() {
    crate::shm::set_queue_hooks(crate::shm::Hooks { repair: repair::repair, dispose: repair::dispose });
}

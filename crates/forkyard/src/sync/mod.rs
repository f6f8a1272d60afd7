//! Locks and the other means to wait for one another, between processes and between threads. README.md beside this file
//! tells how they survive the death of whoever uses them.

mod base;
mod deadlock;
mod describe;
mod error;
mod lock;
mod mutex;
mod raw;
mod reap;
mod sleep;
mod word;

pub use deadlock::{Blocked, Deadlock, LockName};
pub(crate) use describe::describe;
pub use error::{LockError, OwnerDied};
pub use lock::{Lock, LockGuard, LockResult};
pub use mutex::{Mutex, MutexGuard, MutexResult};
pub(crate) use reap::reap;
pub(crate) use sleep::{Slept, sleep};

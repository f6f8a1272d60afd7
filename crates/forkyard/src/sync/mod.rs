//! Locks and the other means to wait for one another, between processes and between threads. README.md beside this file
//! tells how they survive the death of whoever uses them.

mod array;
mod barrier;
mod base;
mod bounded;
mod condition;
mod data;
mod deadlock;
mod describe;
mod ended;
mod error;
mod event;
mod lock;
mod mutex;
mod once;
mod owned;
mod raw;
mod reap;
mod rlock;
mod rwlock;
mod semaphore;
mod sleep;
mod value;
mod word;

pub use array::{Array, ArrayGuard, ArrayResult};
pub use barrier::{Barrier, BarrierWaitResult};
pub(crate) use base::{attention, set_attention};
pub use bounded::BoundedSemaphore;
#[doc(hidden)]
pub use condition::Waited;
pub use condition::{Condition, Held, WaitTimeoutResult};
pub use data::Atomic;
pub use deadlock::{Blocked, Deadlock, LockName};
pub(crate) use describe::describe;
pub use error::{LockError, OwnerDied};
pub use event::Event;
pub use lock::{Lock, LockGuard, LockResult};
pub use mutex::{Mutex, MutexGuard, MutexResult};
pub use once::{Once, OnceState};
pub(crate) use reap::reap;
pub use rlock::{RLock, RLockGuard, RLockResult};
pub use rwlock::{ReadResult, RwLock, RwLockReadGuard, RwLockWriteGuard, WriteResult};
pub use semaphore::Semaphore;
pub(crate) use sleep::{Slept, sleep};
pub use value::{Value, ValueGuard, ValueResult};

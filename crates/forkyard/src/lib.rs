//! Process-based parallelism that survives `kill -9`.
//!
//! ```
//! use forkyard::process;
//!
//! #[forkyard::task]
//! fn sum_up_to(n: u64) -> u64 {
//!     (1..=n).sum()
//! }
//!
//! let child = process::spawn(sum_up_to, (1000,))?;
//! assert_eq!(child.join()?, 500_500);
//! # Ok::<(), forkyard::Error>(())
//! ```
//!
//! A process may die at any instruction, and that is an input like any other: nobody else hangs, nothing stays behind, and
//! every end is told as it was. The words are those of POSIX, of Rust's `std::thread` and of Python's
//! `multiprocessing`; a search for theirs finds ours.
//!
//! # A tour
//!
//! - [`task`](macro@task) makes a function one that other processes can run; [`process::Fd`] lets descriptors travel among its
//!   arguments.
//! - [`process::spawn`] starts it, [`process::Builder`] with a name, as a daemon, or by another [`process::Start`] method;
//!   [`process::fork`] starts a closure.
//! - [`process::Process`] is the handle: join it for the result, wait for it together with others
//!   ([`process::wait_any`], [`process::wait`]), signal it, poll it.
//! - [`Error`] says what was tried and what came of it: a [`Panic`], an exit status, the limit that a start met.
//! - [`process::current`], [`process::parent`] and [`process::at_exit`] are for the child's side.
//! - [`sync`] has what processes and threads wait with: [`Mutex`](sync::Mutex) and `RwLock` with data, [`Lock`](sync::Lock) and
//!   [`RLock`](sync::RLock) without, [`Semaphore`](sync::Semaphore), [`BoundedSemaphore`](sync::BoundedSemaphore), `Condition`,
//!   [`Event`](sync::Event), [`Barrier`](sync::Barrier), [`Once`](sync::Once), `Value` and `Array`. They are handles, which travel as arguments of
//!   tasks; what they stand for is freed with the last holder, dropped or dead.
//! - [`channel::Queue`] carries values between processes, and loses none of them; [`channel::ByteQueue`] carries bytes, which are read
//!   where they lie. [`channel::pipe`] connects two; [`channel::Listener`] lets in who knows the key. Both wait in poll and epoll, too
//!   ([`channel::Ready`]), and in tasks of tokio with the feature of that name.
//! - [`SharedMemory`] is bytes with a name or without; [`ShmSafe`](trait@ShmSafe) says which types may lie in shared memory.
//! - [`family::observe`] looks at a running family, hung or stopped, from outside.
//! - [`process::Program`] runs other programs: pipes to and from them, pipelines, `system`, `exec`.
//! - [`signal`] sends, handles and waits for signals; [`thread`] is [`process`] in one process, by changing one word.
//! - [`serve`] is the TCP server with a process per connection; its [`handler`](macro@handler) is a task.
//!
//! # What it does not do
//!
//! - Other systems than Linux (x86-64 and aarch64, glibc, kernel 5.4 or later) do not compile.
//! - Shared objects travel in the arguments and results of tasks and in the messages of queues; not over connections.
//! - A zygote has the standard streams, resource limits, umask, session and namespaces that its requester had at its first start.
//!   Directory, root, environment, signal mask and user are looked at again with every start.
//! - Values travel in a format that does not describe itself. One that leaves out a field (serde's `skip_serializing_if`) or does not know its
//!   length (`flatten`) is refused where it is put, sent, passed or returned; `untagged` and `tag` are errors where they are decoded.
//! - C++ objects with static storage in libraries that are linked after this crate are not initialised in a zygote, which
//!   branches off before main; [`process::Start::Fork`] has them.
//! - A closure travels only by fork, which is refused beside other threads.

// The macros' output names this crate, also inside it.
extern crate self as forkyard;

pub mod channel;
mod codec;
mod error;
mod fd;
mod global;

mod primitive;

mod shm;

pub mod sync;
mod sync_std;
mod time;

pub mod family;
pub mod process;
pub mod serve;

pub use process::{signal, thread};

pub use error::{Error, Panic, Result};
pub use forkyard_macros::{ShmSafe, handler, task};
pub use process::Task;
pub use shm::{SharedMemory, ShmSafe};

/// What the macros' output uses.
#[doc(hidden)]
pub mod __private {
    pub use crate::channel::private as channel;
    pub use crate::family::private as family;
    pub use crate::process::private::*;
    pub use crate::serve::private::*;
    pub use crate::shm::{Census, KeptMemory, family_census};

    /// Compiles for what may lie in shared memory.
    pub const fn assert_shm_safe<T: crate::ShmSafe>() {}
}

/// The programs in the README.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;

//! Threads with the interface of processes.
//!
//! The words are those of [`process`](crate::process): [`spawn`], [`Builder`], a handle to join, [`current`],
//! [`children`]. A program that starts its tasks by `thread::spawn(work, (1, 2))` uses processes instead once the
//! one word is `process`, and the other way round:
//!
//! ```
//! use forkyard::{process, thread};
//!
//! #[forkyard::task]
//! fn area(width: u32, height: u32) -> u32 {
//!     width * height
//! }
//!
//! # fn main() -> forkyard::Result<()> {
//! assert_eq!(process::spawn(area, (3, 4))?.join()?, 12);
//! assert_eq!(thread::spawn(area, (3, 4))?.join()?, 12);
//! # Ok(())
//! # }
//! ```
//!
//! What differs: a thread sees the memory of the others, so it takes any closure and any value that may be sent to
//! it; it cannot be killed or signalled by itself, so a handle has no `terminate`, `kill` and `exit_status`; and
//! what ends the process, ends all of them.
//!
//! When main ends, or [`exit`](crate::process::exit) is called, threads that are not daemonic are joined before the
//! exit hooks run; daemonic ones run until the process ends, which may be at any instruction of theirs.

mod builder;
mod callable;
mod current;
mod handle;
mod registry;

pub use builder::{Builder, spawn};
pub use callable::Callable;
pub use current::{Current, current};
pub use handle::{Child, Thread};
pub use registry::children;

pub(crate) use registry::join_all;

//! Process-based parallelism that survives `kill -9`.

// The macros' output names this crate, also inside it.
extern crate self as forkyard;

mod error;
mod shm;
mod sync_std;
mod time;

pub mod process;
pub mod serve;

pub use process::{signal, thread};

pub use error::{Error, Panic, Result};
pub use forkyard_macros::{handler, task};
pub use process::Task;

/// What the macros' output uses.
#[doc(hidden)]
pub mod __private {
    pub use crate::process::private::*;
    pub use crate::serve::private::*;
}

/// The programs in the README.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;

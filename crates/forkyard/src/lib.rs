//! Process-based parallelism that survives `kill -9`.

mod error;
mod shm;
mod time;

pub mod process;
pub mod serve;

pub use process::signal;

pub use error::{Error, Panic, Result};

//! Signals: the table, sending, handling, waiting, timers.

pub use forkyard_sys::signal::{DefaultAction, ParseSignalError, Signal};

//! Signals: names and numbers.

mod names;
mod number;
mod table;

pub use number::{DefaultAction, ParseSignalError, Signal};

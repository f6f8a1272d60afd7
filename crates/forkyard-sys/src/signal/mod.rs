//! Signals: names and numbers, sending, masks, waiting, dispositions, the handler that writes to a pipe, timers.

mod disposition;
mod info;
mod names;
mod number;
mod table;

pub mod fork;
pub mod relay;
pub mod send;
pub mod set;
pub mod timer;

pub use disposition::{Disposition, disposition, set_disposition};
pub use info::{ChildEvent, Origin, SignalInfo};
pub use number::{DefaultAction, ParseSignalError, Signal};
pub use set::SignalSet;

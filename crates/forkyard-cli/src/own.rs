//! Signals of this process: to itself, and the one it ends by.

use forkyard::process::Pid;
use forkyard::signal::{self, Signal};

use crate::exit;

/// Ends this process by `signal`, so that whoever waits for it sees the truth. Returns the exit code where that
/// does not work: PID 1 is not ended by a default action. A signal whose default action writes a core image
/// ends it by the code as well, because nothing is wrong with this process.
pub(crate) fn end_by(signal: Signal) -> u8 {
    if signal.default_action() == signal::DefaultAction::Terminate && signal::set_default(signal).is_ok() {
        signal::unblock(signal).keep();
        // If it returns, the code below has to do.
        let _ = signal::raise(signal);
    }
    exit::signalled(signal.number())
}

/// Sends `signal` to this process; the main thread gets it if no other one has it open.
pub(crate) fn send_self(signal: Signal) {
    if let Some(pid) = Pid::from_raw(std::process::id() as i32) {
        // This process is there.
        let _ = signal::send_to_pid(pid, signal);
    }
}

/// Blocks `signal` in the calling thread, so that the main thread gets it.
pub(crate) fn leave_to_main(signal: Signal) {
    signal::block(signal).keep();
}

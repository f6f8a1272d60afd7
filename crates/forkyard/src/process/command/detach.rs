//! Programs whose handle was dropped while they ran: the keeper reaps them when they end.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex};

use forkyard_sys::Pid;
use forkyard_sys::wait::try_reap;

use crate::process::runtime;
use crate::sync_std::lock;

static DETACHED: Mutex<Vec<(Pid, Arc<OwnedFd>)>> = Mutex::new(Vec::new());

/// Takes over a child that nobody will wait for, so that it does not stay a zombie.
///
/// Where no keeper can be had, it is reaped when the next program is started or detached.
pub(super) fn detach(pid: Pid, pidfd: Arc<OwnedFd>) {
    // Before it is watched, so that the keeper finds it.
    lock(&DETACHED).push((pid, Arc::clone(&pidfd)));
    if let Ok(runtime) = runtime::get() {
        runtime.keeper.watch_program(pidfd.as_fd());
    }
    sweep();
}

/// Reaps those that have ended.
pub(crate) fn sweep() {
    // An error means that somebody else took the status: gone as well.
    lock(&DETACHED).retain(|(_, pidfd)| matches!(try_reap(pidfd.as_fd()), Ok(None)));
}

//! Children that nobody knows by a descriptor: those that a zygote made, and could not tell of.
//!
//! The kernel has written their pids into their slots. A slot goes to nobody else for as long as a child may write there.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::Ordering;
use std::time::Instant;

use forkyard_sys::{Errno, Pid, pidfd, wait};

use super::builder::Attributes;
use super::runtime::Runtime;
use super::zygote::PATIENCE;
use super::{limit, swarm};
use crate::error::{Error, Result};

const SIGKILL: i32 = 9;

/// Ends a spare, if it was born, and frees its slot. Its zygote has answered or is dead.
pub(super) fn discard(runtime: &Runtime, slot: u32, spare: Option<(Pid, OwnedFd)>) {
    let found = match spare {
        Some((_, pidfd)) => Ok(Some(pidfd)),
        // Made by a lost zygote, which is dead and reaped; the spare is ours and unreaped: its number is its own.
        None => born(runtime, slot).map(swarm::open).transpose(),
    };
    match found {
        Ok(Some(pidfd)) => {
            // ESRCH: it has ended. ECHILD: a host program's wait took it.
            let killed = pidfd::send_signal(pidfd.as_fd(), SIGKILL);
            if killed == Err(Errno::PERM) && !dismiss(runtime, slot, pidfd.as_fd()) {
                return;
            }
            let _ = wait::reap(pidfd.as_fd());
        }
        // Nothing to end it with: it sleeps on its slot until this process ends, and must be the only one there.
        Err(errno) if !is_gone(errno) => return,
        _ => {}
    }
    runtime.board.release(slot);
}

/// Has a spare end that has rights which this process has given up: who is called without a task, ends. False if it does not.
fn dismiss(runtime: &Runtime, slot: u32, spare: BorrowedFd<'_>) -> bool {
    if let Some(place) = runtime.board.slot(slot) {
        place.call(&[]);
    }
    matches!(pidfd::wait_readable(spare, Some(Instant::now() + PATIENCE)), Ok(true))
}

/// A child with a task that a lost zygote had made before it could say so.
pub(super) fn adopt_unseen(pid: Pid, attributes: &Attributes) -> Result<(Pid, OwnedFd)> {
    swarm::open(pid).map(|pidfd| (pid, pidfd)).map_err(|errno| {
        let hint = match errno {
            errno if is_gone(errno) => "it has ended, and somebody else took its status".to_owned(),
            errno => limit::hint(errno),
        };
        let number = pid.as_raw_nonzero();
        Error::os_hint(format!("watch process \"{}\" (pid {number})", attributes.name), errno, hint)
    })
}

/// What opening a child says that has ended, and whose status somebody else took.
pub(super) fn is_gone(errno: Errno) -> bool {
    matches!(errno, Errno::CHILD | Errno::SRCH)
}

/// The child that the kernel wrote into this slot.
pub(super) fn born(runtime: &Runtime, slot: u32) -> Option<Pid> {
    let born = runtime.board.slot(slot)?.born.load(Ordering::Acquire);
    Pid::from_raw(i32::try_from(born).ok()?)
}

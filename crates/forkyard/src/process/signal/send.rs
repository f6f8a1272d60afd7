//! Sending signals.

use std::os::fd::AsFd;

use forkyard_sys::signal::send as sys;
use forkyard_sys::{Errno, Pid};

use super::Signal;
use crate::{Error, Result};

fn told(what: impl FnOnce() -> String, result: forkyard_sys::Result<()>) -> Result<()> {
    result.map_err(|errno| match errno {
        Errno::SRCH => Error::os_hint(what(), errno, "it has ended"),
        Errno::AGAIN => Error::os_hint(what(), errno, "too many queued signals, see RLIMIT_SIGPENDING"),
        _ => Error::os(what(), errno),
    })
}

/// Sends a signal to the process behind a pidfd. It never hits another process, however long ago that one
/// ended.
///
/// # Errors
/// The process has ended and was reaped (`ESRCH`); this one may not signal it (`EPERM`).
#[doc(alias = "kill")]
#[doc(alias = "pidfd_send_signal")]
pub fn send(pidfd: impl AsFd, signal: Signal) -> Result<()> {
    told(|| format!("send {signal} to process"), sys::to_pidfd(pidfd.as_fd(), signal))
}

/// Sends a signal with a value to the process behind a pidfd; a handler finds it in
/// [`SignalInfo::value`](super::SignalInfo::value). Only real-time signals are queued one by one.
///
/// # Errors
/// As [`send`], and `EAGAIN` when too many signals are queued (`RLIMIT_SIGPENDING`).
#[doc(alias = "sigqueue")]
pub fn send_value(pidfd: impl AsFd, signal: Signal, value: i32) -> Result<()> {
    told(|| format!("queue {signal} to process"), sys::value_to_pidfd(pidfd.as_fd(), signal, value))
}

/// Sends a signal to a process by its number.
///
/// A number is given to a new process some time after its owner was reaped, so this may hit a stranger unless
/// the process is known to be there: oneself, one's parent, a child that nobody has reaped. Use [`send`]
/// where there is a pidfd.
///
/// # Errors
/// There is no such process (`ESRCH`); this one may not signal it (`EPERM`).
pub fn send_to_pid(pid: Pid, signal: Signal) -> Result<()> {
    let what = || format!("send {signal} to process {}", pid.as_raw_nonzero());
    told(what, sys::to_pid(pid, signal))
}

/// Sends a signal with a value to a process by its number, with the hazard of [`send_to_pid`].
///
/// # Errors
/// As [`send_to_pid`], and `EAGAIN` when too many signals are queued (`RLIMIT_SIGPENDING`).
#[doc(alias = "sigqueue")]
pub fn send_value_to_pid(pid: Pid, signal: Signal, value: i32) -> Result<()> {
    let what = || format!("queue {signal} to process {}", pid.as_raw_nonzero());
    told(what, sys::value_to_pid(pid, signal, value))
}

/// Sends a signal to every process of a process group. A group's number stays taken as long as the group has
/// a member, or its leader has not been reaped.
///
/// # Errors
/// There is no such group (`ESRCH`); this process may signal none of it (`EPERM`).
#[doc(alias = "killpg")]
pub fn send_to_group(group: Pid, signal: Signal) -> Result<()> {
    let what = || format!("send {signal} to process group {}", group.as_raw_nonzero());
    told(what, sys::to_group(group, signal))
}

/// Sends a signal to every process of the caller's own group, the caller included.
///
/// # Errors
/// None that is known.
pub fn send_to_own_group(signal: Signal) -> Result<()> {
    told(|| format!("send {signal} to own process group"), sys::to_own_group(signal))
}

/// Sends a signal to the calling thread.
///
/// Unless the thread has it blocked, the signal has been acted on when this returns: the process is dead or
/// stopped where that is the action, and a closure's turn has come in the queue, though it may still have to
/// run.
///
/// # Errors
/// None that is known.
pub fn raise(signal: Signal) -> Result<()> {
    told(|| format!("raise {signal}"), sys::raise(signal))
}

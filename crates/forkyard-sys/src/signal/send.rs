//! Sending: to a process by pidfd, by number, to a group, to oneself, with a value.
//!
//! # Safety
//! The raw calls pass numbers, and a siginfo that lives on the stack.
#![allow(unsafe_code)]

use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::process::Pid;

use super::Signal;
use crate::Result;
use crate::wait::last_errno;

fn check(result: libc::c_long) -> Result<()> {
    if result == 0 { Ok(()) } else { Err(last_errno()) }
}

fn raw_kill(pid: i32, signal: Signal) -> Result<()> {
    // SAFETY: passes two numbers.
    check(unsafe { libc::kill(pid, signal.number()) }.into())
}

/// Sends to the process behind a pidfd: never to another one, however old the pidfd.
///
/// # Errors
/// `ESRCH`: it has ended and was reaped. `EPERM`: not allowed.
pub fn to_pidfd(pidfd: BorrowedFd<'_>, signal: Signal) -> Result<()> {
    crate::pidfd::send_signal(pidfd, signal.number())
}

/// Sends with a value to the process behind a pidfd.
///
/// # Errors
/// As [`to_pidfd`]; `EAGAIN`: the receiver's user has too many queued signals (`RLIMIT_SIGPENDING`).
pub fn value_to_pidfd(pidfd: BorrowedFd<'_>, signal: Signal, value: i32) -> Result<()> {
    /// `siginfo_t` as far as sigqueue(3) fills it.
    #[repr(C, align(8))]
    struct Queued {
        signal: i32,
        errno: i32,
        code: i32,
        pad: i32,
        pid: i32,
        uid: u32,
        value: u64,
        rest: [u64; 12],
    }
    const _: () = assert!(size_of::<Queued>() == size_of::<libc::siginfo_t>());
    let info = Queued {
        signal: signal.number(),
        errno: 0,
        code: libc::SI_QUEUE,
        pad: 0,
        pid: std::process::id().cast_signed(),
        uid: rustix::process::getuid().as_raw(),
        value: u64::from(value.cast_unsigned()),
        rest: [0; 12],
    };
    // SAFETY: the siginfo lives until the call returns, and has the kernel's size.
    check(unsafe {
        libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal.number(), &raw const info, 0)
    })
}

/// Sends to a process by its number. The number may meanwhile belong to another process.
///
/// # Errors
/// `ESRCH`: there is no such process. `EPERM`: not allowed.
pub fn to_pid(pid: Pid, signal: Signal) -> Result<()> {
    raw_kill(pid.as_raw_nonzero().get(), signal)
}

/// Sends with a value to a process by its number.
///
/// # Errors
/// As [`to_pid`]; `EAGAIN`: the receiver's user has too many queued signals (`RLIMIT_SIGPENDING`).
pub fn value_to_pid(pid: Pid, signal: Signal, value: i32) -> Result<()> {
    let value = libc::sigval { sival_ptr: std::ptr::without_provenance_mut(value.cast_unsigned() as usize) };
    // SAFETY: the value is not dereferenced by anybody here.
    check(unsafe { libc::sigqueue(pid.as_raw_nonzero().get(), signal.number(), value) }.into())
}

/// Sends to every process of a group.
///
/// # Errors
/// `ESRCH`: there is no such group. `EPERM`: not allowed to signal any of them.
pub fn to_group(group: Pid, signal: Signal) -> Result<()> {
    // Group 1 cannot be named to kill(2): -1 means everybody.
    if group == Pid::INIT {
        return Err(rustix::io::Errno::SRCH);
    }
    raw_kill(-group.as_raw_nonzero().get(), signal)
}

/// Sends to every process of the caller's own group, the caller included.
///
/// # Errors
/// None that is known.
pub fn to_own_group(signal: Signal) -> Result<()> {
    raw_kill(0, signal)
}

/// Sends to the calling thread, as raise(3): unless it is blocked, it has been acted on when this returns.
///
/// # Errors
/// None that is known.
pub fn raise(signal: Signal) -> Result<()> {
    // SAFETY: passes a number.
    check(unsafe { libc::raise(signal.number()) }.into())
}

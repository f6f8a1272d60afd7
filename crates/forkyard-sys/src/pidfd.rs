//! Processes by file descriptor: signalling and readiness.
//!
//! # Safety
//! The one raw call passes numbers and a null pointer.
#![allow(unsafe_code)]

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use rustix::process::{Pid, PidfdFlags};

use crate::Result;
use crate::time::Timeout;
use crate::wait::last_errno;

/// Opens a process by number. Only safe against recycled numbers for oneself and for a child that nobody else
/// can reap; everything else gets its pidfd from the clone.
///
/// # Errors
/// `ESRCH`: no such process. `EMFILE`, `ENFILE`: no fd left.
pub fn open(pid: Pid) -> Result<OwnedFd> {
    rustix::process::pidfd_open(pid, PidfdFlags::empty())
}

/// Sends a signal; never hits another process, however old the pidfd.
///
/// # Errors
/// `ESRCH`: it has ended. `EPERM`: not allowed. `EINVAL`: no such signal.
pub fn send_signal(pidfd: BorrowedFd<'_>, signal: i32) -> Result<()> {
    // SAFETY: no memory is involved; a null siginfo means the one that kill(2) would send. (rustix's own call
    // takes named signals only, and real-time signals have none.)
    let result = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            signal,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    };
    if result == 0 { Ok(()) } else { Err(last_errno()) }
}

/// Waits until the process has ended (as a zombie or wholly); false when the time-out passed.
///
/// # Errors
/// As poll(2).
pub fn wait_readable(pidfd: BorrowedFd<'_>, timeout: Timeout) -> Result<bool> {
    let mut fds = [rustix::event::PollFd::from_borrowed_fd(pidfd, rustix::event::PollFlags::IN)];
    crate::poll::poll(&mut fds, timeout).map(|ready| ready > 0)
}

/// The calling process's own pid.
#[must_use]
pub fn own_pid() -> Pid {
    rustix::process::getpid()
}

/// The calling process's rights: real and effective user, real and effective group.
#[must_use]
pub fn own_rights() -> [u32; 4] {
    [
        rustix::process::getuid().as_raw(),
        rustix::process::geteuid().as_raw(),
        rustix::process::getgid().as_raw(),
        rustix::process::getegid().as_raw(),
    ]
}

/// The pid namespace of this process: a number that differs between namespaces of one machine. `None` without /proc.
#[must_use]
pub fn namespace() -> Option<u64> {
    rustix::fs::stat("/proc/self/ns/pid").ok().map(|stat| stat.st_ino)
}

/// True if there is no process of this number in this process's pid namespace. It may be another one than before.
#[must_use]
pub fn is_gone(pid: u32) -> bool {
    let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return true };
    rustix::process::test_kill_process(pid) == Err(rustix::io::Errno::SRCH)
}

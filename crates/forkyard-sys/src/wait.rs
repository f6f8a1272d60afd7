//! Waiting for a child by its pidfd: readiness, status, resource usage.
//!
//! A child is always named by a pidfd, never by "any child" and never by a bare number, so a wait here can
//! neither take the status of somebody else's child nor meet a recycled pid.
//!
//! # Safety
//! The two raw calls write into local variables of the type that the kernel fills.
#![allow(unsafe_code)]

use std::fmt;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

use rustix::io::Errno;

use crate::Result;

/// How a child ended, as the kernel told it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It ended by `exit` or `_exit` with this code (0–255).
    Exited(i32),
    /// A signal ended it.
    Signaled {
        /// The signal's number.
        signal: i32,
        /// Whether a core image was written (wait(2), `WCOREDUMP`).
        core: bool,
    },
    /// Somebody else took the status (a `wait` of the host program, or an ignored SIGCHLD), and this kernel
    /// keeps none.
    Unknown,
}

/// What a child used while it lived: getrusage(2), as `wait4` reports it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// CPU time in user mode.
    pub user: Duration,
    /// CPU time in the kernel.
    pub system: Duration,
    /// Largest resident set, in bytes.
    pub max_rss: u64,
    /// Page faults served without I/O.
    pub minor_faults: u64,
    /// Page faults that needed I/O.
    pub major_faults: u64,
    /// Context switches by waiting.
    pub voluntary_switches: u64,
    /// Context switches by preemption.
    pub involuntary_switches: u64,
}

/// The end of a child: how, and at what cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExitStatus {
    ending: Ending,
    usage: Option<Usage>,
}

impl ExitStatus {
    /// A status that nobody can tell any more.
    pub const UNKNOWN: ExitStatus = ExitStatus { ending: Ending::Unknown, usage: None };

    /// Puts a status together, for a child that ran somewhere else.
    #[must_use]
    pub const fn new(ending: Ending, usage: Option<Usage>) -> ExitStatus {
        ExitStatus { ending, usage }
    }

    /// How the child ended.
    #[must_use]
    pub const fn ending(&self) -> Ending {
        self.ending
    }

    /// True if it exited with code 0.
    #[must_use]
    pub const fn success(&self) -> bool {
        matches!(self.ending, Ending::Exited(0))
    }

    /// The exit code, if it exited.
    #[must_use]
    #[doc(alias = "WEXITSTATUS")]
    pub const fn code(&self) -> Option<i32> {
        match self.ending {
            Ending::Exited(code) => Some(code),
            Ending::Signaled { .. } | Ending::Unknown => None,
        }
    }

    /// The signal that ended it, if one did.
    #[must_use]
    #[doc(alias = "WTERMSIG")]
    pub const fn signal(&self) -> Option<i32> {
        match self.ending {
            Ending::Signaled { signal, .. } => Some(signal),
            Ending::Exited(_) | Ending::Unknown => None,
        }
    }

    /// True if a core image was written.
    #[must_use]
    #[doc(alias = "WCOREDUMP")]
    pub const fn core_dumped(&self) -> bool {
        matches!(self.ending, Ending::Signaled { core: true, .. })
    }

    /// Resource usage; `None` where the status was recovered after somebody else's wait.
    #[must_use]
    #[doc(alias = "rusage")]
    pub const fn usage(&self) -> Option<Usage> {
        self.usage
    }

    /// One number, as shells say it: the code, 128 + signal, or `None` when it is unknown.
    #[must_use]
    pub const fn shell_code(&self) -> Option<i32> {
        match self.ending {
            Ending::Exited(code) => Some(code),
            Ending::Signaled { signal, .. } => Some(128 + signal),
            Ending::Unknown => None,
        }
    }
}

impl fmt::Display for ExitStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.ending {
            Ending::Exited(code) => write!(f, "exit code {code}"),
            Ending::Signaled { signal, core } => {
                let core = if core { " (core dumped)" } else { "" };
                write!(f, "signal {signal}{core}")
            }
            Ending::Unknown => f.write_str("unknown exit status (taken by somebody else's wait)"),
        }
    }
}

/// Waits until the child has ended, and leaves it unreaped: any number of threads may wait.
///
/// # Errors
/// `ECHILD`: it is no child of this process, or has been reaped.
pub fn wait_ended(pidfd: BorrowedFd<'_>) -> Result<()> {
    raw_waitid(pidfd, libc::WEXITED | libc::WNOWAIT).map(|_| ())
}

/// Reaps the child; waits for its end first.
///
/// # Errors
/// `ECHILD`: it is no child of this process, or has been reaped.
pub fn reap(pidfd: BorrowedFd<'_>) -> Result<ExitStatus> {
    match raw_waitid(pidfd, libc::WEXITED)? {
        Some(status) => Ok(status),
        None => Err(Errno::CHILD),
    }
}

/// Reaps the child if it has ended; `None` while it lives.
///
/// # Errors
/// `ECHILD`: it is no child of this process, or has been reaped.
pub fn try_reap(pidfd: BorrowedFd<'_>) -> Result<Option<ExitStatus>> {
    raw_waitid(pidfd, libc::WEXITED | libc::WNOHANG)
}

/// True if the child has ended and is still unreaped; false while it lives.
///
/// # Errors
/// `ECHILD`: it is no child of this process, or has been reaped.
pub fn has_ended(pidfd: BorrowedFd<'_>) -> Result<bool> {
    raw_waitid(pidfd, libc::WEXITED | libc::WNOHANG | libc::WNOWAIT).map(|status| status.is_some())
}

/// What a child does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doing {
    /// It runs, or sleeps.
    Running,
    /// It was stopped by a signal, and nobody was told of it by a wait.
    Stopped,
    /// It has ended, and is still unreaped.
    Ended,
}

/// What the child does at this moment.
///
/// # Errors
/// As [`has_ended`].
pub fn doing(pidfd: BorrowedFd<'_>) -> Result<Doing> {
    let options = libc::WEXITED | libc::WSTOPPED | libc::WNOHANG | libc::WNOWAIT;
    let (info, _) = waitid(pidfd, options)?;
    // SAFETY: as in `decode`.
    Ok(match (unsafe { info.si_pid() }, info.si_code) {
        (0, _) => Doing::Running,
        (_, libc::CLD_STOPPED | libc::CLD_TRAPPED) => Doing::Stopped,
        _ => Doing::Ended,
    })
}

fn raw_waitid(pidfd: BorrowedFd<'_>, options: i32) -> Result<Option<ExitStatus>> {
    waitid(pidfd, options).map(|(info, usage)| decode(&info, &usage))
}

fn waitid(pidfd: BorrowedFd<'_>, options: i32) -> Result<(libc::siginfo_t, libc::rusage)> {
    loop {
        // SAFETY: all-zero is a valid value of both C structures.
        let (mut info, mut usage): (libc::siginfo_t, libc::rusage) = unsafe { std::mem::zeroed() };
        // SAFETY: both pointers are to live local structures of the type that waitid(2) writes.
        let result = unsafe {
            libc::syscall(
                libc::SYS_waitid,
                libc::P_PIDFD,
                pidfd.as_raw_fd(),
                &raw mut info,
                options,
                &raw mut usage,
            )
        };
        if result == 0 {
            return Ok((info, usage));
        }
        match last_errno() {
            Errno::INTR => {}
            errno => return Err(errno),
        }
    }
}

fn decode(info: &libc::siginfo_t, usage: &libc::rusage) -> Option<ExitStatus> {
    // SAFETY: waitid fills the SIGCHLD members of the union, or leaves the zeroes it was given.
    let (pid, status) = unsafe { (info.si_pid(), info.si_status()) };
    if pid == 0 {
        return None;
    }
    let ending = match info.si_code {
        libc::CLD_EXITED => Ending::Exited(status),
        libc::CLD_KILLED => Ending::Signaled { signal: status, core: false },
        libc::CLD_DUMPED => Ending::Signaled { signal: status, core: true },
        _ => Ending::Unknown,
    };
    Some(ExitStatus { ending, usage: Some(decode_usage(usage)) })
}

fn decode_usage(usage: &libc::rusage) -> Usage {
    let count = |n: libc::c_long| u64::try_from(n).unwrap_or(0);
    let time =
        |t: libc::timeval| Duration::from_secs(count(t.tv_sec)) + Duration::from_micros(count(t.tv_usec));
    Usage {
        user: time(usage.ru_utime),
        system: time(usage.ru_stime),
        max_rss: count(usage.ru_maxrss) * 1024,
        minor_faults: count(usage.ru_minflt),
        major_faults: count(usage.ru_majflt),
        voluntary_switches: count(usage.ru_nvcsw),
        involuntary_switches: count(usage.ru_nivcsw),
    }
}

/// `struct pidfd_info` of linux/pidfd.h, first published size (Linux 6.13).
#[repr(C)]
#[derive(Default)]
struct PidfdInfo {
    mask: u64,
    cgroupid: u64,
    pid: u32,
    tgid: u32,
    ppid: u32,
    ids: [u32; 8],
    exit_code: i32,
}
const PIDFD_INFO_EXIT: u64 = 1 << 3;
/// `_IOWR(0xFF, 11, struct pidfd_info)` with the 64-byte structure.
const PIDFD_GET_INFO: libc::Ioctl = 0xC040_FF0B as libc::Ioctl;

/// The status of an ended process whose status somebody else took; `None` if it lives, or on a kernel below
/// 6.15, which does not keep it.
#[must_use]
pub fn status_after_reaping(pidfd: BorrowedFd<'_>) -> Option<ExitStatus> {
    if crate::fallback::forced(crate::fallback::Feature::PidfdInfo) {
        return None;
    }
    let mut info = PidfdInfo { mask: PIDFD_INFO_EXIT, ..PidfdInfo::default() };
    // SAFETY: the request number carries the size of the structure, which is a live local variable.
    let result = unsafe { libc::ioctl(pidfd.as_raw_fd(), PIDFD_GET_INFO, &raw mut info) };
    if result != 0 || info.mask & PIDFD_INFO_EXIT == 0 {
        return None;
    }
    let code = info.exit_code;
    let ending = if libc::WIFEXITED(code) {
        Ending::Exited(libc::WEXITSTATUS(code))
    } else {
        Ending::Signaled { signal: libc::WTERMSIG(code), core: libc::WCOREDUMP(code) }
    };
    Some(ExitStatus { ending, usage: None })
}

pub(crate) fn last_errno() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}

//! `Popen`: a started program.

use std::io::{PipeReader, PipeWriter};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use forkyard_sys::exec::Spawned;
use forkyard_sys::signal::Signal;
use forkyard_sys::wait::{self, ExitStatus};
use forkyard_sys::{Errno, Pid, pidfd};

use super::detach::detach;
use crate::error::{Error, Kind, Result};
use crate::time::Deadline;

/// A program that was started, and this process's ends of its pipes.
///
/// As an [`AsFd`] it is the process's pidfd, which polls readable when the program has ended. Dropping it
/// closes the pipes and does not wait; the program goes on if it likes, and leaves no zombie.
#[derive(Debug)]
#[doc(alias = "Child")]
pub struct Popen {
    /// The pipe to its standard input, if one was asked for. Drop it to let the program read the end.
    pub stdin: Option<PipeWriter>,
    /// The pipe from its standard output, if one was asked for.
    pub stdout: Option<PipeReader>,
    /// The pipe from its standard error, if one was asked for.
    pub stderr: Option<PipeReader>,
    pid: Pid,
    pidfd: Arc<OwnedFd>,
    status: Option<ExitStatus>,
}

impl Popen {
    pub(super) fn new(
        started: Spawned,
        stdin: Option<PipeWriter>,
        stdout: Option<PipeReader>,
        stderr: Option<PipeReader>,
    ) -> Popen {
        Popen { stdin, stdout, stderr, pid: started.pid, pidfd: Arc::new(started.pidfd), status: None }
    }

    /// Its process id. After a wait the number may belong to somebody else: signal through this handle.
    #[must_use]
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// Its exit status, if a wait has told it.
    #[must_use]
    #[doc(alias = "returncode")]
    pub fn status(&self) -> Option<ExitStatus> {
        self.status
    }

    /// Waits for its end. Closes [`stdin`](Popen::stdin) first, because most programs end when their input
    /// does. Its output must be read by somebody, or it may never end: see
    /// [`communicate`](Popen::communicate).
    ///
    /// May be called again, and then returns the same.
    ///
    /// # Errors
    /// [`is_not_a_child`](Error::is_not_a_child) in a fork of the process that started it.
    pub fn wait(&mut self) -> Result<ExitStatus> {
        self.wait_until(Deadline::NEVER)
    }

    /// Its exit status if it has ended; `None` while it runs. Closes nothing.
    ///
    /// # Errors
    /// As [`wait`](Popen::wait).
    #[doc(alias = "poll")]
    pub fn try_wait(&mut self) -> Result<Option<ExitStatus>> {
        if self.status.is_none() {
            self.status = match wait::try_reap(self.pidfd.as_fd()) {
                Ok(status) => status,
                Err(Errno::CHILD) => Some(self.taken_by_somebody()?),
                Err(errno) => return Err(Error::os(self.what("wait for"), errno)),
            };
        }
        Ok(self.status)
    }

    /// As [`wait`](Popen::wait), for at most so long.
    ///
    /// # Errors
    /// [`is_timeout`](Error::is_timeout) if it still runs; else as `wait`.
    pub fn wait_timeout(&mut self, timeout: Duration) -> Result<ExitStatus> {
        self.wait_until(Deadline::after(timeout))
    }

    /// As [`wait`](Popen::wait), until this moment at most.
    ///
    /// # Errors
    /// As [`wait_timeout`](Popen::wait_timeout).
    pub fn wait_deadline(&mut self, deadline: Instant) -> Result<ExitStatus> {
        self.wait_until(deadline.into())
    }

    pub(super) fn wait_until(&mut self, deadline: Deadline) -> Result<ExitStatus> {
        self.stdin = None;
        loop {
            if let Some(status) = self.try_wait()? {
                return Ok(status);
            }
            match pidfd::wait_readable(self.pidfd.as_fd(), deadline.timeout()) {
                Ok(true) => {}
                Ok(false) => return Err(Error::new(self.what("wait for"), Kind::TimedOut)),
                Err(errno) => return Err(Error::os(self.what("wait for"), errno)),
            }
        }
    }

    /// Asks it to end, by `SIGTERM`. Nothing happens if it has ended.
    ///
    /// # Errors
    /// `EPERM`: it has another user's rights.
    pub fn terminate(&self) -> Result<()> {
        self.signal(Signal::TERM)
    }

    /// Ends it, by `SIGKILL`. Nothing happens if it has ended. What it started itself goes on.
    ///
    /// # Errors
    /// As [`terminate`](Popen::terminate).
    pub fn kill(&self) -> Result<()> {
        self.signal(Signal::KILL)
    }

    /// Sends it a signal. Nothing happens if it has ended.
    ///
    /// # Errors
    /// As [`terminate`](Popen::terminate).
    #[doc(alias = "send_signal")]
    pub fn signal(&self, signal: Signal) -> Result<()> {
        match pidfd::send_signal(self.pidfd.as_fd(), signal.number()) {
            Ok(()) | Err(Errno::SRCH) => Ok(()),
            Err(errno) => Err(Error::os(self.what(&format!("send {signal} to")), errno)),
        }
    }

    /// The status of a process that the kernel says is no child of ours.
    fn taken_by_somebody(&self) -> Result<ExitStatus> {
        match pidfd::wait_readable(self.pidfd.as_fd(), Some(Instant::now())) {
            Ok(true) => Ok(wait::status_after_reaping(self.pidfd.as_fd()).unwrap_or(ExitStatus::UNKNOWN)),
            _ => Err(Error::new(self.what("wait for"), Kind::NotAChild)),
        }
    }

    fn what(&self, doing: &str) -> String {
        format!("{doing} the program with pid {}", self.pid.as_raw_nonzero())
    }
}

impl AsFd for Popen {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

impl Drop for Popen {
    fn drop(&mut self) {
        (self.stdin, self.stdout, self.stderr) = (None, None, None);
        if let Ok(None) = self.try_wait() {
            detach(self.pid, Arc::clone(&self.pidfd));
        }
    }
}

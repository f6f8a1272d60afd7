//! Waiting for children in general: any of them, one by number, several with other descriptors.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use forkyard_sys::epoll::EventFd;
use forkyard_sys::poll::{PollFd, PollFlags, poll};
use forkyard_sys::{Pid, pidfd};

use super::handle::Child;
use super::limit;
use super::runtime::{self, Exited, Runtime};
use crate::error::{Error, Kind, Result};
use crate::sync_std::lock;
use crate::time::Deadline;

/// The living children of this process, oldest first. Children that have ended are reaped on the way.
#[must_use]
#[doc(alias = "active_children")]
pub fn children() -> Vec<Arc<Child>> {
    let mut children = runtime::existing().map_or_else(Vec::new, runtime::Runtime::living);
    children.retain(|child| child.is_alive());
    children
}

/// Waits until a child has ended of which no wait or join has told yet, and tells of it, once. The result of its task
/// stays for a join.
///
/// Children count that this library started, before or meanwhile: those of the host program are its own. Of children
/// that nobody waits for, the last 16384 are remembered.
///
/// # Errors
/// [`is_no_children`](crate::Error::is_no_children): there is none to wait for.
pub fn wait() -> Result<Exited> {
    wait_until(Deadline::NEVER)
}

/// As [`wait`], without waiting: `None` while all children run.
///
/// # Errors
/// As [`wait`].
#[doc(alias = "WNOHANG")]
pub fn try_wait() -> Result<Option<Exited>> {
    match wait_until(Deadline::after(Duration::ZERO)) {
        Ok(exited) => Ok(Some(exited)),
        Err(error) if error.is_timeout() => Ok(None),
        Err(error) => Err(error),
    }
}

/// As [`wait`], for so long.
///
/// # Errors
/// [`is_timeout`](crate::Error::is_timeout) when the time has passed; else as [`wait`].
pub fn wait_timeout(timeout: Duration) -> Result<Exited> {
    wait_until(Deadline::after(timeout))
}

/// As [`wait_timeout`], until an instant.
///
/// # Errors
/// As [`wait_timeout`].
pub fn wait_deadline(deadline: Instant) -> Result<Exited> {
    wait_until(deadline.into())
}

fn wait_until(deadline: Deadline) -> Result<Exited> {
    let no_children = || Error::new("wait for any child", Kind::NoChildren);
    let runtime = runtime::existing().ok_or_else(no_children)?;
    let mut births = None;
    loop {
        // In this order: a child that ends in between is either still listed as living or told of already.
        let living = runtime.living();
        if let Some(exited) = runtime.take_untold(None) {
            return Ok(exited);
        }
        if living.is_empty() {
            return Err(no_children());
        }
        if births.is_none() && !deadline.has_passed() {
            births = Some(Births::listen(runtime)?);
            continue;
        }
        let mut fds: Vec<_> = living.iter().map(|child| child.as_fd()).collect();
        fds.extend(births.iter().map(|births| births.bell.as_fd()));
        for index in ready_until("wait for any child", &fds, deadline)? {
            if let Some(child) = living.get(index) {
                child.settle()?;
            } else if let Some(births) = &births {
                births.bell.take();
            }
        }
    }
}

/// Children that other threads start while this one waits count, too: they ring.
struct Births {
    runtime: &'static Runtime,
    bell: Arc<EventFd>,
}

impl Births {
    fn listen(runtime: &'static Runtime) -> Result<Births> {
        let failed = |errno| Error::os_hint("wait for any child", errno, limit::hint(errno));
        let bell = Arc::new(EventFd::new().map_err(failed)?);
        lock(&runtime.bells).push(Arc::clone(&bell));
        Ok(Births { runtime, bell })
    }
}

impl Drop for Births {
    fn drop(&mut self) {
        lock(&self.runtime.bells).retain(|bell| !Arc::ptr_eq(bell, &self.bell));
    }
}

/// Waits until this child has ended.
///
/// # Errors
/// [`is_not_a_child`](crate::Error::is_not_a_child): this library did not start such a child in this process, or
/// a wait or join has told of it already. [`is_join_self`](crate::Error::is_join_self): it is this process itself.
pub fn waitpid(pid: Pid) -> Result<Exited> {
    waitpid_until(pid, Deadline::NEVER)
}

/// As [`waitpid`], for so long.
///
/// # Errors
/// [`is_timeout`](crate::Error::is_timeout) when the time has passed; else as [`waitpid`].
pub fn waitpid_timeout(pid: Pid, timeout: Duration) -> Result<Exited> {
    waitpid_until(pid, Deadline::after(timeout))
}

/// As [`waitpid_timeout`], until an instant.
///
/// # Errors
/// As [`waitpid_timeout`].
pub fn waitpid_deadline(pid: Pid, deadline: Instant) -> Result<Exited> {
    waitpid_until(pid, deadline.into())
}

/// As [`waitpid`], without waiting: `None` while it runs.
///
/// # Errors
/// As [`waitpid`].
pub fn try_waitpid(pid: Pid) -> Result<Option<Exited>> {
    match waitpid_until(pid, Deadline::after(Duration::ZERO)) {
        Ok(exited) => Ok(Some(exited)),
        Err(error) if error.is_timeout() => Ok(None),
        Err(error) => Err(error),
    }
}

fn waitpid_until(pid: Pid, deadline: Deadline) -> Result<Exited> {
    let error = |kind| Error::new(format!("wait for process {}", pid.as_raw_nonzero()), kind);
    if pid == pidfd::own_pid() {
        return Err(error(Kind::JoinSelf));
    }
    let runtime = runtime::existing().ok_or_else(|| error(Kind::NotAChild))?;
    // The number may have belonged to children that ended before, and of which nobody was told.
    let living = runtime.living().into_iter().find(|child| child.pid() == pid);
    let exited = match living {
        Some(child) => child.wait(deadline).map(|_| runtime.take_untold_of(child.id))?,
        None => runtime.take_untold(Some(pid)),
    };
    exited.ok_or_else(|| error(Kind::NotAChild))
}

/// Waits until one of these is ready: a process handle when its process has ended, any other descriptor when it is
/// readable or closed at its other end. Returns the indices of those that are ready.
///
/// # Errors
/// As poll(2).
#[doc(alias = "poll")]
pub fn wait_any(fds: &[BorrowedFd<'_>]) -> Result<Vec<usize>> {
    ready_until(ANY, fds, Deadline::NEVER)
}

/// As [`wait_any`], for so long.
///
/// # Errors
/// [`is_timeout`](crate::Error::is_timeout) when the time has passed.
pub fn wait_any_timeout(fds: &[BorrowedFd<'_>], timeout: Duration) -> Result<Vec<usize>> {
    ready_until(ANY, fds, Deadline::after(timeout))
}

/// As [`wait_any_timeout`], until an instant.
///
/// # Errors
/// As [`wait_any_timeout`].
pub fn wait_any_deadline(fds: &[BorrowedFd<'_>], deadline: Instant) -> Result<Vec<usize>> {
    ready_until(ANY, fds, deadline.into())
}

const ANY: &str = "wait for any of several";

fn ready_until(what: &str, fds: &[BorrowedFd<'_>], deadline: Deadline) -> Result<Vec<usize>> {
    let mut polled: Vec<_> = fds.iter().map(|fd| PollFd::from_borrowed_fd(*fd, PollFlags::IN)).collect();
    match poll(&mut polled, deadline.timeout()) {
        Ok(0) => Err(Error::new(what, Kind::TimedOut)),
        Ok(_) => {
            let ready = polled.iter().enumerate().filter(|(_, fd)| !fd.revents().is_empty());
            Ok(ready.map(|(index, _)| index).collect())
        }
        Err(errno) => Err(Error::os(what, errno)),
    }
}

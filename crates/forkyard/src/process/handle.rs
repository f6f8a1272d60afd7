//! Handles of children: waiting, joining, signalling.

use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use forkyard_sys::wait::{self, ExitStatus};
use forkyard_sys::{Errno, Pid, pidfd};
use serde::de::DeserializeOwned;

use super::builder::Attributes;
use super::fate::Outcome;
use super::runtime::{self, Runtime};
use super::signal::Signal;
use crate::error::{Error, Kind, Result};
use crate::shm::Keep;
use crate::sync_std::lock;
use crate::time::Deadline;

/// How long a daemonic child has between SIGTERM and SIGKILL at its parent's end.
const LAST_GRACE: Duration = Duration::from_millis(500);

/// A child process, whatever its task returns: what [`children`](super::children) lists and [`Process`] derefs to.
///
/// All of it may be used by several threads at a time. In a fork of the process that started the child, every call
/// says that it is no child of that one.
pub struct Child {
    pub(crate) id: u64,
    pub(crate) attributes: Attributes,
    runtime: &'static Runtime,
    pid: Pid,
    pidfd: OwnedFd,
    slot: u32,
    /// Our end of a forked child's lifeline: it is killed when this is closed everywhere.
    lifeline: Mutex<Option<OwnedFd>>,
    fate: Mutex<Fate>,
    /// Keeps the shared objects among its arguments alive while it may not have taken them over yet.
    kept: Mutex<Vec<Keep>>,
    /// Whether the keeper may be told of its end.
    pub(crate) watched: AtomicBool,
}

#[derive(Default)]
struct Fate {
    status: Option<ExitStatus>,
    outcome: Option<Outcome>,
}

impl Child {
    pub(crate) fn new(
        runtime: &'static Runtime,
        id: u64,
        pid: Pid,
        pidfd: OwnedFd,
        slot: u32,
        attributes: Attributes,
        lifeline: Option<OwnedFd>,
    ) -> Child {
        let (lifeline, fate) = (Mutex::new(lifeline), Mutex::default());
        let (kept, watched) = (Mutex::default(), AtomicBool::new(false));
        Child { id, attributes, runtime, pid, pidfd, slot, lifeline, fate, kept, watched }
    }

    /// Keeps these objects alive until this child has ended.
    pub(crate) fn keep(&self, kept: Vec<Keep>) {
        if !kept.is_empty() && lock(&self.fate).status.is_none() {
            *lock(&self.kept) = kept;
        }
    }

    /// Lets go of what was kept for it.
    pub(crate) fn let_go(&self) {
        drop(std::mem::take(&mut *lock(&self.kept)));
    }

    /// Its process id. Once it has been reaped the number may belong to another process: signal through this handle.
    #[must_use]
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// The name that it was started with.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.attributes.name
    }

    /// True if it ends with its parent.
    #[must_use]
    #[doc(alias = "daemon")]
    pub fn is_daemon(&self) -> bool {
        self.attributes.daemon
    }

    /// True while it runs (or is stopped by a signal). Reaps it if it has ended.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        matches!(self.settle(), Ok(None))
    }

    /// How it ended; `None` while it runs. Stays readable for as long as the handle exists.
    #[must_use]
    #[doc(alias = "exitcode")]
    pub fn exit_status(&self) -> Option<ExitStatus> {
        self.settle().ok().flatten()
    }

    /// Asks it to end: SIGTERM. A process that has ended is left alone, without an error.
    ///
    /// # Errors
    /// `EPERM`: it runs with other rights now.
    pub fn terminate(&self) -> Result<()> {
        self.signal(Signal::TERM)
    }

    /// Ends it: SIGKILL. A process that has ended is left alone, without an error.
    ///
    /// # Errors
    /// `EPERM`: it runs with other rights now.
    pub fn kill(&self) -> Result<()> {
        self.signal(Signal::KILL)
    }

    /// Sends it a signal. A process that has ended is left alone, without an error; no other process is ever hit.
    ///
    /// # Errors
    /// `EPERM`: it runs with other rights now.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        match pidfd::send_signal(self.pidfd.as_fd(), signal.number()) {
            Ok(()) | Err(Errno::SRCH) => Ok(()),
            Err(errno) => Err(Error::os(format!("send {signal} to {self}"), errno)),
        }
    }

    /// Waits until it has ended, and leaves its result for a join.
    ///
    /// # Errors
    /// [`is_not_a_child`](crate::Error::is_not_a_child) in another process than the one that started it.
    pub fn wait_ended(&self) -> Result<ExitStatus> {
        self.wait(Deadline::NEVER)
    }

    /// As [`wait_ended`](Child::wait_ended), for so long.
    ///
    /// # Errors
    /// [`is_timeout`](crate::Error::is_timeout) when the time has passed.
    pub fn wait_ended_timeout(&self, timeout: Duration) -> Result<ExitStatus> {
        self.wait(Deadline::after(timeout))
    }

    /// As [`wait_ended_timeout`](Child::wait_ended_timeout), until an instant.
    ///
    /// # Errors
    /// As [`wait_ended_timeout`](Child::wait_ended_timeout).
    pub fn wait_ended_deadline(&self, deadline: Instant) -> Result<ExitStatus> {
        self.wait(deadline.into())
    }

    pub(crate) fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    pub(crate) fn wait(&self, deadline: Deadline) -> Result<ExitStatus> {
        self.check_parent()?;
        if let Some(status) = lock(&self.fate).status {
            return Ok(status);
        }
        self.runtime.keeper.unwatch(self);
        let waited = match deadline.timeout() {
            // ECHILD: another thread, or somebody else, was faster; settling tells.
            None => wait::wait_ended(self.pidfd.as_fd()).or_else(|errno| match errno {
                Errno::CHILD => Ok(()),
                errno => Err(errno),
            }),
            Some(at) => pidfd::wait_readable(self.pidfd.as_fd(), Some(at)).map(|_| ()),
        };
        let settled = self.settle();
        if !matches!(settled, Ok(Some(_))) {
            self.runtime.keeper.watch(self);
        }
        waited.map_err(|errno| Error::os(format!("wait for {self}"), errno))?;
        settled?.ok_or_else(|| Error::new(format!("wait for {self}"), Kind::TimedOut))
    }

    fn check_parent(&self) -> Result<()> {
        match runtime::existing() {
            Some(runtime) if ptr::eq(runtime, self.runtime) => Ok(()),
            _ => Err(Error::new(format!("wait for {self}"), Kind::NotAChild)),
        }
    }

    /// Reaps the child if it has ended, and reads what it left. Whoever comes first does it, once.
    pub(crate) fn settle(&self) -> Result<Option<ExitStatus>> {
        self.check_parent()?;
        let mut fate = lock(&self.fate);
        if fate.status.is_some() {
            return Ok(fate.status);
        }
        let status = match wait::try_reap(self.pidfd.as_fd()) {
            Ok(None) => return Ok(None),
            Ok(Some(status)) => status,
            // Somebody else took it.
            Err(Errno::CHILD) => {
                wait::status_after_reaping(self.pidfd.as_fd()).unwrap_or(ExitStatus::UNKNOWN)
            }
            Err(errno) => return Err(Error::os(format!("wait for {self}"), errno)),
        };
        fate.outcome = Some(Outcome::read(self.runtime, self.slot, self.pid, status));
        fate.status = Some(status);
        // Before anybody can see the status: a wait shall find it told of there, and a join take it from there.
        self.runtime.bury(self, status);
        drop(fate);
        self.runtime.release_slot(self.slot);
        self.runtime.keeper.unwatch(self);
        lock(&self.lifeline).take();
        self.runtime.look_after_spares();
        Ok(Some(status))
    }

    /// In a fork of the parent: the lifeline must have no holder but the parent.
    pub(crate) fn drop_lifeline(&self) {
        lock(&self.lifeline).take();
    }
}

impl AsFd for Child {
    /// Its pidfd: polls readable once it has ended, for as long as the handle exists.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

impl fmt::Display for Child {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process \"{}\" (pid {})", self.attributes.name, self.pid.as_raw_nonzero())
    }
}

impl fmt::Debug for Child {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.attributes.daemon { ", daemon" } else { "" };
        let status = lock(&self.fate).status;
        match status {
            Some(status) => write!(f, "<{self}{kind}, {status}>"),
            None => write!(f, "<{self}{kind}>"),
        }
    }
}

/// A started process whose task returns an `R`.
///
/// Dropping the handle does not end the process: the library reaps it when it ends. Everything that does not concern
/// the result is in [`Child`].
#[must_use = "a process that nobody joins runs on, and its result is lost"]
pub struct Process<R> {
    child: Arc<Child>,
    result: PhantomData<fn() -> R>,
}

impl<R> Process<R> {
    pub(crate) fn new(child: Arc<Child>) -> Process<R> {
        Process { child, result: PhantomData }
    }

    /// The part that does not depend on the result; outlives this handle.
    #[must_use]
    pub fn child(&self) -> Arc<Child> {
        Arc::clone(&self.child)
    }
}

impl<R: DeserializeOwned> Process<R> {
    /// Waits until the process has ended, and returns what its task returned.
    ///
    /// # Errors
    /// [`is_panic`](crate::Error::is_panic): the task panicked.
    /// [`is_child_ended`](crate::Error::is_child_ended): it ended otherwise; [`ended`](crate::Error::ended) and
    /// [`exit_status`](crate::Error::exit_status) tell how.
    /// [`is_already_joined`](crate::Error::is_already_joined): an earlier join took the result.
    #[doc(alias = "waitpid")]
    pub fn join(&self) -> Result<R> {
        self.join_until(Deadline::NEVER)
    }

    /// The result if the process has ended, `None` while it runs.
    ///
    /// # Errors
    /// As [`join`](Process::join).
    #[doc(alias = "WNOHANG")]
    pub fn try_join(&self) -> Result<Option<R>> {
        match self.child.settle()? {
            Some(status) => self.take(status).map(Some),
            None => Ok(None),
        }
    }

    /// As [`join`](Process::join), for so long. A time-out takes nothing: join again.
    ///
    /// # Errors
    /// [`is_timeout`](crate::Error::is_timeout) when the time has passed; else as [`join`](Process::join).
    pub fn join_timeout(&self, timeout: Duration) -> Result<R> {
        self.join_until(Deadline::after(timeout))
    }

    /// As [`join_timeout`](Process::join_timeout), until an instant.
    ///
    /// # Errors
    /// As [`join_timeout`](Process::join_timeout).
    pub fn join_deadline(&self, deadline: Instant) -> Result<R> {
        self.join_until(deadline.into())
    }

    fn join_until(&self, deadline: Deadline) -> Result<R> {
        let status = self.child.wait(deadline)?;
        self.take(status)
    }

    fn take(&self, status: ExitStatus) -> Result<R> {
        // This tells of it.
        self.child.runtime.take_untold_of(self.child.id);
        let what = || format!("join {}", self.child);
        let outcome = lock(&self.child.fate).outcome.take();
        match outcome {
            Some(outcome) => outcome.into_result(what(), status),
            None => Err(Error::new(what(), Kind::AlreadyJoined)),
        }
    }
}

impl<R> Deref for Process<R> {
    type Target = Child;

    fn deref(&self) -> &Child {
        &self.child
    }
}

impl<R> AsFd for Process<R> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.child.as_fd()
    }
}

impl<R> fmt::Debug for Process<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.child.fmt(f)
    }
}

/// Ends children: SIGTERM to all, SIGKILL to those that have not ended soon after.
pub(crate) fn end_all(children: &[Arc<Child>]) {
    for child in children {
        // EPERM: it has other rights; the kernel's parent-death signal is left for it.
        let _ = child.terminate();
    }
    let deadline = Deadline::after(LAST_GRACE);
    for child in children {
        if child.wait(deadline).is_err() {
            let _ = child.kill();
            let _ = child.wait(Deadline::after(LAST_GRACE));
        }
    }
}

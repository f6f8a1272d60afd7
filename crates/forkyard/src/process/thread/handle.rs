//! Handles of threads: waiting and joining.

use std::fmt;
use std::ops::Deref;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use forkyard_sys::{Pid, pidfd, thread};

use crate::error::{Error, Kind, Panic, Result};
use crate::sync_std::lock;
use crate::time::Deadline;

/// A thread, whatever it returns: what [`children`](super::children) lists and [`Thread`] derefs to.
///
/// In a fork of its process the thread does not exist, and every wait says so.
pub struct Child {
    pub(super) id: u64,
    name: String,
    daemon: bool,
    pid: Pid,
    tid: Pid,
    ended: Mutex<bool>,
    /// Told once `ended` is true.
    end: Condvar,
    handle: Mutex<Option<JoinHandle<()>>>,
}

impl Child {
    /// The calling thread, as a child.
    pub(super) fn begin(id: u64, name: String, daemon: bool) -> Child {
        let (pid, tid) = (pidfd::own_pid(), thread::own_tid());
        let (ended, end, handle) = (Mutex::new(false), Condvar::new(), Mutex::new(None));
        Child { id, name, daemon, pid, tid, ended, end, handle }
    }

    pub(super) fn keep_handle(&self, handle: JoinHandle<()>) {
        *lock(&self.handle) = Some(handle);
    }

    pub(super) fn end(&self) {
        *lock(&self.ended) = true;
        self.end.notify_all();
    }

    /// Its thread id, unique in the system like a process id. Once it has ended the number may belong to another.
    #[must_use]
    #[doc(alias = "gettid")]
    #[doc(alias = "native_id")]
    #[doc(alias = "ident")]
    pub fn tid(&self) -> Pid {
        self.tid
    }

    /// The name that it was started with.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// True if the end of main does not wait for it.
    #[must_use]
    #[doc(alias = "daemon")]
    pub fn is_daemon(&self) -> bool {
        self.daemon
    }

    /// True while it runs.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.pid == pidfd::own_pid() && !*lock(&self.ended)
    }

    /// Waits until it has ended, and leaves its result for a join.
    ///
    /// # Errors
    /// [`is_join_self`](crate::Error::is_join_self) in the thread itself;
    /// [`is_not_a_child`](crate::Error::is_not_a_child) in a fork of its process.
    pub fn wait_ended(&self) -> Result<()> {
        self.wait(Deadline::NEVER)
    }

    /// As [`wait_ended`](Child::wait_ended), for so long.
    ///
    /// # Errors
    /// [`is_timeout`](crate::Error::is_timeout) when the time has passed.
    pub fn wait_ended_timeout(&self, timeout: Duration) -> Result<()> {
        self.wait(Deadline::after(timeout))
    }

    /// As [`wait_ended_timeout`](Child::wait_ended_timeout), until an instant.
    ///
    /// # Errors
    /// As [`wait_ended_timeout`](Child::wait_ended_timeout).
    pub fn wait_ended_deadline(&self, deadline: Instant) -> Result<()> {
        self.wait(deadline.into())
    }

    pub(super) fn wait(&self, deadline: Deadline) -> Result<()> {
        let refused = |kind| Err(Error::new(format!("wait for {self}"), kind));
        if self.pid != pidfd::own_pid() {
            return refused(Kind::NotAChild);
        }
        let mut ended = lock(&self.ended);
        if !*ended && self.is_current() {
            return refused(Kind::JoinSelf);
        }
        while !*ended {
            ended = match deadline.remaining() {
                None => self.end.wait(ended).unwrap_or_else(PoisonError::into_inner),
                Some(Duration::ZERO) => return refused(Kind::TimedOut),
                Some(left) => self.end.wait_timeout(ended, left).unwrap_or_else(PoisonError::into_inner).0,
            };
        }
        Ok(())
    }

    /// True if this is the calling thread, while that runs.
    pub(super) fn is_current(&self) -> bool {
        self.tid == thread::own_tid()
    }

    /// Waits for the last of it: its thread-local values are dropped after its end.
    fn wait_gone(&self) {
        if let Some(handle) = { lock(&self.handle).take() } {
            // It cannot panic: its task's panic has been caught.
            let _ = handle.join();
        }
    }
}

impl fmt::Display for Child {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "thread \"{}\" (tid {})", self.name, self.tid.as_raw_nonzero())
    }
}

impl fmt::Debug for Child {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.daemon { ", daemon" } else { "" };
        let ended = if self.is_alive() { "" } else { ", ended" };
        write!(f, "<{self}{kind}{ended}>")
    }
}

/// What has become of a thread's result.
pub(super) enum Outcome<R> {
    Running,
    Ended(std::result::Result<R, Panic>),
    Taken,
}

/// A started thread whose task returns an `R`.
///
/// Dropping the handle does not end the thread. Everything that does not concern the result is in [`Child`].
#[must_use = "a thread that nobody joins runs on, and its result is lost"]
pub struct Thread<R> {
    child: Arc<Child>,
    outcome: Arc<Mutex<Outcome<R>>>,
}

impl<R> Thread<R> {
    pub(super) fn new(child: Arc<Child>, outcome: Arc<Mutex<Outcome<R>>>) -> Thread<R> {
        Thread { child, outcome }
    }

    /// The part that does not depend on the result; outlives this handle.
    #[must_use]
    pub fn child(&self) -> Arc<Child> {
        Arc::clone(&self.child)
    }

    /// Waits until the thread has ended, its thread-local values included, and returns what its task returned.
    ///
    /// # Errors
    /// [`is_panic`](crate::Error::is_panic): the task panicked.
    /// [`is_already_joined`](crate::Error::is_already_joined): an earlier join took the result.
    /// [`is_join_self`](crate::Error::is_join_self): this is the thread itself.
    #[doc(alias = "pthread_join")]
    pub fn join(&self) -> Result<R> {
        self.child.wait(Deadline::NEVER)?;
        self.child.wait_gone();
        self.take()
    }

    /// The result if the thread has ended, `None` while it runs.
    ///
    /// # Errors
    /// As [`join`](Thread::join), but that the thread may ask it of itself.
    pub fn try_join(&self) -> Result<Option<R>> {
        if self.child.is_alive() { Ok(None) } else { self.join_timeout(Duration::ZERO).map(Some) }
    }

    /// As [`join`](Thread::join), for so long. A time-out takes nothing: join again.
    ///
    /// # Errors
    /// [`is_timeout`](crate::Error::is_timeout) when the time has passed; else as [`join`](Thread::join).
    pub fn join_timeout(&self, timeout: Duration) -> Result<R> {
        self.child.wait(Deadline::after(timeout))?;
        self.take()
    }

    /// As [`join_timeout`](Thread::join_timeout), until an instant.
    ///
    /// # Errors
    /// As [`join_timeout`](Thread::join_timeout).
    pub fn join_deadline(&self, deadline: Instant) -> Result<R> {
        self.child.wait(deadline.into())?;
        self.take()
    }

    fn take(&self) -> Result<R> {
        let what = || format!("join {}", self.child);
        match std::mem::replace(&mut *lock(&self.outcome), Outcome::Taken) {
            Outcome::Ended(Ok(value)) => Ok(value),
            Outcome::Ended(Err(panic)) => Err(Error::new(what(), Kind::Panicked { panic, status: None })),
            Outcome::Running | Outcome::Taken => Err(Error::new(what(), Kind::AlreadyJoined)),
        }
    }
}

impl<R> Deref for Thread<R> {
    type Target = Child;

    fn deref(&self) -> &Child {
        &self.child
    }
}

impl<R> fmt::Debug for Thread<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.child.fmt(f)
    }
}

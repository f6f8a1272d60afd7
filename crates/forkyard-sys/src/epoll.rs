//! Readiness of many file descriptors: epoll, and the two descriptors that only wake: eventfd and timerfd.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::{EventfdFlags, Timespec, epoll};
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags};

use crate::{Errno, Result};

/// What to wait for, and what came: a set of flags.
pub use rustix::event::epoll::EventFlags as Interest;

/// One report: the key that was registered, and what is ready.
pub type Ready = epoll::Event;

/// A set of watched file descriptors. Each has a key, which its reports carry.
#[derive(Debug)]
pub struct Epoll(OwnedFd);

impl Epoll {
    /// An empty set.
    ///
    /// # Errors
    /// `EMFILE`, `ENFILE`, `ENOMEM`.
    pub fn new() -> Result<Epoll> {
        epoll::create(epoll::CreateFlags::CLOEXEC).map(Epoll)
    }

    /// Watches a descriptor.
    ///
    /// # Errors
    /// `EEXIST`: it is watched already. `ENOSPC`, `ENOMEM`.
    pub fn add(&self, fd: impl AsFd, key: u64, interest: Interest) -> Result<()> {
        epoll::add(&self.0, fd, epoll::EventData::new_u64(key), interest)
    }

    /// Changes what a descriptor is watched for.
    ///
    /// # Errors
    /// `ENOENT`: it is not watched.
    pub fn modify(&self, fd: impl AsFd, key: u64, interest: Interest) -> Result<()> {
        epoll::modify(&self.0, fd, epoll::EventData::new_u64(key), interest)
    }

    /// Watches a descriptor no longer. Closing its last duplicate does the same.
    ///
    /// # Errors
    /// `ENOENT`: it is not watched.
    pub fn remove(&self, fd: impl AsFd) -> Result<()> {
        epoll::delete(&self.0, fd)
    }

    /// Waits until something is ready or `timeout` has passed (`None`: for ever), and fills `ready` up to its
    /// capacity. A signal may end the wait early, with nothing in `ready`, so that its effects are looked at.
    ///
    /// # Errors
    /// None that a caller could cause.
    pub fn wait(&self, ready: &mut Vec<Ready>, timeout: Option<Duration>) -> Result<()> {
        ready.clear();
        let timeout = timeout.map(timespec);
        match epoll::wait(&self.0, rustix::buffer::spare_capacity(ready), timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(errno) => Err(errno),
        }
    }
}

impl AsFd for Epoll {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// A counter that is readable while it is not zero.
#[derive(Debug)]
pub struct EventFd(OwnedFd);

impl EventFd {
    /// A counter at zero; reading never blocks.
    ///
    /// # Errors
    /// `EMFILE`, `ENFILE`, `ENOMEM`.
    pub fn new() -> Result<EventFd> {
        rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map(EventFd)
    }

    /// Wraps an eventfd that was inherited or received.
    #[must_use]
    pub fn from_fd(fd: OwnedFd) -> EventFd {
        EventFd(fd)
    }

    /// Makes it readable. Safe in a signal handler. Never fails for a reason that matters: a counter that is
    /// full is readable already.
    pub fn notify(&self) {
        let _ = self.try_notify();
    }

    /// As [`notify`](EventFd::notify), for those who then wait for somebody to take notice.
    ///
    /// # Errors
    /// `EBADF`, `EINVAL`: somebody else has closed the descriptor.
    pub fn try_notify(&self) -> Result<()> {
        loop {
            match rustix::io::write(&self.0, &1u64.to_ne_bytes()) {
                Err(Errno::INTR) => {}
                Ok(_) | Err(Errno::AGAIN) => return Ok(()),
                Err(errno) => return Err(errno),
            }
        }
    }

    /// Takes the count and makes it unreadable; 0 if nobody notified.
    pub fn take(&self) -> u64 {
        let mut count = [0; 8];
        loop {
            match rustix::io::read(&self.0, &mut count) {
                Err(Errno::INTR) => {}
                Ok(8) => return u64::from_ne_bytes(count),
                _ => return 0,
            }
        }
    }
}

impl AsFd for EventFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// An alarm on the monotonic clock, readable once it has gone off.
#[derive(Debug)]
pub struct Timer(OwnedFd);

impl Timer {
    /// A timer that is not set.
    ///
    /// # Errors
    /// `EMFILE`, `ENFILE`, `ENOMEM`.
    pub fn new() -> Result<Timer> {
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        rustix::time::timerfd_create(TimerfdClockId::Monotonic, flags).map(Timer)
    }

    /// Goes off once after this time; `None` unsets it.
    ///
    /// # Errors
    /// None that a caller could cause.
    pub fn set(&self, after: Option<Duration>) -> Result<()> {
        // Zero would unset it.
        let value = after.map_or(Duration::ZERO, |time| time.max(Duration::from_nanos(1)));
        let spec = Itimerspec { it_interval: timespec(Duration::ZERO), it_value: timespec(value) };
        rustix::time::timerfd_settime(&self.0, TimerfdTimerFlags::empty(), &spec).map(|_| ())
    }
}

impl AsFd for Timer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn timespec(time: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(time.subsec_nanos()),
    }
}

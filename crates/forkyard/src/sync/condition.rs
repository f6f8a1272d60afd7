//! Condition: waits for a notification, without a lock meanwhile.
//!
//! # Safety
//! What lies in shared memory is made of atomics.
#![allow(unsafe_code)]

use std::cell::Cell;
use std::mem::ManuallyDrop;
use std::panic::Location;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::base::{Base, Patience};
use super::error::LockError;
use super::lock::{Lock, LockGuard};
use super::mutex::MutexGuard;
use super::raw::Released;
use super::rlock::{RLock, RLockGuard};
use super::word::End;
use super::word::condition::{ALL, ConditionWord};
use crate::error::{Error, Kind as Reason, Result};
use crate::shm::{self, Family, Kind, Payload, Shared, ShmSafe};
use crate::time::Deadline;

// SAFETY: atomics only, `repr(C)`; all-zero is a condition for which nobody waits.
unsafe impl Payload for ConditionWord {
    const KIND: Kind = Kind::Condition;
}

/// A way to wait for what somebody else does under a lock: the waiter lets go of the lock, sleeps until it is notified, and has the
/// lock again.
///
/// A wait may also end without a notification, so what was waited for is to be looked at again: [`wait_for`](Condition::wait_for) does that.
/// Those who wait for the same condition should do so with the same lock; notifiers need not have it.
///
/// A handle is cheap to clone and travels in the arguments of a task.
///
/// Killed here: nobody waits for a waiter's answer, so a dead one holds up nobody. One that is killed when it was notified, and before
/// it had its lock again, passes the notification on: all who wait look again. A notifier that is killed has notified as many as it
/// wanted, or nobody; or, of several, some.
///
/// ```
/// use forkyard::{process, sync::{Condition, Mutex}};
///
/// #[forkyard::task]
/// fn produce(goods: Mutex<u32>, arrived: Condition) {
///     *goods.lock().unwrap() += 1;
///     arrived.notify_one().unwrap();
/// }
///
/// let (goods, arrived) = (Mutex::new(0)?, Condition::new()?);
/// let child = process::spawn(produce, (goods.clone(), arrived.clone()))?;
/// let mut here = arrived.wait_for(goods.lock()?, |goods| **goods > 0)?;
/// *here -= 1;
/// child.join()?;
/// # Ok::<(), forkyard::Error>(())
/// ```
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(transparent)]
#[doc(alias = "Condvar")]
#[doc(alias = "pthread_cond_t")]
pub struct Condition {
    shared: Shared<ConditionWord>,
}

/// Whether a wait ended because its time was up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WaitTimeoutResult(Waited);

impl WaitTimeoutResult {
    /// True if the time was up, and nobody had notified; or what was waited for had not come about.
    #[must_use]
    pub fn timed_out(&self) -> bool {
        self.0 == Waited::TimedOut
    }
}

/// How a wait ended.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waited {
    Notified,
    TimedOut,
    Interrupted,
}

/// A lock that the caller has, so that a [`Condition`] can let go of it and take it again: a guard of a [`Mutex`](super::Mutex), a [`Lock`]
/// or an [`RLock`]; or a reference to a [`Lock`] or [`RLock`] that was acquired by hand, and that the caller has again in the end, to
/// release it by hand. An [`RLock`] is released whole, however often it was acquired, and is as deep again afterwards.
pub trait Held: held::Held {}

impl<H: held::Held> Held for H {}

mod held {
    use super::*;

    pub trait Held: Sized {
        /// Releases it, and tells how deep it was.
        fn let_go(&self) -> Result<u32>;
        /// Acquires it, as deep as it was.
        fn take_again(&self, depth: u32) -> std::result::Result<(), LockError<()>>;
    }

    impl<T: ShmSafe> Held for MutexGuard<'_, T> {
        fn let_go(&self) -> Result<u32> {
            let_go(self.base())
        }
        fn take_again(&self, _: u32) -> std::result::Result<(), LockError<()>> {
            take_again(self.base())
        }
    }

    impl Held for LockGuard<'_> {
        fn let_go(&self) -> Result<u32> {
            let_go(self.base())
        }
        fn take_again(&self, _: u32) -> std::result::Result<(), LockError<()>> {
            take_again(self.base())
        }
    }

    impl Held for RLockGuard<'_> {
        fn let_go(&self) -> Result<u32> {
            self.lock().release_all()
        }
        fn take_again(&self, depth: u32) -> std::result::Result<(), LockError<()>> {
            self.lock().take_again(depth)
        }
    }

    impl Held for &RLock {
        fn let_go(&self) -> Result<u32> {
            self.release_all()
        }
        fn take_again(&self, depth: u32) -> std::result::Result<(), LockError<()>> {
            RLock::take_again(self, depth)
        }
    }

    impl Held for &Lock {
        fn let_go(&self) -> Result<u32> {
            let_go(self.base())
        }
        fn take_again(&self, _: u32) -> std::result::Result<(), LockError<()>> {
            take_again(self.base())
        }
    }
}

fn let_go((base, _): (&Base, u64)) -> Result<u32> {
    match base.raw.release(shm::me()?.into()) {
        Released::Done => Ok(0),
        Released::NotOwner | Released::NotLocked => {
            let why = "this process does not have the lock; acquire it before the wait".to_owned();
            Err(Error::new("wait for a condition", Reason::NotOwner(why)))
        }
    }
}

fn take_again((base, object): (&Base, u64)) -> std::result::Result<(), LockError<()>> {
    if base.acquire_at_once() { Ok(()) } else { base.acquire(object, None) }
}

/// What a wait gives: the lock again, or the reason why not. An [`OwnerDied`](super::OwnerDied) has it.
type Waits<G> = std::result::Result<G, LockError<G>>;

impl Condition {
    /// Makes a condition, for use with any lock.
    ///
    /// # Errors
    /// There is no room in the family's shared memory, or this process cannot take part in it.
    #[track_caller]
    #[doc(alias = "pthread_cond_init")]
    pub fn new() -> Result<Condition> {
        Ok(Condition { shared: Shared::new(0, Location::caller(), |_, _| {})? })
    }

    /// Waits for a notification.
    ///
    /// # Errors
    /// Those of acquiring the lock again. [`Failed`](LockError::Failed), too, if this process does not have it in the first place.
    #[doc(alias = "pthread_cond_wait")]
    pub fn wait<G: Held>(&self, held: G) -> Waits<G> {
        only_held(self.wait_as(held, None, None))
    }

    /// Waits for a notification for at most so long.
    ///
    /// # Errors
    /// As those of [`wait`](Condition::wait).
    #[doc(alias = "pthread_cond_timedwait")]
    pub fn wait_timeout<G: Held>(&self, held: G, timeout: Duration) -> Waits<(G, WaitTimeoutResult)> {
        self.wait_as(held, Deadline::after(timeout).timeout(), None)
    }

    /// Waits for a notification until then at most.
    ///
    /// # Errors
    /// As those of [`wait`](Condition::wait).
    pub fn wait_deadline<G: Held>(&self, held: G, deadline: Instant) -> Waits<(G, WaitTimeoutResult)> {
        self.wait_as(held, Some(deadline), None)
    }

    /// Waits until the predicate holds, which is asked now and after each notification, with the lock.
    ///
    /// # Errors
    /// As those of [`wait`](Condition::wait).
    pub fn wait_for<G: Held>(&self, held: G, predicate: impl FnMut(&mut G) -> bool) -> Waits<G> {
        only_held(self.wait_for_as(held, None, predicate))
    }

    /// Waits until the predicate holds, for at most so long. It has not timed out if the predicate holds in the end.
    ///
    /// # Errors
    /// As those of [`wait`](Condition::wait).
    pub fn wait_for_timeout<G: Held>(
        &self,
        held: G,
        timeout: Duration,
        predicate: impl FnMut(&mut G) -> bool,
    ) -> Waits<(G, WaitTimeoutResult)> {
        self.wait_for_as(held, Deadline::after(timeout).timeout(), predicate)
    }

    /// Waits until the predicate holds, until then at most. It has not timed out if the predicate holds in the end.
    ///
    /// # Errors
    /// As those of [`wait`](Condition::wait).
    pub fn wait_for_deadline<G: Held>(
        &self,
        held: G,
        deadline: Instant,
        predicate: impl FnMut(&mut G) -> bool,
    ) -> Waits<(G, WaitTimeoutResult)> {
        self.wait_for_as(held, Some(deadline), predicate)
    }

    fn wait_for_as<G: Held>(
        &self,
        mut held: G,
        until: Option<Instant>,
        mut predicate: impl FnMut(&mut G) -> bool,
    ) -> Waits<(G, WaitTimeoutResult)> {
        let mut end = WaitTimeoutResult(Waited::Notified);
        loop {
            if predicate(&mut held) {
                return Ok((held, WaitTimeoutResult(Waited::Notified)));
            }
            if end.timed_out() {
                return Ok((held, end));
            }
            (held, end) = self.wait_as(held, until, None)?;
        }
    }

    /// As [`wait_deadline`](Condition::wait_deadline); whenever a signal handler has run, `goes_on` is called, without the lock. If it
    /// says no the wait ends.
    ///
    /// # Errors
    /// As those of [`wait`](Condition::wait).
    #[doc(hidden)]
    pub fn wait_interruptible<G: Held>(
        &self,
        held: G,
        deadline: Option<Instant>,
        mut goes_on: impl FnMut() -> bool,
    ) -> Waits<(G, Waited)> {
        match self.wait_as(held, deadline, Some(&mut goes_on)) {
            Ok((held, end)) => Ok((held, end.0)),
            Err(error) => Err(error.map(|(held, end)| (held, end.0))),
        }
    }

    fn wait_as<G: Held>(
        &self,
        held: G,
        until: Option<Instant>,
        mut on_signal: Option<&mut dyn FnMut() -> bool>,
    ) -> Waits<(G, WaitTimeoutResult)> {
        let mut patience = Patience::new(self.shared.offset(), until, false)?;
        patience.interruptible = on_signal.is_some();
        // While somebody else may have the lock its guard is not to release it.
        let held = ManuallyDrop::new(held);
        let depth = Cell::new(0);
        let goes_on = || on_signal.as_mut().is_some_and(|on_signal| on_signal());
        let let_go = || held.let_go().map(|was| depth.set(was));
        let take_again = || held.take_again(depth.get());
        let waited = self.shared.wait(&Family, patience, goes_on, let_go, take_again);
        let (taken, end) = waited.map_err(LockError::Failed)?;
        let end = WaitTimeoutResult(match end {
            Ok(()) => Waited::Notified,
            Err(End::Interrupted) => Waited::Interrupted,
            Err(End::TimedOut | End::GaveUp) => Waited::TimedOut,
        });
        let held = || (ManuallyDrop::into_inner(held), end);
        match taken {
            Ok(()) => Ok(held()),
            Err(error) => Err(error.map(|()| held())),
        }
    }

    /// Wakes one who waits, if somebody does.
    ///
    /// # Errors
    /// This process cannot take part in the family.
    #[doc(alias = "pthread_cond_signal")]
    pub fn notify_one(&self) -> Result<()> {
        self.notify(1)
    }

    /// Wakes so many who wait, or as many as there are.
    ///
    /// # Errors
    /// As those of [`notify_one`](Condition::notify_one).
    pub fn notify(&self, n: u32) -> Result<()> {
        shm::me()?;
        self.shared.notify(n);
        Ok(())
    }

    /// Wakes all who wait.
    ///
    /// # Errors
    /// As those of [`notify_one`](Condition::notify_one).
    #[doc(alias = "pthread_cond_broadcast")]
    pub fn notify_all(&self) -> Result<()> {
        self.notify(ALL)
    }
}

fn only_held<G>(waited: Waits<(G, WaitTimeoutResult)>) -> Waits<G> {
    match waited {
        Ok((held, _)) => Ok(held),
        Err(error) => Err(error.map(|(held, _)| held)),
    }
}

/// See [`ConditionWord::repair`].
pub(super) fn repair(shared: &ConditionWord) {
    shared.repair();
}

//! What all locks have in common: a [`RawLock`], a switch, and how they wait.

use std::sync::OnceLock;
use std::time::Instant;

use super::deadlock::{self, Deadlock};
use super::error::{LockError, OwnerDied};
use super::raw::{Holder, Outcome, RawLock, Waiter};
use crate::primitive::{AtomicU32, Ordering};
use crate::shm::{self, Family, Lives, Me, Waiting};

/// Tells whether a signal handler of the program's own language has something to do: a signal may come between two sleeps.
static ATTENTION: OnceLock<fn() -> bool> = OnceLock::new();

/// Says how to find out.
pub(crate) fn set_attention(attention: fn() -> bool) {
    let _ = ATTENTION.set(attention);
}

/// True if one has.
pub(crate) fn attention() -> bool {
    ATTENTION.get().is_some_and(|attention| attention())
}

/// In `flags`: no search for deadlocks through this lock.
const SILENT: u32 = 1;

/// The words of a lock. All zero is a free one.
///
/// `flags`: who makes the lock, before others have it.
#[repr(C)]
#[derive(Debug)]
pub(super) struct Base {
    pub(super) raw: RawLock,
    flags: AtomicU32,
    unused: AtomicU32,
}

impl From<Me> for Holder {
    #[inline]
    fn from(me: Me) -> Holder {
        Holder { id: me.id, thread: me.thread }
    }
}

impl Base {
    /// From now on nobody who waits for this lock looks for deadlocks, or is told of one.
    pub(super) fn silence(&self) {
        self.flags.store(SILENT, Ordering::Relaxed);
    }

    /// True if who waits for this lock may be told of a deadlock.
    pub(super) fn reports(&self) -> bool {
        self.flags.load(Ordering::Relaxed) & SILENT == 0
    }

    /// Acquires the lock if it is free and nobody else wants it.
    #[inline]
    pub(super) fn acquire_at_once(&self) -> bool {
        self.own_at_once().is_some()
    }

    /// The same, with this thread.
    #[inline]
    pub(super) fn own_at_once(&self) -> Option<Me> {
        let me = shm::known()?;
        self.raw.acquire_at_once(me.into()).then_some(me)
    }

    /// True if somebody who lives has the lock.
    pub(super) fn is_taken(&self) -> bool {
        self.raw.owner().is_some_and(|owner| !Family.is_dead(owner))
    }

    /// Acquires the lock if it is free.
    #[cold]
    pub(super) fn try_acquire(&self) -> Result<(), LockError<()>> {
        let me = shm::me().map_err(LockError::Failed)?;
        match self.raw.try_acquire(&Family, me.into()) {
            Outcome::TimedOut => Err(LockError::WouldBlock),
            outcome => told(outcome, None),
        }
    }

    /// Acquires the lock of this object, waiting.
    #[cold]
    pub(super) fn acquire(&self, object: u64, until: Option<Instant>) -> Result<(), LockError<()>> {
        self.acquire_patiently(&mut Patience::new(object, until, self.reports())?)
    }

    /// The same; a signal handler ends the wait.
    #[cold]
    pub(super) fn acquire_interruptible(
        &self,
        object: u64,
        until: Option<Instant>,
    ) -> Result<(), LockError<()>> {
        let patience = Patience::new(object, until, self.reports())?;
        self.acquire_patiently(&mut Patience { interruptible: true, ..patience })
    }

    fn acquire_patiently(&self, patience: &mut Patience) -> Result<(), LockError<()>> {
        let outcome = self.raw.acquire(&Family, patience.me.into(), patience);
        told(outcome, patience.deadlock.take())
    }

    /// Releases the lock if it is this process's. A guard in a fork releases nothing: the lock is its parent's.
    #[inline]
    pub(super) fn release(&self) {
        match shm::known() {
            Some(me) => {
                let _ = self.raw.release(me.into());
            }
            None => self.release_anew(),
        }
    }

    /// By a thread that is new to the family, of a process that is not.
    #[cold]
    fn release_anew(&self) {
        if let (Some(_), Ok(me)) = (shm::joined(), shm::me()) {
            let _ = self.raw.release(me.into());
        }
    }

    /// The same for a guard, which knows whose it is.
    #[inline]
    pub(super) fn release_own(&self, owner: Option<Me>) {
        match owner {
            Some(owner) if shm::is_here(owner.id) => {
                let _ = self.raw.release(owner.into());
            }
            // A fork's.
            _ => {}
        }
    }

    /// The calling thread, if it has the lock.
    #[inline]
    pub(super) fn owned(&self) -> Option<Me> {
        let me = shm::known()?;
        self.raw.is_held_by(me.into()).then_some(me)
    }

    /// True if the calling thread has the lock.
    #[inline]
    pub(super) fn is_held(&self) -> bool {
        shm::me().is_ok_and(|me| self.raw.is_held_by(me.into()))
    }
}

/// What the caller is told.
pub(super) fn told(outcome: Outcome, deadlock: Option<Deadlock>) -> Result<(), LockError<()>> {
    match (outcome, deadlock) {
        (Outcome::Acquired, _) => Ok(()),
        (Outcome::OwnerDied(dead), _) => Err(LockError::OwnerDied(OwnerDied::new((), dead))),
        (Outcome::Interrupted, _) => Err(LockError::Interrupted),
        (Outcome::GaveUp, Some(deadlock)) => Err(LockError::Deadlock(deadlock)),
        (Outcome::TimedOut | Outcome::GaveUp, _) => Err(LockError::TimedOut),
    }
}

/// How a thread waits for a lock: with a note in the process table, a deadline, and a look for deadlocks each second.
#[derive(Debug)]
pub(super) struct Patience {
    pub(super) me: Me,
    object: u64,
    until: Option<Instant>,
    pub(super) interruptible: bool,
    reports: bool,
    note: Option<Waiting>,
    pub(super) deadlock: Option<Deadlock>,
}

impl Patience {
    /// Of the calling thread, for this object.
    pub(super) fn new<G>(
        object: u64,
        until: Option<Instant>,
        reports: bool,
    ) -> Result<Patience, LockError<G>> {
        let me = shm::me().map_err(LockError::Failed)?;
        Ok(Patience { me, object, until, interruptible: false, reports, note: None, deadlock: None })
    }
}

impl Waiter for Patience {
    fn until(&self) -> Option<Instant> {
        self.until
    }

    fn interruptible(&self) -> bool {
        self.interruptible
    }

    fn sleeps(&mut self) {
        self.note.get_or_insert_with(|| shm::waiting(self.me, self.object));
    }

    fn slice(&mut self) -> bool {
        if self.reports {
            self.deadlock = deadlock::search(self.me);
        }
        self.deadlock.is_some()
    }

    fn attention(&self) -> bool {
        self.interruptible && attention()
    }
}

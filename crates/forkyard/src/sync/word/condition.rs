//! A condition: a word that changes when sleepers are to look again.
//!
//! The word is odd while somebody may wait. A waiter makes it odd before it lets go of its lock, and sleeps as long as it is the same.
//! A broadcast makes it even. A notification of `n` changes nothing if it woke `n` sleepers; if there were fewer, some waiters may not
//! have been asleep yet, and a broadcast covers them. So `n` sleepers or more are notified, never fewer, if there are so many.
//!
//! Killed here: nobody waits for a waiter's answer, and the kernel wakes none that are dead. A waiter that is killed after it was woken alone, and
//! before it had its lock again, takes a notification with it: that is counted in `grants`, and makes the reaper wake the others
//! ([`ConditionWord::repair`]). A broadcast is one system call.

use super::{End, Wait};
use crate::primitive::{self, AtomicU32, AtomicU64, Ordering};
use crate::shm::Lives;
use crate::sync::raw::Waiter;
use crate::sync::sleep::Slept;

/// A condition in shared memory. All zero is the initial value.
///
/// `word`: waiters and broadcasters. `grants`: `[value of the word:32][count:32]`, how many were woken one by one at that value and
/// have not had their lock again; notifiers add before they wake, who has its lock again subtracts. Another value than the
/// word's makes the count void.
#[repr(C)]
#[derive(Debug, Default)]
pub(crate) struct ConditionWord {
    word: AtomicU32,
    unused: AtomicU32,
    grants: AtomicU64,
}

/// A waiter's place: what the word was when it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ticket(u32);

/// Everybody.
pub(crate) const ALL: u32 = u32::MAX;

impl ConditionWord {
    /// Waits for a notification: lets go of the lock, sleeps, and takes it again, whatever ended the wait. If `let_go` fails nothing
    /// has happened. After an interruption it sleeps on if `goes_on` says so.
    pub(crate) fn wait<E, T>(
        &self,
        lives: &impl Lives,
        mut waiter: impl Waiter,
        mut goes_on: impl FnMut() -> bool,
        let_go: impl FnOnce() -> Result<(), E>,
        take_again: impl FnOnce() -> T,
    ) -> Result<(T, Result<(), End>), E> {
        let ticket = self.enter();
        let_go()?;
        let end = loop {
            match self.sleep(ticket, lives, &mut waiter) {
                Err(End::Interrupted) if goes_on() => {}
                end => break end,
            }
        };
        // Now it waits for the lock.
        drop(waiter);
        let lock = take_again();
        if end.is_ok() {
            self.notified(ticket);
        }
        Ok((lock, end))
    }

    /// Before the lock is released: from now on notifications count for the caller.
    fn enter(&self) -> Ticket {
        let mut word = self.word.load(Ordering::Relaxed);
        while word & 1 == 0 {
            match self.word.compare_exchange(word, word + 1, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => return Ticket(word + 1),
                Err(now) => word = now,
            }
        }
        Ticket(word)
    }

    fn sleep(&self, ticket: Ticket, lives: &impl Lives, waiter: &mut impl Waiter) -> Result<(), End> {
        let Ticket(expected) = ticket;
        let mut wait = Wait::new(waiter);
        loop {
            if self.word.load(Ordering::Acquire) != expected {
                return Ok(());
            }
            wait.ended()?;
            if wait.sleep(lives, &self.word, expected, &[]) == Slept::Look {
                return Ok(());
            }
        }
    }

    /// With the lock taken again after a notification: it has arrived.
    fn notified(&self, ticket: Ticket) {
        let (mut seen, mut count) = self.granted(ticket.0);
        while count > 0 && !self.take_grant(seen) {
            (seen, count) = self.granted(ticket.0);
        }
    }

    /// How many notifications are under way at this value of the word.
    fn granted(&self, word: u32) -> (u64, u32) {
        let grants = self.grants.load(Ordering::Acquire);
        (grants, if (grants >> 32) as u32 == word { grants as u32 } else { 0 })
    }

    fn take_grant(&self, seen: u64) -> bool {
        self.grants.compare_exchange(seen, seen - 1, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    /// Notifies `n` waiters, or as many as there are.
    pub(crate) fn notify(&self, n: u32) {
        let word = self.word.load(Ordering::Acquire);
        if word & 1 == 0 || n == 0 {
            return;
        }
        if n < ALL {
            self.grant(word, n);
            if primitive::wake(&self.word, n) >= n {
                return;
            }
        }
        self.broadcast(word);
    }

    fn grant(&self, word: u32, n: u32) {
        loop {
            let (seen, count) = self.granted(word);
            let grants = u64::from(word) << 32 | u64::from(count.saturating_add(n));
            if self.grants.compare_exchange(seen, grants, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
                return;
            }
        }
    }

    /// Wakes everybody who came at this value of the word, asleep or not yet.
    fn broadcast(&self, word: u32) {
        // Of two that do this at the same time the second one makes the word odd again: it looks as if somebody waited, no more.
        if self.word.load(Ordering::Acquire) == word {
            primitive::add_and_wake(&self.word, 1, u32::MAX);
        }
    }

    /// Has everybody look again if a notification may have been lost with one of the dead. May be done twice.
    pub(crate) fn repair(&self) {
        let word = self.word.load(Ordering::Acquire);
        if word & 1 == 1 && self.granted(word).1 > 0 {
            self.broadcast(word);
        }
    }
}

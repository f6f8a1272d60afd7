//! Children that have no task yet, made ahead so that a start need not wait for a clone.
//!
//! They stand in the order in which they were asked for, which is the order in which the zygote answers: those that are
//! born come before those that are not.
//!
//! Killed requester: the kernel ends them with it, or its zygote does. Killed zygote: the kernel has written into its slot
//! who was born, so whoever notices ends them all, asked for or born (`unseen.rs`).

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

use forkyard_sys::{Errno, Pid, pidfd};

use super::runtime::Runtime;
use super::unseen::discard;
use super::zygote::{Answer, Zygote};
use crate::error::Result;

/// Most of them at a time. With one, the start after next waits for the clone that this start has asked for; with two,
/// requester and zygote are both busy all the time, and a third gains nothing (README.md).
pub(crate) const MOST: usize = 2;

/// A child that has no task yet.
struct Spare {
    slot: u32,
    /// `None` until the zygote's answer has been collected.
    born: Option<(Pid, OwnedFd)>,
}

/// What came of waiting for an answer.
pub(super) enum Collected {
    /// Nobody is waited for, or the one that was is born.
    Done,
    /// The kernel refused, and that spare is one no longer.
    Refused(Errno),
    /// The zygote is gone, or stuck, or talks nonsense.
    Lost,
}

/// A requester's spares.
#[derive(Default)]
pub(super) struct Spares(VecDeque<Spare>);

impl Spares {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many are not born, as far as is known here.
    fn expected(&self) -> usize {
        self.0.iter().rev().take_while(|spare| spare.born.is_none()).count()
    }

    /// Asks for one more.
    pub(super) fn order(&mut self, runtime: &Runtime, zygote: &mut Zygote) -> Result<()> {
        let slot = runtime.board.offer()?;
        match zygote.order(slot, self.expected()) {
            Ok(()) => {
                self.0.push_back(Spare { slot, born: None });
                Ok(())
            }
            Err(error) => {
                runtime.board.release(slot);
                Err(error)
            }
        }
    }

    /// Waits until the first one is born.
    pub(super) fn collect_first(&mut self, runtime: &Runtime, zygote: &mut Zygote) -> Collected {
        match self.0.front() {
            Some(Spare { born: None, .. }) => self.accept(runtime, zygote.collect()),
            _ => Collected::Done,
        }
    }

    /// Waits for all answers. A refusal is told by the start that asks again.
    pub(super) fn collect_all(&mut self, runtime: &Runtime, zygote: &mut Zygote) -> Collected {
        while self.expected() > 0 {
            if let Collected::Lost = self.accept(runtime, zygote.collect()) {
                return Collected::Lost;
            }
        }
        Collected::Done
    }

    /// Takes charge of those whose births have been announced, so that their deaths will be noticed.
    pub(super) fn collect_announced(&mut self, runtime: &Runtime, zygote: &mut Zygote) -> Collected {
        while self.expected() > 0 {
            let Some(answer) = zygote.collect_announced() else { break };
            let born = self.0.len() - self.expected();
            if let Collected::Lost = self.accept(runtime, answer) {
                return Collected::Lost;
            }
            if let Some(Spare { born: Some((_, pidfd)), .. }) = self.0.get(born) {
                runtime.keeper.watch_spare(pidfd.as_fd());
            }
        }
        Collected::Done
    }

    fn accept(&mut self, runtime: &Runtime, answer: Answer) -> Collected {
        let first = self.0.len() - self.expected();
        match answer {
            Answer::Born(pid, pidfd) => {
                if let Some(spare) = self.0.get_mut(first) {
                    spare.born = Some((pid, pidfd));
                }
                Collected::Done
            }
            Answer::Refused(errno) => {
                if let Some(spare) = self.0.remove(first) {
                    discard(runtime, spare.slot, None);
                }
                Collected::Refused(errno)
            }
            Answer::Lost => Collected::Lost,
        }
    }

    /// The slot of the one that gets the next task.
    pub(super) fn first_slot(&self) -> Option<u32> {
        self.0.front().map(|spare| spare.slot)
    }

    /// Gives away the first one, if it is born.
    pub(super) fn take_first(&mut self) -> Option<(u32, Pid, OwnedFd)> {
        match self.0.pop_front()? {
            Spare { slot, born: Some((pid, pidfd)) } => Some((slot, pid, pidfd)),
            unborn => {
                self.0.push_front(unborn);
                None
            }
        }
    }

    /// Reaps those that have died.
    pub(super) fn bury(&mut self, runtime: &Runtime) {
        let is_dead = |spare: &Spare| spare.born.as_ref().is_some_and(|(_, pidfd)| is_dead(pidfd.as_fd()));
        let (dead, alive) = std::mem::take(&mut self.0).into_iter().partition(is_dead);
        self.0 = alive;
        Spares(dead).discard(runtime);
    }

    /// Ends all of them. Their zygote has answered, or is dead.
    pub(super) fn discard(&mut self, runtime: &Runtime) {
        self.0.drain(..).for_each(|spare| discard(runtime, spare.slot, spare.born));
    }

    /// Waits for those that were asked of a zygote which lives on: their slots are nobody else's before.
    pub(super) fn await_all(&mut self, runtime: &Runtime, zygote: &mut Zygote) {
        if let Collected::Lost = self.collect_all(runtime, zygote) {
            // They may be made at any time: their slots stay taken.
            self.0.truncate(self.0.len() - self.expected());
        }
    }

    /// In a fork of the requester: they are its parent's.
    pub(super) fn abandon(&mut self) {
        self.0.clear();
    }
}

/// True if the process has ended, also while a debugger keeps its status from us: the keeper is woken only once.
pub(super) fn is_dead(pidfd: BorrowedFd<'_>) -> bool {
    matches!(pidfd::wait_readable(pidfd, Some(Instant::now())), Ok(true))
}

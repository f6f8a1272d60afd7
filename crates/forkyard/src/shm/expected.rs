//! Forks that a slot is kept for, and that may come to nothing: there was no child, or it was killed before it took the slot.
//!
//! A pipe tells. The child has its writing end until it has taken the slot; after that, or when there is no child, the reading end is at its
//! end, and a slot that is still kept is given back.
//!
//! Killed here: the parent's slots go with the parent.

use std::io::{PipeReader, PipeWriter};
use std::os::fd::AsFd;
use std::sync::{Mutex, MutexGuard};
use std::time::Instant;

use super::arena;
use super::life::Id;
use super::participant::claim_expected;
use crate::sync_std::lock;

/// One fork.
pub(super) struct Fork {
    slot: u32,
    incarnation: u32,
    /// At its end when the slot will not be taken any more.
    coming: PipeReader,
}

static FORKS: Mutex<Vec<Fork>> = Mutex::new(Vec::new());

/// This process's forks, locked over a fork.
pub(super) type Forks = MutexGuard<'static, Vec<Fork>>;

pub(super) fn forks() -> Forks {
    lock(&FORKS)
}

/// The parent's part and the child's part of the knowledge that a fork is on its way. `None`: no descriptors; then the slot is
/// kept for as long as the parent lives.
pub(super) fn expecting(slot: u32, incarnation: u32) -> Option<(Fork, PipeWriter)> {
    let (coming, child) = std::io::pipe().ok()?;
    Some((Fork { slot, incarnation, coming }, child))
}

/// A slot that this process kept for a fork that came to nothing: the caller cleans up now, and nobody else does.
pub(crate) fn claim_lost_fork(me: Id) -> Option<Id> {
    let arena = arena::existing()?;
    let mut forks = forks();
    loop {
        let index = forks.iter().position(Fork::is_over)?;
        let over = forks.swap_remove(index);
        if let Some(lost) = claim_expected(arena, me, over.slot, over.incarnation) {
            return Some(lost);
        }
    }
}

/// True if some fork has taken its slot, or will not.
pub(crate) fn any_over() -> bool {
    forks().iter().any(Fork::is_over)
}

impl Fork {
    fn is_over(&self) -> bool {
        let ready = forkyard_sys::poll::readable([self.coming.as_fd()], Some(Instant::now()));
        ready.is_ok_and(|[over]| over)
    }
}

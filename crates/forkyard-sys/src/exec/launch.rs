//! Starting a program without waiting until it has been executed.
//!
//! # Safety
//! The child's memory is one allocation, which nobody touches, and which is not freed, before the kernel has cleared `here`: it does
//! that when the child has left the caller's memory, by its exec or its end (`CLONE_CHILD_CLEARTID`, set_tid_address(2)).
#![allow(unsafe_code)]

use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use super::child::{self, Image};
use super::descriptors::Prepared;
use super::stack::Stack;
use super::{Plan, SpawnError, Spawned, Step, clone_on, raw, spawn};
use crate::futex::{self, Woken};

/// A start under way: what the child uses until it has left the caller's memory. Dropped, it waits for that.
///
/// A child that is stopped before its exec is still here.
pub struct Launch(Option<NonNull<Memory>>);

/// `here`: not zero while the child is on this memory; cleared by the kernel, which wakes who waits there.
struct Memory {
    here: AtomicU32,
    image: Image<Plan<'static>>,
    stack: Stack,
}

// SAFETY: an allocation of its own.
unsafe impl Send for Launch {}

/// Starts the planned program in a new child process, and returns as soon as there is one. Whether the program could be executed tells
/// the [`Launch`].
///
/// # Errors
/// The step that failed before there was a process, as for [`spawn`]; where an overlapping start is not possible, any step.
pub fn launch(plan: Plan<'_>) -> Result<(Spawned, Launch), SpawnError> {
    if !raw::ERRNO_FREE {
        return spawn(&plan).map(|spawned| (spawned, Launch(None)));
    }
    // The child has a table of descriptors of its own, so it needs the plan's only as numbers.
    let descriptors = Prepared::new(&plan)?;
    let image = Image::prepare(plan.without_descriptors(), descriptors);
    let stack = Stack::take().map_err(|errno| Step::Clone.failed(errno))?;
    let memory = Box::into_raw(Box::new(Memory { here: AtomicU32::new(1), image, stack }));
    // SAFETY: `entry` is for images of this kind; the allocation lives until the child has left, and the caller touches `here` only.
    let spawned = unsafe {
        let left = (&raw mut (*memory).here).cast();
        let entry = child::entry::<Plan<'static>>;
        clone_on(&(*memory).stack, &raw mut (*memory).image, entry, libc::CLONE_CHILD_CLEARTID, left)
    };
    if spawned.is_err() {
        // SAFETY: from `Box::into_raw` above, and there is no child.
        drop(unsafe { Box::from_raw(memory) });
    }
    Ok((spawned?, Launch(NonNull::new(memory))))
}

impl Launch {
    fn here(&self) -> Option<&AtomicU32> {
        // SAFETY: alive as long as this; only this word is looked at.
        self.0.map(|memory| unsafe { &(*memory.as_ptr()).here })
    }

    /// True if the child has executed the program, or ended.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.here().is_none_or(|here| here.load(Ordering::Acquire) == 0)
    }

    /// Waits until it is over; why the program was not executed, if it was not, and the child was not killed before.
    #[must_use]
    pub fn failure(self) -> Option<SpawnError> {
        self.wait();
        // SAFETY: the child has left, and its last writes happened before the kernel cleared the word.
        self.0.and_then(|memory| unsafe { (*memory.as_ptr()).image.failure() })
    }

    /// Waits until it is over, at most until then: a stopped child may be here for long. True if it is over.
    pub fn wait_until(&self, until: Instant) -> bool {
        let Some(here) = self.here() else { return true };
        loop {
            let value = here.load(Ordering::Acquire);
            if value == 0 {
                return true;
            }
            if futex::wait_one(here, value, Some(until)) == Woken::TimedOut {
                return self.is_over();
            }
        }
    }

    fn wait(&self) {
        let Some(here) = self.here() else { return };
        loop {
            match here.load(Ordering::Acquire) {
                0 => return,
                value => futex::wait(here, value),
            }
        }
    }
}

impl Drop for Launch {
    fn drop(&mut self) {
        self.wait();
        let Some(memory) = self.0.take() else { return };
        // SAFETY: from `Box::into_raw`, and the child has left.
        let memory = unsafe { Box::from_raw(memory.as_ptr()) };
        memory.stack.give_back();
    }
}

impl std::fmt::Debug for Launch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Launch").field("is_over", &self.is_over()).finish()
    }
}

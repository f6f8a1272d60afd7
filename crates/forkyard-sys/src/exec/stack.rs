//! Stacks for children on the caller's memory: private, with an inaccessible page range below.
//!
//! # Safety
//! A stack is given to one child at a time, and comes back when that has left it.
#![allow(unsafe_code)]

use std::ptr;
use std::sync::Mutex;

use crate::Result;
use crate::wait::last_errno;

/// The child's deepest call needs less than 8 KiB, also without optimisation.
const USABLE: usize = 64 * 1024;
/// A multiple of every page size in use.
const GUARD: usize = 64 * 1024;
/// Stacks that are kept for the next children.
const KEPT: usize = 32;

/// A child's stack.
pub(super) struct Stack(*mut libc::c_void);

// SAFETY: the mapping is used by whoever has the value.
unsafe impl Send for Stack {}

/// Only ever tried: in a fork it may be locked for good.
static SPARE: Mutex<Vec<Stack>> = Mutex::new(Vec::new());

impl Stack {
    /// One that was used before, if there is one.
    pub(super) fn take() -> Result<Stack> {
        let spare = SPARE.try_lock().ok().and_then(|mut spare| spare.pop());
        spare.map_or_else(Stack::new, Ok)
    }

    fn new() -> Result<Stack> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_STACK;
        // SAFETY: a fresh mapping at an address of the kernel's choice.
        let base = unsafe { libc::mmap(ptr::null_mut(), GUARD + USABLE, libc::PROT_NONE, flags, -1, 0) };
        if base == libc::MAP_FAILED {
            return Err(last_errno());
        }
        let stack = Stack(base);
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: the range is the upper part of the mapping just made.
        if unsafe { libc::mprotect(stack.bottom(), USABLE, protection) } != 0 {
            return Err(last_errno());
        }
        Ok(stack)
    }

    /// Keeps it for another child: this one has left it.
    pub(super) fn give_back(self) {
        if let Ok(mut spare) = SPARE.try_lock()
            && spare.len() < KEPT
        {
            spare.push(self);
        }
    }

    /// Its lowest byte, and its size.
    pub(super) fn range(&self) -> (*mut libc::c_void, usize) {
        (self.bottom(), USABLE)
    }

    fn bottom(&self) -> *mut libc::c_void {
        // SAFETY: inside the mapping.
        unsafe { self.0.byte_add(GUARD) }
    }

    /// Where it begins, growing downwards; aligned to a page.
    pub(super) fn top(&self) -> *mut libc::c_void {
        // SAFETY: one past the end of the mapping.
        unsafe { self.bottom().byte_add(USABLE) }
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and the child has left it.
        unsafe { libc::munmap(self.0, GUARD + USABLE) };
    }
}

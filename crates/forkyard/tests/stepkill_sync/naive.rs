//! The control: a futex mutex in shared memory that knows nothing of deaths.
//!
//! # Safety
//! The mapping is anonymous, shared with forks, never undone, and zero is a value of what lies there.
#![allow(unsafe_code)]

use std::sync::atomic::{AtomicU32, Ordering};

use forkyard_sys::futex;

/// 0 free, 1 locked, 2 locked and somebody sleeps.
pub(crate) struct NaiveLock(AtomicU32);

impl NaiveLock {
    /// One that forks of this process share.
    pub(crate) fn new() -> &'static NaiveLock {
        let (protection, flags) =
            (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_ANONYMOUS);
        // SAFETY: a new mapping at an address of the kernel's choice.
        let address = unsafe { libc::mmap(std::ptr::null_mut(), 4096, protection, flags, -1, 0) };
        assert_ne!(address, libc::MAP_FAILED);
        // SAFETY: see the heading.
        unsafe { &*address.cast() }
    }

    pub(crate) fn acquire(&self) {
        if self.0.compare_exchange(0, 1, Ordering::Acquire, Ordering::Relaxed).is_err() {
            while self.0.swap(2, Ordering::Acquire) != 0 {
                futex::wait(&self.0, 2);
            }
        }
    }

    pub(crate) fn release(&self) {
        if self.0.swap(0, Ordering::Release) == 2 {
            futex::wake_one(&self.0);
        }
    }
}

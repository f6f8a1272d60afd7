//! The controls: a futex mutex in shared memory, and a queue in it that publishes in the order of reservations, which know nothing of deaths.
//!
//! # Safety
//! The mapping is anonymous, shared with forks, never undone, and zero is a value of what lies there.
#![allow(unsafe_code, reason = "each unsafe block has its own reason")]

use std::sync::atomic::{AtomicU32, Ordering};

use forkyard_sys::futex;

/// What forks of a process share.
#[repr(C)]
pub(crate) struct Naive {
    pub(crate) lock: NaiveLock,
    pub(crate) queue: NaiveQueue,
}

impl Naive {
    pub(crate) fn new() -> &'static Naive {
        let (protection, flags) =
            (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_ANONYMOUS);
        // SAFETY: a new mapping at an address of the kernel's choice.
        let address = unsafe { libc::mmap(std::ptr::null_mut(), 4096, protection, flags, -1, 0) };
        assert_ne!(address, libc::MAP_FAILED);
        // SAFETY: see the heading.
        unsafe { &*address.cast() }
    }
}

/// 0 free, 1 locked, 2 locked and somebody sleeps.
#[repr(C)]
pub(crate) struct NaiveLock(AtomicU32);

impl NaiveLock {
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

const CELLS: usize = 512;

/// A producer reserves the next position, and publishes its message there; a consumer waits for the message of the next position.
#[repr(C)]
pub(crate) struct NaiveQueue {
    tail: AtomicU32,
    head: AtomicU32,
    cells: [AtomicU32; CELLS],
    /// A message's bytes, which nobody reads.
    bytes: [AtomicU32; 64],
}

impl NaiveQueue {
    /// Puts a message, which is not 0.
    pub(crate) fn put(&self, message: u32) {
        let position = self.tail.fetch_add(1, Ordering::AcqRel);
        self.bytes.iter().for_each(|byte| byte.store(message, Ordering::Relaxed));
        let cell = &self.cells[position as usize % CELLS];
        cell.store(message, Ordering::Release);
        futex::wake(cell, u32::MAX);
    }

    pub(crate) fn get(&self) -> u32 {
        let position = self.head.fetch_add(1, Ordering::AcqRel);
        let cell = &self.cells[position as usize % CELLS];
        loop {
            match cell.swap(0, Ordering::AcqRel) {
                0 => futex::wait(cell, 0),
                message => return message,
            };
        }
    }
}

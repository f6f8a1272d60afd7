//! Waiting for something from the parent, and ending with it unless that has come.
//!
//! Nobody but a process itself can take its parent-death signal back. One that kills would kill also a process that
//! was given something to do and has not woken up to it. The signal here is SIGURG, which does nothing by default;
//! while the process waits, a handler looks at the word that says whether it still waits.
//!
//! # Safety
//! The handler loads atomics and makes one system call. The word lives as long as the process.
#![allow(unsafe_code)]

use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicU32, Ordering};

use rustix::process::{Pid, Signal};

use crate::Result;
use crate::wait::last_errno;

static WORD: AtomicPtr<AtomicU32> = AtomicPtr::new(ptr::null_mut());
static WAITING: AtomicU32 = AtomicU32::new(0);

/// The state of a process that ends with its parent while it waits.
pub struct Waiting {
    before: libc::sigaction,
}

impl Waiting {
    /// From here on this process, which has one thread, ends when its parent's thread does (see
    /// [`die_with_parent`](crate::prctl::die_with_parent)), or has ended already, as long as `word` is `waiting`.
    ///
    /// # Errors
    /// As sigaction(2) and prctl(2).
    pub fn begin(parent: Pid, word: &'static AtomicU32, waiting: u32) -> Result<Waiting> {
        WAITING.store(waiting, Ordering::Relaxed);
        WORD.store(ptr::from_ref(word).cast_mut(), Ordering::Release);
        // SAFETY: all-zero is a valid value of the structure: the default action, no flags, an empty mask.
        let (mut action, mut before): (libc::sigaction, libc::sigaction) = unsafe { std::mem::zeroed() };
        action.sa_sigaction = on_parent_death as *const () as libc::sighandler_t;
        // SAFETY: a handler that may run at any time, and live local structures.
        if unsafe { libc::sigaction(libc::SIGURG, &raw const action, &raw mut before) } != 0 {
            return Err(last_errno());
        }
        crate::mask::replace(crate::mask::current() & !(1 << (libc::SIGURG - 1)));
        rustix::process::set_parent_process_death_signal(Some(Signal::URG))?;
        if rustix::process::getppid() != Some(parent) {
            on_parent_death(libc::SIGURG);
        }
        Ok(Waiting { before })
    }

    /// It has come. The parent-death signal stays, and does nothing any more; SIGURG stays unblocked.
    pub fn end(self) {
        // SAFETY: what was there before.
        unsafe { libc::sigaction(libc::SIGURG, &raw const self.before, ptr::null_mut()) };
    }
}

extern "C" fn on_parent_death(_signal: libc::c_int) {
    // SAFETY: null, or what `begin` was given for ever.
    let word = unsafe { WORD.load(Ordering::Acquire).as_ref() };
    if word.is_some_and(|word| word.load(Ordering::Acquire) == WAITING.load(Ordering::Relaxed)) {
        crate::clone::exit_now(0);
    }
}

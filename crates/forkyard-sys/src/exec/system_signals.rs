//! What system(3) does to the caller's signals while it waits for the shell.
//!
//! Killed here: nothing outlives the process.

use std::ffi::c_int;
use std::marker::PhantomData;
use std::sync::{Mutex, PoisonError};

use super::child::{KernelSigaction, disposition, set_disposition, set_signal_mask};
use super::plan::bit;

/// While one lives, this process ignores `SIGINT` and `SIGQUIT` (they are meant for the program in the
/// foreground), and this thread blocks `SIGCHLD` (so that a handler which waits for any child does not take
/// the status). Dropping the last one puts the dispositions back, unless somebody changed them meanwhile.
#[derive(Debug)]
pub struct SystemSignals {
    mask_before: u64,
    /// A signal mask belongs to a thread.
    _thread: PhantomData<*const ()>,
}

const INTERRUPTS: [c_int; 2] = [libc::SIGINT, libc::SIGQUIT];

/// What was there before the first of those that live.
struct Saved {
    alive: usize,
    before: [Option<KernelSigaction>; INTERRUPTS.len()],
}

static SAVED: Mutex<Saved> = Mutex::new(Saved { alive: 0, before: [None; INTERRUPTS.len()] });

impl SystemSignals {
    /// Ignores and blocks.
    #[must_use]
    pub fn take() -> SystemSignals {
        let mask_before = set_signal_mask(u64::MAX);
        let mut saved = SAVED.lock().unwrap_or_else(PoisonError::into_inner);
        if saved.alive == 0 {
            saved.before = INTERRUPTS.map(disposition);
            INTERRUPTS.into_iter().for_each(|signal| set_disposition(signal, &KernelSigaction::IGNORE));
        }
        saved.alive += 1;
        drop(saved);
        set_signal_mask(mask_before | bit(libc::SIGCHLD));
        SystemSignals { mask_before, _thread: PhantomData }
    }

    /// The signal mask that this thread had before.
    #[must_use]
    pub fn mask_before(&self) -> u64 {
        self.mask_before
    }
}

/// The signals that are ignored only because a [`SystemSignals`] lives, so that no program inherits that. (A
/// program that another thread starts at the very moment at which the first one is taken may.)
pub(super) fn ignored_for_now() -> u64 {
    let saved = SAVED.lock().unwrap_or_else(PoisonError::into_inner);
    if saved.alive == 0 {
        return 0;
    }
    let was_ignored = |before: Option<KernelSigaction>| before.is_none_or(|b| b.handler == libc::SIG_IGN);
    let before = INTERRUPTS.into_iter().zip(saved.before);
    before.filter(|(_, before)| !was_ignored(*before)).fold(0, |set, (signal, _)| set | bit(signal))
}

impl Drop for SystemSignals {
    fn drop(&mut self) {
        let mut saved = SAVED.lock().unwrap_or_else(PoisonError::into_inner);
        saved.alive -= 1;
        if saved.alive == 0 {
            for (signal, before) in INTERRUPTS.into_iter().zip(saved.before) {
                let untouched = disposition(signal).is_some_and(|now| now.handler == libc::SIG_IGN);
                if let (Some(before), true) = (before, untouched) {
                    set_disposition(signal, &before);
                }
            }
        }
        drop(saved);
        set_signal_mask(self.mask_before);
    }
}

//! What system(3) does to the caller's signals while it waits for the shell.
//!
//! Killed here: nothing outlives the process.

use std::ffi::c_int;
use std::marker::PhantomData;
use std::sync::{Mutex, PoisonError};

use super::child::{KernelSigaction, disposition, set_disposition, set_signal_mask};
use super::plan::bit;
use super::{Mask, Plan};

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

    /// Lets the planned program start with the mask and dispositions that the caller had before.
    pub fn give_back_in(&self, plan: &mut Plan<'_>) {
        plan.signal_mask(Mask::Set(self.mask_before));
        let saved = SAVED.lock().unwrap_or_else(PoisonError::into_inner);
        for (signal, before) in INTERRUPTS.into_iter().zip(saved.before) {
            if before.is_some_and(|action| action.handler != libc::SIG_IGN) {
                plan.default_signal(signal);
            }
        }
    }
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

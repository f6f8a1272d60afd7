//! The calling thread's mask, changed by guards that restore it.

use std::marker::PhantomData;

use forkyard_sys::signal::set as sys;

use super::SignalSet;

/// Restores the mask that the thread had before, when it is dropped.
///
/// Guards are dropped in the reverse order of their making, as values in one scope are; another order restores
/// another mask. A guard stays in its thread.
#[derive(Debug)]
#[must_use = "the mask is restored when this is dropped"]
pub struct MaskGuard {
    before: SignalSet,
    not_send: PhantomData<*const ()>,
}

impl MaskGuard {
    fn new(before: SignalSet) -> MaskGuard {
        MaskGuard { before, not_send: PhantomData }
    }

    /// The mask that will be restored.
    #[must_use]
    pub fn before(&self) -> SignalSet {
        self.before
    }

    /// Leaves the mask as it is.
    pub fn keep(self) {
        std::mem::forget(self);
    }
}

impl Drop for MaskGuard {
    fn drop(&mut self) {
        sys::set_mask(self.before);
    }
}

/// The signals that the calling thread has blocked.
#[must_use]
#[doc(alias = "pthread_sigmask")]
pub fn mask() -> SignalSet {
    sys::mask()
}

/// Blocks these signals, too, in the calling thread: they stay pending until they are unblocked or taken by
/// [`wait`](super::wait). `SIGKILL` and `SIGSTOP` cannot be blocked and are passed over.
///
/// A signal sent to the process goes to any thread that has it open; to hold it back from the whole process,
/// block it before the other threads start, which inherit the mask.
#[doc(alias = "SIG_BLOCK")]
pub fn block(signals: impl Into<SignalSet>) -> MaskGuard {
    MaskGuard::new(sys::block(signals.into()))
}

/// Unblocks these signals in the calling thread; those that are pending are acted on before this returns.
#[doc(alias = "SIG_UNBLOCK")]
pub fn unblock(signals: impl Into<SignalSet>) -> MaskGuard {
    MaskGuard::new(sys::unblock(signals.into()))
}

/// Blocks these signals and no others in the calling thread.
#[doc(alias = "SIG_SETMASK")]
pub fn set_mask(signals: impl Into<SignalSet>) -> MaskGuard {
    MaskGuard::new(sys::set_mask(signals.into()))
}

/// The blocked signals that wait for the calling thread or for its process.
#[must_use]
#[doc(alias = "sigpending")]
pub fn pending() -> SignalSet {
    sys::pending()
}

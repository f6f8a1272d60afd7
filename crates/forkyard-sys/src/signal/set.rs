//! Sets of signals: the calling thread's mask, what is pending, and waiting for one of a set.
//!
//! # Safety
//! The raw calls read and write local `sigset_t` and `siginfo_t` values.
#![allow(unsafe_code)]

use std::fmt;
use std::mem::MaybeUninit;
use std::time::{Duration, Instant};

use rustix::io::Errno;

use super::{Signal, SignalInfo};
use crate::Result;
use crate::wait::last_errno;

/// A set of signals.
///
/// ```
/// use forkyard_sys::signal::{Signal, SignalSet};
/// let set = SignalSet::from([Signal::INT, Signal::TERM]);
/// assert!(set.contains(Signal::TERM) && !set.contains(Signal::HUP));
/// ```
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
#[doc(alias = "sigset_t")]
pub struct SignalSet(u64);

impl SignalSet {
    /// No signal.
    #[doc(alias = "sigemptyset")]
    pub const EMPTY: SignalSet = SignalSet(0);

    /// Every signal.
    #[doc(alias = "sigfillset")]
    pub const FULL: SignalSet = SignalSet(!0);

    const fn bit(signal: Signal) -> u64 {
        1 << (signal.number() - 1)
    }

    /// This set and the signal.
    #[must_use]
    #[doc(alias = "sigaddset")]
    pub const fn with(self, signal: Signal) -> SignalSet {
        SignalSet(self.0 | SignalSet::bit(signal))
    }

    /// This set without the signal.
    #[must_use]
    #[doc(alias = "sigdelset")]
    pub const fn without(self, signal: Signal) -> SignalSet {
        SignalSet(self.0 & !SignalSet::bit(signal))
    }

    /// True if the signal is in the set.
    #[must_use]
    #[doc(alias = "sigismember")]
    pub const fn contains(self, signal: Signal) -> bool {
        self.0 & SignalSet::bit(signal) != 0
    }

    /// True if every signal of `other` is in this set.
    #[must_use]
    pub const fn contains_all(self, other: SignalSet) -> bool {
        self.0 & other.0 == other.0
    }

    /// True if there is no signal in it.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Its signals, by number.
    pub fn iter(self) -> impl Iterator<Item = Signal> {
        (1..=64).filter_map(Signal::new).filter(move |signal| self.contains(*signal))
    }

    pub(super) const fn bits(self) -> u64 {
        self.0
    }

    pub(super) const fn from_bits(bits: u64) -> SignalSet {
        SignalSet(bits)
    }

    pub(super) fn to_raw(self) -> libc::sigset_t {
        let mut raw = MaybeUninit::uninit();
        // SAFETY: sigemptyset writes the whole value before sigaddset, which refuses a number it does not
        // like (glibc's own two signals) without harm, changes it.
        unsafe {
            libc::sigemptyset(raw.as_mut_ptr());
            for signal in self.iter() {
                libc::sigaddset(raw.as_mut_ptr(), signal.number());
            }
            raw.assume_init()
        }
    }

    pub(super) fn from_raw(raw: &libc::sigset_t) -> SignalSet {
        // SAFETY: reads a set that was filled by a call.
        let is_member = |signal: &Signal| unsafe { libc::sigismember(raw, signal.number()) } == 1;
        (1..=64).filter_map(Signal::new).filter(is_member).collect()
    }
}

impl From<Signal> for SignalSet {
    fn from(signal: Signal) -> SignalSet {
        SignalSet::EMPTY.with(signal)
    }
}

impl<const N: usize> From<[Signal; N]> for SignalSet {
    fn from(signals: [Signal; N]) -> SignalSet {
        signals.into_iter().collect()
    }
}

impl FromIterator<Signal> for SignalSet {
    fn from_iter<I: IntoIterator<Item = Signal>>(signals: I) -> SignalSet {
        signals.into_iter().fold(SignalSet::EMPTY, SignalSet::with)
    }
}

impl fmt::Debug for SignalSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

fn change_mask(how: i32, set: Option<SignalSet>) -> SignalSet {
    let raw = set.map(SignalSet::to_raw);
    let new = raw.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    let mut old = SignalSet::EMPTY.to_raw();
    // SAFETY: `new` is null or a set on the stack, `old` is a set on the stack. Fails for a bad `how` only.
    unsafe { libc::pthread_sigmask(how, new, &raw mut old) };
    SignalSet::from_raw(&old)
}

/// The calling thread's mask: the signals it has blocked.
#[must_use]
pub fn mask() -> SignalSet {
    change_mask(libc::SIG_BLOCK, None)
}

/// Blocks these signals, too, in the calling thread; returns the mask as it was. `SIGKILL`, `SIGSTOP` and
/// glibc's own signals stay open.
pub fn block(set: SignalSet) -> SignalSet {
    change_mask(libc::SIG_BLOCK, Some(set))
}

/// Unblocks these signals in the calling thread; returns the mask as it was.
pub fn unblock(set: SignalSet) -> SignalSet {
    change_mask(libc::SIG_UNBLOCK, Some(set))
}

/// Makes the calling thread block these signals and no others; returns the mask as it was.
pub fn set_mask(set: SignalSet) -> SignalSet {
    change_mask(libc::SIG_SETMASK, Some(set))
}

/// The blocked signals that wait for the calling thread or its process.
#[must_use]
pub fn pending() -> SignalSet {
    let mut raw = SignalSet::EMPTY.to_raw();
    // SAFETY: writes a set on the stack; fails for a bad address only.
    unsafe { libc::sigpending(&raw mut raw) };
    SignalSet::from_raw(&raw)
}

/// Takes one signal of the set, waiting for it until `deadline` (`None`: for ever); `None` when the time has
/// passed. A deadline in the past takes what is pending and does not wait. Other signals that are handled
/// meanwhile prolong nothing and shorten nothing.
///
/// # Errors
/// None that is known.
#[doc(alias = "sigtimedwait")]
pub fn wait(set: SignalSet, deadline: Option<Instant>) -> Result<Option<SignalInfo>> {
    let raw = set.to_raw();
    loop {
        let time = deadline.map(left);
        let time = time.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
        let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
        // Not glibc's sigtimedwait, which says SI_USER for what a thread sent.
        // SAFETY: the set, of which the kernel has 8 bytes, the siginfo and the time, if any, are on the stack.
        let signal = unsafe {
            libc::syscall(libc::SYS_rt_sigtimedwait, &raw const raw, info.as_mut_ptr(), time, KERNEL_SET_SIZE)
        };
        if let Some(signal) = i32::try_from(signal).ok().and_then(Signal::new) {
            // SAFETY: zeroes are a valid siginfo, and now the kernel has filled it.
            return Ok(Some(SignalInfo::read(signal, unsafe { info.assume_init_ref() })));
        }
        match last_errno() {
            Errno::INTR => {}
            Errno::AGAIN => return Ok(None),
            errno => return Err(errno),
        }
    }
}

const KERNEL_SET_SIZE: usize = 8;

fn left(deadline: Instant) -> libc::timespec {
    let left = deadline.saturating_duration_since(Instant::now()).min(Duration::from_secs(1 << 31));
    // The bound above makes the conversion exact.
    libc::timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: left.subsec_nanos().into() }
}

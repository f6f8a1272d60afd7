//! Dispositions: what the process does with a signal.
//!
//! # Safety
//! The raw calls read and write local `sigaction` values; the handlers they install are `SIG_DFL` and
//! `SIG_IGN`, and in `relay` its own.
#![allow(unsafe_code)]

use std::mem::MaybeUninit;

use super::{Signal, SignalSet};
use crate::Result;
use crate::wait::last_errno;

/// What the process does with a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disposition {
    /// The default action ([`Signal::default_action`]).
    Default,
    /// Nothing. Survives exec.
    Ignore,
    /// A handler runs, this library's or another's.
    Handled,
}

/// Reads what the process does with a signal.
///
/// # Errors
/// `EINVAL`: one of the signals that glibc keeps for itself.
pub fn disposition(signal: Signal) -> Result<Disposition> {
    Ok(match raw_get(signal)?.sa_sigaction {
        libc::SIG_DFL => Disposition::Default,
        libc::SIG_IGN => Disposition::Ignore,
        _ => Disposition::Handled,
    })
}

/// Has a signal ignored (`true`), or sets its default action (`false`).
///
/// # Errors
/// `EINVAL`: `SIGKILL`, `SIGSTOP`, or one of the signals that glibc keeps for itself.
pub fn set_disposition(signal: Signal, ignore: bool) -> Result<()> {
    let handler = if ignore { libc::SIG_IGN } else { libc::SIG_DFL };
    raw_set(signal, &raw_action(handler, 0, SignalSet::EMPTY)).map(|_| ())
}

pub(super) fn raw_action(handler: libc::sighandler_t, flags: i32, mask: SignalSet) -> libc::sigaction {
    libc::sigaction { sa_sigaction: handler, sa_flags: flags, sa_mask: mask.to_raw(), sa_restorer: None }
}

pub(super) fn raw_get(signal: Signal) -> Result<libc::sigaction> {
    raw_sigaction(signal, std::ptr::null())
}

pub(super) fn raw_set(signal: Signal, action: &libc::sigaction) -> Result<libc::sigaction> {
    raw_sigaction(signal, action)
}

fn raw_sigaction(signal: Signal, new: *const libc::sigaction) -> Result<libc::sigaction> {
    let mut old = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: `new` is null or valid; its handler is one of the constants, `relay`'s, or one that sigaction
    // itself has returned before.
    if unsafe { libc::sigaction(signal.number(), new, old.as_mut_ptr()) } != 0 {
        return Err(last_errno());
    }
    // SAFETY: zeroes are a valid sigaction, and now the kernel has filled it.
    Ok(unsafe { old.assume_init() })
}

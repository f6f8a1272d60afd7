//! The relay: one C handler for all signals, which writes what it is told to a pipe.
//!
//! [`install`] puts the handler in front of what a signal had before; the handler calls that, if it was a
//! handler, and then writes one [`Record`]. [`read`] takes the records out again, in a thread of the
//! caller's, where everything is allowed. The handler never waits: what does not fit the pipe is remembered as
//! one bit per signal ([`take_overflow`]) and counted ([`lost`]).
//!
//! A forked child has the handler, and no pipe until it makes one itself (`pipe.rs`).
//!
//! # Safety
//! The handler is async-signal-safe: it reads and writes atomics and calls getpid, pipe2, fcntl, fstat, write
//! and close. Earlier dispositions are leaked boxes, so the handler may read them at any time.
#![allow(unsafe_code)]

mod pipe;

use std::ffi::c_void;
use std::sync::atomic::{AtomicPtr, Ordering};

use super::disposition::{raw_action, raw_get, raw_set};
use super::{Signal, SignalInfo, SignalSet};
use crate::Result;

pub use pipe::{Record, has_reader, lost, note_reader, read, take_overflow};

/// What each signal had before the relay was put in front of it; null if the relay never was.
/// Written by `remember` under the caller's lock, read by the handler; never freed.
static EARLIER: [AtomicPtr<libc::sigaction>; 65] = [const { AtomicPtr::new(std::ptr::null_mut()) }; 65];

/// All signals but those that a fault raises in the thread itself: blocked while the handler runs, so that
/// signals that arrive together are written in the order in which the kernel delivers them.
const DURING_HANDLER: SignalSet = SignalSet::FULL
    .without(Signal::ILL)
    .without(Signal::TRAP)
    .without(Signal::BUS)
    .without(Signal::FPE)
    .without(Signal::SEGV);

/// Makes sure that this process has a pipe.
///
/// Calls of this, of [`install`] and of [`uninstall`] must not overlap: the caller has a lock.
///
/// # Errors
/// `EMFILE`, `ENFILE`: no fd left. `ENOMEM`: no memory.
pub fn open() -> Result<()> {
    pipe::open()
}

/// Puts the relay in front of what the signal has now, unless it is there already.
///
/// # Errors
/// `EINVAL`: `SIGKILL`, `SIGSTOP`, or one of the signals that glibc keeps for itself. Others as [`open`].
pub fn install(signal: Signal) -> Result<()> {
    pipe::open()?;
    let before = raw_get(signal)?;
    if is_relay(&before) {
        return Ok(());
    }
    // Remembered first: the handler may be called as soon as it is installed.
    remember(signal, &before);
    let flags = libc::SA_SIGINFO | libc::SA_RESTART | libc::SA_ONSTACK;
    let replaced = raw_set(signal, &raw_action(relay_address(), flags, DURING_HANDLER))?;
    if !is_relay(&replaced) {
        remember(signal, &replaced);
    }
    Ok(())
}

/// Gives the signal back what it had before the relay; false if somebody has replaced the relay meanwhile, and
/// then nothing is changed.
///
/// # Errors
/// `EINVAL`: one of the signals that glibc keeps for itself.
pub fn uninstall(signal: Signal) -> Result<bool> {
    if !is_relay(&raw_get(signal)?) {
        return Ok(false);
    }
    // SAFETY: null, or a box that is never freed.
    match unsafe { EARLIER[signal.number() as usize].load(Ordering::Acquire).as_ref() } {
        Some(earlier) => raw_set(signal, earlier).map(|_| true),
        None => Ok(false),
    }
}

fn relay_address() -> libc::sighandler_t {
    relay as extern "C" fn(i32, *mut libc::siginfo_t, *mut c_void) as libc::sighandler_t
}

fn is_relay(action: &libc::sigaction) -> bool {
    action.sa_sigaction == relay_address()
}

fn remember(signal: Signal, action: &libc::sigaction) {
    let slot = &EARLIER[signal.number() as usize];
    // SAFETY: null, or a box that is never freed.
    let known = unsafe { slot.load(Ordering::Acquire).as_ref() };
    if known.is_some_and(|known| same(known, action)) {
        return;
    }
    slot.store(Box::into_raw(Box::new(*action)), Ordering::Release);
}

fn same(a: &libc::sigaction, b: &libc::sigaction) -> bool {
    a.sa_sigaction == b.sa_sigaction
        && a.sa_flags == b.sa_flags
        && SignalSet::from_raw(&a.sa_mask) == SignalSet::from_raw(&b.sa_mask)
}

/// The handler.
extern "C" fn relay(number: i32, info: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: the address of this thread's errno.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: as above.
    let saved = unsafe { *errno };
    // SAFETY: the kernel gives a siginfo, on this handler's stack; a handler that was installed after us and
    // calls us passes it on.
    if let (Some(signal), Some(info)) = (Signal::new(number), unsafe { info.as_mut() })
        && enter(info)
    {
        call_earlier(signal, info, context);
        pipe::report(&SignalInfo::read(signal, info));
    }
    // SAFETY: as above.
    unsafe { *errno = saved };
}

/// Marks the siginfo; false if it was marked, which means that this signal has been through the relay already.
///
/// That happens where somebody put his handler above ours and calls ours from it, and we were then put above
/// him: without the mark the two would call each other for ever.
fn enter(info: &mut libc::siginfo_t) -> bool {
    const MARK: u64 = 0x666f_726b_7961_7264;
    const LAST: usize = size_of::<libc::siginfo_t>() / 8 - 1;
    let words = std::ptr::from_mut(info).cast::<u64>();
    // SAFETY: the last of the 16 words of a siginfo, 8-aligned; the kernel uses the first six, always clears
    // the others, and does not read them again.
    unsafe {
        if words.add(LAST).read() == MARK {
            return false;
        }
        words.add(LAST).write(MARK);
    }
    true
}

fn call_earlier(signal: Signal, info: &mut libc::siginfo_t, context: *mut c_void) {
    type Plain = extern "C" fn(i32);
    type WithInfo = extern "C" fn(i32, *mut libc::siginfo_t, *mut c_void);
    // SAFETY: null, or a box that is never freed.
    let Some(earlier) = (unsafe { EARLIER[signal.number() as usize].load(Ordering::Acquire).as_ref() })
    else {
        return;
    };
    match earlier.sa_sigaction {
        libc::SIG_DFL | libc::SIG_IGN => {}
        // SAFETY: sigaction returned this address, with the flag that tells its type.
        handler if earlier.sa_flags & libc::SA_SIGINFO != 0 => unsafe {
            std::mem::transmute::<libc::sighandler_t, WithInfo>(handler)(signal.number(), info, context);
        },
        // SAFETY: as above.
        handler => unsafe { std::mem::transmute::<libc::sighandler_t, Plain>(handler)(signal.number()) },
    }
}

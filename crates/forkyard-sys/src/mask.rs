//! The calling thread's signal mask as a number: 64 bits, signal n at bit n − 1, as the kernel has it.
//!
//! # Safety
//! The raw calls read and write one local 64-bit word, the size that they are told.
#![allow(unsafe_code)]

/// The mask now.
#[must_use]
pub fn current() -> u64 {
    let mut mask = 0;
    call(libc::SIG_BLOCK, None, &mut mask);
    mask
}

/// Replaces the mask, and returns what it was. KILL and STOP cannot be blocked; the kernel leaves them out.
pub fn replace(mask: u64) -> u64 {
    let mut before = 0;
    call(libc::SIG_SETMASK, Some(&mask), &mut before);
    before
}

fn call(how: i32, new: Option<&u64>, old: &mut u64) {
    let new = new.map_or(std::ptr::null(), std::ptr::from_ref);
    // SAFETY: both pointers are null or to live words of the size given. The call can fail only for a wrong
    // `how`, size or address.
    unsafe { libc::syscall(libc::SYS_rt_sigprocmask, how, new, std::ptr::from_mut(old), size_of::<u64>()) };
}

/// Makes a write to a closed pipe an error instead of a death, as Rust's main does at its start.
pub fn ignore_sigpipe() {
    // SAFETY: `SIG_IGN` is no code that could run.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
}

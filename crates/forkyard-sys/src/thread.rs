//! Threads as the kernel and the C library know them.
//!
//! # Safety
//! The one symbol that is looked up is a `char` of the C library's, which lives as long as the process.
#![allow(unsafe_code)]

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, Ordering};

use rustix::process::Pid;

/// The calling thread's id: unique in the system, and in a process's first thread the process's id.
#[must_use]
#[doc(alias = "gettid")]
pub fn own_tid() -> Pid {
    rustix::thread::gettid()
}

/// True if the C library is certain that this process has one thread (`__libc_single_threaded`, glibc 2.32). It may be
/// false long after the others have ended. The first call looks the word up.
#[must_use]
pub fn is_only_one() -> bool {
    static WORD: OnceLock<Option<&'static AtomicU8>> = OnceLock::new();
    let word = WORD.get_or_init(|| {
        // SAFETY: null, or the address of a char that is aligned as every char, and written by the C library alone.
        unsafe {
            let word = libc::dlsym(libc::RTLD_DEFAULT, c"__libc_single_threaded".as_ptr());
            word.cast::<AtomicU8>().as_ref()
        }
    });
    word.is_some_and(|word| word.load(Ordering::Relaxed) != 0)
}

//! Threads as the kernel and the C library know them.
//!
//! # Safety
//! The one symbol that is looked up is a `char` of the C library's, which lives as long as the process. A thread's note is eight bytes of its
//! own static TLS.
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

/// What the calling thread has noted with [`note`]; at first 0.
#[inline]
#[must_use]
pub fn noted() -> u64 {
    noted::get()
}

/// Notes something for the calling thread.
#[inline]
pub fn note(what: u64) {
    noted::set(what);
}

/// Without a call, in a library that was loaded later too: there the compiler's own thread-local variables take one
/// (`__tls_get_addr`), which is as long as all else that an uncontended lock takes beside its exchanges.
#[cfg(target_arch = "x86_64")]
mod noted {
    use std::arch::{asm, global_asm};

    // The linker gives it a place in the static TLS of each thread (the initial-exec model).
    global_asm!(
        ".pushsection .tbss.forkyard_note, \"awT\", @nobits",
        ".balign 8",
        ".globl forkyard_note",
        ".hidden forkyard_note",
        ".type forkyard_note, @object",
        ".size forkyard_note, 8",
        "forkyard_note:",
        ".zero 8",
        ".popsection",
    );

    #[inline]
    pub(super) fn get() -> u64 {
        let what;
        // SAFETY: reads the calling thread's eight bytes, which nobody else writes.
        unsafe {
            asm!(
                "mov {0}, qword ptr [rip + forkyard_note@GOTTPOFF]",
                "mov {0}, qword ptr fs:[{0}]",
                out(reg) what,
                options(pure, readonly, nostack, preserves_flags)
            );
        }
        what
    }

    #[inline]
    pub(super) fn set(what: u64) {
        // SAFETY: writes the calling thread's eight bytes, which nobody else reads.
        unsafe {
            asm!(
                "mov {0}, qword ptr [rip + forkyard_note@GOTTPOFF]",
                "mov qword ptr fs:[{0}], {1}",
                out(reg) _,
                in(reg) what,
                options(nostack, preserves_flags)
            );
        }
    }
}

#[cfg(not(target_arch = "x86_64"))]
mod noted {
    use std::cell::Cell;

    thread_local! {
        static NOTE: Cell<u64> = const { Cell::new(0) };
    }

    #[inline]
    pub(super) fn get() -> u64 {
        NOTE.get()
    }

    #[inline]
    pub(super) fn set(what: u64) {
        NOTE.set(what);
    }
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

//! Sleeping on a word of shared memory: futex(2), between processes.

use std::sync::atomic::AtomicU32;

use rustix::io::Errno;
use rustix::thread::futex::{self, Flags};

/// Sleeps until the word is woken, unless it has another value already. May return early: look at the word again.
pub fn wait(word: &AtomicU32, expected: u32) {
    match futex::wait(word, Flags::empty(), expected, None) {
        // Woken; or it had changed; or a signal came.
        Ok(()) | Err(Errno::AGAIN | Errno::INTR) => {}
        // The word is mapped and aligned, so nothing else can be; if it were, not sleeping is the safe answer.
        Err(_) => std::thread::yield_now(),
    }
}

/// Wakes one sleeper.
pub fn wake_one(word: &AtomicU32) {
    // The same holds here.
    let _ = futex::wake(word, Flags::empty(), 1);
}

//! Threads as the kernel knows them.

use rustix::process::Pid;

/// The calling thread's id: unique in the system, and in a process's first thread the process's id.
#[must_use]
#[doc(alias = "gettid")]
pub fn own_tid() -> Pid {
    rustix::thread::gettid()
}

//! Starting another program image: [`spawn`] in a new process, [`replace`] in this one.
//!
//! A [`Plan`] says what to start. Everything that allocates, locks or looks something up happens before the
//! new process exists; what happens between clone and exec is `child.rs`, top to bottom, raw system calls
//! only. The new process borrows the caller's memory until it has executed the program (`CLONE_VM`), so a
//! start costs the same whatever the caller's size, and other threads keep running; the calling thread is
//! suspended meanwhile (`CLONE_VFORK`), which also makes the error report race-free: a word in that memory.
//!
//! Killed here: if the caller dies during a start, its memory lives on until the child has executed or
//! ended. If the child is killed before its exec, the start succeeds and the exit status tells the signal.
//! If the child is *stopped* before its exec, the calling thread waits until it is continued or killed.
//!
//! # Safety
//! The child runs on a stack of its own, with all signals blocked until no handler of the caller is left, on
//! an `Image` that the suspended caller does not touch; the memory of both outlives the suspension.
#![allow(unsafe_code)]

mod child;
mod descriptors;
mod plan;
mod search;
mod system_signals;

use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::ptr;

use rustix::process::Pid;

pub use plan::{Mask, Plan, SpawnError, Step};
pub use search::find_program;
pub use system_signals::SystemSignals;

use crate::wait::{last_errno, reap};
use child::Image;

/// A process that runs the planned program.
#[derive(Debug)]
pub struct Spawned {
    /// Its process id.
    pub pid: Pid,
    /// A descriptor of the process itself, made together with it (close-on-exec).
    pub pidfd: OwnedFd,
}

/// Starts the planned program in a new child process.
///
/// Returns once the program image has been executed, or a step failed. After a failure there is no process,
/// zombie or descriptor more than before.
///
/// # Errors
/// The step that failed, with its errno: `EAGAIN` of [`Step::Clone`] is the limit on processes, `EMFILE` the
/// limit on descriptors; `ENOENT`, `EACCES` and `E2BIG` of [`Step::Exec`] concern the program.
pub fn spawn(plan: &Plan<'_>) -> Result<Spawned, SpawnError> {
    let mut image = Image::prepare(plan)?;
    let stack = Stack::new().map_err(|errno| Step::Clone.failed(errno))?;
    let mut raw_pidfd: libc::c_int = -1;

    let blocked = BlockedSignals::all();
    image.inherit_mask(blocked.before);
    // SAFETY: the function gets what it expects, on a stack that nobody else uses; image, stack and
    // raw_pidfd live until this thread resumes, which is when the child has executed or ended.
    let raw_pid = unsafe {
        libc::clone(
            child::entry,
            stack.top(),
            libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PIDFD | libc::SIGCHLD,
            (&raw mut image).cast(),
            &raw mut raw_pidfd,
        )
    };
    let clone_errno = last_errno();
    drop(blocked);

    let Some(pid) = Pid::from_raw(raw_pid.max(0)) else { return Err(Step::Clone.failed(clone_errno)) };
    // SAFETY: clone succeeded, so it stored a fresh descriptor that nobody else owns.
    let pidfd = unsafe { OwnedFd::from_raw_fd(raw_pidfd) };
    match image.failure() {
        None => Ok(Spawned { pid, pidfd }),
        Some(failure) => {
            // ECHILD: the host program ignores SIGCHLD or took it with a wait for any child. Gone either way.
            let _gone = reap(pidfd.as_fd());
            Err(failure)
        }
    }
}

/// Executes the planned program in this process, which keeps its pid; returns only if that failed.
///
/// All other threads end when the exec succeeds. After a failure the signal mask and dispositions are as
/// before; other steps of the plan that had succeeded (a new session, placed descriptors, …) stay done.
#[must_use]
pub fn replace(plan: &Plan<'_>) -> SpawnError {
    let mut image = match Image::prepare(plan) {
        Ok(image) => image,
        Err(error) => return error,
    };
    child::replace(&mut image)
}

/// The child's stack: private, with an inaccessible page range below it.
struct Stack(*mut libc::c_void);

impl Stack {
    /// The child's deepest call needs less than 8 KiB, also without optimisation.
    const USABLE: usize = 64 * 1024;
    /// A multiple of every page size in use.
    const GUARD: usize = 64 * 1024;

    fn new() -> crate::Result<Stack> {
        let length = Stack::GUARD + Stack::USABLE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_STACK;
        // SAFETY: a fresh mapping at an address of the kernel's choice.
        let base = unsafe { libc::mmap(ptr::null_mut(), length, libc::PROT_NONE, flags, -1, 0) };
        if base == libc::MAP_FAILED {
            return Err(last_errno());
        }
        let stack = Stack(base);
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: the range is the upper part of the mapping just made.
        if unsafe { libc::mprotect(base.byte_add(Stack::GUARD), Stack::USABLE, protection) } != 0 {
            return Err(last_errno());
        }
        Ok(stack)
    }

    /// Where the stack begins, growing downwards; aligned to a page.
    fn top(&self) -> *mut libc::c_void {
        // SAFETY: one past the end of the mapping.
        unsafe { self.0.byte_add(Stack::GUARD + Stack::USABLE) }
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and the child has left it.
        unsafe { libc::munmap(self.0, Stack::GUARD + Stack::USABLE) };
    }
}

/// Blocks every signal for the calling thread, those that the C library keeps for itself included.
struct BlockedSignals {
    before: u64,
}

impl BlockedSignals {
    fn all() -> BlockedSignals {
        BlockedSignals { before: child::set_signal_mask(u64::MAX) }
    }
}

impl Drop for BlockedSignals {
    fn drop(&mut self) {
        child::set_signal_mask(self.before);
    }
}

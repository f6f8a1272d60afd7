//! Starting another program image: [`spawn`] in a new process, [`replace`] in this one.
//!
//! A [`Plan`] says what to start. Everything that allocates, locks or looks something up happens before the
//! new process exists; what happens between clone and exec is `child.rs`, top to bottom, raw system calls
//! only. The new process borrows the caller's memory until it has executed the program (`CLONE_VM`), so a
//! start costs the same whatever the caller's size, and other threads keep running. [`spawn`] suspends the calling
//! thread meanwhile (`CLONE_VFORK`), which also makes the error report race-free: a word in that memory. [`launch`]
//! does not: what it returns owns that memory, and tells when the child has left it, and how.
//!
//! Killed here: if the caller dies during a start, its memory lives on until the child has executed or
//! ended. If the child is killed before its exec, the start succeeds and the exit status tells the signal.
//! If the child is *stopped* before its exec, the calling thread waits until it is continued or killed.
//!
//! # Safety
//! The child runs on a stack of its own, with all signals blocked until no handler of the caller is left, on
//! an `Image` that the caller does not touch until the child has left; the memory of both outlives that.
#![allow(unsafe_code)]

mod child;
mod descriptors;
mod launch;
mod plan;
mod raw;
mod search;
mod stack;
mod system_signals;

use std::borrow::Borrow;
use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::ptr;

use rustix::io::Errno;
use rustix::process::Pid;

pub use launch::{Launch, launch};
pub use plan::{Mask, Plan, SpawnError, Step};
pub use search::find_program;
pub use system_signals::SystemSignals;

use crate::clone::CloneArgs;
use crate::fallback::{Feature, forced};
use crate::wait::{last_errno, reap};
use child::Image;
use descriptors::Prepared;
use stack::Stack;

/// `CLONE_CLEAR_SIGHAND` of linux/sched.h, Linux 5.5.
const CLONE_CLEAR_SIGHAND: u64 = 1 << 32;

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
    let mut image = Image::prepare(plan, Prepared::new(plan)?);
    let stack = Stack::take().map_err(|errno| Step::Clone.failed(errno))?;
    let entry = child::entry::<&Plan<'_>>;
    let left: *mut libc::c_void = ptr::null_mut();
    // SAFETY: `entry` is for images of this kind; image and stack live until this thread resumes, which is when the child has
    // executed or ended.
    let spawned = unsafe { clone_on(&stack, &raw mut image, entry, libc::CLONE_VFORK, left) };
    stack.give_back();
    let spawned = spawned?;
    match image.failure() {
        None => Ok(spawned),
        Some(failure) => {
            // ECHILD: the host program ignores SIGCHLD or took it with a wait for any child. Gone either way.
            let _gone = reap(spawned.pidfd.as_fd());
            Err(failure)
        }
    }
}

/// Clones a child that goes on in `entry` with this image, on the caller's memory. `waits` is how the caller waits for it:
/// `CLONE_VFORK`, or `CLONE_CHILD_CLEARTID` with the word that the kernel clears when the child has left the memory.
///
/// # Safety
/// `entry` is for an image of this type; image, stack and word live, and nobody touches them, until the child has left the memory.
unsafe fn clone_on<'fd, P: Borrow<Plan<'fd>>>(
    stack: &Stack,
    image: *mut Image<P>,
    entry: extern "C" fn(*mut libc::c_void) -> libc::c_int,
    waits: libc::c_int,
    left: *mut libc::c_void,
) -> Result<Spawned, SpawnError> {
    let mut raw_pidfd: libc::c_int = -1;
    let flags = libc::CLONE_VM | libc::CLONE_PIDFD | waits;
    let blocked = BlockedSignals::all();
    // SAFETY: nobody else has it yet.
    unsafe { (*image).inherit_mask(blocked.before) };
    let mut result = Err(Errno::NOSYS);
    if !forced(Feature::Clone3) {
        let (bottom, size) = stack.range();
        let args = CloneArgs {
            flags: flags as u64 | CLONE_CLEAR_SIGHAND,
            pidfd: (&raw mut raw_pidfd) as u64,
            child_tid: left as u64,
            exit_signal: libc::SIGCHLD as u64,
            stack: bottom as u64,
            stack_size: size as u64,
            ..CloneArgs::default()
        };
        // SAFETY: the caller's promise; the pidfd's place is a live local variable.
        unsafe {
            (*image).without_handlers(true);
            result = raw::clone_into(&args, entry, image.cast());
            // Before Linux 5.5 the flag is EINVAL, and there is no child that could look at this.
            if result.is_err() {
                (*image).without_handlers(false);
            }
        }
    }
    if matches!(result, Err(Errno::NOSYS | Errno::INVAL | Errno::PERM)) {
        let (pidfd, tls) = (&raw mut raw_pidfd, ptr::null_mut::<libc::c_void>());
        // SAFETY: as above.
        let pid =
            unsafe { libc::clone(entry, stack.top(), flags | libc::SIGCHLD, image.cast(), pidfd, tls, left) };
        result = if pid > 0 { Ok(pid.into()) } else { Err(last_errno()) };
    }
    drop(blocked);
    let pid = result.map_err(|errno| Step::Clone.failed(errno))?;
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(Step::Clone.failed(Errno::IO))?;
    // SAFETY: clone succeeded, so it stored a fresh descriptor that nobody else owns.
    let pidfd = unsafe { OwnedFd::from_raw_fd(raw_pidfd) };
    Ok(Spawned { pid, pidfd })
}

/// Executes the planned program in this process, which keeps its pid; returns only if that failed.
///
/// All other threads end when the exec succeeds. After a failure the signal mask and dispositions are as
/// before; other steps of the plan that had succeeded (a new session, placed descriptors, …) stay done.
#[must_use]
pub fn replace(plan: &Plan<'_>) -> SpawnError {
    match Prepared::new(plan) {
        Ok(descriptors) => child::replace(&mut Image::prepare(plan, descriptors)),
        Err(error) => error,
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

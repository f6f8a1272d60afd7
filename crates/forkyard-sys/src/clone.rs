//! Making a copy of this process whose parent is this process's own parent.
//!
//! A zygote answers a start request with [`Template::clone_sibling`]: the new process is a direct child of the
//! requester, so waiting, SIGCHLD, exit by signal and resource usage are the kernel's own. The raw system call
//! leaves two things of glibc stale, and both are repaired: the cached thread id (the kernel writes the new one
//! to the address that `PR_GET_TID_ADDRESS` tells) and the robust list (registered again in the child).
//!
//! What the child inherits is what fork(2) would give it. `pthread_atfork` handlers do not run: the caller is a
//! single-threaded process of ours, and nothing of it has registered any.
//!
//! # Safety
//! `clone3` without `CLONE_VM` is a fork: the child goes on in a copy of the memory. All pointers handed to the
//! kernel are to live objects: local variables, the caller's atomics, and the thread control block, which lives
//! as long as the thread.
#![allow(unsafe_code)]

use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::AtomicU32;

use rustix::io::Errno;
use rustix::process::Pid;

use crate::Result;
use crate::fallback::{Feature, forced};
use crate::wait::last_errno;

/// Which side of a clone this is.
#[derive(Debug)]
pub enum Side {
    /// The process that called.
    Caller {
        /// The new process.
        pid: Pid,
        /// Its pidfd, from the clone itself; close-on-exec.
        pidfd: OwnedFd,
    },
    /// The new process.
    Child,
}

/// What a child needs so that glibc works in it: read once, in the single thread of the template process.
#[derive(Clone, Copy, Debug)]
pub struct Template {
    tid_address: u64,
    robust_head: u64,
    robust_len: u64,
}

/// `struct clone_args` of linux/sched.h, first published size (64 bytes).
#[repr(C)]
#[derive(Debug, Default)]
pub(crate) struct CloneArgs {
    pub(crate) flags: u64,
    pub(crate) pidfd: u64,
    pub(crate) child_tid: u64,
    pub(crate) parent_tid: u64,
    pub(crate) exit_signal: u64,
    /// The lowest byte of the stack.
    pub(crate) stack: u64,
    pub(crate) stack_size: u64,
    pub(crate) tls: u64,
}

const FLAGS: u64 =
    (libc::CLONE_PARENT | libc::CLONE_PARENT_SETTID | libc::CLONE_CHILD_SETTID | libc::CLONE_CHILD_CLEARTID)
        as u64;

impl Template {
    /// Reads what a clone of this thread needs.
    ///
    /// # Errors
    /// `EINVAL`: the kernel was built without `CONFIG_CHECKPOINT_RESTORE`; siblings cannot be cloned then.
    pub fn of_this_thread() -> Result<Template> {
        let mut tid_address = 0u64;
        // SAFETY: the kernel writes one pointer into the live local variable.
        if unsafe { libc::prctl(libc::PR_GET_TID_ADDRESS, &raw mut tid_address) } != 0 {
            return Err(last_errno());
        }
        let (mut robust_head, mut robust_len) = (0u64, 0u64);
        // SAFETY: the kernel writes the head and the length into the live local variables.
        let result =
            unsafe { libc::syscall(libc::SYS_get_robust_list, 0, &raw mut robust_head, &raw mut robust_len) };
        if result != 0 {
            return Err(last_errno());
        }
        Ok(Template { tid_address, robust_head, robust_len })
    }

    /// Clones this process as a child of its parent. The kernel writes the new pid to `born` before the child
    /// runs, so whoever shares that word knows of the child even if the caller is killed right here.
    ///
    /// # Safety
    /// The calling process has one thread.
    ///
    /// # Errors
    /// `EAGAIN` and `ENOMEM`: no room for a process. `EMFILE`: none for the pidfd. `EINVAL`, `EPERM`: siblings
    /// are refused here (pid 1 of a namespace, a sandbox).
    pub unsafe fn clone_sibling(&self, born: &AtomicU32) -> Result<Side> {
        if forced(Feature::CloneParent) {
            return Err(Errno::INVAL);
        }
        let mut pidfd: RawFd = -1;
        let mut result = Err(Errno::NOSYS);
        if !forced(Feature::Clone3) {
            result = self.clone3(born, &mut pidfd);
        }
        if result == Err(Errno::NOSYS) {
            result = self.clone(born);
        }
        match result? {
            None => {
                // SAFETY: registers glibc's own list head of this thread, which the copy has at the same address.
                unsafe { libc::syscall(libc::SYS_set_robust_list, self.robust_head, self.robust_len) };
                Ok(Side::Child)
            }
            Some(pid) if pidfd >= 0 => {
                // SAFETY: the clone put a new fd there that nobody else owns.
                let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
                Ok(Side::Caller { pid, pidfd })
            }
            // Its parent does not know of it yet, so nobody but a wait for any child can have reaped it.
            Some(pid) => crate::pidfd::open(pid).map(|pidfd| Side::Caller { pid, pidfd }),
        }
    }

    /// As [`clone_sibling`](Template::clone_sibling), for a child that calls nothing of glibc that asks who the thread is:
    /// no lock of pthreads, no thread. Neither its thread id nor its robust list is repaired, and there is no pidfd.
    /// `None` in the child.
    ///
    /// # Safety
    /// The calling process has one thread.
    ///
    /// # Errors
    /// As [`clone_sibling`](Template::clone_sibling).
    pub unsafe fn clone_bare_sibling(&self, born: &AtomicU32) -> Result<Option<Pid>> {
        const BARE: u64 = (libc::CLONE_PARENT | libc::CLONE_PARENT_SETTID) as u64;
        if forced(Feature::CloneParent) {
            return Err(Errno::INVAL);
        }
        let mut result = Err(Errno::NOSYS);
        if !forced(Feature::Clone3) {
            let mut args =
                CloneArgs { flags: BARE, parent_tid: born.as_ptr() as u64, ..CloneArgs::default() };
            // SAFETY: a fork; the pointer in `args` outlives the call.
            result =
                pid_of(unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, size_of::<CloneArgs>()) });
        }
        if result == Err(Errno::NOSYS) {
            // SAFETY: a fork; the third argument receives the pid, on every architecture.
            result = pid_of(unsafe { libc::syscall(libc::SYS_clone, BARE, 0, born.as_ptr(), 0, 0) });
        }
        result
    }

    fn clone3(&self, born: &AtomicU32, pidfd: &mut RawFd) -> Result<Option<Pid>> {
        let mut args = CloneArgs {
            flags: FLAGS | libc::CLONE_PIDFD as u64,
            pidfd: std::ptr::from_mut(pidfd) as u64,
            child_tid: self.tid_address,
            parent_tid: born.as_ptr() as u64,
            exit_signal: 0, // with CLONE_PARENT the caller's own signal counts, and clone3 refuses another
            ..CloneArgs::default()
        };
        // SAFETY: a fork; the pointers in `args` outlive the call.
        let result = unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, size_of::<CloneArgs>()) };
        pid_of(result)
    }

    /// The older call has one place for the pid and the pidfd; the pid is what a death must not lose.
    fn clone(&self, born: &AtomicU32) -> Result<Option<Pid>> {
        let born = born.as_ptr();
        // SAFETY: a fork; the word outlives the call. The order of the last two arguments is the architecture's.
        #[cfg(target_arch = "x86_64")]
        let result = unsafe { libc::syscall(libc::SYS_clone, FLAGS, 0, born, self.tid_address, 0) };
        // SAFETY: as above.
        #[cfg(target_arch = "aarch64")]
        let result = unsafe { libc::syscall(libc::SYS_clone, FLAGS, 0, born, 0, self.tid_address) };
        pid_of(result)
    }
}

/// `None` in the child.
fn pid_of(result: libc::c_long) -> Result<Option<Pid>> {
    if result < 0 {
        return Err(last_errno());
    }
    Ok(i32::try_from(result).ok().and_then(Pid::from_raw))
}

/// fork(2) by glibc, with its `pthread_atfork` handlers and its own locks put in order; `None` in the child.
///
/// # Safety
/// In a process with other threads the child may only call what is async-signal-safe: every lock of the
/// program is copied as it stood.
///
/// # Errors
/// `EAGAIN`, `ENOMEM`: no room for a process.
pub unsafe fn fork() -> Result<Option<Pid>> {
    // SAFETY: the caller's promise.
    let result = unsafe { libc::fork() };
    pid_of(libc::c_long::from(result))
}

/// Ends this process at once: no exit hooks, no flushing.
pub fn exit_now(code: i32) -> ! {
    loop {
        // SAFETY: exit_group(2) does not return and touches no memory of the program. What _exit(3) does, from a
        // page of code that clones have in memory already.
        unsafe { libc::syscall(libc::SYS_exit_group, code) };
    }
}

/// Writes out what the program has put into the C library's streams (stdio), and not flushed. Waits for a stream that
/// another thread uses.
pub fn flush_c_streams() {
    // SAFETY: fflush(3) of a null pointer means every stream.
    unsafe { libc::fflush(std::ptr::null_mut()) };
}

/// Asks glibc to call `hook` when the process ends by exit(3) or by the end of main, after the hooks that are
/// registered later.
///
/// # Errors
/// `ENOMEM`: no room for another hook.
pub fn at_exit(hook: extern "C" fn()) -> Result<()> {
    // SAFETY: a plain function that is valid as long as the program.
    if unsafe { libc::atexit(hook) } == 0 { Ok(()) } else { Err(Errno::NOMEM) }
}

/// Asks glibc to call these around every fork(3), also of foreign code: in the parent before it and after it, and in the child.
///
/// # Errors
/// `ENOMEM`: no room for more hooks.
pub fn at_fork(before: extern "C" fn(), parent: extern "C" fn(), child: extern "C" fn()) -> Result<()> {
    let before: unsafe extern "C" fn() = before;
    let parent: unsafe extern "C" fn() = parent;
    let child: unsafe extern "C" fn() = child;
    // SAFETY: plain functions that are valid as long as the program.
    match unsafe { libc::pthread_atfork(Some(before), Some(parent), Some(child)) } {
        0 => Ok(()),
        _ => Err(Errno::NOMEM),
    }
}

/// Asks glibc to call `hook` in the child of every fork(3), also of foreign code.
///
/// # Errors
/// `ENOMEM`: no room for another hook.
pub fn at_fork_in_child(hook: extern "C" fn()) -> Result<()> {
    let hook: unsafe extern "C" fn() = hook;
    // SAFETY: a plain function that is valid as long as the program.
    if unsafe { libc::pthread_atfork(None, None, Some(hook)) } == 0 { Ok(()) } else { Err(Errno::NOMEM) }
}

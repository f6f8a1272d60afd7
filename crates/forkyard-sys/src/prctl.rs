//! What a process asks of the kernel for itself.
//!
//! # Safety
//! The raw calls are fcntl(2) with numbers.
#![allow(unsafe_code)]

use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::OFlags;
use rustix::process::{Pid, Signal};

use crate::Result;

/// fcntl(2): which signal readiness sends, instead of SIGIO. The same number on every architecture of ours.
const F_SETSIG: i32 = 10;

/// Asks to be killed when the thread that is this process's parent ends: the maker of the process, or, for a
/// sibling clone, the maker of the template. Cleared by a change of user or group, so it comes after those.
/// The parent may have ended already: compare [`parent`] afterwards.
///
/// # Errors
/// As prctl(2).
pub fn die_with_parent() -> Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
}

/// Leaves the caller's process group for one of its own, so that keys of the terminal (Ctrl-C) no longer reach it.
///
/// # Errors
/// As setpgid(2): the caller leads a session.
#[doc(alias = "setpgid")]
pub fn own_process_group() -> Result<()> {
    rustix::process::setpgid(None, None)
}

/// Takes back [`die_with_parent`].
pub fn outlive_parent() {
    // Clearing cannot fail.
    let _ = rustix::process::set_parent_process_death_signal(None);
}

/// Asks to be killed when the other end of this socket is closed by everybody who has it. In contrast to
/// [`die_with_parent`] it is tied to no thread. The end may be closed already: poll the socket afterwards.
///
/// # Errors
/// As fcntl(2).
pub fn die_with_peer(socket: BorrowedFd<'_>) -> Result<()> {
    let own = rustix::process::getpid().as_raw_nonzero().get();
    for (command, argument) in
        [(libc::F_SETOWN, own), (F_SETSIG, libc::SIGKILL), (libc::F_SETFL, libc::O_ASYNC | libc::O_RDWR)]
    {
        // SAFETY: these commands take a number.
        if unsafe { libc::fcntl(socket.as_raw_fd(), command, argument) } != 0 {
            return Err(crate::wait::last_errno());
        }
    }
    Ok(())
}

/// The parent's pid; `None` if it is outside this pid namespace.
#[must_use]
pub fn parent() -> Option<Pid> {
    rustix::process::getppid()
}

/// Sets the name that `/proc/PID/comm` shows: of the calling thread, which is the process for its first one.
/// It is cut by [`shown_name`].
///
/// # Errors
/// As prctl(2).
pub fn set_name(name: &str) -> Result<()> {
    let shown = shown_name(name);
    let mut bytes = [0; 16];
    bytes[..shown.len()].copy_from_slice(shown.as_bytes());
    // There is a NUL at the end of the array.
    let name = CStr::from_bytes_until_nul(&bytes).unwrap_or_default();
    rustix::thread::set_name(name)
}

/// What fits into the 15 bytes that the kernel keeps of a name: whole characters, up to a NUL.
#[must_use]
pub fn shown_name(name: &str) -> &str {
    let mut end = name.find('\0').unwrap_or(name.len()).min(15);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    &name[..end]
}

/// The directory that this process is in, whether or not it still has a path; close-on-exec.
///
/// # Errors
/// `EMFILE`, `ENFILE`: no fd left.
pub fn directory() -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(".", flags, rustix::fs::Mode::empty())
}

/// Enters a directory that [`directory`] gave.
///
/// # Errors
/// `EACCES`: it may no longer be entered.
#[doc(alias = "fchdir")]
pub fn enter(directory: BorrowedFd<'_>) -> Result<()> {
    rustix::process::fchdir(directory)
}

/// Gives up, for this process and all it starts or executes, ever gaining privileges.
///
/// # Errors
/// As prctl(2).
pub fn no_new_privs() -> Result<()> {
    rustix::thread::set_no_new_privs(true)
}

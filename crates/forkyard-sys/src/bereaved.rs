//! Ending with another process if that one was killed, and living on if it ended in another way.
//!
//! A parent that ends by itself, or is asked to end (SIGTERM), may leave children that are meant to outlive it. One that is
//! killed (SIGKILL: by hand, or for lack of memory), or crashes, has not meant anything. The kernel tells when a pipe's last writer is gone
//! (`O_ASYNC` with `F_SETSIG`, fcntl(2)); a handler finds out how that one ended: from `/proc/PID/stat` while nobody has waited for
//! it, and from `PIDFD_GET_INFO` afterwards, Linux 6.15. Where neither tells, this process lives on.
//!
//! Killed here: nothing is held. A process that executes another program has neither the pipe nor the handler any more.
//!
//! # Safety
//! The handler loads atomics and makes system calls with local buffers; errno is as it was when it returns.
#![allow(unsafe_code)]

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd};
use std::sync::atomic::{AtomicI32, Ordering};

use rustix::io::Errno;
use rustix::process::Pid;

use crate::Result;
use crate::fallback::{Feature, forced};
use crate::wait::{Ending, last_errno, status_after_reaping};

/// What tells of the other's end: a signal that does nothing by default.
const NEWS: libc::c_int = libc::SIGURG;
/// The signals that nobody sends who wants children to live on.
const KILLED: [i32; 6] =
    [libc::SIGKILL, libc::SIGSEGV, libc::SIGBUS, libc::SIGABRT, libc::SIGILL, libc::SIGFPE];
/// `F_SETSIG` of linux/fcntl.h.
const F_SETSIG: libc::c_int = 10;

static OTHER: AtomicI32 = AtomicI32::new(0);
static PIDFD: AtomicI32 = AtomicI32::new(-1);

/// From here on this process is killed when `other` was, of whose end `pipe` tells: the reading end of a pipe whose only writer is `other`.
/// SIGURG is used for it, and unblocked.
///
/// A pidfd that was opened while `other` lived tells how it ended even if it has ended, and been waited for, by now. Without one, one
/// is opened here.
///
/// # Errors
/// As pidfd_open(2), sigaction(2) and fcntl(2). `ESRCH`: there is no such process any more, and nothing tells how it ended.
pub fn end_with_killed(other: i32, pidfd: Option<OwnedFd>, pipe: BorrowedFd<'_>) -> Result<()> {
    let pidfd = match pidfd {
        Some(pidfd) => pidfd,
        None => crate::pidfd::open(Pid::from_raw(other).ok_or(Errno::SRCH)?)?,
    };
    // It is read from the environment at the first use, which must not be the handler's.
    let _ = forced(Feature::PidfdInfo);
    OTHER.store(other, Ordering::Relaxed);
    let before = PIDFD.swap(pidfd.into_raw_fd(), Ordering::SeqCst);
    if before >= 0 {
        // SAFETY: the copy that this fork has of its parent's, which only this file uses.
        unsafe { libc::close(before) };
    }
    // SAFETY: all-zero is a valid value of the structure: no flags, an empty mask.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = on_news as *const () as libc::sighandler_t;
    action.sa_flags = libc::SA_RESTART | libc::SA_ONSTACK;
    // SAFETY: a handler that may run at any time, and a live local structure.
    if unsafe { libc::sigaction(NEWS, &raw const action, std::ptr::null_mut()) } != 0 {
        return Err(last_errno());
    }
    crate::mask::replace(crate::mask::current() & !(1 << (NEWS - 1)));
    set(pipe, libc::F_SETOWN, rustix::process::getpid().as_raw_nonzero().get())?;
    set(pipe, F_SETSIG, NEWS)?;
    // SAFETY: integers only.
    let flags = unsafe { libc::fcntl(pipe.as_raw_fd(), libc::F_GETFL) };
    set(pipe, libc::F_SETFL, flags | libc::O_ASYNC)?;
    // It may have ended before.
    on_news(NEWS);
    Ok(())
}

/// Whether `other`, which has ended, was killed or crashed. False where nothing tells.
#[must_use]
pub fn was_killed(other: i32, pidfd: BorrowedFd<'_>) -> bool {
    let ended_by = signal_in_stat(other.unsigned_abs()).unwrap_or_else(|| signal_after_reaping(pidfd));
    ended_by.is_some_and(|signal| KILLED.contains(&signal))
}

fn set(fd: BorrowedFd<'_>, what: libc::c_int, to: libc::c_int) -> Result<()> {
    // SAFETY: integers only.
    if unsafe { libc::fcntl(fd.as_raw_fd(), what, to) } < 0 { Err(last_errno()) } else { Ok(()) }
}

extern "C" fn on_news(_signal: libc::c_int) {
    // SAFETY: the address of the calling thread's errno.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: as above.
    let before = unsafe { *errno };
    let pidfd = PIDFD.load(Ordering::SeqCst);
    // SAFETY: stays open as long as this process.
    if pidfd >= 0 && was_killed(OTHER.load(Ordering::Relaxed), unsafe { BorrowedFd::borrow_raw(pidfd) }) {
        // SAFETY: integers only. By a signal, so that this one's children learn of it too.
        unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
    }
    // SAFETY: as above.
    unsafe { *errno = before };
}

/// The signal that ends the other one, or has ended it, if one does. `None`: it is not there any more.
fn signal_in_stat(other: u32) -> Option<Option<i32>> {
    let mut path = [0_u8; 32];
    write_path(&mut path, other);
    let mut buffer = [0_u8; 1024];
    // SAFETY: a path that ends with a zero, and a local buffer with its length.
    let read = unsafe {
        let fd = libc::open(path.as_ptr().cast(), libc::O_RDONLY | libc::O_CLOEXEC);
        if fd < 0 {
            return None;
        }
        let read = libc::read(fd, buffer.as_mut_ptr().cast(), buffer.len());
        libc::close(fd);
        read
    };
    // ESRCH: it has gone between the two calls.
    let text = buffer.get(..usize::try_from(read).ok()?).filter(|text| !text.is_empty())?;
    Some(exit_code(text).map(|code| code & 0x7f))
}

/// The field `exit_code` of proc_pid_stat(5), which is the 52nd.
fn exit_code(stat: &[u8]) -> Option<i32> {
    let after_name = stat.iter().rposition(|byte| *byte == b')')?;
    let mut fields =
        stat.get(after_name + 1..)?.split(u8::is_ascii_whitespace).filter(|field| !field.is_empty());
    std::str::from_utf8(fields.nth(49)?).ok()?.parse().ok()
}

fn signal_after_reaping(pidfd: BorrowedFd<'_>) -> Option<i32> {
    match status_after_reaping(pidfd.as_fd())?.ending() {
        Ending::Signaled { signal, .. } => Some(signal),
        _ => None,
    }
}

/// `/proc/PID/stat` and a zero, without allocating.
fn write_path(path: &mut [u8; 32], pid: u32) {
    let mut digits = [0_u8; 10];
    let mut count = 0;
    let mut rest = pid;
    while rest > 0 || count == 0 {
        digits[count] = b'0' + (rest % 10) as u8;
        rest /= 10;
        count += 1;
    }
    let text = b"/proc/".iter().chain(digits[..count].iter().rev()).chain(b"/stat\0");
    for (to, from) in path.iter_mut().zip(text) {
        *to = *from;
    }
}

#[cfg(test)]
mod tests {
    use super::{exit_code, write_path};

    #[test]
    fn the_path_and_the_field_are_right() {
        let mut path = [0; 32];
        write_path(&mut path, 4_194_304);
        assert!(path.starts_with(b"/proc/4194304/stat\0"));
        let numbers: Vec<String> = (4..=52).map(|field| field.to_string()).collect();
        let stat = format!("7 (a b) c) S {}\n", numbers.join(" "));
        assert_eq!(exit_code(stat.as_bytes()), Some(52));
        assert_eq!(exit_code(b"7 (cut"), None);
    }
}

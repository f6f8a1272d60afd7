//! The descriptors of the new program: placed, kept, and all others closed.
//!
//! [`Prepared::arrange`] runs in the child and obeys the rules of `child.rs`. Closing means close-on-exec, so
//! that nothing is lost before the exec succeeds.
//!
//! # Safety
//! System calls get integers, a static path and a local buffer with its length.
#![allow(unsafe_code)]

use std::os::fd::{AsRawFd, RawFd};

use libc::c_int;
use rustix::io::Errno;

use super::raw::call;
use super::{Plan, SpawnError, Step};
use crate::Result;
use crate::fallback::{Feature, forced};

/// Where the closing begins: standard input, output and error are never closed.
const FIRST: RawFd = 3;
/// `CLOSE_RANGE_CLOEXEC` of linux/close_range.h.
const CLOSE_RANGE_CLOEXEC: usize = 4;

/// What [`arrange`](Prepared::arrange) has to do.
pub(super) struct Prepared {
    placed: Vec<Placed>,
    kept: Vec<RawFd>,
    close_others: bool,
    /// Forces the walk over `/proc/self/fd`.
    without_close_range: bool,
    /// A number above all targets.
    above: RawFd,
}

struct Placed {
    source: RawFd,
    target: RawFd,
    /// Another target has the number of this source, so the source has to move first.
    in_the_way: bool,
}

impl Prepared {
    pub(super) fn new(plan: &Plan<'_>) -> std::result::Result<Prepared, SpawnError> {
        let kept: Vec<RawFd> = plan.kept.iter().map(AsRawFd::as_raw_fd).collect();
        let mut placed: Vec<Placed> = Vec::with_capacity(plan.placed.len());
        for (source, target) in &plan.placed {
            let (source, target) = (source.as_raw_fd(), *target);
            let taken = placed.iter().any(|other| other.target == target)
                || (kept.contains(&target) && source != target);
            if taken || target < 0 || plan.file == Some(target) {
                return Err(Step::Descriptors.failed(Errno::INVAL));
            }
            let in_the_way = plan.placed.iter().any(|(_, other)| *other == source) && source != target;
            placed.push(Placed { source, target, in_the_way });
        }
        let above = placed.iter().map(|p| p.target).max().unwrap_or(FIRST).saturating_add(1);
        let without_close_range = forced(Feature::CloseRange);
        Ok(Prepared { placed, kept, close_others: !plan.keep_all, without_close_range, above })
    }

    pub(super) fn arrange(&mut self) -> Result<()> {
        for placed in self.placed.iter_mut().filter(|p| p.in_the_way) {
            placed.source = fcntl(placed.source, libc::F_DUPFD_CLOEXEC, self.above)?;
        }
        if self.close_others {
            close_on_exec_from(FIRST, self.without_close_range);
        }
        for placed in &self.placed {
            if placed.source == placed.target {
                fcntl(placed.target, libc::F_SETFD, 0)?;
            } else {
                dup(placed.source, placed.target)?;
            }
        }
        for &fd in &self.kept {
            fcntl(fd, libc::F_SETFD, 0)?;
        }
        Ok(())
    }
}

/// Marks every descriptor from `first` on.
fn close_on_exec_from(first: RawFd, without_close_range: bool) {
    // SAFETY: integers only.
    let marked = !without_close_range
        && unsafe {
            call(libc::SYS_close_range, &[first as usize, c_int::MAX as usize, CLOSE_RANGE_CLOEXEC])
        }
        .is_ok();
    // ENOSYS before Linux 5.9, EINVAL before 5.11, EPERM in some sandboxes.
    if !marked && walk(first).is_err() {
        // No /proc, or no number left to open it with.
        for fd in first..descriptor_limit() {
            let _not_open = fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC);
        }
    }
}

/// Marks what `/proc/self/fd` lists. Marking changes nothing in that directory, so nothing is missed.
fn walk(first: RawFd) -> Result<()> {
    let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_CLOEXEC;
    // SAFETY: a static path.
    let directory = unsafe {
        call(libc::SYS_openat, &[libc::AT_FDCWD as usize, c"/proc/self/fd".as_ptr() as usize, flags as usize])
    }?;
    let mut buffer = [0_u8; 2048];
    loop {
        // SAFETY: the buffer is local and its length is right.
        let length = unsafe {
            call(libc::SYS_getdents64, &[directory as usize, buffer.as_mut_ptr() as usize, buffer.len()])
        }?;
        if length == 0 {
            break;
        }
        let mut rest = buffer.get(..length as usize).unwrap_or_default();
        while let Some((entry, next)) = split_entry(rest) {
            if let Some(fd) = number(entry).filter(|fd| *fd >= first) {
                fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC)?;
            }
            rest = next;
        }
    }
    // SAFETY: opened above.
    unsafe { call(libc::SYS_close, &[directory as usize]) }.map(|_| ())
}

/// The name of the first entry of `linux_dirent64` records, and the records after it.
fn split_entry(records: &[u8]) -> Option<(&[u8], &[u8])> {
    let length = u16::from_ne_bytes([*records.get(16)?, *records.get(17)?]);
    let name = records.get(19..usize::from(length))?;
    Some((name, records.get(usize::from(length)..)?))
}

/// The number that a NUL-terminated name spells; `None` for `.` and `..`.
fn number(name: &[u8]) -> Option<RawFd> {
    let mut value: Option<RawFd> = None;
    for byte in name.iter().take_while(|byte| **byte != 0) {
        let digit = char::from(*byte).to_digit(10)?;
        value = value.unwrap_or(0).checked_mul(10)?.checked_add(digit as RawFd);
    }
    value
}

/// One more than the highest descriptor that this process may open, within reason.
fn descriptor_limit() -> RawFd {
    const REASON: u64 = 1 << 20;
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: a local structure of the right type.
    let _cannot_fail = unsafe {
        call(libc::SYS_prlimit64, &[0, libc::RLIMIT_NOFILE as usize, 0, (&raw mut limit) as usize])
    };
    limit.rlim_max.min(REASON) as RawFd
}

fn fcntl(fd: RawFd, command: c_int, argument: c_int) -> Result<RawFd> {
    // SAFETY: integers only; the commands used here make no pointers of them.
    unsafe { call(libc::SYS_fcntl, &[fd as usize, command as usize, argument as usize]) }
        .map(|fd| fd as RawFd)
}

/// dup3(2) without close-on-exec. `EBUSY` and `EINTR` are the only answers that ask for a repetition.
fn dup(source: RawFd, target: RawFd) -> Result<()> {
    loop {
        // SAFETY: integers only.
        match unsafe { call(libc::SYS_dup3, &[source as usize, target as usize]) } {
            Err(Errno::INTR | Errno::BUSY) => {}
            other => return other.map(|_| ()),
        }
    }
}

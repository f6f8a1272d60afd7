//! Shared memory with a name: shm_overview(7).

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::fs::{AtFlags, CWD, FallocateFlags, Mode, OFlags};
use rustix::shm;

use crate::{Errno, Result};

/// Which file a descriptor or a name stands for.
pub type Identity = (u64, u64);

/// Where shm_open(3) keeps its names.
const DIRECTORY: &str = "/dev/shm";

/// Makes shared memory that has no name yet, for this user only, with memory for all of it.
///
/// # Errors
/// `ENOSPC`: no room. `EFBIG`: `RLIMIT_FSIZE` is lower. `ENOENT`, `EACCES`: there is no `/dev/shm` to make it in.
pub fn prepare(size: u64) -> Result<OwnedFd> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let fd = rustix::fs::open(DIRECTORY, flags, Mode::RUSR | Mode::WUSR)?;
    reserve(&fd, size)?;
    Ok(fd)
}

/// Gives it a name, in one step.
///
/// # Errors
/// `EEXIST`: the name is taken. `ENOENT`: there is no `/proc`.
pub fn publish(fd: impl AsFd, name: &str) -> Result<()> {
    let from = format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd());
    rustix::fs::linkat(CWD, from, CWD, path(name), AtFlags::SYMLINK_FOLLOW)
}

fn reserve(fd: &OwnedFd, size: u64) -> Result<()> {
    crate::memfd::check_file_size(size)?;
    rustix::fs::ftruncate(fd, size)?;
    loop {
        match rustix::fs::fallocate(fd, FallocateFlags::empty(), 0, size) {
            Err(Errno::INTR) => {}
            result => return result,
        }
    }
}

/// Opens shared memory of that name; never what a symbolic link there points to, since anybody can make one.
///
/// # Errors
/// `ENOENT`: there is none. `EACCES`: it is another user's. `ELOOP`: the name is a symbolic link.
pub fn open(name: &str) -> Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    rustix::fs::open(path(name), flags, Mode::empty())
}

fn path(name: &str) -> String {
    format!("{DIRECTORY}/{}", name.trim_start_matches('/'))
}

/// Which file this is, and how large it is now.
///
/// # Errors
/// As fstat(2).
pub fn identity(fd: impl AsFd) -> Result<(Identity, u64)> {
    let stat = rustix::fs::fstat(fd)?;
    Ok(((stat.st_dev, stat.st_ino), stat.st_size.unsigned_abs()))
}

/// Removes the name if it still stands for that file.
///
/// # Errors
/// As shm_unlink(3); `ENOENT` if the name is gone, or stands for another file by now.
pub fn unlink(name: &str, of: Identity) -> Result<()> {
    match identity(open(name)?)? {
        (now, _) if now == of => shm::unlink(name),
        _ => Err(Errno::NOENT),
    }
}

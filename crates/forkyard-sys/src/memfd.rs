//! Anonymous memory with a file descriptor: nothing to name, nothing to leak.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{FallocateFlags, MemfdFlags, SealFlags};

use rustix::io::Errno;

use crate::Result;
use crate::fallback::{Feature, forced};
use crate::limits::Resource;

/// Makes a memfd of `size` bytes, sparse, sealed against shrinking, growing and further seals: whoever maps it
/// cannot be hit by a SIGBUS because somebody truncated it.
///
/// # Errors
/// `EMFILE`, `ENFILE`: no fd left. `ENOMEM`: no memory. `EFBIG`: `RLIMIT_FSIZE` is lower.
pub fn create_sealed(name: &str, size: u64) -> Result<OwnedFd> {
    check_file_size(size)?;
    let fd = rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    rustix::fs::ftruncate(&fd, size)?;
    rustix::fs::fcntl_add_seals(&fd, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
    Ok(fd)
}

/// A file that grows beyond `RLIMIT_FSIZE` ends the process by SIGXFSZ; here it is an error instead.
///
/// # Errors
/// `EFBIG`: the limit is lower.
pub(crate) fn check_file_size(size: u64) -> Result<()> {
    match Resource::FSIZE.get() {
        Ok((Some(most), _)) if most < size => Err(Errno::FBIG),
        // Where a sandbox does not tell, growing will.
        _ => Ok(()),
    }
}

/// The size of a memfd that can neither shrink nor grow; `None` if it is not sealed so.
///
/// # Errors
/// As fcntl(2) and fstat(2).
pub fn sealed_size(fd: impl AsFd) -> Result<Option<u64>> {
    let needed = SealFlags::SHRINK | SealFlags::GROW;
    let Ok(seals) = rustix::fs::fcntl_get_seals(&fd) else { return Ok(None) };
    if !seals.contains(needed) {
        return Ok(None);
    }
    Ok(u64::try_from(rustix::fs::fstat(&fd)?.st_size).ok())
}

/// True if both are the same file.
#[must_use]
pub fn is_same(one: impl AsFd, other: impl AsFd) -> bool {
    match (rustix::fs::fstat(&one), rustix::fs::fstat(&other)) {
        (Ok(one), Ok(other)) => (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino),
        _ => false,
    }
}

/// Takes real memory for a range, so that shortage is an error here and never a SIGBUS later.
///
/// # Errors
/// `ENOSPC`, `ENOMEM`: no memory.
pub fn commit(fd: impl AsFd, offset: u64, len: u64) -> Result<()> {
    loop {
        match rustix::fs::fallocate(&fd, FallocateFlags::empty(), offset, len) {
            Err(Errno::INTR) => {}
            result => return result,
        }
    }
}

/// A memfd that holds these bytes, at position 0, close-on-exec.
///
/// # Errors
/// As [`create_sealed`] and write(2).
pub fn holding(name: &str, bytes: &[u8]) -> Result<OwnedFd> {
    check_file_size(bytes.len() as u64)?;
    let fd = rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC)?;
    write_all(&fd, bytes)?;
    Ok(fd)
}

fn write_all(fd: &OwnedFd, bytes: &[u8]) -> Result<()> {
    let mut rest = bytes;
    let mut at = 0;
    while !rest.is_empty() {
        match rustix::io::pwrite(fd, rest, at) {
            Ok(0) => return Err(Errno::NOSPC),
            Ok(n) => {
                rest = &rest[n..];
                at += n as u64;
            }
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// A memfd that holds this program, sealed against every change, close-on-exec. Its number is above 9, so that low numbers can be
/// placed in the process that executes it.
///
/// # Errors
/// `EACCES`: programs in memory are not allowed here (`vm.memfd_noexec`). As [`holding`] and fcntl(2).
pub fn program(name: &str, bytes: &[u8]) -> Result<OwnedFd> {
    if forced(Feature::MemfdExec) {
        return Err(Errno::ACCESS);
    }
    check_file_size(bytes.len() as u64)?;
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    // The flag is as old as Linux 6.3; before it, every memfd may be executed.
    let fd = match rustix::fs::memfd_create(name, flags | MemfdFlags::EXEC) {
        Err(Errno::INVAL) => rustix::fs::memfd_create(name, flags)?,
        made => made?,
    };
    write_all(&fd, bytes)?;
    let seals = SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
    rustix::fs::fcntl_add_seals(&fd, seals)?;
    rustix::io::fcntl_dupfd_cloexec(&fd, 10)
}

/// Everything in a memfd, from its start, whatever its position.
///
/// The sender is not trusted: what is no memfd, and so could keep the reader waiting, is refused, and so is one with
/// holes, which would have the reader take more memory than its sender did.
///
/// # Errors
/// As fstat(2) and pread(2); `EFBIG` if it holds more than `limit` bytes; `EINVAL` if it is no memfd, or has holes;
/// `ENOMEM`: no memory for so much.
pub fn contents(fd: impl AsFd, limit: u64) -> Result<Vec<u8>> {
    rustix::fs::fcntl_get_seals(&fd)?;
    let stat = rustix::fs::fstat(&fd)?;
    let size = u64::try_from(stat.st_size).unwrap_or(0);
    if size > limit {
        return Err(Errno::FBIG);
    }
    if u64::try_from(stat.st_blocks).unwrap_or(0).saturating_mul(512) < size {
        return Err(Errno::INVAL);
    }
    let size = usize::try_from(size).map_err(|_| rustix::io::Errno::FBIG)?;
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(size).map_err(|_| rustix::io::Errno::NOMEM)?;
    bytes.resize(size, 0);
    let mut read = 0;
    while read < bytes.len() {
        match rustix::io::pread(&fd, &mut bytes[read..], read as u64) {
            Ok(0) => break,
            Ok(n) => read += n,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    bytes.truncate(read);
    Ok(bytes)
}

//! Shared mappings that own their address range.
//!
//! # Safety
//! A [`Mapping`] is made from a sealed file, so every byte of its range stays backed for as long as it
//! lives; it hands out the address and length and nothing more.
#![allow(unsafe_code)]

use std::os::fd::AsFd;
use std::ptr::NonNull;

use rustix::mm::{MapFlags, ProtFlags};

use crate::{Errno, Result};

/// A shared mapping of a file, unmapped on drop.
#[derive(Debug)]
pub struct Mapping {
    address: NonNull<u8>,
    len: usize,
}

// SAFETY: an address range belongs to the process, not to a thread; what lies in it is accessed by its user's
// rules.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps the whole of a sealed memfd, to read and write, or to read only.
    ///
    /// # Errors
    /// `EINVAL`: it is empty, or not sealed against shrinking. `ENOMEM`, `EAGAIN`: no address space.
    pub fn shared(fd: impl AsFd, writable: bool) -> Result<Mapping> {
        let len = crate::memfd::sealed_size(&fd)?.and_then(|size| usize::try_from(size).ok());
        let Some(len) = len.filter(|&len| len > 0) else { return Err(rustix::io::Errno::INVAL) };
        let protection = if writable { ProtFlags::READ | ProtFlags::WRITE } else { ProtFlags::READ };
        // SAFETY: a new range at an address of the kernel's choice; nothing mapped before is touched.
        let address =
            unsafe { rustix::mm::mmap(std::ptr::null_mut(), len, protection, MapFlags::SHARED, fd, 0)? };
        let address = NonNull::new(address.cast()).ok_or(rustix::io::Errno::NOMEM)?;
        Ok(Mapping { address, len })
    }

    /// Maps the first `len` bytes of a file that others may shrink, to read and write: an access beyond its end is a SIGBUS then.
    ///
    /// # Errors
    /// `EINVAL`: it is empty. `ENOMEM`, `EAGAIN`: no address space.
    pub fn shared_unsealed(fd: impl AsFd, len: usize) -> Result<Mapping> {
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new range at an address of the kernel's choice; nothing mapped before is touched.
        let address =
            unsafe { rustix::mm::mmap(std::ptr::null_mut(), len, protection, MapFlags::SHARED, fd, 0)? };
        let address = NonNull::new(address.cast()).ok_or(rustix::io::Errno::NOMEM)?;
        Ok(Mapping { address, len })
    }

    /// Maps `len` bytes of a sealed memfd from `offset` on, to read and write.
    ///
    /// # Errors
    /// `EINVAL`: the file is not sealed against shrinking, or has not so many bytes; or `offset` is not at a page.
    /// `ENOMEM`, `EAGAIN`: no address space.
    pub fn shared_part(fd: impl AsFd, offset: u64, len: usize) -> Result<Mapping> {
        Mapping::part(fd, offset, len, MapFlags::SHARED)
    }

    fn part(fd: impl AsFd, offset: u64, len: usize, flags: MapFlags) -> Result<Mapping> {
        let size = crate::memfd::sealed_size(&fd)?.unwrap_or(0);
        if len == 0 || offset.checked_add(len as u64).is_none_or(|end| end > size) {
            return Err(Errno::INVAL);
        }
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new range at an address of the kernel's choice; nothing mapped before is touched.
        let address = unsafe { rustix::mm::mmap(std::ptr::null_mut(), len, protection, flags, fd, offset)? };
        let address = NonNull::new(address.cast()).ok_or(rustix::io::Errno::NOMEM)?;
        Ok(Mapping { address, len })
    }

    /// Maps `len` bytes of a sealed memfd from `offset` on, to read, and to write without the file being changed: a page is this
    /// process's own from its first write on.
    ///
    /// # Errors
    /// As [`shared_part`](Mapping::shared_part).
    pub fn private(fd: impl AsFd, offset: u64, len: usize) -> Result<Mapping> {
        /// linux/mman.h, Linux 5.14.
        const MADV_POPULATE_READ: i32 = 22;
        let mapping = Mapping::part(fd, offset, len, MapFlags::PRIVATE)?;
        // One call instead of many faults; where it is not known, the faults.
        let _ = mapping.advise(0, len, MADV_POPULATE_READ);
        Ok(mapping)
    }

    /// Takes real memory for a range of a writable mapping, so that shortage is an error here and never a SIGBUS later. Does
    /// without the file's descriptor, which somebody may have closed.
    ///
    /// # Errors
    /// `ENOMEM`, `EFAULT`, `ENOSPC`: no memory. `EINVAL`: outside the mapping, or not by pages.
    pub fn commit(&self, offset: usize, len: usize) -> Result<()> {
        /// linux/mman.h, Linux 5.14.
        const MADV_POPULATE_WRITE: i32 = 23;
        match self.advise(offset, len, MADV_POPULATE_WRITE) {
            // Before Linux 5.14 the kernel does not know the advice; nor does one of a sandbox that plays kernel.
            Err(Errno::INVAL) => self.touch(offset, len),
            result => result,
        }
    }

    /// Where the kernel cannot be asked: a shortage of memory is a SIGBUS or the OOM killer's business there.
    fn touch(&self, offset: usize, len: usize) -> Result<()> {
        if offset.checked_add(len).is_none_or(|end| end > self.len) {
            return Err(Errno::INVAL);
        }
        for at in (offset..offset + len).step_by(4096) {
            // SAFETY: inside the mapping; adding zero changes nothing, whoever else writes there.
            let cell = unsafe { &*self.address.as_ptr().add(at).cast::<std::sync::atomic::AtomicU8>() };
            cell.fetch_add(0, std::sync::atomic::Ordering::Relaxed);
        }
        Ok(())
    }

    /// Gives the memory of a range back to the kernel; it reads as zeros from now on (`MADV_REMOVE`).
    ///
    /// # Errors
    /// `EINVAL`: outside the mapping, or not by pages.
    pub fn punch(&self, offset: usize, len: usize) -> Result<()> {
        self.advise(offset, len, libc::MADV_REMOVE)
    }

    /// Keeps the whole range out of core dumps.
    pub fn leave_out_of_dumps(&self) {
        // A dump would be large, no more.
        let _ = self.advise(0, self.len, libc::MADV_DONTDUMP);
    }

    fn advise(&self, offset: usize, len: usize, advice: i32) -> Result<()> {
        if offset.checked_add(len).is_none_or(|end| end > self.len) {
            return Err(Errno::INVAL);
        }
        loop {
            // SAFETY: inside the mapping, whose users expect every value there.
            match unsafe { libc::madvise(self.address.as_ptr().add(offset).cast(), len, advice) } {
                0 => return Ok(()),
                _ => match crate::wait::last_errno() {
                    Errno::INTR | Errno::AGAIN => {}
                    errno => return Err(errno),
                },
            }
        }
    }

    /// Where it begins; page-aligned.
    #[must_use]
    pub fn address(&self) -> NonNull<u8> {
        self.address
    }

    /// How many bytes it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Never true: an empty mapping cannot be made.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the range is exactly the one that was mapped, and nothing borrows from a dropped owner. An
        // error could only mean a wrong range, which it is not.
        let _ = unsafe { rustix::mm::munmap(self.address.as_ptr().cast(), self.len) };
    }
}

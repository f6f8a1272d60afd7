//! Shared mappings that own their address range.
//!
//! # Safety
//! A [`Mapping`] is made from a whole sealed file, so every byte of its range stays backed for as long as it
//! lives; it hands out the address and length and nothing more.
#![allow(unsafe_code)]

use std::os::fd::AsFd;
use std::ptr::NonNull;

use rustix::mm::{MapFlags, ProtFlags};

use crate::Result;

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

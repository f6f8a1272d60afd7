//! Making clones of this process start with the pages of its program that they will need, and no others.
//!
//! A fork copies the page-table entries of private memory that was written to, and leaves out those of mapped files, so
//! every child faults the program's code in again, one group of pages after the other. The kernel decides this per
//! mapping: one that has had a single page written is copied whole, as far as it is present. So [`forget_code`] drops
//! what was only needed to come this far, the caller rehearses what its clones will do, and
//! [`keep_code`] writes one byte of each mapping that is in use now: through `/proc/self/mem`, with the value that
//! is there already. The mapping's protection does not change, not even for a moment, and neither does its content.
//!
//! A fault brings fifteen neighbours along that are in the page cache, and each is an entry more to copy and to drop for
//! every clone. In mappings that a userfaultfd watches, the kernel leaves that out; so one watches during the
//! rehearsal, in the mode that never stops anybody.
//!
//! A clone that knows which pages it will need, and write to, has them made ready by [`populate`], in one call for many.
//!
//! # Safety
//! Populating pages changes nothing that the program could see. Only clean pages of read-only mappings of files are dropped; the next access reads them from the file again. The
//! two ioctls get live structures of the kernel's layout.
#![allow(unsafe_code)]

use std::fs::{self, File, OpenOptions};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::FileExt;

/// While it lives, pages of code come back one by one.
#[derive(Debug)]
#[must_use = "dropped at once it has no effect"]
pub struct Rehearsal {
    mappings: Vec<Mapping>,
    /// Closed, it no longer watches.
    watch: Option<OwnedFd>,
}

/// Drops the code of the program and its libraries from this process's memory; what runs next comes back by itself.
pub fn forget_code() -> Rehearsal {
    let mut mappings = mappings();
    mappings.retain(|mapping| mapping.anonymous == 0);
    let watch = watch();
    if let Some(watch) = &watch {
        for mapping in &mappings {
            let (start, len) = (mapping.start as u64, (mapping.end - mapping.start) as u64);
            let mut range = Register { start, len, mode: WRITE_PROTECT, ioctls: 0 };
            // SAFETY: a live structure. EBUSY: a rehearsal around this one watches already.
            unsafe { libc::ioctl(watch.as_raw_fd(), REGISTER, &raw mut range) };
        }
    }
    for mapping in &mappings {
        // SAFETY: a read-only private mapping of a file without a page of its own: see the heading. A refusal leaves
        // everything as it is.
        unsafe {
            libc::madvise(
                mapping.start as *mut libc::c_void,
                mapping.end - mapping.start,
                libc::MADV_DONTNEED,
            )
        };
    }
    Rehearsal { mappings, watch }
}

/// A userfaultfd in asynchronous write-protect mode: nobody is ever stopped by it, and it takes any mapping.
/// `None` where the kernel (before 6.7) or a sandbox has none.
fn watch() -> Option<OwnedFd> {
    const USER_MODE_ONLY: libc::c_int = 1;
    // SAFETY: flags only.
    let fd =
        unsafe { libc::syscall(libc::SYS_userfaultfd, libc::O_CLOEXEC | libc::O_NONBLOCK | USER_MODE_ONLY) };
    let fd = RawFd::try_from(fd).ok().filter(|fd| *fd >= 0)?;
    // SAFETY: a new descriptor that nobody else owns.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    let mut api = Api { api: API_VERSION, features: WP_ASYNC, ioctls: 0 };
    // SAFETY: a live structure.
    (unsafe { libc::ioctl(fd.as_raw_fd(), API, &raw mut api) } == 0).then_some(fd)
}

/// `struct uffdio_api` of linux/userfaultfd.h.
#[repr(C)]
struct Api {
    api: u64,
    features: u64,
    ioctls: u64,
}

/// `struct uffdio_register`.
#[repr(C)]
struct Register {
    start: u64,
    len: u64,
    mode: u64,
    ioctls: u64,
}

const API: libc::Ioctl = 0xC018_AA3F;
const API_VERSION: u64 = 0xAA;
const WP_ASYNC: u64 = 1 << 15;
const REGISTER: libc::Ioctl = 0xC020_AA00;
const WRITE_PROTECT: u64 = 1 << 1;

/// Has clones inherit the code that has come back, as far as the kernel lets it. What else comes one by one until the
/// result is dropped is theirs too.
pub fn keep_code(rehearsal: Rehearsal) -> Option<OwnedFd> {
    let memory = OpenOptions::new().read(true).write(true).open("/proc/self/mem").ok()?;
    let pages = OpenOptions::new().read(true).open("/proc/self/pagemap").ok()?;
    for mapping in rehearsal.mappings.iter().filter(|mapping| mapping.is_present(&pages)) {
        let mut byte = [0];
        let at = mapping.start as u64;
        // A kernel that refuses makes clones slower, and nothing else.
        let _ = memory.read_exact_at(&mut byte, at).and_then(|()| memory.write_all_at(&byte, at));
    }
    drop(rehearsal.mappings);
    // What the above took of the heap is free again; given back, there are fewer pages to copy.
    // SAFETY: malloc_trim(3) gives free memory back and touches no other.
    unsafe { libc::malloc_trim(0) };
    rehearsal.watch
}

/// Makes the pages of a range ready: to be read, or to be written to, where they are then this process's own.
///
/// # Errors
/// `EINVAL`: before Linux 5.14. `ENOMEM`, `EFAULT`: part of it is not mapped, or not so.
pub fn populate(start: usize, len: usize, write: bool) -> crate::Result<()> {
    // linux/mman.h.
    const MADV_POPULATE_READ: i32 = 22;
    const MADV_POPULATE_WRITE: i32 = 23;
    let advice = if write { MADV_POPULATE_WRITE } else { MADV_POPULATE_READ };
    // SAFETY: the content of the pages stays as it is; a range that is not mapped is refused.
    match unsafe { libc::madvise(start as *mut libc::c_void, len, advice) } {
        0 => Ok(()),
        _ => Err(crate::wait::last_errno()),
    }
}

/// A read-only private mapping of a file.
#[derive(Debug)]
struct Mapping {
    start: usize,
    end: usize,
    /// Kilobytes of it that are this process's own.
    anonymous: u64,
}

impl Mapping {
    /// True if any page is in memory, as `/proc/PID/pagemap` tells (proc(5)): a word for each, whose highest bit says so.
    fn is_present(&self, pages: &File) -> bool {
        const PAGE: usize = 4096;
        let mut words = [0; 512];
        let mut at = self.start / PAGE * 8;
        let end = self.end / PAGE * 8;
        while at < end {
            let wanted = words.len().min(end - at);
            match pages.read_at(&mut words[..wanted], at as u64) {
                Ok(0) | Err(_) => return false,
                Ok(read) if words[..read].chunks_exact(8).any(|word| word[7] & 0x80 != 0) => return true,
                Ok(read) => at += read,
            }
        }
        false
    }
}

fn mappings() -> Vec<Mapping> {
    let Ok(text) = fs::read_to_string("/proc/self/smaps") else { return Vec::new() };
    let mut found: Vec<Mapping> = Vec::new();
    let mut wanted = false;
    for line in text.lines() {
        if let Some((start, end, protection)) = heading(line) {
            wanted = protection.starts_with("r-") && protection.ends_with('p') && line.contains(" /");
            if wanted {
                found.push(Mapping { start, end, anonymous: 0 });
            }
        } else if let (true, Some(last), Some(("Anonymous", value))) =
            (wanted, found.last_mut(), line.split_once(':'))
        {
            last.anonymous = kilobytes(value);
        }
    }
    found
}

/// `START-END PROTECTION …`, the first line about a mapping.
fn heading(line: &str) -> Option<(usize, usize, &str)> {
    let mut words = line.split(' ');
    let (start, end) = words.next()?.split_once('-')?;
    let number = |text| usize::from_str_radix(text, 16).ok();
    Some((number(start)?, number(end)?, words.next()?))
}

fn kilobytes(value: &str) -> u64 {
    value.trim().trim_end_matches(" kB").parse().unwrap_or(0)
}

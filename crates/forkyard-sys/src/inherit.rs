//! Making clones of this process start with the pages of its program that they will need, and no others.
//!
//! A fork copies the page-table entries of private memory that was written to, and leaves out those of mapped files, so
//! every child faults the program's code in again, one group of pages after the other. The kernel decides this per
//! mapping: one that has had a single page written is copied whole, as far as it is present. So [`forget_code`] drops
//! what was only needed to come this far, the caller rehearses what its clones will do, and
//! [`keep_code`] writes one byte of each mapping that is in use now: through `/proc/self/mem`, with the value that
//! is there already. The mapping's protection does not change, not even for a moment, and neither does its content.
//!
//! # Safety
//! Only clean pages of read-only mappings of files are dropped; the next access reads them from the file again.
#![allow(unsafe_code)]

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;

/// Drops the code of the program and its libraries from this process's memory; what runs next comes back by itself.
pub fn forget_code() {
    for mapping in mappings().iter().filter(|mapping| mapping.anonymous == 0) {
        let len = mapping.end - mapping.start;
        // SAFETY: a read-only private mapping of a file without a page of its own: see the heading. A refusal leaves
        // everything as it is.
        unsafe { libc::madvise(mapping.start as *mut libc::c_void, len, libc::MADV_DONTNEED) };
    }
}

/// Has clones inherit the code that is present now, as far as the kernel lets it.
pub fn keep_code() {
    let Ok(memory) = OpenOptions::new().read(true).write(true).open("/proc/self/mem") else { return };
    for mapping in mappings().iter().filter(|mapping| mapping.resident > 0 && mapping.anonymous == 0) {
        let mut byte = [0];
        let at = mapping.start as u64;
        // A kernel that refuses makes clones slower, and nothing else.
        let _ = memory.read_exact_at(&mut byte, at).and_then(|()| memory.write_all_at(&byte, at));
    }
    // What the above took of the heap is free again; given back, there are fewer pages to copy.
    // SAFETY: malloc_trim(3) gives free memory back and touches no other.
    unsafe { libc::malloc_trim(0) };
}

/// A read-only private mapping of a file, and how much of it is in memory.
struct Mapping {
    start: usize,
    end: usize,
    resident: u64,
    anonymous: u64,
}

fn mappings() -> Vec<Mapping> {
    let Ok(text) = fs::read_to_string("/proc/self/smaps") else { return Vec::new() };
    let mut found: Vec<Mapping> = Vec::new();
    let mut wanted = false;
    for line in text.lines() {
        if let Some((start, end, protection)) = heading(line) {
            wanted = protection.starts_with("r-") && protection.ends_with('p') && line.contains(" /");
            if wanted {
                found.push(Mapping { start, end, resident: 0, anonymous: 0 });
            }
        } else if let (true, Some(last)) = (wanted, found.last_mut()) {
            match line.split_once(':') {
                Some(("Rss", value)) => last.resident = kilobytes(value),
                Some(("Anonymous", value)) => last.anonymous = kilobytes(value),
                _ => {}
            }
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

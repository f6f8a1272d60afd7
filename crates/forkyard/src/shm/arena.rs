//! The family's shared memory: one sealed memfd, mapped by every member, addressed by offsets.
//!
//! It is sparse: address space for everything, memory only for what was committed, so a shortage is an error and never a SIGBUS.
//! It is mapped once in a process and never unmapped, so references into it live for ever.
//!
//! Killed here: the header is complete before anybody else gets the descriptor; what is changed later are single words.
//!
//! # Safety
//! An address is the mapping's start plus an offset that was checked against the mapping's length, both of which lie in
//! private memory; a type that is put there is [`ShmAtomic`], so whatever others write there is a value of it.
#![allow(unsafe_code)]

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::{Mutex, OnceLock};

use forkyard_sys::mmap::Mapping;
use forkyard_sys::{Errno, memfd, stdio};

use super::chunk::CHUNK;
use super::entry::Entry;
use super::life::Id;
use super::participant::Page;
use super::safe::ShmAtomic;
use crate::error::{Error, Kind, Result};
use crate::global::Global;
use crate::primitive::{AtomicU32, AtomicU64, Ordering};
use crate::sync_std::lock;

/// The environment variable that says how large the arena is to be: a number of bytes, or of KiB, MiB or GiB with `K`, `M`, `G`.
pub(crate) const SIZE_VARIABLE: &str = "FORKYARD_ARENA_SIZE";
/// Address space is cheap; where it, or the size of files, is limited, less of it does as well.
const SIZES: [u64; 5] = [64 << 30, 16 << 30, 4 << 30, 1 << 30, 256 << 20];
const SMALLEST: u64 = 8 << 20;
const LARGEST: u64 = 1 << 42;

const MAGIC: u64 = u64::from_le_bytes(*b"forkyard");
/// Bytes of the header; the parts behind it begin at multiples of it.
const UNIT: u64 = 64 * 1024;
const PARTICIPANTS: u64 = UNIT;
const TABLE: u64 = (PARTICIPANTS + Id::SLOTS as u64 * size_of::<Page>() as u64).next_multiple_of(UNIT);
/// Changes with everything that lies there.
const LAYOUT: u64 = {
    let text = concat!("forkyard arena 1, ", env!("CARGO_PKG_VERSION")).as_bytes();
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    let mut at = 0;
    while at < text.len() {
        hash = (hash ^ text[at] as u64).wrapping_mul(0x0100_0000_01b3);
        at += 1;
    }
    hash ^ (size_of::<Page>() as u64) << 32 ^ size_of::<Entry>() as u64
};

/// The start of the arena. The first five are written by its maker and never change; the others are hints and counters that
/// anybody writes, any value of which is as good as another but for speed.
#[repr(C)]
pub(crate) struct Header {
    magic: AtomicU64,
    layout: AtomicU64,
    size: AtomicU64,
    chunks: AtomicU64,
    /// The maker's pid, for whoever looks at it from outside.
    maker: AtomicU64,
    /// The last generation that a block was given.
    pub(super) generation: AtomicU64,
    /// The last ticket of a waiter.
    pub(super) ticket: AtomicU64,
    /// How many participants' pages have memory.
    pub(super) pages: AtomicU32,
    /// How many entries of the chunk table have memory.
    pub(super) entries: AtomicU32,
    /// Where to look for a block of each class first.
    pub(super) hints: [AtomicU32; 15],
    /// Which slot of the process table to look at first.
    pub(super) next_slot: AtomicU32,
}

// SAFETY: atomics only.
unsafe impl ShmAtomic for Header {}

/// A process's view of the arena.
pub(crate) struct Arena {
    mapping: Mapping,
    fd: OwnedFd,
    chunks: u32,
    chunks_at: u64,
    observed: bool,
}

static ARENA: Global<Arena> = Global::new();
/// Why this process cannot have the family's arena, and must not make another.
static REFUSED: OnceLock<String> = OnceLock::new();

/// The family's arena, if this process has it.
pub(crate) fn existing() -> Option<&'static Arena> {
    ARENA.get()
}

/// The family's arena; made now by the family's first process.
pub(crate) fn get() -> Result<&'static Arena> {
    static MAKING: Mutex<()> = Mutex::new(());
    if let Some(arena) = existing() {
        return Ok(arena);
    }
    let _making = lock(&MAKING);
    match existing() {
        Some(arena) => Ok(arena),
        None => match REFUSED.get() {
            Some(why) => Err(Error::new("attach the family's arena", Kind::Protocol(why.clone()))),
            None => Ok(ARENA.set(Arena::create()?)),
        },
    }
}

/// Reads another family's arena as this process's own, without taking part. It replaces what was observed before.
pub(crate) fn observe(fd: OwnedFd) -> Result<()> {
    let what = "observe a family";
    if super::joined().is_some() {
        let why = "this process takes part in one itself; use another to look at it";
        return Err(Error::new(what, Kind::Invalid(why.to_owned())));
    }
    let is_same = |arena: &Arena| forkyard_sys::memfd::is_same(&arena.fd, &fd);
    if existing().is_some_and(is_same) {
        return Ok(());
    }
    let mapping = Mapping::shared(&fd, false).map_err(|errno| Error::os(what, errno))?;
    refuse("this process observes a family, and so takes part in none".to_owned());
    ARENA.set(Arena { observed: true, ..Arena::over(mapping, fd)? });
    Ok(())
}

impl Arena {
    /// Another family's, to look for something in it.
    pub(super) fn foreign(fd: OwnedFd) -> Result<Arena> {
        let mapping =
            Mapping::shared(&fd, true).map_err(|errno| Error::os("map another family's arena", errno))?;
        Arena::over(mapping, fd)
    }
}

/// Says that this process cannot have the family's arena.
pub(crate) fn refuse(why: String) {
    let _ = REFUSED.set(why);
}

/// Takes over the arena that another process of the family made.
pub(crate) fn attach(fd: OwnedFd) -> Result<()> {
    let mapping = Mapping::shared(&fd, true).map_err(|errno| Error::os("map the family's arena", errno))?;
    ARENA.set(Arena::over(mapping, fd)?);
    Ok(())
}

impl Arena {
    fn create() -> Result<Arena> {
        let what = "make the family's arena";
        let wanted = match std::env::var_os(SIZE_VARIABLE) {
            Some(text) => vec![text.to_str().and_then(size_of_text).ok_or_else(|| {
                let why =
                    format!("{SIZE_VARIABLE} is {text:?}; say a size from 8M to 4096G, such as 64M or 2G");
                Error::new(what, Kind::Invalid(why))
            })?],
            None => SIZES.to_vec(),
        };
        stdio::occupy().map_err(|errno| Error::os(what, errno))?;
        let mut made = Err(Errno::NOMEM);
        for size in wanted {
            made = memfd::create_sealed("forkyard-arena", size)
                .and_then(|fd| Mapping::shared(&fd, true).map(|mapping| (mapping, fd)));
            if made.is_ok() {
                break;
            }
        }
        let failed = |errno| {
            let hint = match errno {
                Errno::FBIG => "a file may not be so large here: see ulimit -f",
                Errno::NOMEM | Errno::NOSPC => "no address space or no memory: see ulimit -v",
                _ => "refused by the kernel, or by a sandbox",
            };
            Error::os_hint(what, errno, hint.to_owned())
        };
        let (mapping, fd) = made.map_err(failed)?;
        mapping.commit(0, UNIT as usize).map_err(failed)?;
        let size = mapping.len() as u64;
        // SAFETY: the mapping is larger than the header, and page-aligned.
        let header = unsafe { mapping.address().cast::<Header>().as_ref() };
        header.layout.store(LAYOUT, Ordering::Relaxed);
        header.size.store(size, Ordering::Relaxed);
        header.chunks.store(chunks_in(size), Ordering::Relaxed);
        header.maker.store(std::process::id().into(), Ordering::Relaxed);
        header.magic.store(MAGIC, Ordering::Release);
        Arena::over(mapping, fd)
    }

    fn over(mapping: Mapping, fd: OwnedFd) -> Result<Arena> {
        let size = mapping.len() as u64;
        let refuse = |why: String| Err(Error::new("attach the family's arena", Kind::Protocol(why)));
        if size < SMALLEST {
            return refuse(format!("it has {size} bytes, which is less than any arena"));
        }
        // SAFETY: larger than the header, and page-aligned.
        let header = unsafe { mapping.address().cast::<Header>().as_ref() };
        if header.magic.load(Ordering::Acquire) != MAGIC {
            return refuse("it is not one of this library's".to_owned());
        }
        let layout = header.layout.load(Ordering::Relaxed);
        if layout != LAYOUT {
            return refuse(format!(
                "it was laid out by build {layout:016x}, and this is build {LAYOUT:016x}"
            ));
        }
        let chunks = chunks_in(size);
        if header.size.load(Ordering::Relaxed) != size || header.chunks.load(Ordering::Relaxed) != chunks {
            return refuse("its header does not fit its size".to_owned());
        }
        mapping.leave_out_of_dumps();
        let chunks_at = chunks_at(chunks);
        Ok(Arena {
            mapping,
            fd,
            chunks: u32::try_from(chunks).unwrap_or(u32::MAX),
            chunks_at,
            observed: false,
        })
    }

    /// Its memfd, to hand to others.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// How many bytes of address space it has.
    pub(crate) fn size(&self) -> u64 {
        self.mapping.len() as u64
    }

    /// True if it is another family's, to look at.
    pub(crate) fn is_observed(&self) -> bool {
        self.observed
    }

    /// How many chunks it has.
    pub(super) fn chunks(&self) -> u32 {
        self.chunks
    }

    /// Where a chunk begins.
    pub(super) fn chunk_at(&self, index: u32) -> u64 {
        self.chunks_at + u64::from(index) * CHUNK
    }

    /// The chunk that an offset lies in, if it lies in one.
    pub(super) fn chunk_of(&self, offset: u64) -> Option<u32> {
        let index = offset.checked_sub(self.chunks_at)? / CHUNK;
        u32::try_from(index).ok().filter(|&index| index < self.chunks)
    }

    pub(crate) fn header(&self) -> &Header {
        // SAFETY: the mapping is larger than the header, and page-aligned.
        unsafe { self.mapping.address().cast::<Header>().as_ref() }
    }

    /// A value at an offset; `None` outside the arena, or unaligned.
    pub(super) fn at<T: ShmAtomic>(&self, offset: u64) -> Option<&T> {
        let end = offset.checked_add(size_of::<T>() as u64)?;
        if end > self.size() || !offset.is_multiple_of(align_of::<T>() as u64) {
            return None;
        }
        // SAFETY: inside the mapping and aligned; any bit pattern is a `T`.
        Some(unsafe { self.mapping.address().add(offset as usize).cast::<T>().as_ref() })
    }

    /// The address of a range; `None` if it does not lie in the arena.
    pub(super) fn range(&self, offset: u64, len: u64) -> Option<NonNull<u8>> {
        if offset.checked_add(len)? > self.size() {
            return None;
        }
        // SAFETY: inside the mapping.
        Some(unsafe { self.mapping.address().add(offset as usize) })
    }

    /// A participant's page; with memory only below [`Header::pages`].
    pub(super) fn page(&self, slot: u32) -> Option<&Page> {
        if slot >= Id::SLOTS {
            None
        } else {
            self.at(PARTICIPANTS + u64::from(slot) * size_of::<Page>() as u64)
        }
    }

    /// The address of a participant's page; of the first one for a number that is none.
    pub(super) fn page_address(&self, slot: u32) -> NonNull<u8> {
        let slot = if slot < Id::SLOTS { slot } else { 0 };
        // SAFETY: inside the mapping.
        unsafe {
            self.mapping.address().add((PARTICIPANTS + u64::from(slot) * size_of::<Page>() as u64) as usize)
        }
    }

    /// How many participants' pages have memory.
    pub(super) fn pages(&self) -> u32 {
        self.header().pages.load(Ordering::Acquire).min(Id::SLOTS)
    }

    /// Gives the participants' pages up to this one memory.
    pub(super) fn commit_page(&self, slot: u32) -> forkyard_sys::Result<()> {
        self.commit(PARTICIPANTS + u64::from(slot) * size_of::<Page>() as u64, size_of::<Page>() as u64)?;
        self.header().pages.fetch_max(slot + 1, Ordering::AcqRel);
        Ok(())
    }

    /// The chunk table as far as it has memory.
    pub(super) fn table(&self) -> &[Entry] {
        let count = self.header().entries.load(Ordering::Acquire).min(self.chunks);
        // SAFETY: the table lies in the mapping, 64-aligned, with so many entries at least; any bit pattern is an entry.
        unsafe {
            std::slice::from_raw_parts(
                self.mapping.address().add(TABLE as usize).cast().as_ptr(),
                count as usize,
            )
        }
    }

    /// Gives more of the chunk table memory; false if there is no more of it.
    pub(super) fn extend_table(&self) -> forkyard_sys::Result<bool> {
        let count = self.table().len() as u32;
        if count >= self.chunks {
            return Ok(false);
        }
        let at = TABLE + u64::from(count) * size_of::<Entry>() as u64;
        self.commit(at / UNIT * UNIT, UNIT)?;
        let more = (UNIT / size_of::<Entry>() as u64) as u32;
        self.header().entries.fetch_max((count / more + 1) * more, Ordering::AcqRel);
        Ok(true)
    }

    /// Takes memory for a range. `ENOMEM`, `ENOSPC`: there is none.
    pub(super) fn commit(&self, offset: u64, len: u64) -> forkyard_sys::Result<()> {
        super::shortage::check(len)?;
        self.mapping.commit(offset as usize, len as usize)
    }

    /// Gives memory back. What the kernel does not take stays; it is zeroed instead.
    pub(super) fn punch(&self, offset: u64, len: u64) {
        if self.mapping.punch(offset as usize, len as usize).is_err() {
            self.zero(offset, len);
        }
    }

    /// Zeroes a range of words.
    pub(super) fn zero(&self, offset: u64, len: u64) {
        let Some(address) = self.range(offset, len) else { return };
        // SAFETY: the range lies in the mapping; it belongs to the caller alone by the rules of the allocator, and whoever
        // breaks them reads other numbers, all of which are values of what lies there.
        unsafe { std::ptr::write_bytes(address.as_ptr(), 0, len as usize) };
    }
}

fn chunks_at(chunks: u64) -> u64 {
    (TABLE + chunks * size_of::<Entry>() as u64).next_multiple_of(UNIT)
}

/// How many chunks fit, with their entries in the table.
fn chunks_in(size: u64) -> u64 {
    let mut chunks = size.saturating_sub(TABLE + UNIT) / (CHUNK + size_of::<Entry>() as u64);
    while chunks > 0 && chunks_at(chunks) + chunks * CHUNK > size {
        chunks -= 1;
    }
    chunks
}

fn size_of_text(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match text.get(digits.len()..)? {
        "" => 0,
        "K" => 10,
        "M" => 20,
        "G" => 30,
        _ => return None,
    };
    let size = digits.parse::<u64>().ok()?.checked_mul(1 << shift)?;
    (SMALLEST..=LARGEST).contains(&size).then(|| size.next_multiple_of(UNIT))
}

#[cfg(test)]
mod tests {
    use super::{chunks_at, chunks_in, size_of_text};
    use crate::shm::chunk::CHUNK;

    #[test]
    fn all_parts_fit_into_every_size() {
        for size in [8 << 20, 9 << 20, 256 << 20, 1 << 30, 64 << 30, 1 << 42] {
            let chunks = chunks_in(size);
            assert!(chunks > 0 && chunks_at(chunks) + chunks * CHUNK <= size, "{size}: {chunks} chunks");
        }
    }

    #[test]
    fn sizes_are_read_as_they_are_written() {
        assert_eq!(size_of_text("64M"), Some(64 << 20));
        assert_eq!(size_of_text("2G"), Some(2 << 30));
        assert_eq!(size_of_text("16777216"), Some(16 << 20));
        for wrong in ["", "M", "1M", "-1G", "64m", "9999999999G", "1T", "64 M"] {
            assert_eq!(size_of_text(wrong), None, "{wrong}");
        }
    }
}

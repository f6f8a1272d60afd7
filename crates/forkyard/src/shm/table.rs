//! A table of equal slots in a sealed memfd, shared with whoever gets the fd.
//!
//! The table is sparse: address space for all slots, memory only for those that were committed. It has no header:
//! it goes only to processes of the same image, which the hand-shake that carries the fd has checked. Slots are
//! [`ShmAtomic`]: whatever another process writes into them, reading them is defined, and the reader validates.
//!
//! Killed here: nothing of the table is changed by its own code except by single atomic stores; the memory goes
//! with the last process that maps it.
//!
//! # Safety
//! A slot's address is the mapping's start plus `index * size_of::<T>()`, with the index below a capacity that
//! was computed from the mapping's length; the mapping is page-aligned, and `T` needs less than that.
#![allow(unsafe_code)]

use std::marker::PhantomData;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use forkyard_sys::mmap::Mapping;
use forkyard_sys::{Result, memfd};

use super::ShmAtomic;

/// Pages are committed in runs of this many bytes.
const COMMIT: u64 = 64 * 1024;

/// A process's view of a shared table. The fd may be dropped once everybody has the mapping.
#[derive(Debug)]
pub(crate) struct Table<T> {
    mapping: Mapping,
    fd: Option<OwnedFd>,
    capacity: usize,
    slots: PhantomData<T>,
}

impl<T: ShmAtomic> Table<T> {
    /// Makes a table of `capacity` slots, all zero.
    pub(crate) fn create(name: &str, capacity: usize) -> Result<Table<T>> {
        const { assert!(align_of::<T>() <= 4096 && size_of::<T>() > 0) };
        let size = (capacity * size_of::<T>()) as u64;
        Table::over(memfd::create_sealed(name, size.next_multiple_of(COMMIT))?, true)
    }

    /// Maps a table that another process made; to read only, where `writable` says no.
    pub(crate) fn attach(fd: OwnedFd, writable: bool) -> Result<Table<T>> {
        Table::over(fd, writable)
    }

    fn over(fd: OwnedFd, writable: bool) -> Result<Table<T>> {
        let mapping = Mapping::shared(&fd, writable)?;
        let capacity = mapping.len() / size_of::<T>();
        Ok(Table { mapping, fd: Some(fd), capacity, slots: PhantomData })
    }

    /// How many slots there are.
    pub(crate) fn capacity(&self) -> usize {
        self.capacity
    }

    /// The slot, if there is one of that number.
    pub(crate) fn get(&self, index: usize) -> Option<&T> {
        if index >= self.capacity {
            return None;
        }
        // SAFETY: inside the mapping, aligned, and any bit pattern is a `T` (see the heading).
        Some(unsafe { self.mapping.address().cast::<T>().add(index).as_ref() })
    }

    /// Takes real memory for this slot and its neighbours, so that a shortage is an error here.
    pub(crate) fn commit(&self, index: usize) -> Result<()> {
        let Some(fd) = &self.fd else { return Err(forkyard_sys::Errno::BADF) };
        let start = (index * size_of::<T>()) as u64 / COMMIT * COMMIT;
        memfd::commit(fd, start, COMMIT)
    }

    /// The fd to hand to others, unless it was dropped.
    pub(crate) fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.fd.as_ref().map(AsFd::as_fd)
    }

    /// Closes the fd; the mapping stays.
    pub(crate) fn close_fd(&mut self) {
        self.fd = None;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::Table;

    #[test]
    fn two_views_share_the_slots() {
        let first = Table::<AtomicU32>::create("test", 10).unwrap();
        let second =
            Table::<AtomicU32>::attach(first.fd().unwrap().try_clone_to_owned().unwrap(), true).unwrap();
        first.commit(3).unwrap();
        first.get(3).unwrap().store(7, Ordering::Release);
        assert_eq!(second.get(3).unwrap().load(Ordering::Acquire), 7);
        assert!(second.get(second.capacity()).is_none());
    }

    #[test]
    fn an_unsealed_file_is_refused() {
        let fd = forkyard_sys::memfd::holding("loose", &[0; 4096]).unwrap();
        assert!(Table::<AtomicU32>::attach(fd, true).is_err());
    }
}

//! Memory that a family keeps under a name, until somebody removes the name: it is there when whoever made it has ended, and gone with the family.
//!
//! It is an object of the arena, which a container holds in its name. Another family's is found through the descriptors of its processes,
//! and mapped alone.
//!
//! Killed here: before the container holds it, a new object is its maker's, and goes with it; afterwards it is whole, and
//! everybody's.
//!
//! # Safety
//! Addresses are of an object that this handle holds, or in a mapping that it owns. An object that another family has mapped is never freed.
#![allow(unsafe_code)]

use std::fmt;
use std::fs;
use std::os::fd::OwnedFd;

use forkyard_sys::mmap::Mapping;
use forkyard_sys::{Errno, memfd};

use super::allocate::HEADER;
use super::arena::{self, Arena};
use super::block::{Block, State};
use super::named::{Note, checked, refused};
use super::parcel::CONTAINER;
use super::shared::{Shared, for_each_object, tail_at};
use crate::error::Result;
use crate::primitive::{AtomicU64, Ordering};

const PAGE: u64 = 4096;
/// In a note's `device`: another family has it mapped.
const FOREIGN: u64 = 1;
/// In a note's `owner`, which is 0 before.
const REMOVED: u64 = u64::MAX;

/// Bytes that a family keeps under a name.
pub struct KeptMemory {
    name: String,
    place: Place,
}

enum Place {
    /// This family's.
    Own(Shared<Note>),
    /// Another family's: the note begins so far behind the start of the mapping, and there are so many bytes.
    Foreign { mapping: Mapping, start: usize, len: usize },
}

impl KeptMemory {
    /// Makes memory of that name.
    ///
    /// # Errors
    /// [`errno`](crate::Error::errno) `EEXIST`: the family has such memory; `EINVAL`: no bytes; or there is no room for so many.
    pub fn create(name: &str, size: usize, made_at: &str) -> Result<KeptMemory> {
        let name = checked(name)?;
        let failed = |errno| refused(&format!("make shared memory \"{name}\" of {size} bytes"), errno);
        if size == 0 {
            return Err(failed(Errno::INVAL));
        }
        if !named(&name).is_empty() {
            return Err(failed(Errno::EXIST));
        }
        let shared = Shared::<Note>::new_at(size, made_at, |note, _| note.set_name(&name))?;
        let found = arena::get()?.block_at(shared.offset());
        let (Some(found), Some(generation)) = (found, found.and_then(|found| generation(found.block))) else {
            return Err(failed(Errno::IO));
        };
        found.block.hold(CONTAINER);
        found.block.announce(generation, false);
        let memory = KeptMemory { place: Place::Own(shared), name: name.clone() };
        if named(&memory.name).len() > 1 {
            // Somebody else has made it at the same time.
            let error = failed(Errno::EXIST);
            memory.unlink()?;
            return Err(error);
        }
        Ok(memory)
    }

    /// Attaches to memory of that name, of this family or of another one of this user.
    ///
    /// # Errors
    /// [`errno`](crate::Error::errno) `ENOENT`: there is none.
    pub fn attach(name: &str) -> Result<KeptMemory> {
        let name = checked(name)?;
        for (offset, generation) in named(&name) {
            // It may have been removed meanwhile.
            if let Ok(shared) = Shared::attach(offset, generation) {
                return Ok(KeptMemory { place: Place::Own(shared), name });
            }
        }
        match foreign_arenas().find_map(|fd| map_foreign(fd, &name)) {
            Some(place) => Ok(KeptMemory { name, place }),
            None => Err(refused(&format!("attach shared memory \"{name}\""), Errno::NOENT)),
        }
    }

    /// Where it is in this process. Others may change what lies there at any time.
    #[must_use]
    pub fn as_ptr(&self) -> *mut u8 {
        match &self.place {
            Place::Own(shared) => shared.tail().0.as_ptr(),
            Place::Foreign { mapping, start, .. } => {
                mapping.address().as_ptr().wrapping_add(*start + tail_at::<Note>())
            }
        }
    }

    /// Bytes that it has.
    #[must_use]
    pub fn size(&self) -> usize {
        match &self.place {
            Place::Own(shared) => shared.tail().1,
            Place::Foreign { len, .. } => *len,
        }
    }

    /// Removes the name; the memory stays as long as somebody uses it.
    ///
    /// # Errors
    /// [`errno`](crate::Error::errno) `ENOENT`: somebody has removed it.
    pub fn unlink(&self) -> Result<()> {
        let note = match &self.place {
            Place::Own(shared) => &**shared,
            Place::Foreign { mapping, start, .. } => {
                // SAFETY: the note lies in the mapping, aligned, and any bit pattern is one.
                unsafe { mapping.address().add(*start).cast::<Note>().as_ref() }
            }
        };
        if note.owner.swap(REMOVED, Ordering::SeqCst) != 0 {
            return Err(refused(&format!("unlink shared memory \"{}\"", self.name), Errno::NOENT));
        }
        // Whoever maps it from outside says so first, and then looks whether it is removed.
        if let Place::Own(shared) = &self.place
            && note.device.load(Ordering::SeqCst) != FOREIGN
            && let Some(found) = arena::get()?.block_at(shared.offset())
        {
            // This handle holds it, so it is not freed here.
            found.block.let_go(CONTAINER);
        }
        Ok(())
    }
}

impl fmt::Debug for KeptMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeptMemory({}, {} bytes)", self.name, self.size())
    }
}

fn generation(block: &Block) -> Option<u32> {
    match block.state() {
        State::Live(generation) => Some(generation),
        _ => None,
    }
}

fn is_kept(block: &Block, note: &Note, name: &str) -> bool {
    block.is_held_by(CONTAINER)
        && note.owner.load(Ordering::SeqCst) == 0
        && note.name().as_deref() == Some(name)
}

/// This family's memory of that name: where, and which generation.
fn named(name: &str) -> Vec<(u64, u32)> {
    let mut all = Vec::new();
    for_each_object(|object| {
        let Some((note, _)) = object.get::<Note, AtomicU64>() else { return };
        let found = arena::existing().and_then(|arena| arena.block_at(object.offset()));
        if let Some(found) = found.filter(|found| is_kept(found.block, note, name))
            && let Some(generation) = generation(found.block)
        {
            all.push((object.offset(), generation));
        }
    });
    all
}

/// The arenas of the other families of this user, one after the other; some of them more than once.
fn foreign_arenas() -> impl Iterator<Item = OwnedFd> {
    let entries = |path: &str| fs::read_dir(path).into_iter().flatten().flatten();
    let is_process = |name: &str| name.bytes().all(|byte| byte.is_ascii_digit());
    let mut seen = Vec::new();
    let own = arena::existing().and_then(|arena| fs::metadata(fd_path(arena.fd())).ok());
    seen.extend(own.as_ref().map(std::os::unix::fs::MetadataExt::ino));
    entries("/proc")
        .filter(move |entry| entry.file_name().to_str().is_some_and(is_process))
        .flat_map(move |entry| entries(&format!("{}/fd", entry.path().display())))
        .filter_map(move |entry| {
            let link = fs::read_link(entry.path()).ok()?;
            if !link.as_os_str().as_encoded_bytes().starts_with(b"/memfd:forkyard-arena") {
                return None;
            }
            let inode = std::os::unix::fs::MetadataExt::ino(&fs::metadata(entry.path()).ok()?);
            if seen.contains(&inode) {
                return None;
            }
            seen.push(inode);
            Some(fs::OpenOptions::new().read(true).write(true).open(entry.path()).ok()?.into())
        })
}

fn fd_path(fd: impl std::os::fd::AsFd) -> String {
    format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&fd.as_fd()))
}

/// Maps the memory of that name in another family's arena.
fn map_foreign(fd: OwnedFd, name: &str) -> Option<Place> {
    memfd::sealed_size(&fd).ok()??;
    let arena = Arena::foreign(fd).ok()?;
    let (offset, len) = arena.find_block(|offset, size, block| {
        let note = arena.at::<Note>(offset + HEADER)?;
        let is_it = generation(block).is_some() && is_shared_memory(block) && is_kept(block, note, name);
        if !is_it {
            return None;
        }
        // Now it is not freed any more, if it is not removed yet.
        note.device.store(FOREIGN, Ordering::SeqCst);
        is_kept(block, note, name).then(|| (offset, block.len().min(size - HEADER)))
    })?;
    let from = offset + HEADER;
    let len = usize::try_from(len).ok()?.checked_sub(tail_at::<Note>()).filter(|&len| len > 0)?;
    let start = (from % PAGE) as usize;
    let end = (start + tail_at::<Note>()).checked_add(len)?;
    let mapping = Mapping::shared_part(arena.fd(), from - start as u64, end).ok()?;
    Some(Place::Foreign { mapping, start, len })
}

fn is_shared_memory(block: &Block) -> bool {
    block.kind() == super::Kind::SharedMemory as u32
}

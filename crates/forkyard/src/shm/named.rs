//! Memory that unrelated processes share by a name, as shm_open(3) has it.
//!
//! The name is the owner's to remove. It stands in the family's arena as well, so that it is removed for an owner that was killed: by whoever
//! cleans up after it, or by the owner's zygote.
//!
//! Killed here: the note is whole, with the file that it is of, before the file gets the name; and a name is removed only while it stands for
//! that file.
//!
//! # Safety
//! A slice is made of the whole mapping, which lives as long as the handle.
#![allow(unsafe_code)]

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::panic::Location;
use std::ptr::NonNull;

use forkyard_sys::mmap::Mapping;
use forkyard_sys::named::{self, Identity};
use forkyard_sys::{Errno, memfd};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser};

use super::kind::Kind as Object;
use super::life::Id;
use super::participant::me;
use super::safe::ShmAtomic;
use super::shared::{ObjectRef, Payload, Shared};
use crate::codec;
use crate::error::{Error, Kind, Result};
use crate::fd::Fd;
use crate::primitive::{AtomicU64, Ordering};

/// Longest name.
const LONGEST: usize = 200;

/// The note of a name. Written by the owner before it publishes the name; never changed.
#[repr(C)]
pub(super) struct Note {
    /// 0: none, the family keeps it (kept.rs).
    pub(super) owner: AtomicU64,
    pub(super) device: AtomicU64,
    inode: AtomicU64,
    len: AtomicU64,
    name: [AtomicU64; LONGEST / 8],
}

// SAFETY: atomics only, `repr(C)`.
unsafe impl ShmAtomic for Note {}

// SAFETY: as above.
unsafe impl Payload for Note {
    const KIND: Object = Object::SharedMemory;
}

impl Note {
    /// Writes the name: of a note that is being made.
    pub(super) fn set_name(&self, name: &str) {
        for (cell, part) in self.name.iter().zip(name.as_bytes().chunks(8)) {
            let mut bytes = [0; 8];
            bytes[..part.len()].copy_from_slice(part);
            cell.store(u64::from_le_bytes(bytes), Ordering::Relaxed);
        }
        self.len.store(name.len() as u64, Ordering::Release);
    }

    pub(super) fn name(&self) -> Option<String> {
        let bytes: Vec<u8> =
            self.name.iter().flat_map(|cell| cell.load(Ordering::Relaxed).to_le_bytes()).collect();
        let len = usize::try_from(self.len.load(Ordering::Acquire)).ok().filter(|&len| len > 0)?;
        String::from_utf8(bytes.get(..len)?.to_vec()).ok()
    }

    fn identity(&self) -> Identity {
        (self.device.load(Ordering::Relaxed), self.inode.load(Ordering::Relaxed))
    }
}

/// Memory that processes share: without a name, gone with its last user, as an argument of a task; or by a name, for processes that have nothing else in
/// common.
///
/// What lies in it is bytes that others may change at any time. Who only attaches to a name never removes it; the owner does, when it drops this, ends or
/// is killed. (A process that is killed and has never started another has nobody to do that for it; then the name stays, as with
/// shm_open(3).)
///
/// ```
/// let name = format!("/forkyard-doc-{}", std::process::id());
/// let memory = forkyard::SharedMemory::create(&name, 4096)?;
/// memory.write(0, b"hello");
/// let same = forkyard::SharedMemory::attach(&name)?;
/// let mut word = [0; 5];
/// same.read(0, &mut word);
/// assert_eq!((&word, same.size()), (b"hello", 4096));
/// # Ok::<(), forkyard::Error>(())
/// ```
#[doc(alias = "shm_open")]
pub struct SharedMemory {
    mapping: Mapping,
    fd: OwnedFd,
    name: Option<String>,
    /// Of the owner of a name.
    note: Option<Shared<Note>>,
}

impl SharedMemory {
    /// Makes memory without a name: it travels among the arguments of a task and in messages of a connection, or by its descriptor.
    ///
    /// # Errors
    /// A size of zero; no memory (`ENOMEM`, `ENOSPC`); no descriptor left.
    pub fn anonymous(size: usize) -> Result<SharedMemory> {
        let failed = |errno| refused(&format!("make shared memory of {size} bytes"), errno);
        super::shortage::check(size as u64).map_err(failed)?;
        let fd = memfd::create_sealed("forkyard-shared", size as u64).map_err(failed)?;
        memfd::commit(&fd, 0, size as u64).map_err(failed)?;
        let mapping = Mapping::shared(&fd, true).map_err(failed)?;
        Ok(SharedMemory { mapping, fd, name: None, note: None })
    }

    /// Takes over memory without a name that another process made and sent.
    ///
    /// # Errors
    /// It is none of [`anonymous`](SharedMemory::anonymous)'s: it could be truncated, and whoever touches it then is killed.
    pub fn from_fd(fd: impl Into<OwnedFd>) -> Result<SharedMemory> {
        let (what, fd) = ("use a descriptor as shared memory", fd.into());
        match memfd::sealed_size(&fd).map_err(|errno| Error::os(what, errno))? {
            Some(_) => {}
            None => return Err(Error::new(what, Kind::Invalid("it may be truncated".to_owned()))),
        }
        let mapping = Mapping::shared(&fd, true).map_err(|errno| refused(what, errno))?;
        Ok(SharedMemory { mapping, fd, name: None, note: None })
    }

    /// Makes memory of that name (`/name`, without another slash), for processes of this user.
    ///
    /// # Errors
    /// [`errno`](Error::errno) `EEXIST`: the name is taken; `ENOSPC`: there is no room for so much; a name that is none.
    #[track_caller]
    pub fn create(name: &str, size: usize) -> Result<SharedMemory> {
        let name = checked(name)?;
        let failed = |errno| refused(&format!("make shared memory \"{name}\" of {size} bytes"), errno);
        if size == 0 {
            return Err(failed(Errno::INVAL));
        }
        let me = me()?.id;
        super::shortage::check(size as u64).map_err(failed)?;
        let fd = named::prepare(size as u64).map_err(failed)?;
        let identity = named::identity(&fd).map(|(identity, _)| identity).map_err(failed)?;
        let note = Shared::<Note>::new(0, Location::caller(), |note, _| {
            note.owner.store(me.bits().into(), Ordering::Relaxed);
            note.device.store(identity.0, Ordering::Relaxed);
            note.inode.store(identity.1, Ordering::Relaxed);
            note.set_name(&name);
        })?;
        let mapping = Mapping::shared_unsealed(&fd, size).map_err(failed)?;
        named::publish(&fd, &name).map_err(failed)?;
        Ok(SharedMemory { mapping, fd, name: Some(name), note: Some(note) })
    }

    /// Attaches to memory of that name, whoever made it.
    ///
    /// # Errors
    /// [`errno`](Error::errno) `ENOENT`: there is none; `EACCES`: it is another user's; `EINVAL`: it is empty; `ELOOP`: it is a
    /// symbolic link.
    pub fn attach(name: &str) -> Result<SharedMemory> {
        let name = checked(name)?;
        let failed = |errno| refused(&format!("attach shared memory \"{name}\""), errno);
        let fd = named::open(&name).map_err(failed)?;
        let size = named::identity(&fd).map(|(_, size)| size).map_err(failed)?;
        let mapping = Mapping::shared_unsealed(&fd, usize::try_from(size).unwrap_or(0)).map_err(failed)?;
        Ok(SharedMemory { mapping, fd, name: Some(name), note: None })
    }

    /// Bytes that it has.
    #[must_use]
    pub fn size(&self) -> usize {
        self.mapping.len()
    }

    /// Its name, if it has one.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// Where it is mapped in this process; page-aligned. Others may change what lies there at any time.
    #[must_use]
    pub fn as_ptr(&self) -> NonNull<u8> {
        self.mapping.address()
    }

    /// Copies bytes from it.
    ///
    /// # Panics
    /// If there are not so many from `offset` on.
    pub fn read(&self, offset: usize, into: &mut [u8]) {
        let from = self.range(offset, into.len());
        // SAFETY: inside the mapping. A byte that is written at the same time is read as the old or the new one.
        unsafe { std::ptr::copy(from, into.as_mut_ptr(), into.len()) };
    }

    /// Copies bytes into it.
    ///
    /// # Panics
    /// If there is no room for so many from `offset` on.
    pub fn write(&self, offset: usize, bytes: &[u8]) {
        let to = self.range(offset, bytes.len());
        // SAFETY: inside the mapping.
        unsafe { std::ptr::copy(bytes.as_ptr(), to, bytes.len()) };
    }

    #[track_caller]
    fn range(&self, offset: usize, len: usize) -> *mut u8 {
        let fits = offset.checked_add(len).is_some_and(|end| end <= self.size());
        assert!(fits, "{len} bytes at {offset} of shared memory that has {}", self.size());
        self.mapping.address().as_ptr().wrapping_add(offset)
    }

    /// Removes the name now; the memory stays as long as somebody uses it. Only the owner can.
    ///
    /// # Errors
    /// It has no name, or this is not its owner.
    pub fn unlink(&mut self) -> Result<()> {
        let (Some(name), Some(note)) = (&self.name, self.note.take()) else {
            let why = "it has no name, or another process owns it".to_owned();
            return Err(Error::new("unlink shared memory", Kind::Invalid(why)));
        };
        named::unlink(name, note.identity())
            .map_err(|errno| refused(&format!("unlink shared memory \"{name}\""), errno))
    }
}

impl Drop for SharedMemory {
    fn drop(&mut self) {
        // A fork of the owner is not the owner.
        let is_owner = |note: &Shared<Note>| {
            super::joined().is_some_and(|id| note.owner.load(Ordering::Relaxed) == u64::from(id.bits()))
        };
        if let (Some(name), Some(note)) = (&self.name, self.note.as_ref().filter(|note| is_owner(note))) {
            // ENOENT: somebody has removed it.
            let _ = named::unlink(name, note.identity());
        }
    }
}

impl AsFd for SharedMemory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Serialize for SharedMemory {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        if self.name.is_some() {
            return Err(ser::Error::custom(codec::refuse(
                "shared memory with a name is attached by its name",
            )));
        }
        let copy = self.fd.try_clone().map_err(|error| ser::Error::custom(codec::refuse(error)))?;
        Fd::from(copy).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for SharedMemory {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<SharedMemory, D::Error> {
        SharedMemory::from_fd(Fd::deserialize(deserializer)?)
            .map_err(|error| de::Error::custom(codec::refuse(error)))
    }
}

impl fmt::Debug for SharedMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SharedMemory({}, {} bytes)", self.name().unwrap_or("anonymous"), self.size())
    }
}

/// Removes the name whose owner has died.
pub(crate) fn repair(object: ObjectRef, dead: Id) {
    let Some((note, _)) = object.get::<Note, AtomicU64>() else { return };
    if note.owner.load(Ordering::Relaxed) != u64::from(dead.bits()) {
        return;
    }
    if let Some(name) = note.name().and_then(|name| checked(&name).ok()) {
        // ENOENT: it is gone, or somebody else's by now.
        let _ = named::unlink(&name, note.identity());
    }
}

pub(super) fn checked(name: &str) -> Result<String> {
    let bare = name.strip_prefix('/').unwrap_or(name);
    if bare.is_empty() || bare.len() >= LONGEST || bare.contains(['/', '\0']) || bare == "." || bare == ".." {
        let why = format!(
            "\"{name}\" is no name: write /name, without another slash, of at most {} bytes",
            LONGEST - 1
        );
        return Err(Error::new("use shared memory by name", Kind::Invalid(why)));
    }
    Ok(format!("/{bare}"))
}

pub(super) fn refused(what: &str, errno: Errno) -> Error {
    match errno {
        Errno::NOSPC | Errno::NOMEM => {
            Error::os_hint(what, errno, "there is not so much memory, or /dev/shm is full".to_owned())
        }
        Errno::FBIG => {
            Error::os_hint(what, errno, "a file may not be so large here: see ulimit -f".to_owned())
        }
        Errno::LOOP => Error::os_hint(what, errno, "a symbolic link has that name".to_owned()),
        Errno::INVAL => Error::os_hint(what, errno, "it would have, or has, no bytes".to_owned()),
        errno => Error::os(what, errno),
    }
}

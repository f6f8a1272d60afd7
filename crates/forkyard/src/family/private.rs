//! What bindings for other languages need of a family: their processes are not started by this library, so they hand on the
//! family's shared memory themselves, say who they are, and report deaths that they are told of.

use std::os::fd::{BorrowedFd, OwnedFd};

use forkyard_sys::memfd;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::codec;
use crate::error::{Error, Kind, Result};
use crate::{shm, sync};

/// The memfd of this process's family, which is made now if this is its first process. A child that is not a fork gets it by
/// [`attach`], before it uses any shared object.
///
/// # Errors
/// No memory, or no address space.
pub fn arena() -> Result<BorrowedFd<'static>> {
    let arena = shm::get()?;
    prepare_forks()?;
    Ok(arena.fd())
}

/// Has forks of a process that itself uses nothing shared, a server maybe, find out that they are not that process.
fn prepare_forks() -> Result<()> {
    let failed = |errno| Error::os("take part in a family", errno);
    forkyard_sys::robust::wipe_in_forks().map_err(failed)
}

/// True if this process has its family's shared memory already, made or attached.
#[must_use]
pub fn has_arena() -> bool {
    shm::existing().is_some()
}

/// Takes over the shared memory of the family that this process was started by. Harmless if it has it already.
///
/// # Errors
/// It is not what [`arena`] gave, or another build's; or this process has another family's already.
pub fn attach(fd: OwnedFd) -> Result<()> {
    prepare_forks()?;
    match shm::existing() {
        None => shm::attach(fd),
        Some(arena) if memfd::is_same(arena.fd(), &fd) => Ok(()),
        Some(_) => {
            let why =
                "this process uses another family's already; have it attached before it makes shared objects";
            Err(Error::new("attach the family's arena", Kind::Invalid(why.to_owned())))
        }
    }
}

/// Makes a copy of this process without the C library's fork, and has the copy hold what this process holds, as a fork
/// does. `make` returns true in the copy, beside its result.
pub fn copying<T>(make: impl FnOnce() -> (bool, T)) -> T {
    shm::copying(make)
}

/// Cleans up after all processes of the family that have died: for whoever has just been told of a death. True if there was one.
pub fn reap() -> bool {
    shm::joined().is_some() && sync::reap()
}

/// Says what this process is called, and whether it ends with its parent.
pub fn introduce(name: &str, daemon: bool) {
    shm::introduce(name, daemon);
}

/// Has `attention` called once in a second by each wait that a signal handler may end, beside those that a signal does end: true
/// ends it. A signal that comes between two sleeps of a wait is found out so.
pub fn set_attention(attention: fn() -> bool) {
    sync::set_attention(attention);
}

/// Writes down a handle of a shared object for another process of the family. The object must be kept until that one has
/// decoded it.
///
/// # Errors
/// It cannot be encoded.
pub fn encode<T: Serialize>(handle: &T) -> Result<Vec<u8>> {
    let (encoded, _) = shm::outgoing(|| postcard::to_stdvec(handle));
    encoded.map_err(|error| Error::new("encode a handle", Kind::Codec(codec::explain(&error))))
}

/// The handle that another process of the family wrote down.
///
/// # Errors
/// The object is gone, or this is not such a handle.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    postcard::from_bytes(bytes)
        .map_err(|error| Error::new("decode a handle", Kind::Codec(codec::explain(&error))))
}

//! File descriptors as arguments of a task, and in messages of a connection.

use std::cell::RefCell;
use std::fs::File;
use std::mem::ManuallyDrop;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};

use forkyard_sys::Errno;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser};

use crate::codec;

/// Most fds that one call carries; the protocol needs a few for itself.
pub(crate) const MAX_FDS: usize = forkyard_sys::socket::MAX_FDS - 8;

// Without destructors, so that exit hooks find them too, which run when this thread's are over. What is put in is taken out.
thread_local! {
    static OUTGOING: ManuallyDrop<RefCell<Option<Outgoing>>> = const { ManuallyDrop::new(RefCell::new(None)) };
    static INCOMING: ManuallyDrop<RefCell<Vec<Option<OwnedFd>>>> =
        const { ManuallyDrop::new(RefCell::new(Vec::new())) };
}

/// Copies of the fds that an encoding met, and why there are not more: an encoder's error has no room for an errno.
#[derive(Default)]
pub(crate) struct Outgoing {
    pub(crate) fds: Vec<OwnedFd>,
    pub(crate) refused: Option<Errno>,
}

/// A file descriptor that travels to a child as an argument of its task, or in a message of a [`Connection`](crate::channel::Connection), as
/// `SCM_RIGHTS` carries it.
///
/// Who gets it has a descriptor of its own for the same open file (dup(2)); the one here stays open until it is
/// dropped, which matters for pipes: the reader sees the end only when every writer is closed.
///
/// Elsewhere it cannot be serialised, and says so.
#[derive(Debug)]
pub struct Fd(OwnedFd);

impl Fd {
    /// Another descriptor for the same open file.
    ///
    /// # Errors
    /// `EMFILE`, `ENFILE`: no number left.
    pub fn try_clone(&self) -> std::io::Result<Fd> {
        self.0.try_clone().map(Fd)
    }

    /// The descriptor itself.
    #[must_use]
    pub fn into_owned(self) -> OwnedFd {
        self.0
    }
}

impl AsFd for Fd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl From<OwnedFd> for Fd {
    fn from(fd: OwnedFd) -> Fd {
        Fd(fd)
    }
}

impl From<Fd> for OwnedFd {
    fn from(fd: Fd) -> OwnedFd {
        fd.0
    }
}

/// Conversions from and to what owns a descriptor in the standard library.
macro_rules! convert {
    ($($owner:ty)*) => {$(
        impl From<$owner> for Fd {
            fn from(owner: $owner) -> Fd {
                Fd(owner.into())
            }
        }

        impl From<Fd> for $owner {
            fn from(fd: Fd) -> $owner {
                fd.0.into()
            }
        }
    )*};
}
convert!(File TcpListener TcpStream UnixListener UnixStream std::io::PipeReader std::io::PipeWriter);

impl Serialize for Fd {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let index = OUTGOING.with(|outgoing| {
            let mut outgoing = outgoing.borrow_mut();
            let outgoing = outgoing.as_mut()?;
            match self.0.try_clone() {
                Ok(copy) => outgoing.fds.push(copy),
                Err(error) => {
                    outgoing.refused = Some(Errno::from_io_error(&error).unwrap_or(Errno::MFILE));
                    return None;
                }
            }
            u32::try_from(outgoing.fds.len() - 1).ok()
        });
        match index {
            Some(index) => serializer.serialize_u32(index),
            None => Err(ser::Error::custom(codec::refuse(
                "a file descriptor travels only in the arguments of a task, or in a message of a connection",
            ))),
        }
    }
}

impl<'de> Deserialize<'de> for Fd {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Fd, D::Error> {
        let index = u32::deserialize(deserializer)? as usize;
        let fd = INCOMING.with(|fds| fds.borrow_mut().get_mut(index).and_then(Option::take));
        fd.map(Fd).ok_or_else(|| de::Error::custom(codec::refuse("a file descriptor did not arrive")))
    }
}

/// Runs `encode` and collects copies of the fds that it met. A panic in it (of a user's `Serialize`) collects nothing.
pub(crate) fn outgoing<T>(encode: impl FnOnce() -> T) -> (T, Outgoing) {
    struct Restore(Option<Outgoing>);
    impl Drop for Restore {
        fn drop(&mut self) {
            OUTGOING.with(|outgoing| outgoing.replace(self.0.take()));
        }
    }
    let _restore = Restore(OUTGOING.with(|outgoing| outgoing.replace(Some(Outgoing::default()))));
    let value = encode();
    (value, OUTGOING.with(|outgoing| outgoing.take()).unwrap_or_default())
}

/// Runs `decode`, in which these fds can be taken; what was not taken is closed.
pub(crate) fn incoming<T>(fds: Vec<OwnedFd>, decode: impl FnOnce() -> T) -> T {
    struct Restore(Vec<Option<OwnedFd>>);
    impl Drop for Restore {
        fn drop(&mut self) {
            INCOMING.with(|fds| fds.replace(std::mem::take(&mut self.0)));
        }
    }
    let fds = fds.into_iter().map(Some).collect();
    let _restore = Restore(INCOMING.with(|incoming| incoming.replace(fds)));
    decode()
}

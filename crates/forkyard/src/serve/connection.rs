//! A connection, as its handler gets it.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use forkyard_sys::net::{self, End};
use serde::{Deserialize, Serialize};

use super::peer::Peer;
use crate::process::Fd;

/// A client's connection: reads and writes like a stream, and tells who is there.
///
/// It is closed when it is dropped, or when its process ends in any way. Reads and writes are interrupted by no
/// signal; with an idle time-out they fail with [`TimedOut`](io::ErrorKind::TimedOut) when it passes.
#[derive(Debug, Serialize, Deserialize)]
pub struct Connection {
    fd: Fd,
    number: u64,
    peer: [u64; 3],
}

impl Connection {
    /// The arguments of a handler, encoded; the connection's fd goes along as the only one.
    pub(super) fn encode(number: u64, peer: Peer) -> Vec<u8> {
        // A `Fd` travels as its index among the call's fds.
        postcard::to_stdvec(&(0u32, number, peer.words())).unwrap_or_default()
    }

    /// Its number, counted from 1 for the whole server.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.number
    }

    /// The client's address; `None` for a Unix socket.
    #[must_use]
    pub fn peer_addr(&self) -> Option<SocketAddr> {
        match Peer::from_words(self.peer) {
            Peer::Tcp(address) => Some(address),
            Peer::Unix => None,
        }
    }

    /// The address that the client connected to; `None` for a Unix socket.
    #[must_use]
    pub fn local_addr(&self) -> Option<SocketAddr> {
        match net::local(&self.fd) {
            Ok(End::Tcp(address)) => Some(address),
            _ => None,
        }
    }

    /// Says that nothing more will be written: the client sees the end of the stream.
    ///
    /// # Errors
    /// The client is gone.
    pub fn finish_sending(&self) -> io::Result<()> {
        Ok(net::finish_sending(&self.fd)?)
    }

    /// The socket itself.
    #[must_use]
    pub fn into_fd(self) -> OwnedFd {
        self.fd.into()
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Read for &Connection {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        net::receive(&self.fd, buffer, true).map_err(timed_out)
    }
}

impl Write for &Connection {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        net::send(&self.fd, buffer, true).map_err(timed_out)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for Connection {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        (&*self).read(buffer)
    }
}

impl Write for Connection {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        (&*self).write(buffer)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A blocking socket says EAGAIN when its time-out has passed.
fn timed_out(errno: forkyard_sys::Errno) -> io::Error {
    match errno {
        forkyard_sys::Errno::AGAIN => io::ErrorKind::TimedOut.into(),
        errno => errno.into(),
    }
}

//! Descriptors of files, sockets and connections, sent over a pipe: as Python's `multiprocessing.reduction.send_handle` and `recv_handle` do
//! it, a byte that says how many come with it, which is one.
//!
//! Killed here: a descriptor that was sent is the kernel's until it is received, and is closed with the last end that could receive it.

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use forkyard_sys::poll::PollFlags;
use forkyard_sys::{Errno, net, socket};

use super::{Connection, failed};
use crate::error::{Error, Kind, Result};
use crate::time::Deadline;

const SEND: &str = "send a descriptor";
const RECEIVE: &str = "receive a descriptor";

impl Connection {
    /// Sends a descriptor of an open file, socket or connection (Python: `reduction.send_handle`). The other end has a descriptor of its own then,
    /// and receives it by [`recv_fd`](Connection::recv_fd). Only Unix sockets and pipes of [`pipe`](super::pipe) carry descriptors.
    ///
    /// # Errors
    /// This connection carries none; else as [`send_bytes`](Connection::send_bytes).
    pub fn send_fd(&self, fd: impl AsFd) -> Result<()> {
        self.send_fd_until(fd, Deadline::NEVER)
    }

    /// As [`send_fd`](Connection::send_fd), for so long.
    ///
    /// # Errors
    /// [`is_timeout`](Error::is_timeout) when the time has passed. Else as [`send_fd`](Connection::send_fd).
    pub fn send_fd_timeout(&self, fd: impl AsFd, timeout: Duration) -> Result<()> {
        self.send_fd_until(fd, Deadline::after(timeout))
    }

    /// As [`send_fd_timeout`](Connection::send_fd_timeout), until an instant.
    ///
    /// # Errors
    /// As [`send_fd_timeout`](Connection::send_fd_timeout).
    pub fn send_fd_deadline(&self, fd: impl AsFd, deadline: Instant) -> Result<()> {
        self.send_fd_until(fd, deadline.into())
    }

    fn send_fd_until(&self, fd: impl AsFd, deadline: Deadline) -> Result<()> {
        self.carries_fds(SEND)?;
        let mut outgoing = self.outgoing.take(SEND, deadline)?;
        self.flush_rest(&mut outgoing, deadline)?;
        loop {
            match socket::send(&self.fd, &[1], &[fd.as_fd()], true) {
                Ok(()) => return Ok(()),
                Err(Errno::AGAIN) => self.ready(PollFlags::OUT, deadline)?,
                Err(errno) => return Err(failed(SEND, errno)),
            }
        }
    }

    /// Receives a descriptor, which is closed on exec.
    ///
    /// # Errors
    /// Bytes came without one: nobody knows then where the next message begins, and the connection is of no more use. It is in the middle of a
    /// message. Else as [`recv_bytes`](Connection::recv_bytes).
    pub fn recv_fd(&self) -> Result<OwnedFd> {
        self.recv_fd_until(Deadline::NEVER)
    }

    /// As [`recv_fd`](Connection::recv_fd), for so long.
    ///
    /// # Errors
    /// [`is_timeout`](Error::is_timeout) when the time has passed. Else as [`recv_fd`](Connection::recv_fd).
    pub fn recv_fd_timeout(&self, timeout: Duration) -> Result<OwnedFd> {
        self.recv_fd_until(Deadline::after(timeout))
    }

    /// As [`recv_fd_timeout`](Connection::recv_fd_timeout), until an instant.
    ///
    /// # Errors
    /// As [`recv_fd_timeout`](Connection::recv_fd_timeout).
    pub fn recv_fd_deadline(&self, deadline: Instant) -> Result<OwnedFd> {
        self.recv_fd_until(deadline.into())
    }

    fn recv_fd_until(&self, deadline: Deadline) -> Result<OwnedFd> {
        self.carries_fds(RECEIVE)?;
        let incoming = self.incoming.take(RECEIVE, deadline)?;
        if incoming.is_begun() {
            let why = "part of a message has arrived; receive the rest of it first".to_owned();
            return Err(Error::new(RECEIVE, Kind::Invalid(why)));
        }
        loop {
            match net::receive_with_fd(&self.fd, &mut [0], deadline == Deadline::NEVER) {
                Ok((0, _)) => {
                    let why = "the other end is gone".to_owned();
                    return Err(Error::new(RECEIVE, Kind::Disconnected(why)));
                }
                Ok((_, Some(fd))) => return Ok(fd),
                Ok((_, None)) => {
                    // ENOTCONN: it is gone.
                    let _ = net::hang_up(&self.fd);
                    return Err(Error::new(RECEIVE, Kind::Protocol("bytes came without one".to_owned())));
                }
                Err(Errno::AGAIN) => self.ready(PollFlags::IN, deadline)?,
                Err(errno) => return Err(failed(RECEIVE, errno)),
            }
        }
    }

    pub(super) fn carries_fds(&self, what: &str) -> Result<()> {
        if socket::is_local(&self.fd) {
            return Ok(());
        }
        let why = "only pipes and connections over Unix sockets carry descriptors".to_owned();
        Err(Error::new(what, Kind::Invalid(why)))
    }
}

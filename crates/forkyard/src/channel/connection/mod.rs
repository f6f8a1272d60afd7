//! Pipes and sockets that carry messages.
//!
//! A [`Connection`] is one end of a stream; its frames are those of Python's `multiprocessing.connection`, so a Python process may have
//! the other end. [`pipe`] makes two that belong together; [`Listener`] and [`connect`] make them over a Unix socket or TCP, after both sides
//! have shown that they know the same key.
//!
//! Killed here: what a process had sent whole arrives; of a half-sent message the receiver gets none and is told that the other end is
//! gone. The kernel closes what the dead had open.

#[cfg(feature = "tokio")]
mod async_connection;
#[cfg(feature = "tokio")]
mod async_listener;
mod auth;
mod descriptor;
mod frame;
#[cfg(test)]
mod fuzz;
mod listener;
mod turn;

use std::fmt;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use forkyard_sys::poll::{PollFd, PollFlags, poll};
use forkyard_sys::{Errno, net, socket};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

#[cfg(feature = "tokio")]
pub use self::async_connection::AsyncConnection;
#[cfg(feature = "tokio")]
pub use self::async_listener::AsyncListener;
pub use self::auth::AuthKey;
pub use self::listener::{Address, Client, Listener, connect};

use self::frame::{Incoming, Wrong, header};
use self::turn::Turn;
use crate::codec;
use crate::error::{Error, Kind, Result};
use crate::fd::Fd;
use crate::time::Deadline;

const SEND: &str = "send a message";
/// Messages up to this size are sent with their header in one piece.
const TOGETHER: usize = 16 * 1024;

/// One end of a pipe or of a socket, that carries messages.
///
/// All of it may be used by several threads at a time: each message is one thread's, and the others wait for their turn. It travels among the arguments of a task as [`Fd`] does: both processes have it
/// then, and the other end sees the end of the stream only when all have dropped it.
pub struct Connection {
    fd: Fd,
    incoming: Turn<Incoming>,
    outgoing: Turn<Outgoing>,
}

/// The rest of a message whose sender's time was up in the middle of it; it goes first.
#[derive(Default)]
struct Outgoing {
    rest: Vec<u8>,
    sent: usize,
}

/// Makes a pipe that goes both ways: what is sent at one end is received at the other.
///
/// ```
/// use forkyard::channel::{Connection, pipe};
/// use forkyard::process;
///
/// #[forkyard::task]
/// fn answer(parent: Connection) {
///     let question: String = parent.recv().unwrap();
///     parent.send(&question.len()).unwrap();
/// }
///
/// let (ours, theirs) = pipe()?;
/// let child = process::spawn(answer, (theirs,))?;
/// ours.send(&"how long?")?;
/// assert_eq!(ours.recv::<usize>()?, 9);
/// child.join()?;
/// assert!(ours.recv::<usize>().unwrap_err().is_disconnected());
/// # Ok::<(), forkyard::Error>(())
/// ```
///
/// # Errors
/// No descriptor left.
#[doc(alias = "Pipe")]
#[doc(alias = "socketpair")]
pub fn pipe() -> Result<(Connection, Connection)> {
    let (one, other) = socket::stream_pair().map_err(|errno| Error::os("make a pipe", errno))?;
    Ok((Connection::over(one), Connection::over(other)))
}

/// Makes a pipe that goes one way: the first end receives what is sent at the second.
///
/// # Errors
/// No descriptor left.
pub fn pipe_one_way() -> Result<(Connection, Connection)> {
    let (reader, writer) = pipe()?;
    let shut = net::finish_sending(&reader.fd).and_then(|()| net::finish_receiving(&writer.fd));
    shut.map_err(|errno| Error::os("make a pipe", errno))?;
    Ok((reader, writer))
}

/// Waits until at least one of these can be read from without waiting, or is closed at its other end: connections, handles of processes, and
/// whatever else has a descriptor. Tells which, by their places; none when the time has passed.
///
/// # Errors
/// As poll(2).
pub fn wait(objects: &[BorrowedFd<'_>], timeout: Option<Duration>) -> Result<Vec<usize>> {
    let deadline = timeout.map_or(Deadline::NEVER, Deadline::after);
    let mut fds: Vec<_> = objects.iter().map(|fd| PollFd::from_borrowed_fd(*fd, PollFlags::IN)).collect();
    poll(&mut fds, deadline.timeout()).map_err(|errno| Error::os("wait for connections", errno))?;
    Ok((0..).zip(&fds).filter(|(_, fd)| !fd.revents().is_empty()).map(|(place, _)| place).collect())
}

impl Connection {
    fn over(fd: OwnedFd) -> Connection {
        Connection { fd: fd.into(), incoming: Turn::default(), outgoing: Turn::default() }
    }

    /// Sends a value. Descriptors in it ([`Fd`], connections) travel with it, where the connection is a pipe or over a Unix socket: the other
    /// end has descriptors of its own for them then.
    ///
    /// # Errors
    /// It cannot be encoded, or this connection carries no descriptors; else as [`send_bytes`](Connection::send_bytes).
    pub fn send<T: Serialize + ?Sized>(&self, value: &T) -> Result<()> {
        self.send_until(value, Deadline::NEVER)
    }

    /// As [`send`](Connection::send), for so long.
    ///
    /// # Errors
    /// As [`send_bytes_timeout`](Connection::send_bytes_timeout).
    pub fn send_timeout<T: Serialize + ?Sized>(&self, value: &T, timeout: Duration) -> Result<()> {
        self.send_until(value, Deadline::after(timeout))
    }

    /// As [`send_timeout`](Connection::send_timeout), until an instant.
    ///
    /// # Errors
    /// As [`send_bytes_timeout`](Connection::send_bytes_timeout).
    pub fn send_deadline<T: Serialize + ?Sized>(&self, value: &T, deadline: Instant) -> Result<()> {
        self.send_until(value, deadline.into())
    }

    fn send_until<T: Serialize + ?Sized>(&self, value: &T, deadline: Deadline) -> Result<()> {
        let (message, fds) = self.encoded(value)?;
        self.send_with_until(&message, &fds, deadline)
    }

    /// A value's bytes, and copies of the descriptors in it.
    fn encoded<T: Serialize + ?Sized>(&self, value: &T) -> Result<(Vec<u8>, Vec<OwnedFd>)> {
        const WHAT: &str = "encode a message";
        let ((message, outgoing), handles) =
            crate::shm::outgoing(|| crate::fd::outgoing(|| codec::to_vec(value)));
        if let Some(errno) = outgoing.refused {
            return Err(Error::os(WHAT, errno));
        }
        if !handles.is_empty() {
            // The other end may be anybody's, and nobody could tell what is on its way.
            let why = "a shared object does not travel over a connection; put it into a queue, or give it to a task as an argument";
            return Err(Error::new(WHAT, Kind::Invalid(why.to_owned())));
        }
        let message = message.map_err(|error| Error::new(WHAT, Kind::Codec(codec::explain(&error))))?;
        let (count, most) = (outgoing.fds.len(), crate::fd::MAX_FDS);
        if count > most {
            let why = format!("{count} file descriptors, and one message carries at most {most}");
            return Err(Error::new(WHAT, Kind::Invalid(why)));
        }
        if count > 0 {
            self.carries_fds(SEND)?;
        }
        Ok((message, outgoing.fds))
    }

    /// Receives a value.
    ///
    /// # Errors
    /// The message is no such value; else as [`recv_bytes`](Connection::recv_bytes).
    pub fn recv<T: DeserializeOwned>(&self) -> Result<T> {
        decoded(self.recv_until(u64::MAX, Deadline::NEVER)?)
    }

    /// As [`recv`](Connection::recv), for so long.
    ///
    /// # Errors
    /// As [`recv_bytes_timeout`](Connection::recv_bytes_timeout).
    pub fn recv_timeout<T: DeserializeOwned>(&self, timeout: Duration) -> Result<T> {
        decoded(self.recv_until(u64::MAX, Deadline::after(timeout))?)
    }

    /// As [`recv_timeout`](Connection::recv_timeout), until an instant.
    ///
    /// # Errors
    /// As [`recv_bytes_timeout`](Connection::recv_bytes_timeout).
    pub fn recv_deadline<T: DeserializeOwned>(&self, deadline: Instant) -> Result<T> {
        decoded(self.recv_until(u64::MAX, deadline.into())?)
    }

    /// As [`recv`](Connection::recv), if a whole message is there.
    ///
    /// # Errors
    /// As [`try_recv_bytes`](Connection::try_recv_bytes).
    pub fn try_recv<T: DeserializeOwned>(&self) -> Result<T> {
        decoded(self.recv_until(u64::MAX, Deadline::after(Duration::ZERO))?)
    }

    /// Sends a message of bytes.
    ///
    /// # Errors
    /// [`is_disconnected`](Error::is_disconnected): the other end is gone.
    pub fn send_bytes(&self, message: &[u8]) -> Result<()> {
        self.send_bytes_until(message, Deadline::NEVER)
    }

    /// As [`send_bytes`](Connection::send_bytes), for so long.
    ///
    /// # Errors
    /// [`is_timeout`](Error::is_timeout) when the time has passed: what is left of a message that was begun is kept, and sent before the next
    /// one, or by [`flush_timeout`](Connection::flush_timeout). Else as [`send_bytes`](Connection::send_bytes).
    pub fn send_bytes_timeout(&self, message: &[u8], timeout: Duration) -> Result<()> {
        self.send_bytes_until(message, Deadline::after(timeout))
    }

    /// As [`send_bytes_timeout`](Connection::send_bytes_timeout), until an instant.
    ///
    /// # Errors
    /// As [`send_bytes_timeout`](Connection::send_bytes_timeout).
    pub fn send_bytes_deadline(&self, message: &[u8], deadline: Instant) -> Result<()> {
        self.send_bytes_until(message, deadline.into())
    }

    fn send_bytes_until(&self, message: &[u8], deadline: Deadline) -> Result<()> {
        self.send_with_until(message, &[], deadline)
    }

    /// The same with descriptors, which come with the first byte of its header.
    fn send_with_until(&self, message: &[u8], fds: &[OwnedFd], deadline: Deadline) -> Result<()> {
        let mut outgoing = self.outgoing.take(SEND, deadline)?;
        self.flush_rest(&mut outgoing, deadline)?;
        let (header, len) = header(message.len() as u64);
        if !fds.is_empty() {
            self.push_fds(&header[..len], fds, deadline)?;
        } else if message.len() <= TOGETHER {
            outgoing.rest.clear();
            outgoing.rest.extend_from_slice(&header[..len]);
            outgoing.rest.extend_from_slice(message);
            outgoing.sent = 0;
            let result = self.flush_rest(&mut outgoing, deadline);
            if result.is_err() && outgoing.sent == 0 {
                // Not begun, so it was not sent at all.
                outgoing.rest.clear();
            }
            return result;
        }
        if fds.is_empty() {
            self.push(&header[..len], deadline).map_err(|(sent, error)| {
                if sent > 0 {
                    outgoing.keep(&header[sent..len], message);
                }
                error
            })?;
        }
        match self.push(message, deadline) {
            Ok(_) => Ok(()),
            Err((some, error)) => {
                outgoing.keep(&[], &message[some..]);
                Err(error)
            }
        }
    }

    /// True if a message was begun, and the sender's time was up before all of it was sent: the rest goes first.
    ///
    /// After a time-out this tells a message that was begun, and will arrive, from one that was not, and may be sent again.
    #[must_use]
    pub fn is_unfinished(&self) -> bool {
        self.outgoing.take(SEND, Deadline::NEVER).is_ok_and(|outgoing| outgoing.is_unfinished())
    }

    /// Sends what is left of a message that was begun, for so long.
    ///
    /// # Errors
    /// As [`send_bytes_timeout`](Connection::send_bytes_timeout).
    pub fn flush_timeout(&self, timeout: Duration) -> Result<()> {
        let deadline = Deadline::after(timeout);
        let mut outgoing = self.outgoing.take(SEND, deadline)?;
        self.flush_rest(&mut outgoing, deadline)
    }

    /// Sends what was left of an earlier message.
    fn flush_rest(&self, outgoing: &mut Outgoing, deadline: Deadline) -> Result<()> {
        if outgoing.is_unfinished() {
            match self.push(&outgoing.rest[outgoing.sent..], deadline) {
                Ok(_) => {}
                Err((sent, error)) => {
                    outgoing.sent += sent;
                    return Err(error);
                }
            }
        }
        outgoing.rest.clear();
        outgoing.sent = 0;
        Ok(())
    }

    /// Sends all of these bytes; with an error, how many were sent.
    fn push(&self, bytes: &[u8], deadline: Deadline) -> std::result::Result<usize, (usize, Error)> {
        let mut sent = 0;
        while sent < bytes.len() {
            match net::send(&self.fd, &bytes[sent..], deadline == Deadline::NEVER) {
                Ok(count) => sent += count,
                Err(Errno::AGAIN) => self.ready(PollFlags::OUT, deadline).map_err(|error| (sent, error))?,
                Err(errno) => return Err((sent, failed(SEND, errno))),
            }
        }
        Ok(sent)
    }

    /// Sends the few bytes of a header, all or none, and descriptors with them.
    fn push_fds(&self, header: &[u8], fds: &[OwnedFd], deadline: Deadline) -> Result<()> {
        let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
        loop {
            match socket::send(&self.fd, header, &fds, true) {
                Ok(()) => return Ok(()),
                Err(Errno::AGAIN) => self.ready(PollFlags::OUT, deadline)?,
                Err(errno) => return Err(failed(SEND, errno)),
            }
        }
    }

    /// Receives a message of bytes.
    ///
    /// # Errors
    /// [`is_disconnected`](Error::is_disconnected): the last other end is gone, by a drop or a death. The peer sends what is no message.
    pub fn recv_bytes(&self) -> Result<Vec<u8>> {
        self.recv_bytes_until(u64::MAX, Deadline::NEVER)
    }

    /// As [`recv_bytes`](Connection::recv_bytes), if a message is there or begins to be: one that does not come whole at once is
    /// left for the next time.
    ///
    /// # Errors
    /// [`is_timeout`](Error::is_timeout): no whole message is there. Else as [`recv_bytes`](Connection::recv_bytes).
    pub fn try_recv_bytes(&self) -> Result<Vec<u8>> {
        self.recv_bytes_until(u64::MAX, Deadline::after(Duration::ZERO))
    }

    /// As [`recv_bytes`](Connection::recv_bytes), for so long.
    ///
    /// # Errors
    /// [`is_timeout`](Error::is_timeout) when the time has passed: what has arrived of a message is kept for the next time. Else as
    /// [`recv_bytes`](Connection::recv_bytes).
    pub fn recv_bytes_timeout(&self, timeout: Duration) -> Result<Vec<u8>> {
        self.recv_bytes_until(u64::MAX, Deadline::after(timeout))
    }

    /// As [`recv_bytes_timeout`](Connection::recv_bytes_timeout), until an instant.
    ///
    /// # Errors
    /// As [`recv_bytes_timeout`](Connection::recv_bytes_timeout).
    pub fn recv_bytes_deadline(&self, deadline: Instant) -> Result<Vec<u8>> {
        self.recv_bytes_until(u64::MAX, deadline.into())
    }

    /// As [`recv_bytes`](Connection::recv_bytes), of at most so many bytes: a longer message is an error, after which the connection is of no more use.
    ///
    /// # Errors
    /// As [`recv_bytes`](Connection::recv_bytes).
    pub fn recv_bytes_most(&self, most: u64) -> Result<Vec<u8>> {
        self.recv_bytes_until(most, Deadline::NEVER)
    }

    /// As [`recv_bytes_most`](Connection::recv_bytes_most), if a whole message is there.
    ///
    /// # Errors
    /// As [`try_recv_bytes`](Connection::try_recv_bytes).
    pub fn try_recv_bytes_most(&self, most: u64) -> Result<Vec<u8>> {
        self.recv_bytes_until(most, Deadline::after(Duration::ZERO))
    }

    /// As [`recv_bytes_most`](Connection::recv_bytes_most), for so long.
    ///
    /// # Errors
    /// As [`recv_bytes_timeout`](Connection::recv_bytes_timeout).
    pub fn recv_bytes_most_timeout(&self, most: u64, timeout: Duration) -> Result<Vec<u8>> {
        self.recv_bytes_until(most, Deadline::after(timeout))
    }

    /// As [`recv_bytes_most_timeout`](Connection::recv_bytes_most_timeout), until an instant.
    ///
    /// # Errors
    /// As [`recv_bytes_timeout`](Connection::recv_bytes_timeout).
    pub fn recv_bytes_most_deadline(&self, most: u64, deadline: Instant) -> Result<Vec<u8>> {
        self.recv_bytes_until(most, deadline.into())
    }

    fn recv_bytes_until(&self, most: u64, deadline: Deadline) -> Result<Vec<u8>> {
        // Descriptors that nobody asked for are closed.
        self.recv_until(most, deadline).map(|(message, _)| message)
    }

    /// Receives a message, and the descriptors that came with it.
    fn recv_until(&self, most: u64, deadline: Deadline) -> Result<(Vec<u8>, Vec<OwnedFd>)> {
        const WHAT: &str = "receive a message";
        let mut incoming = self.incoming.take(WHAT, deadline)?;
        loop {
            let dont_wait = deadline != Deadline::NEVER;
            match incoming.receive(|room, fds| socket::receive(&self.fd, room, fds, dont_wait)) {
                Ok(0) => {
                    let why = match () {
                        () if incoming.is_refused() => {
                            "it was given up here, when what came was no message, or too long"
                        }
                        () if incoming.is_begun() => "the other end is gone, in the middle of a message",
                        () => "the other end is gone",
                    };
                    return Err(Error::new(WHAT, Kind::Disconnected(why.to_owned())));
                }
                Ok(count) => match incoming.filled(count, most) {
                    Ok(true) => return Ok(incoming.take()),
                    Ok(false) => {}
                    Err(wrong) => return Err(self.give_up(wrong)),
                },
                Err(Errno::AGAIN) => self.ready(PollFlags::IN, deadline)?,
                Err(errno) => return Err(failed(WHAT, errno)),
            }
        }
    }

    /// The peer sends nonsense: nobody knows where its next message would begin.
    fn give_up(&self, wrong: Wrong) -> Error {
        // ENOTCONN: it is gone.
        let _ = net::hang_up(&self.fd);
        Error::new("receive a message", Kind::Protocol(wrong.text()))
    }

    /// True if a message, or part of one, or the end of the stream is there, or comes within the time.
    ///
    /// # Errors
    /// As poll(2).
    pub fn poll(&self, timeout: Duration) -> Result<bool> {
        Ok(!wait(&[self.as_fd()], Some(timeout))?.is_empty())
    }

    fn ready(&self, flags: PollFlags, deadline: Deadline) -> Result<()> {
        let mut fds = [PollFd::from_borrowed_fd(self.fd.as_fd(), flags)];
        let what = if flags == PollFlags::OUT { SEND } else { "receive a message" };
        match poll(&mut fds, deadline.timeout()) {
            Ok(0) => Err(Error::new(what, Kind::TimedOut)),
            Ok(_) => Ok(()),
            Err(errno) => Err(Error::os(what, errno)),
        }
    }
}

impl Outgoing {
    fn is_unfinished(&self) -> bool {
        self.sent < self.rest.len()
    }

    fn keep(&mut self, header: &[u8], message: &[u8]) {
        self.rest = [header, message].concat();
        self.sent = 0;
    }
}

fn decoded<T: DeserializeOwned>((bytes, fds): (Vec<u8>, Vec<OwnedFd>)) -> Result<T> {
    crate::fd::incoming(fds, || postcard::from_bytes(&bytes))
        .map_err(|error| Error::new("decode a message", Kind::Codec(codec::explain(&error))))
}

fn failed(what: &str, errno: Errno) -> Error {
    match errno {
        Errno::PIPE | Errno::CONNRESET => {
            Error::new(what, Kind::Disconnected("the other end is gone".to_owned()))
        }
        errno => Error::os(what, errno),
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AsRawFd for Connection {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

impl From<OwnedFd> for Connection {
    /// Takes over a stream socket, of Python's making for instance.
    fn from(socket: OwnedFd) -> Connection {
        Connection::over(socket)
    }
}

impl From<Connection> for OwnedFd {
    fn from(connection: Connection) -> OwnedFd {
        connection.fd.into()
    }
}

impl Serialize for Connection {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        self.fd.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Connection {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Connection, D::Error> {
        Fd::deserialize(deserializer).map(|fd| Connection::over(fd.into()))
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Connection({:?})", self.fd)
    }
}

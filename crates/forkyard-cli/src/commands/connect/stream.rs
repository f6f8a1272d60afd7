//! A connection, whatever it runs over: reading and writing ends that two threads use at once.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::time::Instant;

use crate::address::{HostPort, Peer};

#[derive(Debug)]
pub(super) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Stream {
    /// Connects, to the first address of the host that answers, or fails with the last address's error.
    pub(super) fn connect(to: &Peer, deadline: Option<Instant>) -> io::Result<Stream> {
        match to {
            Peer::Unix(path) => UnixStream::connect(path).map(Stream::Unix),
            Peer::Tcp(to) => {
                let mut last = None;
                for address in resolve(to)? {
                    match connect(&address, deadline) {
                        Ok(stream) => return Ok(Stream::Tcp(stream)),
                        Err(error) => last = Some(error),
                    }
                }
                Err(last
                    .unwrap_or_else(|| io::Error::other(format!("the host \"{}\" has no address", to.host))))
            }
        }
    }

    /// Says that nothing more will be sent; the peer's answers still arrive.
    pub(super) fn end_sending(&self) -> io::Result<()> {
        match self {
            Stream::Tcp(stream) => stream.shutdown(Shutdown::Write),
            Stream::Unix(stream) => stream.shutdown(Shutdown::Write),
        }
    }

    /// Reads what is there; 0 when the peer has said everything.
    pub(super) fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        retry(|| match self {
            Stream::Tcp(stream) => (&*stream).read(buffer),
            Stream::Unix(stream) => (&*stream).read(buffer),
        })
    }

    /// Sends all of it.
    pub(super) fn send(&self, data: &[u8]) -> io::Result<()> {
        match self {
            Stream::Tcp(stream) => (&*stream).write_all(data),
            Stream::Unix(stream) => (&*stream).write_all(data),
        }
    }
}

fn resolve(to: &HostPort) -> io::Result<impl Iterator<Item = SocketAddr>> {
    (to.host.as_str(), to.port).to_socket_addrs().map_err(|error| {
        let error = error.to_string();
        // The C library's reason, without the words that are put before it.
        let reason = error.rsplit(": ").next().unwrap_or(&error);
        io::Error::other(format!("the host \"{}\" is not known ({reason})", to.host))
    })
}

fn connect(to: &SocketAddr, deadline: Option<Instant>) -> io::Result<TcpStream> {
    let stream = match deadline.map(|at| at.saturating_duration_since(Instant::now())) {
        None => TcpStream::connect(to)?,
        Some(left) if left.is_zero() => return Err(io::ErrorKind::TimedOut.into()),
        Some(left) => TcpStream::connect_timeout(to, left)?,
    };
    // Lines go out when they are typed.
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Repeats a call that a signal interrupted.
pub(super) fn retry<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}

//! Connections between processes that have nothing in common but an address and a key.
//!
//! A peer that has not shown that it knows the key holds up nobody: all handshakes go on at the same time, each has its time, and whoever
//! sends nonsense, too much or nothing is dropped and counted.

use std::collections::VecDeque;
use std::fmt;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use forkyard_sys::net::{self, End};
use forkyard_sys::poll::{PollFd, PollFlags, poll};
use forkyard_sys::{Errno, pidfd};

use super::Connection;
use super::auth::{AuthKey, Handshake, LONGEST};
use super::turn::Turn;
use crate::error::{Error, Kind, Result};
use crate::time::Deadline;

/// How long a handshake may take, unless it is said otherwise: of both sides.
const PATIENCE: Duration = Duration::from_secs(10);
/// Most handshakes at a time; of more, the oldest is dropped whose peer has not shown the key.
const MOST_PENDING: usize = 128;
const BACKLOG: u32 = 128;

/// Where a listener listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// TCP.
    Tcp(SocketAddr),
    /// A Unix socket; its file is 0600 from its creation, and other users are not let in.
    Unix(PathBuf),
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Address {
        Address::Tcp(address)
    }
}

impl From<PathBuf> for Address {
    fn from(path: PathBuf) -> Address {
        Address::Unix(path)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Tcp(address) => address.fmt(f),
            Address::Unix(path) => path.display().fmt(f),
        }
    }
}

/// Accepts connections, also of Python's `multiprocessing.connection.Client`.
///
/// Dropping it removes the file of a Unix socket, and drops connections whose handshake is not through.
pub struct Listener {
    socket: OwnedFd,
    address: Address,
    key: Option<AuthKey>,
    allow_md5: bool,
    patience: Duration,
    pending: Turn<VecDeque<Pending>>,
    dropped: AtomicU64,
    /// Tells a task's reactor of those who are pending.
    #[cfg(feature = "tokio")]
    pub(super) watch: Option<super::async_listener::Watch>,
}

/// A connection whose handshake is not through.
struct Pending {
    connection: Connection,
    handshake: Handshake,
    until: Instant,
}

/// What came of going on with a handshake.
enum Step {
    /// Both sides believe each other.
    Through(Connection),
    /// A frame of it has come, and was answered.
    Frame,
    /// No whole frame has come.
    Nothing,
    /// The peer is dropped, and counted.
    Dropped,
}

impl Listener {
    /// Listens at this address; port 0 lets the kernel choose one.
    ///
    /// # Errors
    /// [`errno`](Error::errno) `EADDRINUSE`: somebody else does, or there is a file; `EACCES`, `EADDRNOTAVAIL`, `ENOENT`: as bind(2).
    pub fn bind(address: impl Into<Address>) -> Result<Listener> {
        let address = address.into();
        let socket = match &address {
            Address::Tcp(address) => net::listen_tcp(*address, BACKLOG),
            Address::Unix(path) => net::listen_unix(path, BACKLOG),
        };
        let socket = socket.map_err(|errno| Error::os(format!("listen at {address}"), errno))?;
        let address = match net::local(&socket) {
            Ok(End::Tcp(bound)) => Address::Tcp(bound),
            _ => address,
        };
        Ok(Listener {
            socket,
            address,
            key: None,
            allow_md5: false,
            patience: PATIENCE,
            pending: Turn::default(),
            dropped: AtomicU64::new(0),
            #[cfg(feature = "tokio")]
            watch: None,
        })
    }

    /// Lets in only who knows this key. Without one, everybody who can connect is let in.
    #[must_use]
    pub fn authkey(mut self, key: AuthKey) -> Listener {
        self.key = Some(key);
        self
    }

    /// Believes responses by MD5 as well: Python before 3.12 has no others.
    #[must_use]
    pub fn allow_md5(mut self) -> Listener {
        self.allow_md5 = true;
        self
    }

    /// How long a peer may take to show that it knows the key: 10 s, unless it is said here.
    #[must_use]
    pub fn handshake_timeout(mut self, timeout: Duration) -> Listener {
        self.patience = timeout;
        self
    }

    /// Where it listens, with the port that the kernel chose.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// How many peers were dropped because they did not know the key, sent nonsense or took too long.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Waits for a connection whose peer knows the key.
    ///
    /// # Errors
    /// As accept(2).
    pub fn accept(&self) -> Result<Connection> {
        self.accept_until(Deadline::NEVER)
    }

    /// As [`accept`](Listener::accept), without waiting.
    ///
    /// # Errors
    /// [`is_timeout`](Error::is_timeout): there is none. Else as [`accept`](Listener::accept).
    pub fn try_accept(&self) -> Result<Connection> {
        self.accept_until(Deadline::after(Duration::ZERO))
    }

    /// As [`accept`](Listener::accept), for so long.
    ///
    /// # Errors
    /// [`is_timeout`](Error::is_timeout) when the time has passed. Else as [`accept`](Listener::accept).
    pub fn accept_timeout(&self, timeout: Duration) -> Result<Connection> {
        self.accept_until(Deadline::after(timeout))
    }

    /// As [`accept_timeout`](Listener::accept_timeout), until an instant.
    ///
    /// # Errors
    /// As [`accept_timeout`](Listener::accept_timeout).
    pub fn accept_deadline(&self, deadline: Instant) -> Result<Connection> {
        self.accept_until(deadline.into())
    }

    fn accept_until(&self, deadline: Deadline) -> Result<Connection> {
        let what = || format!("accept a connection at {}", self.address);
        let mut pending = self.pending.take(&what(), deadline)?;
        loop {
            let (came, ready) = self.poll(&pending, deadline)?;
            let now = Instant::now();
            // From the last to the first, so that places stay right.
            for place in (0..pending.len()).rev() {
                let step =
                    if ready.contains(&place) { self.go_on(&mut pending, place) } else { Step::Nothing };
                match step {
                    Step::Through(connection) => return Ok(connection),
                    Step::Dropped => {}
                    Step::Frame | Step::Nothing if pending[place].until > now => {}
                    // It has answered while nobody accepted, and is not late.
                    Step::Frame => pending[place].until = now + self.patience,
                    Step::Nothing => self.drop_pending(&mut pending, place),
                }
            }
            if came && let Some(connection) = self.take_in(&mut pending)? {
                return Ok(connection);
            }
            // Also if more come all the time.
            if deadline.has_passed() {
                return Err(Error::new(what(), Kind::TimedOut));
            }
        }
    }

    /// Waits until something can be done: whether a connection has come, and which handshakes can go on.
    fn poll(&self, pending: &VecDeque<Pending>, deadline: Deadline) -> Result<(bool, Vec<usize>)> {
        let sockets =
            std::iter::once(self.socket.as_fd()).chain(pending.iter().map(|peer| peer.connection.as_fd()));
        let mut fds: Vec<_> = sockets.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)).collect();
        let first = pending.iter().map(|peer| peer.until).min();
        let until = deadline.timeout().into_iter().chain(first).min();
        poll(&mut fds, until).map_err(|errno| Error::os("wait for a connection", errno))?;
        let ready = (0..).zip(&fds[1..]).filter(|(_, fd)| !fd.revents().is_empty()).map(|(place, _)| place);
        Ok((!fds[0].revents().is_empty(), ready.collect()))
    }

    /// Takes connections in, as many as may be pending; one that needs no handshake is the result.
    fn take_in(&self, pending: &mut VecDeque<Pending>) -> Result<Option<Connection>> {
        for _ in 0..MOST_PENDING {
            let socket = match net::accept(&self.socket) {
                Ok((socket, _)) => socket,
                Err(Errno::AGAIN | Errno::CONNABORTED) => return Ok(None),
                Err(errno) => {
                    return Err(Error::os(format!("accept a connection at {}", self.address), errno));
                }
            };
            if !self.is_welcome(&socket) {
                self.count(1);
                continue;
            }
            let connection = Connection::from(socket);
            let Some(key) = &self.key else { return Ok(Some(connection)) };
            let (handshake, first) = Handshake::accepting(key.clone(), self.allow_md5)?;
            if connection.send_bytes_timeout(&first, Duration::ZERO).is_err() {
                self.count(1);
                continue;
            }
            #[cfg(feature = "tokio")]
            if let Some(watch) = &self.watch {
                watch.begin(&connection)?;
            }
            if pending.len() >= MOST_PENDING {
                // The oldest of those who have shown nothing: who has shown the key may take itself for let in.
                let stranger = pending.iter().position(|peer| !peer.handshake.believes());
                self.drop_pending(pending, stranger.unwrap_or(0));
            }
            pending.push_back(Pending { connection, handshake, until: Instant::now() + self.patience });
        }
        Ok(None)
    }

    /// Over a Unix socket, this user and root.
    fn is_welcome(&self, socket: &OwnedFd) -> bool {
        match self.address {
            Address::Tcp(_) => true,
            Address::Unix(_) => {
                let own = pidfd::own_rights()[0];
                net::peer_credentials(socket).is_ok_and(|(_, uid, _)| uid == own || uid == 0)
            }
        }
    }

    /// Goes on with a handshake.
    fn go_on(&self, pending: &mut VecDeque<Pending>, place: usize) -> Step {
        let Some(peer) = pending.get_mut(place) else { return Step::Nothing };
        match advance(&peer.connection, &mut peer.handshake, Deadline::after(Duration::ZERO)) {
            Ok(true) => match pending.remove(place) {
                Some(peer) => {
                    #[cfg(feature = "tokio")]
                    self.watch.iter().for_each(|watch| watch.end(&peer.connection));
                    Step::Through(peer.connection)
                }
                None => Step::Nothing,
            },
            Ok(false) => Step::Frame,
            Err(error) if error.is_timeout() => Step::Nothing,
            Err(_) => {
                self.drop_pending(pending, place);
                Step::Dropped
            }
        }
    }

    fn drop_pending(&self, pending: &mut VecDeque<Pending>, place: usize) {
        #[cfg(feature = "tokio")]
        if let (Some(watch), Some(peer)) = (&self.watch, pending.get(place)) {
            watch.end(&peer.connection);
        }
        pending.remove(place);
        self.count(1);
    }

    /// When the peer that has taken longest is dropped.
    #[cfg(feature = "tokio")]
    pub(super) fn next_timeout(&self) -> Option<Instant> {
        let pending = self.pending.take("look for late peers", Deadline::NEVER).ok()?;
        pending.iter().map(|peer| peer.until).min()
    }

    /// Watches those who have come so far.
    #[cfg(feature = "tokio")]
    pub(super) fn watch_pending(&self, watch: &super::async_listener::Watch) -> Result<()> {
        let pending = self.pending.take("watch a listener", Deadline::NEVER)?;
        pending.iter().try_for_each(|peer| watch.begin(&peer.connection))
    }

    fn count(&self, more: u64) {
        self.dropped.fetch_add(more, Ordering::Relaxed);
    }
}

/// Takes one frame of a handshake, and answers. True when it is through.
fn advance(connection: &Connection, handshake: &mut Handshake, deadline: Deadline) -> Result<bool> {
    let refused = |why: &str| Error::new("authenticate a connection", Kind::Authentication(why.to_owned()));
    let frame = connection.recv_bytes_until(LONGEST, deadline)?;
    match handshake.received(&frame) {
        Ok(frames) => {
            for frame in frames {
                connection.send_bytes_until(&frame, deadline)?;
            }
            Ok(handshake.is_done())
        }
        Err((refusal, last)) => {
            if let Some(last) = last {
                // It may be gone.
                let _ = connection.send_bytes_until(&last, deadline);
            }
            Err(refused(refusal.text()))
        }
    }
}

impl AsFd for Listener {
    /// Readable when somebody has come, who may not know the key.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Address::Unix(path) = &self.address {
            // ENOENT: somebody has removed it.
            let _ = std::fs::remove_file(path);
        }
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Listener({})", self.address)
    }
}

/// How to connect to a [`Listener`], or to Python's.
#[derive(Clone, Debug)]
pub struct Client {
    address: Address,
    key: Option<AuthKey>,
    allow_md5: bool,
    timeout: Option<Duration>,
}

impl Client {
    /// A client of the listener at this address.
    pub fn new(address: impl Into<Address>) -> Client {
        Client { address: address.into(), key: None, allow_md5: false, timeout: None }
    }

    /// Shows that it knows this key, and has the listener show the same.
    #[must_use]
    pub fn authkey(mut self, key: AuthKey) -> Client {
        self.key = Some(key);
        self
    }

    /// Answers challenges by MD5 as well: Python before 3.12 has no others.
    #[must_use]
    pub fn allow_md5(mut self) -> Client {
        self.allow_md5 = true;
        self
    }

    /// Gives up after so long. Without this it waits for room in the listener's backlog as long as the kernel does, and 10 s for the handshake.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Client {
        self.timeout = Some(timeout);
        self
    }

    /// Connects.
    ///
    /// # Errors
    /// [`errno`](Error::errno) `ECONNREFUSED`, `ENOENT`: nobody listens there; [`is_authentication`](Error::is_authentication): one of the two
    /// does not know the key; [`is_timeout`](Error::is_timeout): it took too long.
    pub fn connect(&self) -> Result<Connection> {
        let deadline = self.timeout.map_or(Deadline::NEVER, Deadline::after);
        let failed = |error: std::io::Error| match error.kind() {
            std::io::ErrorKind::TimedOut => Error::new(self.what(), Kind::TimedOut),
            _ => Error::io(self.what(), &error),
        };
        let socket: OwnedFd = match &self.address {
            Address::Tcp(address) => {
                let stream = match deadline.remaining() {
                    Some(left) => TcpStream::connect_timeout(address, left.max(Duration::from_millis(1))),
                    None => TcpStream::connect(address),
                };
                let stream = stream.map_err(failed)?;
                stream.set_nodelay(true).map_err(failed)?;
                stream.into()
            }
            Address::Unix(path) => {
                net::connect_unix(path, deadline.timeout()).map_err(|errno| match errno {
                    Errno::AGAIN => Error::new(self.what(), Kind::TimedOut),
                    errno => Error::os(self.what(), errno),
                })?
            }
        };
        let connection = Connection::from(socket);
        if let Some(key) = &self.key {
            let mut handshake = Handshake::connecting(key.clone(), self.allow_md5);
            let deadline = if self.timeout.is_some() { deadline } else { Deadline::after(PATIENCE) };
            while !advance(&connection, &mut handshake, deadline)? {}
        }
        Ok(connection)
    }

    fn what(&self) -> String {
        format!("connect to {}", self.address)
    }
}

/// Connects to the listener at this address, showing that both know the key.
///
/// # Errors
/// As [`Client::connect`].
pub fn connect(address: impl Into<Address>, key: AuthKey) -> Result<Connection> {
    Client::new(address).authkey(key).connect()
}

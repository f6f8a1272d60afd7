//! Stream sockets that listen, and what they accept.
//!
//! # Safety
//! The one unsafe block borrows a descriptor by number for the length of a duplication.
#![allow(unsafe_code)]

use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::Mode;
use rustix::io::FdFlags;
use rustix::net::sockopt;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrAny, SocketFlags, SocketType, sockopt::Timeout,
};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage};

use crate::{Errno, Result};

/// One end of a stream socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// Of TCP.
    Tcp(SocketAddr),
    /// Of a Unix socket, with its path where it has one.
    Unix(Option<PathBuf>),
}

/// Opens a TCP listener: address reuse on, IPv6 only for IPv6 addresses, `TCP_NODELAY` for what it accepts;
/// close-on-exec and non-blocking.
///
/// # Errors
/// `EADDRINUSE`, `EADDRNOTAVAIL`, `EACCES`: as bind(2). `EMFILE`, `ENFILE`.
pub fn listen_tcp(address: SocketAddr, backlog: u32) -> Result<OwnedFd> {
    let family = if address.is_ipv6() { AddressFamily::INET6 } else { AddressFamily::INET };
    let socket = rustix::net::socket_with(
        family,
        SocketType::STREAM,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        None,
    )?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    sockopt::set_tcp_nodelay(&socket, true)?;
    rustix::net::bind(&socket, &address)?;
    rustix::net::listen(&socket, i32::try_from(backlog).unwrap_or(i32::MAX))?;
    Ok(socket)
}

/// Opens a Unix listener at `path`, which must be free. Its file is 0600 from creation, whatever the umask;
/// close-on-exec and non-blocking.
///
/// # Errors
/// `EADDRINUSE`: there is a file. `ENAMETOOLONG`, `EACCES`, `ENOENT`: as bind(2).
pub fn listen_unix(path: &Path, backlog: u32) -> Result<OwnedFd> {
    let address = rustix::net::SocketAddrUnix::new(path.as_os_str().as_bytes())?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    // The file takes its mode from the socket's own inode, so it never exists with another one.
    rustix::fs::fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
    rustix::net::bind(&socket, &address)?;
    rustix::net::listen(&socket, i32::try_from(backlog).unwrap_or(i32::MAX))?;
    Ok(socket)
}

/// True if somebody accepts connections at this path.
///
/// # Errors
/// `EACCES`: not allowed to ask. `ENOENT`: there is no such file.
pub fn unix_is_alive(path: &Path) -> Result<bool> {
    let address = rustix::net::SocketAddrUnix::new(path.as_os_str().as_bytes())?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    match rustix::net::connect(&socket, &address) {
        // EAGAIN: its backlog is full. EPROTOTYPE: another kind of socket, which is somebody's all the same.
        Ok(()) | Err(Errno::AGAIN | Errno::PROTOTYPE) => Ok(true),
        Err(Errno::CONNREFUSED) => Ok(false),
        Err(errno) => Err(errno),
    }
}

/// Connects to the Unix listener at `path`, waiting until then while its backlog is full; close-on-exec, blocking.
///
/// # Errors
/// `EAGAIN`: the time has passed. `ECONNREFUSED`, `ENOENT`: nobody listens there. `EACCES`, `ENAMETOOLONG`: as connect(2).
pub fn connect_unix(path: &Path, until: Option<Instant>) -> Result<OwnedFd> {
    let address = rustix::net::SocketAddrUnix::new(path.as_os_str().as_bytes())?;
    let socket =
        rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    loop {
        if let Some(until) = until {
            // No time at all would be for ever.
            let left = until.saturating_duration_since(Instant::now()).max(Duration::from_micros(1));
            sockopt::set_socket_timeout(&socket, Timeout::Send, Some(left))?;
        }
        match rustix::net::connect(&socket, &address) {
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
            Ok(()) => {
                sockopt::set_socket_timeout(&socket, Timeout::Send, None)?;
                return Ok(socket);
            }
        }
    }
}

/// Takes over a listening stream socket that this process inherited under a number: returns a duplicate, makes
/// both close-on-exec and non-blocking.
///
/// # Errors
/// `EBADF`: there is no such fd. `EINVAL`: it is no listening stream socket.
pub fn inherited(number: RawFd) -> Result<OwnedFd> {
    if number < 0 {
        return Err(Errno::BADF);
    }
    // SAFETY: the number is only used for this duplication and these flags; a closed one gives EBADF.
    let original = unsafe { BorrowedFd::borrow_raw(number) };
    let copy = rustix::io::fcntl_dupfd_cloexec(original, 3)?;
    let listening = matches!(sockopt::socket_acceptconn(&copy), Ok(true));
    if !listening || sockopt::socket_type(&copy)? != SocketType::STREAM {
        return Err(Errno::INVAL);
    }
    rustix::io::fcntl_setfd(original, FdFlags::CLOEXEC)?;
    let flags = rustix::fs::fcntl_getfl(&copy)?;
    rustix::fs::fcntl_setfl(&copy, flags | rustix::fs::OFlags::NONBLOCK)?;
    Ok(copy)
}

/// Clears or sets close-on-exec.
///
/// # Errors
/// As fcntl(2).
pub fn set_inheritable(fd: impl AsFd, inheritable: bool) -> Result<()> {
    rustix::io::fcntl_setfd(fd, if inheritable { FdFlags::empty() } else { FdFlags::CLOEXEC })
}

/// Accepts one connection: close-on-exec, blocking.
///
/// # Errors
/// `EAGAIN`: there is none. `EMFILE`, `ENFILE`, `ENOBUFS`, `ENOMEM`: no room. `ECONNABORTED` and network
/// errors: that one connection went away.
pub fn accept(listener: impl AsFd) -> Result<(OwnedFd, End)> {
    loop {
        match rustix::net::acceptfrom_with(&listener, SocketFlags::CLOEXEC) {
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
            Ok((socket, address)) => return Ok((socket, address.map_or(End::Unix(None), end))),
        }
    }
}

/// This side's address.
///
/// # Errors
/// `ENOTSOCK`, `EBADF`.
pub fn local(socket: impl AsFd) -> Result<End> {
    rustix::net::getsockname(socket).map(end)
}

/// The other side's address.
///
/// # Errors
/// `ENOTCONN`: there is no other side any more.
pub fn peer(socket: impl AsFd) -> Result<End> {
    rustix::net::getpeername(socket).map(|address| address.map_or(End::Unix(None), end))
}

fn end(address: SocketAddrAny) -> End {
    if let Ok(address) = SocketAddr::try_from(address.clone()) {
        return End::Tcp(address);
    }
    let unix = rustix::net::SocketAddrUnix::try_from(address).ok();
    let path = unix.as_ref().and_then(|unix| unix.path_bytes());
    End::Unix(path.map(|bytes| PathBuf::from(std::ffi::OsStr::from_bytes(bytes))))
}

/// Pid, user and group at the other end of a Unix socket, as they were when it connected.
///
/// # Errors
/// `ENOTSOCK`, `EBADF`.
pub fn peer_credentials(socket: impl AsFd) -> Result<(i32, u32, u32)> {
    let peer = sockopt::socket_peercred(socket)?;
    Ok((peer.pid.as_raw_nonzero().get(), peer.uid.as_raw(), peer.gid.as_raw()))
}

/// Makes blocking reads and writes give up with `EAGAIN` after this time; also in a program executed later.
///
/// # Errors
/// `EDOM`: the time is too long for the kernel.
pub fn set_timeout(socket: impl AsFd, timeout: Duration) -> Result<()> {
    sockopt::set_socket_timeout(&socket, Timeout::Recv, Some(timeout))?;
    sockopt::set_socket_timeout(&socket, Timeout::Send, Some(timeout))
}

/// Receives into the start of `bytes`; 0 is the end of the stream.
///
/// # Errors
/// `EAGAIN`: nothing there, and `wait` is false or the socket's time-out passed. `ECONNRESET`.
pub fn receive(socket: impl AsFd, bytes: &mut [u8], wait: bool) -> Result<usize> {
    loop {
        match rustix::net::recv(&socket, &mut *bytes, receive_flags(wait)) {
            Err(Errno::INTR) => {}
            result => return result.map(|(len, _)| len),
        }
    }
}

/// Receives into the room of `buffer`, replacing what was in it; 0 is the end of the stream. Touches no more of the
/// room than it fills.
///
/// # Errors
/// As [`receive`].
pub fn receive_into(socket: impl AsFd, buffer: &mut Vec<u8>, wait: bool) -> Result<usize> {
    buffer.clear();
    loop {
        match rustix::net::recv(&socket, rustix::buffer::spare_capacity(buffer), receive_flags(wait)) {
            Err(Errno::INTR) => {}
            result => return result.map(|(len, _)| len),
        }
    }
}

/// Receives one message with at most one fd, which is made close-on-exec; 0 bytes are the end. Allocates nothing.
///
/// # Errors
/// `EAGAIN`: there is none, and `wait` is false. `ECONNRESET`.
pub fn receive_with_fd(socket: impl AsFd, bytes: &mut [u8], wait: bool) -> Result<(usize, Option<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let flags = receive_flags(wait) | RecvFlags::CMSG_CLOEXEC;
    loop {
        let mut control = RecvAncillaryBuffer::new(&mut space);
        match rustix::net::recvmsg(&socket, &mut [IoSliceMut::new(bytes)], &mut control, flags) {
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
            Ok(message) => {
                let mut fd = None;
                for part in control.drain() {
                    if let RecvAncillaryMessage::ScmRights(received) = part {
                        fd = received.last();
                    }
                }
                return Ok((message.bytes, fd));
            }
        }
    }
}

fn receive_flags(wait: bool) -> RecvFlags {
    if wait { RecvFlags::empty() } else { RecvFlags::DONTWAIT }
}

/// Sends from the start of `bytes`; never raises SIGPIPE.
///
/// # Errors
/// `EAGAIN`: no room, and `wait` is false or the socket's time-out passed. `EPIPE`, `ECONNRESET`.
pub fn send(socket: impl AsFd, bytes: &[u8], wait: bool) -> Result<usize> {
    let flags = if wait { SendFlags::NOSIGNAL } else { SendFlags::NOSIGNAL | SendFlags::DONTWAIT };
    loop {
        match rustix::net::send(&socket, bytes, flags) {
            Err(Errno::INTR) => {}
            result => return result,
        }
    }
}

/// Says that nothing more will be sent.
///
/// # Errors
/// `ENOTCONN`: it is not connected any more.
pub fn finish_sending(socket: impl AsFd) -> Result<()> {
    rustix::net::shutdown(socket, rustix::net::Shutdown::Write)
}

/// Says that nothing more will be received: who sends more gets `EPIPE`.
///
/// # Errors
/// `ENOTCONN`: it is not connected any more.
pub fn finish_receiving(socket: impl AsFd) -> Result<()> {
    rustix::net::shutdown(socket, rustix::net::Shutdown::Read)
}

/// Ends both directions, for every process that holds the socket.
///
/// # Errors
/// `ENOTCONN`: it is not connected any more.
pub fn hang_up(socket: impl AsFd) -> Result<()> {
    rustix::net::shutdown(socket, rustix::net::Shutdown::Both)
}

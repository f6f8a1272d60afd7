//! Local sockets that keep message boundaries and carry fds.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, UCred, sockopt,
};

use crate::Result;

/// Most fds that one message carries (`SCM_MAX_FD` of the kernel).
pub const MAX_FDS: usize = 253;

/// What [`receive`] got besides the bytes.
#[derive(Debug)]
pub struct Received {
    /// Bytes of the message; zero when the other end is gone.
    pub len: usize,
    /// True if the message was longer than the buffer, and cut.
    pub cut: bool,
    /// True if fds were lost, because this process had no room for them.
    pub fds_lost: bool,
    /// Who sent it, where the receiver asked with [`pass_credentials`].
    pub sender: Option<UCred>,
}

/// A connected pair of `SOCK_SEQPACKET` sockets, close-on-exec: messages keep their bounds, and the end of the
/// other side is seen as a message of no bytes.
///
/// # Errors
/// `EMFILE`, `ENFILE`: no fd left.
pub fn pair() -> Result<(OwnedFd, OwnedFd)> {
    rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
}

/// Makes two connected stream sockets, close-on-exec.
///
/// # Errors
/// `EMFILE`, `ENFILE`: no fd left.
pub fn stream_pair() -> Result<(OwnedFd, OwnedFd)> {
    rustix::net::socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
}

/// Sends one message, whole, with fds. Never raises SIGPIPE.
///
/// # Errors
/// `EPIPE`, `ECONNRESET`: the other end is gone. `EAGAIN`: its queue is full, and the socket or `dont_wait` said
/// not to wait. `EMSGSIZE`: longer than a message can be.
pub fn send(socket: impl AsFd, bytes: &[u8], fds: &[BorrowedFd<'_>], dont_wait: bool) -> Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(Errno::TOOMANYREFS);
    }
    let mut flags = SendFlags::NOSIGNAL;
    if dont_wait {
        flags |= SendFlags::DONTWAIT;
    }
    loop {
        match rustix::net::sendmsg(&socket, &[IoSlice::new(bytes)], &mut control, flags) {
            Ok(_) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

/// Receives one message; the fds that came with it are appended to `fds`, close-on-exec.
///
/// # Errors
/// `EAGAIN`: there is none, and the socket or `dont_wait` said not to wait. `ECONNRESET`: the other end is gone.
pub fn receive(
    socket: impl AsFd,
    bytes: &mut [u8],
    fds: &mut Vec<OwnedFd>,
    dont_wait: bool,
) -> Result<Received> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS), ScmCredentials(1))];
    let mut flags = RecvFlags::CMSG_CLOEXEC;
    if dont_wait {
        flags |= RecvFlags::DONTWAIT;
    }
    loop {
        let mut control = RecvAncillaryBuffer::new(&mut space);
        match rustix::net::recvmsg(&socket, &mut [IoSliceMut::new(bytes)], &mut control, flags) {
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
            Ok(message) => {
                let mut sender = None;
                for part in control.drain() {
                    match part {
                        RecvAncillaryMessage::ScmRights(received) => fds.extend(received),
                        RecvAncillaryMessage::ScmCredentials(credentials) => sender = Some(credentials),
                        _ => {}
                    }
                }
                return Ok(Received {
                    len: message.bytes,
                    cut: message.flags.contains(ReturnFlags::TRUNC),
                    fds_lost: message.flags.contains(ReturnFlags::CTRUNC),
                    sender,
                });
            }
        }
    }
}

/// Asks the kernel to name the sender of each message received here.
///
/// # Errors
/// As setsockopt(2).
pub fn pass_credentials(socket: impl AsFd) -> Result<()> {
    sockopt::set_socket_passcred(socket, true)
}

/// True for a Unix socket.
#[must_use]
pub fn is_local(socket: impl AsFd) -> bool {
    matches!(sockopt::socket_domain(socket), Ok(AddressFamily::UNIX))
}

/// True for a local socket of [`pair`]'s kind.
#[must_use]
pub fn is_pair(socket: BorrowedFd<'_>) -> bool {
    is_local(socket) && matches!(sockopt::socket_type(socket), Ok(SocketType::SEQPACKET))
}

/// True for a local socket of [`pair`]'s kind whose other end was made by process `pid`.
#[must_use]
pub fn is_pair_made_by(socket: BorrowedFd<'_>, pid: rustix::process::Pid) -> bool {
    is_pair(socket) && matches!(sockopt::socket_peercred(socket), Ok(peer) if peer.pid == pid)
}

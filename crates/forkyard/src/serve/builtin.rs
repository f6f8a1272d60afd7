//! The built-in handlers, one connection at a time: `upper` and `echo`.

use std::os::fd::BorrowedFd;

use forkyard_sys::{Errno, net};

/// Room for one read. The page that a read does not reach is never touched.
pub(super) const ROOM: usize = 64 * 1024;

/// What a built-in handler does to the bytes it sends back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Upper,
    Nothing,
}

impl Change {
    pub(super) fn apply(self, bytes: &mut [u8]) {
        if self == Change::Upper {
            bytes.make_ascii_uppercase();
        }
    }
}

/// Why a connection is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Over {
    /// The client or the handler finished, or the client went away.
    Finished,
    /// Nothing came, or nothing could be sent, for too long.
    TimedOut,
}

/// Answers until the client finishes; `answered` is called after each answer.
pub(super) fn serve(
    socket: BorrowedFd<'_>,
    change: Change,
    buffer: &mut Vec<u8>,
    mut answered: impl FnMut(),
) -> Over {
    loop {
        match net::receive_into(socket, buffer, true) {
            Ok(0) => return Over::Finished,
            Ok(_) => {}
            Err(errno) => return over(errno),
        }
        change.apply(buffer);
        let mut rest = &buffer[..];
        while !rest.is_empty() {
            match net::send(socket, rest, true) {
                Ok(sent) => rest = &rest[sent..],
                Err(errno) => return over(errno),
            }
        }
        answered();
    }
}

/// A blocking socket says EAGAIN when its time-out has passed; anything else means that the client is gone.
fn over(errno: Errno) -> Over {
    if errno == Errno::AGAIN { Over::TimedOut } else { Over::Finished }
}

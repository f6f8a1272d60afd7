//! What the tester and an actor say to each other: a datagram is a command, or its answer.
//!
//! # Safety
//! fcntl gets numbers; a descriptor's number is taken over once, by the process that inherited it for this.
#![allow(unsafe_code, reason = "each unsafe block has its own reason")]

use std::os::fd::{AsFd, AsRawFd, FromRawFd};
use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

/// The tester's end of the channel of one actor.
pub(crate) struct Channel {
    ours: UnixDatagram,
    theirs: UnixDatagram,
}

impl Channel {
    pub(crate) fn new() -> Channel {
        let (ours, theirs) = UnixDatagram::pair().unwrap();
        // SAFETY: see the heading.
        assert_eq!(unsafe { libc::fcntl(theirs.as_raw_fd(), libc::F_SETFD, 0) }, 0);
        Channel { ours, theirs }
    }

    /// The number of the actor's end, in whatever process inherits it.
    pub(crate) fn number(&self) -> i32 {
        self.theirs.as_raw_fd()
    }

    pub(crate) fn tell(&self, command: &str) {
        self.ours.send(command.as_bytes()).unwrap();
    }

    /// The next answer; `None` if there is none in time.
    pub(crate) fn answer(&self, within: Duration) -> Option<String> {
        self.ours.set_read_timeout(Some(within)).unwrap();
        receive(&self.ours)
    }

    /// True if an answer can be read.
    pub(crate) fn has_answer(&self) -> bool {
        forkyard_sys::poll::readable([self.ours.as_fd()], Some(Instant::now())).unwrap()[0]
    }

    /// Forgets answers and commands that nobody will read.
    pub(crate) fn drain(&self) {
        for end in [&self.ours, &self.theirs] {
            end.set_nonblocking(true).unwrap();
            while receive(end).is_some() {}
            end.set_nonblocking(false).unwrap();
        }
    }
}

/// The actor's end of this number, inherited.
pub(crate) fn inherited(number: i32) -> UnixDatagram {
    // SAFETY: see the heading.
    unsafe { UnixDatagram::from_raw_fd(number) }
}

/// The next datagram, unless the socket's time is up.
pub(crate) fn receive(socket: &UnixDatagram) -> Option<String> {
    let mut bytes = [0; 400];
    loop {
        match socket.recv(&mut bytes) {
            Ok(len) => return Some(String::from_utf8(bytes[..len].to_vec()).unwrap()),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => return None,
        }
    }
}

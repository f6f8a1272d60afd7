//! Lanes: handing an accepted connection to a child, one packet each.
//!
//! A packet is eight words and, for a connection, its fd. Both ends are the same image and nobody else holds one, but
//! a packet of another shape is ignored all the same. On a lane of its own, a worker can send connections back.
//!
//! Killed here: a packet is sent whole or not, received by one child or by none; a killed receiver's packet
//! stays in the lane.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use forkyard_sys::{Errno, Result, net, socket};

use super::peer::Peer;
use super::scoreboard::{CONNECTION, PACKET, QUIT, RELIEVE, RETURN};

const WORDS: usize = PACKET / 8;
const LEN: usize = PACKET;

/// A connection on its way.
#[derive(Debug)]
pub(super) struct Handed {
    pub(super) fd: OwnedFd,
    /// Its line of the scoreboard.
    pub(super) index: u32,
    pub(super) number: u64,
    /// When it was accepted, by the monotonic clock.
    pub(super) accepted: u64,
    pub(super) peer: Peer,
    /// Connections from its address at that moment, itself included.
    pub(super) neighbours: u64,
    /// A worker gave it back, so that this one takes it.
    pub(super) toward: Option<u32>,
}

/// What a child finds in its lane.
#[derive(Debug)]
pub(super) enum Packet {
    Connection(Handed),
    /// A connection that a worker gives back: fd, line, number.
    Returned(OwnedFd, u32, u64),
    /// The worker is to give back half of the connections that wait for it.
    Relieve,
    /// One child is to leave.
    Quit,
    /// There will be no more.
    End,
    /// There is none now.
    Nothing,
}

/// Sends a connection down a lane.
pub(super) fn send(lane: BorrowedFd<'_>, handed: &Handed) -> Result<()> {
    let [a, b, c] = handed.peer.words();
    let accepted = if handed.toward.is_none() { handed.accepted } else { 0 };
    let words = [CONNECTION, u64::from(handed.index), handed.number, accepted, a, b, c, handed.neighbours];
    socket::send(lane, &bytes(words), &[handed.fd.as_fd()], true)
}

/// Asks one child to leave.
pub(super) fn send_quit(lane: BorrowedFd<'_>) -> Result<()> {
    socket::send(lane, &bytes([QUIT, 0, 0, 0, 0, 0, 0, 0]), &[], true)
}

/// Asks a worker to give connections back.
pub(super) fn send_relieve(lane: BorrowedFd<'_>) -> Result<()> {
    socket::send(lane, &bytes([RELIEVE, 0, 0, 0, 0, 0, 0, 0]), &[], true)
}

/// Gives a connection back to the master.
pub(super) fn send_back(lane: BorrowedFd<'_>, fd: BorrowedFd<'_>, index: u32, number: u64) -> Result<()> {
    socket::send(lane, &bytes([RETURN, u64::from(index), number, 0, 0, 0, 0, 0]), &[fd], true)
}

/// Takes the oldest packet; waits for one if told to.
pub(super) fn receive(lane: BorrowedFd<'_>, wait: bool) -> Result<Packet> {
    let mut bytes = [0; LEN];
    loop {
        let (len, fd) = match net::receive_with_fd(lane, &mut bytes, wait) {
            Ok(received) => received,
            Err(Errno::AGAIN) => return Ok(Packet::Nothing),
            Err(Errno::CONNRESET) => return Ok(Packet::End),
            Err(errno) => return Err(errno),
        };
        if len == 0 {
            return Ok(Packet::End);
        }
        let words = words(&bytes);
        match (words[0], fd, u32::try_from(words[1])) {
            (QUIT, _, _) => return Ok(Packet::Quit),
            (RELIEVE, _, _) => return Ok(Packet::Relieve),
            (RETURN, Some(fd), Ok(index)) if len == LEN => return Ok(Packet::Returned(fd, index, words[2])),
            (CONNECTION, Some(fd), Ok(index)) if len == LEN => {
                let peer = Peer::from_words([words[4], words[5], words[6]]);
                let [number, accepted, neighbours] = [words[2], words[3], words[7]];
                let toward = None;
                return Ok(Packet::Connection(Handed {
                    fd,
                    index,
                    number,
                    accepted,
                    peer,
                    neighbours,
                    toward,
                }));
            }
            // A connection whose fd did not fit into this process is lost with it; the master gives it up.
            _ => {}
        }
    }
}

fn bytes(words: [u64; WORDS]) -> [u8; LEN] {
    let mut bytes = [0; LEN];
    for (chunk, word) in bytes.chunks_exact_mut(8).zip(words) {
        chunk.copy_from_slice(&word.to_ne_bytes());
    }
    bytes
}

fn words(bytes: &[u8; LEN]) -> [u64; WORDS] {
    let mut words = [0; WORDS];
    for (word, chunk) in words.iter_mut().zip(bytes.chunks_exact(8)) {
        *word = u64::from_ne_bytes(chunk.try_into().unwrap_or_default());
    }
    words
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use forkyard_sys::socket;

    use super::{Handed, Packet, receive, send, send_back, send_quit, send_relieve};
    use crate::serve::peer::Peer;

    #[test]
    fn packets_arrive_in_order_and_the_end_comes_last() {
        let (to, from) = socket::pair().unwrap();
        let (fd, _other) = socket::pair().unwrap();
        let peer = Peer::Tcp("[::1]:7".parse().unwrap());
        let mut handed = Handed { fd, index: 3, number: 9, accepted: 5, peer, neighbours: 1, toward: None };
        send(to.as_fd(), &handed).unwrap();
        handed.toward = Some(1);
        send(to.as_fd(), &handed).unwrap();
        send_relieve(to.as_fd()).unwrap();
        send_quit(to.as_fd()).unwrap();
        drop(to);
        match receive(from.as_fd(), true).unwrap() {
            Packet::Connection(handed) => {
                assert_eq!((handed.index, handed.number, handed.accepted, handed.peer), (3, 9, 5, peer));
            }
            other => panic!("{other:?}"),
        }
        // Whoever has served it before was waited for once already.
        assert!(matches!(
            receive(from.as_fd(), true).unwrap(),
            Packet::Connection(Handed { accepted: 0, .. })
        ));
        assert!(matches!(receive(from.as_fd(), true).unwrap(), Packet::Relieve));
        assert!(matches!(receive(from.as_fd(), true).unwrap(), Packet::Quit));
        assert!(matches!(receive(from.as_fd(), true).unwrap(), Packet::End));
    }

    #[test]
    fn a_lane_that_is_hung_up_gives_out_what_is_in_it_and_takes_no_more() {
        let (to, from) = socket::pair().unwrap();
        let (fd, _other) = socket::pair().unwrap();
        send_back(from.as_fd(), fd.as_fd(), 3, 9).unwrap();
        send_quit(to.as_fd()).unwrap();
        forkyard_sys::net::hang_up(&to).unwrap();
        assert!(send_back(from.as_fd(), fd.as_fd(), 4, 10).is_err(), "its sender keeps it");
        assert!(matches!(receive(to.as_fd(), false).unwrap(), Packet::Returned(_, 3, 9)));
        assert!(matches!(receive(to.as_fd(), false).unwrap(), Packet::End));
        assert!(matches!(receive(from.as_fd(), false).unwrap(), Packet::Quit));
        assert!(matches!(receive(from.as_fd(), false).unwrap(), Packet::End));
    }

    #[test]
    fn packets_of_another_shape_are_ignored() {
        let (to, from) = socket::pair().unwrap();
        for garbage in [&[2u8; 64][..], &[0; 64], &[7], &[2; 63]] {
            socket::send(&to, garbage, &[], true).unwrap();
        }
        assert!(matches!(receive(from.as_fd(), false).unwrap(), Packet::Nothing));
    }
}

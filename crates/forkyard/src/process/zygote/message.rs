//! What requester and zygote say to each other.
//!
//! A message is one packet: a byte that says where the rest is (behind it, or, if it is long, in a memfd that comes
//! with it), then the value in postcard's format. Both ends are the same image, which [`Hello`] checks; a message that
//! does not decode is an error and nothing else.

use std::borrow::Cow;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use forkyard_sys::socket::Received;
use forkyard_sys::{Errno, memfd, socket};
use serde::{Deserialize, Serialize};

use super::super::builder::Attributes;

/// Longest message that travels in the packet itself: a page, because what a zygote touches for a request it has to
/// copy again after every clone.
const INLINE: usize = 4096;
/// Longest message at all: what one process may ask another to allocate.
const LIMIT: u64 = 1 << 40;
const HERE: u8 = 0;
const IN_MEMFD: u8 = 1;

/// The first message to a zygote. With it come the outcome board, the children's end of the parcel socket, and the
/// requester's pidfd; then the fds of the preload's arguments.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Hello<'a> {
    /// [`image_hash`](super::super::task::image_hash) of the requester.
    pub(crate) image: u64,
    /// The requester.
    pub(crate) requester: u32,
    /// The requester's name for itself.
    pub(crate) name: &'a str,
    /// What the requester's guarded descendants carry in their environment: [`TOKEN`](super::entry::TOKEN) bytes.
    pub(crate) token: &'a str,
    /// Whether the family's arena comes with it, as the fourth descriptor; if not, why its parent has none.
    pub(crate) arena: Result<(), String>,
    /// A task to run in the zygote itself before it serves.
    pub(crate) preload: Option<(&'a str, &'a [u8])>,
}

/// A start. With it come the fds of the task's arguments.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Request<'a> {
    /// The child's slot of the outcome board.
    pub(crate) slot: u32,
    /// What it is to be.
    pub(crate) attributes: Attributes,
    /// The signal mask that it starts with.
    pub(crate) mask: u64,
    /// Whether the last of the fds is the directory to enter: the requester is no longer in the one that the zygote
    /// started in.
    pub(crate) directory: bool,
    /// The requester's name, where it is no longer the one that the zygote was told.
    pub(crate) parent_name: Option<&'a str>,
    /// All variables, where they are no longer those that the zygote started with.
    pub(crate) environment: Option<Vec<(Vec<u8>, Vec<u8>)>>,
    /// The task.
    pub(crate) task: &'a str,
    /// Its encoded arguments.
    pub(crate) args: &'a [u8],
}

/// What the requester asks.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Ask<'a> {
    /// Start a child; become it, if the zygote was made for one.
    #[serde(borrow)]
    Start(Request<'a>),
    /// Clone a spare, which waits for its request in this slot.
    Spare(u32),
    /// Kill all that guarded children have left behind, and end.
    Sweep,
    /// Start a swarm's children: a slot of the outcome board and a number for each.
    Many(Vec<(u32, u64)>),
}

/// What the zygote answers.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Reply {
    /// It is ready to serve.
    Ready,
    /// It cannot serve, and why.
    Unfit(String),
    /// The child's pid; its pidfd comes with it.
    Born(u32),
    /// The kernel's error number.
    Refused(i32),
    /// The pids of a swarm's children; fewer than asked for if the kernel refused with the number given.
    BornMany(Vec<u32>, Option<i32>),
}

/// Why a message could not be sent or received.
#[derive(Debug)]
pub(crate) enum Fault {
    /// The other end is gone.
    Gone,
    /// The kernel said no.
    Os(Errno),
    /// It does not decode.
    Garbled(#[allow(dead_code, reason = "shown by Debug")] String),
}

impl From<Errno> for Fault {
    fn from(errno: Errno) -> Fault {
        match errno {
            Errno::PIPE | Errno::CONNRESET => Fault::Gone,
            errno => Fault::Os(errno),
        }
    }
}

/// Encodes a message as one packet; the memfd of a long one comes with it.
pub(crate) fn encode<T: Serialize>(message: &T) -> Result<(Vec<u8>, Option<OwnedFd>), Fault> {
    let bytes = postcard::to_extend(message, vec![HERE]).map_err(|e| Fault::Garbled(e.to_string()))?;
    if bytes.len() <= INLINE {
        return Ok((bytes, None));
    }
    let rest = memfd::holding("forkyard-message", &bytes[1..])?;
    Ok((vec![IN_MEMFD], Some(rest)))
}

/// Encodes and sends a message that is known to be short, without allocating.
pub(crate) fn send_short<T: Serialize>(
    to: impl AsFd,
    message: &T,
    fds: &[BorrowedFd<'_>],
) -> Result<(), Fault> {
    let mut packet = [HERE; 64];
    let encoded = postcard::to_slice(message, &mut packet[1..]).map_err(|e| Fault::Garbled(e.to_string()))?;
    let len = 1 + encoded.len();
    Ok(socket::send(to, &packet[..len], fds, false)?)
}

/// Sends what [`encode`] made.
pub(crate) fn send(
    to: impl AsFd,
    (bytes, memfd): &(Vec<u8>, Option<OwnedFd>),
    fds: &[BorrowedFd<'_>],
    dont_wait: bool,
) -> Result<(), Fault> {
    if memfd.is_none() {
        return Ok(socket::send(to, bytes, fds, dont_wait)?);
    }
    let all: Vec<BorrowedFd<'_>> = memfd.iter().map(AsFd::as_fd).chain(fds.iter().copied()).collect();
    Ok(socket::send(to, bytes, &all, dont_wait)?)
}

/// Room for a packet.
pub(crate) type Buffer = [u8; INLINE];

/// A message as it arrived: bytes to [`decode`], and the fds that came with it.
#[derive(Debug)]
pub(crate) struct Packet<'b> {
    bytes: Cow<'b, [u8]>,
    /// Fds of the sender's.
    pub(crate) fds: Vec<OwnedFd>,
    /// What the kernel told about it.
    pub(crate) received: Received,
}

/// Receives one message; waits for it unless told not to.
pub(crate) fn receive(from: impl AsFd, dont_wait: bool) -> Result<Packet<'static>, Fault> {
    let mut buffer = [0; INLINE];
    let Packet { bytes, fds, received } = receive_into(&mut buffer, from, dont_wait)?;
    Ok(Packet { bytes: Cow::Owned(bytes.into_owned()), fds, received })
}

/// As [`receive`], into room that the caller has for all its packets.
pub(crate) fn receive_into(
    buffer: &mut Buffer,
    from: impl AsFd,
    dont_wait: bool,
) -> Result<Packet<'_>, Fault> {
    let mut fds = Vec::new();
    let received = socket::receive(from, buffer, &mut fds, dont_wait)?;
    if received.len == 0 {
        return Err(Fault::Gone);
    }
    if received.cut {
        return Err(Fault::Garbled("a packet longer than any message".to_owned()));
    }
    if buffer[0] == HERE {
        return Ok(Packet { bytes: Cow::Borrowed(&buffer[1..received.len]), fds, received });
    }
    if fds.is_empty() {
        // The memfd itself was lost.
        return Err(Fault::Os(Errno::MFILE));
    }
    let bytes = memfd::contents(fds.remove(0), LIMIT).map_err(|errno| match errno {
        Errno::NOMEM => Fault::Os(errno),
        errno => Fault::Garbled(format!("what came with it cannot be read: {errno}")),
    })?;
    Ok(Packet { bytes: Cow::Owned(bytes), fds, received })
}

impl Packet<'_> {
    /// The message.
    pub(crate) fn decode<'a, T: Deserialize<'a>>(&'a self) -> Result<T, Fault> {
        postcard::from_bytes(&self.bytes).map_err(|e| Fault::Garbled(e.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::{Ask, Fault, Packet, encode, receive, send};

    fn round_trip(args: &[u8]) -> Packet<'static> {
        let (a, b) = forkyard_sys::socket::pair().unwrap();
        let ask = Ask::Start(super::Request {
            slot: 3,
            attributes: Default::default(),
            mask: 0,
            directory: false,
            parent_name: None,
            environment: None,
            task: "t",
            args,
        });
        send(&a, &encode(&ask).unwrap(), &[], true).unwrap();
        receive(&b, true).unwrap()
    }

    #[test]
    fn short_and_long_messages_arrive_whole() {
        for len in [0, 1, 1000, 4096, 40 * 1024, 5_000_000] {
            let args = vec![7; len];
            match round_trip(&args).decode().unwrap() {
                Ask::Start(request) => assert_eq!(request.args, args),
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn garbage_is_an_error() {
        let (a, b) = forkyard_sys::socket::pair().unwrap();
        forkyard_sys::socket::send(&a, &[0, 200, 1, 2], &[], true).unwrap();
        assert!(matches!(receive(&b, true).unwrap().decode::<Ask<'_>>(), Err(Fault::Garbled(_))));
        forkyard_sys::socket::send(&a, &[1], &[], true).unwrap();
        assert!(matches!(receive(&b, true), Err(Fault::Os(_))));
        drop(a);
        assert!(matches!(receive(&b, true), Err(Fault::Gone)));
    }
}

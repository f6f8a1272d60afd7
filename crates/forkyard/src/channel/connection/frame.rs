//! The frames of a connection, as Python's `multiprocessing.connection` writes them (CPython, `Lib/multiprocessing/connection.py`):
//! a length of 4 bytes, big-endian and signed, or -1 and then a length of 8 bytes; then so many bytes.
//!
//! What comes from a peer is not trusted: memory is taken as bytes arrive, not as a length promises.

use std::os::fd::OwnedFd;

use forkyard_sys::socket::Received;

/// Longest message whose length fits into the short form.
const SHORT: u64 = i32::MAX as u64;
/// Most memory that is taken ahead of what has arrived.
const AHEAD: usize = 1 << 20;

/// The bytes before a message of this length, and how many they are.
pub(super) fn header(len: u64) -> ([u8; 12], usize) {
    let mut bytes = [0; 12];
    if len <= SHORT {
        bytes[..4].copy_from_slice(&(len as u32).to_be_bytes());
        return (bytes, 4);
    }
    bytes[..4].copy_from_slice(&(-1i32).to_be_bytes());
    bytes[4..].copy_from_slice(&len.to_be_bytes());
    (bytes, 12)
}

/// A message that is arriving.
#[derive(Debug, Default)]
pub(super) struct Incoming {
    header: [u8; 12],
    header_len: usize,
    body: Vec<u8>,
    filled: usize,
    /// The message's length, once the header is there.
    len: Option<usize>,
    /// Descriptors that came with it.
    fds: Vec<OwnedFd>,
    /// It is no message, or a longer one than is wanted.
    refused: bool,
}

/// What is wrong with what a peer sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wrong {
    /// A length that is none.
    Length,
    /// More than the receiver wants.
    TooLong(u64),
    /// No memory for so much.
    NoMemory(u64),
}

impl Incoming {
    /// Where the next bytes are to be put; empty if the message is whole.
    pub(super) fn room(&mut self) -> &mut [u8] {
        match self.len {
            None => {
                let end = if self.header_len < 4 || self.header[..4] != [0xff; 4] { 4 } else { 12 };
                &mut self.header[self.header_len..end]
            }
            Some(_) => &mut self.body[self.filled..],
        }
    }

    /// Receives into that room, by this call, which adds descriptors that come with the bytes; how many bytes came.
    pub(super) fn receive(
        &mut self,
        receive: impl FnOnce(&mut [u8], &mut Vec<OwnedFd>) -> forkyard_sys::Result<Received>,
    ) -> forkyard_sys::Result<usize> {
        let mut fds = std::mem::take(&mut self.fds);
        let received = receive(self.room(), &mut fds);
        // As many as one message may have; a peer that sends more keeps us from no others.
        fds.truncate(crate::fd::MAX_FDS);
        self.fds = fds;
        received.map(|received| received.len)
    }

    /// So many bytes were put there. True if the message is whole.
    pub(super) fn filled(&mut self, count: usize, most: u64) -> Result<bool, Wrong> {
        let filled = self.filled_with(count, most);
        self.refused |= filled.is_err();
        filled
    }

    fn filled_with(&mut self, count: usize, most: u64) -> Result<bool, Wrong> {
        match self.len {
            None => {
                self.header_len += count;
                let Some(len) = self.announced()? else { return Ok(false) };
                if len > most {
                    return Err(Wrong::TooLong(len));
                }
                self.len = Some(usize::try_from(len).map_err(|_| Wrong::NoMemory(len))?);
            }
            // Begun by a call that would have taken it.
            Some(len) if len as u64 > most => return Err(Wrong::TooLong(len as u64)),
            Some(_) => self.filled += count,
        }
        self.grow()
    }

    /// The announced length, if the header is whole.
    fn announced(&self) -> Result<Option<u64>, Wrong> {
        let [a, b, c, d, rest @ ..] = self.header;
        match i32::from_be_bytes([a, b, c, d]) {
            _ if self.header_len < 4 => Ok(None),
            -1 if self.header_len < 12 => Ok(None),
            -1 => match u64::from_be_bytes(rest) {
                len if len <= isize::MAX as u64 => Ok(Some(len)),
                _ => Err(Wrong::Length),
            },
            len => u64::try_from(len).map(Some).map_err(|_| Wrong::Length),
        }
    }

    fn grow(&mut self) -> Result<bool, Wrong> {
        let Some(len) = self.len else { return Ok(false) };
        if self.filled == len {
            return Ok(true);
        }
        if self.filled == self.body.len() {
            let more = (len - self.filled).min(AHEAD.max(self.filled));
            self.body.try_reserve_exact(more).map_err(|_| Wrong::NoMemory(len as u64))?;
            self.body.resize(self.filled + more, 0);
        }
        Ok(false)
    }

    /// True if part of a message has arrived, and not all of it.
    pub(super) fn is_begun(&self) -> bool {
        self.header_len > 0
    }

    /// True if it was told that what came is wrong.
    pub(super) fn is_refused(&self) -> bool {
        self.refused
    }

    /// Bytes of memory that it takes.
    #[cfg(test)]
    pub(super) fn memory(&self) -> usize {
        self.body.capacity()
    }

    /// The whole message; what comes next is another.
    pub(super) fn take(&mut self) -> (Vec<u8>, Vec<OwnedFd>) {
        let whole = std::mem::take(self);
        (whole.body, whole.fds)
    }
}

impl Wrong {
    /// As an error of a stream.
    pub(super) fn text(self) -> String {
        match self {
            Wrong::Length => "the peer announced a message of a negative or absurd length".to_owned(),
            Wrong::TooLong(len) => {
                format!("the peer announced a message of {len} bytes, which is more than is wanted")
            }
            Wrong::NoMemory(len) => {
                format!("the peer announced a message of {len} bytes, and there is no memory for it")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::{Incoming, header};

    /// The first whole message of these bytes, if there is one.
    fn decode(mut bytes: &[u8], most: u64) -> io::Result<Option<Vec<u8>>> {
        let mut incoming = Incoming::default();
        loop {
            let room = incoming.room();
            let count = room.len().min(bytes.len());
            room[..count].copy_from_slice(&bytes[..count]);
            bytes = &bytes[count..];
            match incoming.filled(count, most) {
                Ok(true) => return Ok(Some(incoming.take().0)),
                Ok(false) if count == 0 => return Ok(None),
                Ok(false) => {}
                Err(wrong) => return Err(io::Error::new(io::ErrorKind::InvalidData, wrong.text())),
            }
        }
    }

    fn framed(len: u64, body: &[u8]) -> Vec<u8> {
        let (bytes, count) = header(len);
        [&bytes[..count], body].concat()
    }

    #[test]
    fn lengths_have_two_forms() {
        assert_eq!(framed(0, b""), [0, 0, 0, 0]);
        assert_eq!(framed(5, b""), [0, 0, 0, 5]);
        assert_eq!(header(0x8000_0000), ([255, 255, 255, 255, 0, 0, 0, 0, 0x80, 0, 0, 0], 12));
        assert_eq!(decode(&framed(5, b"hello"), 10).unwrap().unwrap(), b"hello");
        let long = [&[255; 4][..], &3u64.to_be_bytes(), b"abc"].concat();
        assert_eq!(decode(&long, 10).unwrap().unwrap(), b"abc");
        assert_eq!(decode(&framed(0, b""), 10).unwrap().unwrap(), b"");
    }

    #[test]
    fn what_is_not_whole_is_no_message_and_what_is_wrong_an_error() {
        for cut in 0..9 {
            assert_eq!(decode(&framed(5, b"hello")[..cut], 10).unwrap(), None);
        }
        assert!(decode(&[0x80, 0, 0, 0], 10).is_err());
        assert!(decode(&[255; 12], u64::MAX).is_err());
        assert!(decode(&framed(11, b""), 10).is_err());
        // A promise of everything costs no more than what arrives.
        assert_eq!(decode(&framed(1 << 40, b"x"), u64::MAX).unwrap(), None);
    }

    #[test]
    fn random_bytes_are_a_message_or_an_error() {
        let mut state = 1u64;
        for _ in 0..10_000 {
            let bytes: Vec<u8> = (0..state % 40)
                .map(|_| {
                    state =
                        state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    (state >> 56) as u8
                })
                .collect();
            state = state.wrapping_add(1);
            if let Ok(Some(message)) = decode(&bytes, 100) {
                assert!(message.len() <= 100);
            }
        }
    }
}

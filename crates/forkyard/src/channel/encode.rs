//! A message's bytes while they are made: on the stack, as long as they are few.

use postcard::ser_flavors::Flavor;
use serde::Serialize;

use super::layout::INLINE;
use crate::codec;
use crate::error::{Error, Kind, Result};

/// Bytes of a message.
pub(crate) struct Encoded {
    few: [u8; INLINE],
    len: usize,
    many: Vec<u8>,
}

impl Encoded {
    /// Encodes a value.
    #[inline]
    pub(crate) fn new<T: Serialize>(value: &T) -> Result<Encoded> {
        let encoded = Encoded { few: [0; INLINE], len: 0, many: Vec::new() };
        codec::encode(value, encoded).map_err(|error| refused("encode a message", error))
    }

    #[inline]
    pub(crate) fn bytes(&self) -> &[u8] {
        if self.many.is_empty() { &self.few[..self.len] } else { &self.many }
    }
}

/// A message could not be encoded, or decoded.
#[cold]
pub(crate) fn refused(what: &str, error: postcard::Error) -> Error {
    Error::new(what, Kind::Codec(codec::explain(&error)))
}

impl Flavor for Encoded {
    type Output = Encoded;

    // A `Vec<u8>` comes byte by byte.
    #[inline]
    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        if !self.many.is_empty() {
            self.many.push(byte);
            return Ok(());
        }
        match self.few.get_mut(self.len) {
            Some(room) => {
                *room = byte;
                self.len += 1;
                Ok(())
            }
            None => self.try_extend(&[byte]),
        }
    }

    #[inline]
    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        let end = self.len + bytes.len();
        if self.many.is_empty() && end <= INLINE {
            self.few[self.len..end].copy_from_slice(bytes);
            self.len = end;
            return Ok(());
        }
        if self.many.is_empty() {
            self.many.extend_from_slice(&self.few[..self.len]);
        }
        self.many.extend_from_slice(bytes);
        Ok(())
    }

    fn finalize(self) -> postcard::Result<Encoded> {
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::{Encoded, INLINE};

    #[test]
    fn few_bytes_and_many_are_encoded_as_ever() {
        for len in (0..2 * INLINE + 2).chain([300, 5000]) {
            let bytes: Vec<u8> = (0..len).map(|at| at as u8).collect();
            // Byte by byte, and at once.
            for value in [(1u64, bytes.clone(), String::new()), (1 << 60, Vec::new(), "x".repeat(len))] {
                let encoded = Encoded::new(&value).unwrap();
                assert!(encoded.bytes() == postcard::to_stdvec(&value).unwrap(), "{len} bytes");
            }
        }
    }
}

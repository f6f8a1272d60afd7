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

    #[inline]
    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.try_extend(&[byte])
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

//! A message's bytes while they are made: on the stack, as long as they are few.

use postcard::ser_flavors::Flavor;
use serde::Serialize;

use super::layout::INLINE;
use crate::codec;
use crate::error::{Error, Kind, Result};
use crate::shm::{self, Keep};

/// Bytes of a message, and the handles in it.
pub(crate) struct Encoded {
    few: [u8; INLINE],
    len: usize,
    many: Vec<u8>,
    handles: Vec<Keep>,
}

impl Encoded {
    /// Encodes a value.
    #[inline]
    pub(crate) fn new<T: Serialize>(value: &T) -> Result<Encoded> {
        let encoded = Encoded { few: [0; INLINE], len: 0, many: Vec::new(), handles: Vec::new() };
        let (encoded, handles) = shm::outgoing(|| postcard::serialize_with_flavor(value, encoded));
        let mut encoded = encoded.map_err(|error| refused("encode a message", error))?;
        encoded.handles = handles;
        Ok(encoded)
    }

    #[inline]
    pub(crate) fn bytes(&self) -> &[u8] {
        if self.many.is_empty() { &self.few[..self.len] } else { &self.many }
    }

    /// What keeps the objects alive whose handles are in it.
    #[inline]
    pub(crate) fn handles(&self) -> &[Keep] {
        &self.handles
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

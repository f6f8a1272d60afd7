//! How values are encoded, and why one could not be encoded or decoded: the errors of the format have no room for a text.

mod strict;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::fmt::Display;
use std::mem::ManuallyDrop;

use postcard::ser_flavors::Flavor;
use serde::Serialize;

use self::strict::Strict;

thread_local! {
    /// What the last handle said that could not travel. (Without a destructor, so that exit hooks find it too.)
    static WHY: ManuallyDrop<RefCell<Option<String>>> = const { ManuallyDrop::new(RefCell::new(None)) };
}

/// Encodes a user's value, and refuses one of which shows that it could not be decoded.
#[inline]
pub(crate) fn encode<T: Serialize + ?Sized, F: Flavor>(value: &T, into: F) -> postcard::Result<F::Output> {
    postcard::serialize_with_flavor(&Strict(value), into)
}

/// The same, into bytes of its own.
pub(crate) fn to_vec<T: Serialize + ?Sized>(value: &T) -> postcard::Result<Vec<u8>> {
    postcard::to_stdvec(&Strict(value))
}

/// Notes why a value cannot travel, for [`explain`] in the same thread; returns the text for the format's own error.
pub(crate) fn refuse<T: Display>(why: T) -> T {
    WHY.with(|noted| noted.replace(Some(why.to_string())));
    why
}

/// Forgets what was noted for another format, or another value: before an encoding or a decoding.
pub(crate) fn begin() {
    WHY.with(|noted| noted.take());
}

/// What is wrong with a value, in words.
pub(crate) fn explain(error: &postcard::Error) -> String {
    let noted = WHY.with(|noted| noted.take());
    match error {
        postcard::Error::SerdeSerCustom | postcard::Error::SerdeDeCustom => noted,
        postcard::Error::WontImplement => Some(ASKS.to_owned()),
        _ => None,
    }
    .unwrap_or_else(|| error.to_string())
}

const ASKS: &str = "its type decodes itself by what comes next (serde's untagged, tag and flatten do), and nothing \
    says what comes next; write the type without them";

//! Why a value could not be encoded or decoded: the errors of the format have no room for a text.

use std::cell::RefCell;
use std::fmt::Display;
use std::mem::ManuallyDrop;

thread_local! {
    /// What the last handle said that could not travel. (Without a destructor, so that exit hooks find it too.)
    static WHY: ManuallyDrop<RefCell<Option<String>>> = const { ManuallyDrop::new(RefCell::new(None)) };
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
        _ => None,
    }
    .unwrap_or_else(|| error.to_string())
}

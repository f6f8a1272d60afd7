//! What a handler's result comes to: an error is reported in a line and concerns that connection only.

use std::fmt::Display;

/// Results that a `#[forkyard::handler]` function may have.
pub trait Report {
    /// Says on stderr what went wrong, if anything did.
    fn report(self);
}

impl Report for () {
    fn report(self) {}
}

impl<E: Display> Report for Result<(), E> {
    fn report(self) {
        if let Err(error) = self {
            // In one piece, since many children write to the same stderr.
            let line = format!("forkyard: child {}: connection ended: {error}\n", std::process::id());
            eprint!("{line}");
        }
    }
}

/// Used by the macro.
#[doc(hidden)]
pub fn report(result: impl Report) {
    result.report();
}

//! The commands: each has a `run` that does it and answers with an exit code.

pub(crate) mod completions;
pub(crate) mod connect;
pub(crate) mod man;
pub(crate) mod serve;
pub(crate) mod signals;
pub(crate) mod top;

use std::io::{self, Write as _};

use crate::{exit, log};

/// Prints data on standard output.
fn print(data: &[u8]) -> u8 {
    print_more(data).err().unwrap_or(exit::OK)
}

/// Prints data on standard output; the exit code where no more can follow. A reader that has gone is a quiet end.
fn print_more(data: &[u8]) -> Result<(), u8> {
    let mut out = io::stdout().lock();
    out.write_all(data).and_then(|()| out.flush()).map_err(|error| {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return exit::OK;
        }
        log::error(format_args!("cannot write to standard output: {error}"));
        exit::TOOL_FAILED
    })
}

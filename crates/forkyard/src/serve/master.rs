//! The master: owns all state of a running server.

use super::server::{Handler, Server};
use super::stats::Stats;
use crate::error::{Error, Kind, Result};

/// Serves until it is told to stop.
pub(super) fn run(server: Server, handler: Handler) -> Result<Stats> {
    let why = format!("{:?} is not served yet by {server:?}", handler);
    Err(Error::new("run the server", Kind::Invalid(why)))
}

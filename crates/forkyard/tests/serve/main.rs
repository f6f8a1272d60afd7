//! The server, with real processes, sockets and signals. A file per question.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by a panic")]

mod basics;
mod doors;
mod kills;
mod limits;
mod orders;
mod spread;
mod status;
mod support;

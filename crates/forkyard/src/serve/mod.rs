//! Servers: every connection in a process of its own, or in one of a few long-lived workers.
//!
//! [`Server`] is built, opens its listeners and runs in the calling thread until its [`Control`] stops it. What is
//! done with a [`Connection`] is the [`Handler`]'s: a built-in one, a `#[forkyard::handler]` function, or a program.
//! README.md beside this file has who does what, and what happens when somebody is killed doing it.

mod address;
mod builtin;
mod child;
mod config;
mod connection;
mod control;
mod event;
mod handoff;
mod listener;
mod master;
mod multiplex;
mod peer;
mod report;
mod rights;
mod scoreboard;
mod server;
mod small;
mod stats;
mod status;
mod ucspi;
mod upgrade;

pub use address::Address;
pub use config::{Config, Mode};
pub use connection::Connection;
pub use control::Control;
pub use event::Event;
pub use rights::Rights;
pub use server::{Builder, Handler, Server};
pub use stats::{Connected, Counts, Stats, Worker};

/// What the macros' output uses.
#[doc(hidden)]
pub mod private {
    pub use super::report::report;
}

//! What a server can be told: one struct, whose defaults serve the classic exercise.
//!
//! The values are checked by [`Config::check`] when the server is built, never later.

use std::net::SocketAddr;
use std::time::Duration;

use crate::error::{Error, Kind, Result};

use super::rights::Rights;

/// How connections meet processes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// A process of its own for every connection; a few spare ones are kept warm, so that no connection waits
    /// for a start.
    #[default]
    Process,
    /// Long-lived workers, each serving one connection after the other (the built-in handlers: many at once).
    Prefork,
}

/// Limits, modes and rights of a server. [`Builder`](super::Builder) has a method per field.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// Process per connection, or prefork.
    pub mode: Mode,
    /// Prefork: the number of workers. Process: the number of spare processes kept warm.
    /// `None`: one worker per usable CPU; a few spares per usable CPU.
    pub workers: Option<usize>,
    /// Connections in service at once. Beyond it they wait in the backlog; none is refused.
    pub max_connections: usize,
    /// Connections in service at once from one address. Beyond it they wait, accepted but not served.
    pub max_per_address: Option<usize>,
    /// Prefork: a worker is replaced after this many connections …
    pub max_requests: Option<u64>,
    /// … plus a random number up to this one, so that workers are not all replaced at once.
    pub max_requests_jitter: u64,
    /// A connection on which nothing arrives, or nothing can be sent, for so long is closed.
    pub idle_timeout: Option<Duration>,
    /// A connection that lasts longer is ended: TERM, then KILL, to its process.
    pub total_timeout: Option<Duration>,
    /// How long a graceful stop lets connections finish before TERM.
    pub grace: Duration,
    /// Length of a listener's backlog; the kernel caps it at `net.core.somaxconn`.
    pub backlog: u32,
    /// Rights of the children: user, group, no_new_privs, resource limits.
    pub rights: Rights,
    /// Where the status page listens; a loopback address. `None`: there is no page.
    pub status: Option<SocketAddr>,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            mode: Mode::Process,
            workers: None,
            max_connections: 1024,
            max_per_address: None,
            max_requests: None,
            max_requests_jitter: 0,
            idle_timeout: None,
            total_timeout: None,
            grace: Duration::from_secs(10),
            backlog: 4096,
            rights: Rights::default(),
            status: None,
        }
    }
}

/// The most connections in service that a server can be told to allow, and the most workers.
pub(super) const MOST: usize = 1 << 16;

impl Config {
    /// Refuses what cannot work, naming the value.
    pub(super) fn check(&self) -> Result<()> {
        let invalid = |why: String| Err(Error::new("configure the server", Kind::Invalid(why)));
        if self.max_connections == 0 || self.max_connections > MOST {
            return invalid(format!("max connections is {}, not 1 to {MOST}", self.max_connections));
        }
        if self.max_per_address == Some(0) {
            return invalid("max connections per address is 0: nobody could connect".into());
        }
        if self.workers.is_some_and(|n| n == 0 || n > MOST) {
            return invalid(format!("the number of workers is not 1 to {MOST}"));
        }
        if self.max_requests == Some(0) {
            return invalid("max requests is 0: workers could never serve".into());
        }
        for (name, time) in [("idle", self.idle_timeout), ("total", self.total_timeout)] {
            if time.is_some_and(|time| time < Duration::from_millis(1)) {
                return invalid(format!("the {name} time-out is below 1 ms"));
            }
        }
        match self.status {
            Some(address) if !address.ip().is_loopback() => invalid(format!(
                "the status page would be reachable from outside on {address}; use 127.0.0.1 or ::1"
            )),
            _ => Ok(()),
        }
    }

    /// The number of workers (prefork) or spares (process) this configuration asks for.
    pub(super) fn worker_count(&self) -> usize {
        let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        match self.mode {
            Mode::Prefork => self.workers.unwrap_or(cpus),
            Mode::Process => self.workers.unwrap_or((4 * cpus).clamp(8, 64)),
        }
    }
}

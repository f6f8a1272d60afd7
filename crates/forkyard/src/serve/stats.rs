//! What a server tells about itself: the same values for [`Control::stats`](super::Control::stats), the status
//! page and `/status.json`.

use serde::Serialize;

/// A server at one moment. Read from shared memory without stopping anybody, so neighbouring values may be a
/// moment apart.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Stats {
    /// Pid of the master.
    pub pid: u32,
    /// Pid of the zygote that children are cloned from; 0 while there is none.
    pub zygote: u32,
    /// `process` or `prefork`.
    pub mode: &'static str,
    /// Seconds since the server started, upgrades included.
    pub uptime: f64,
    /// Reloads and upgrades so far.
    pub generation: u64,
    /// Where it listens.
    pub listeners: Vec<String>,
    /// What the counters say.
    #[serde(flatten)]
    pub counts: Counts,
    /// Children ended by a signal, by signal number.
    pub died: Vec<(u32, u64)>,
    /// From accept to the child: upper bound in microseconds and count, per bucket.
    pub wait: Vec<(u64, u64)>,
    /// From the child's claim to the end of the connection, likewise.
    pub service: Vec<(u64, u64)>,
    /// The children.
    pub workers: Vec<Worker>,
    /// The connections that are known, oldest first.
    pub connections: Vec<Connected>,
}

/// Totals since the server started, and what is going on now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Counts {
    /// Connections accepted.
    pub accepted: u64,
    /// Connections in service now.
    pub active: u64,
    /// Accepted connections that wait for a child.
    pub pending: u64,
    /// Accepted connections that wait because of the limit per address.
    pub parked: u64,
    /// Times that acceptance or service was deferred because of a limit.
    pub deferred: u64,
    /// Connections that ended as their handler wanted.
    pub served: u64,
    /// Connections taken down by the end of their process.
    pub lost: u64,
    /// Connections closed by a time-out.
    pub timeouts: u64,
    /// Requests (reads answered) of the built-in handlers.
    pub requests: u64,
    /// Children started.
    pub started: u64,
    /// Workers and zygotes started again after an unexpected death.
    pub restarted: u64,
    /// Children that ended with an exit code other than 0.
    pub failed: u64,
    /// Times that a start or an accept met a limit of the system and backed off.
    pub backoffs: u64,
}

/// A child of the server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Worker {
    /// Its place on the scoreboard.
    pub slot: u32,
    /// Its pid.
    pub pid: u32,
    /// `starting`, `idle`, `busy` or `leaving`.
    pub state: &'static str,
    /// The connection it serves, by number.
    pub connection: Option<u64>,
    /// How many connections it has in service.
    pub active: u64,
    /// Connections it has finished.
    pub served: u64,
    /// Milliseconds since it was started.
    pub age: u64,
}

/// A connection that the server knows of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Connected {
    /// Its number, counted from 1 for the whole server.
    pub number: u64,
    /// Where it comes from.
    pub peer: String,
    /// Pid of the child that serves it; 0 while it waits.
    pub pid: u32,
    /// Milliseconds since it was accepted.
    pub age: u64,
}

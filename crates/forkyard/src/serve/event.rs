//! What a running server reports: a value per line of a log.

use std::fmt;
use std::net::SocketAddr;

use forkyard_sys::wait::ExitStatus;

use crate::error::Error;

/// Something worth a line in a log.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event {
    /// The status page can be read here.
    StatusPage(SocketAddr),
    /// A child ended other than by finishing its work; with the number of the connection it took down.
    ChildDied {
        /// Its pid.
        pid: u32,
        /// How it ended.
        status: ExitStatus,
        /// The connection it served.
        connection: Option<u64>,
    },
    /// The zygote died and was started again.
    ZygoteRevived {
        /// The new one's pid.
        pid: u32,
    },
    /// A limit of the system was met; the server tries again in a moment.
    BackedOff(Error),
    /// Fresh children are coming; old ones finish what they serve.
    Reloaded {
        /// Reloads and upgrades so far.
        generation: u64,
    },
    /// The number of workers or spares to keep changed.
    Workers(usize),
    /// The program is about to be replaced in place.
    Upgrading,
    /// The program could not be replaced; the old one goes on.
    UpgradeFailed(Error),
    /// The stop has begun: so many connections are in service.
    Draining(usize),
    /// The grace period is over: these many children get TERM, or, later, KILL.
    Ending {
        /// SIGTERM or SIGKILL.
        signal: i32,
        /// How many children get it.
        children: usize,
    },
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Event::StatusPage(address) => write!(f, "status page at http://{address}/"),
            Event::ChildDied { pid, status, connection: Some(number) } => {
                write!(f, "child {pid} ended with connection {number}: {status}")
            }
            Event::ChildDied { pid, status, connection: None } => write!(f, "child {pid} ended: {status}"),
            Event::ZygoteRevived { pid } => write!(f, "the zygote died and was started again as {pid}"),
            Event::BackedOff(error) => write!(f, "waiting a moment: failed to {error}"),
            Event::Reloaded { generation } => write!(f, "reloaded (generation {generation})"),
            Event::Workers(n) => write!(f, "keeping {n} workers"),
            Event::Upgrading => f.write_str("upgrading in place"),
            Event::UpgradeFailed(error) => write!(f, "still the old program: failed to {error}"),
            Event::Draining(1) => write!(f, "stopping: 1 connection to finish"),
            Event::Draining(n) => write!(f, "stopping: {n} connections to finish"),
            Event::Ending { signal, children } => write!(f, "sending signal {signal} to {children} children"),
        }
    }
}

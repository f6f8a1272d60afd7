//! A server before it runs: what it is told, and its listeners, open from the moment it is built.

use std::ffi::OsString;
use std::fmt;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::Duration;

use forkyard_sys::net::{self, End};

use super::address::Address;
use super::config::{Config, Mode};
use super::connection::Connection;
use super::control::Control;
use super::event::Event;
use super::listener::{self, Listener};
use super::rights::Rights;
use super::stats::Stats;
use super::upgrade;
use crate::error::{Error, Kind, Result};
use crate::process::Task;

/// What is done with a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Handler {
    /// Sends back what it gets, with ASCII letters in capitals.
    Upper,
    /// Sends back what it gets.
    Echo,
    /// Executes a program with the connection as standard input and output, and the environment of UCSPI.
    Program(Vec<OsString>),
    /// Calls a `#[forkyard::handler]` function; converted from it.
    Task(&'static str),
}

impl Handler {
    /// A program and its arguments; found in `PATH` if it has no slash.
    pub fn program(args: impl IntoIterator<Item = impl Into<OsString>>) -> Handler {
        Handler::Program(args.into_iter().map(Into::into).collect())
    }
}

impl From<Task<fn(Connection)>> for Handler {
    fn from(task: Task<fn(Connection)>) -> Handler {
        Handler::Task(task.name())
    }
}

/// A server with its listeners open. Connections that come before [`run`](Server::run) wait in the backlog.
pub struct Server {
    pub(super) config: Config,
    pub(super) listeners: Vec<Listener>,
    pub(super) control: Control,
    pub(super) status: Option<OwnedFd>,
    pub(super) on_event: Box<dyn FnMut(&Event)>,
    pub(super) on_ready: Box<dyn FnOnce()>,
}

impl Server {
    /// A server on one address (`HOST:PORT`, `unix:PATH` or `fd://N`), with defaults for everything else.
    ///
    /// # Errors
    /// The address is none, or is in use.
    pub fn bind(address: &str) -> Result<Server> {
        Server::builder().bind(address)?.build()
    }

    /// A server to be configured.
    #[must_use]
    pub fn builder() -> Builder {
        Builder { config: Config::default(), addresses: Vec::new() }
    }

    /// Where it listens, with the ports that the kernel chose.
    pub fn addresses(&self) -> impl Iterator<Item = &Address> {
        self.listeners.iter().map(|listener| &listener.address)
    }

    /// The first TCP address it listens on.
    #[must_use]
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.addresses().find_map(|address| match address {
            Address::Tcp(address) => Some(*address),
            Address::Unix(_) | Address::Inherited(_) => None,
        })
    }

    /// Where the status page is, if there is to be one.
    #[must_use]
    pub fn status_addr(&self) -> Option<SocketAddr> {
        match net::local(self.status.as_ref()?) {
            Ok(End::Tcp(address)) => Some(address),
            _ => None,
        }
    }

    /// A handle through which the running server is told what to do.
    #[must_use]
    pub fn control(&self) -> Control {
        self.control.clone()
    }

    /// Calls `hook` in the serving thread whenever something worth a line in a log happens.
    #[must_use]
    pub fn on_event(mut self, hook: impl FnMut(&Event) + 'static) -> Server {
        self.on_event = Box::new(hook);
        self
    }

    /// Calls `hook` once, when the first children are ready to serve.
    #[must_use]
    pub fn on_ready(mut self, hook: impl FnOnce() + 'static) -> Server {
        self.on_ready = Box::new(hook);
        self
    }

    /// Serves until it is stopped through its [`Control`], and tells what it did.
    ///
    /// The calling thread becomes the master. Call it from a thread that lives as long as the process, as
    /// the main thread does: the children are killed when it ends.
    ///
    /// # Errors
    /// The server could not start, or the kernel refused what it cannot do without.
    pub fn run(self, handler: impl Into<Handler>) -> Result<Stats> {
        super::master::run(self, handler.into())
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("config", &self.config).field("listeners", &self.listeners).finish()
    }
}

/// Configures a [`Server`]. Each method sets the field of [`Config`] with its name.
#[derive(Clone, Debug)]
pub struct Builder {
    config: Config,
    addresses: Vec<Address>,
}

impl Builder {
    /// Listens on one address more: `HOST:PORT`, `unix:PATH` or `fd://N`.
    ///
    /// # Errors
    /// The text is no address.
    pub fn bind(self, address: &str) -> Result<Builder> {
        let address = address.parse()?;
        Ok(self.bind_address(address))
    }

    /// Listens on one address more.
    #[must_use]
    pub fn bind_address(mut self, address: Address) -> Builder {
        self.addresses.push(address);
        self
    }

    /// Listens on what the starter of this program passed by `LISTEN_FDS`, if it passed anything.
    #[must_use]
    #[doc(alias = "LISTEN_FDS")]
    pub fn bind_passed(mut self) -> Builder {
        self.addresses.extend(listener::passed());
        self
    }

    /// How many addresses there are so far.
    #[must_use]
    pub fn addresses(&self) -> usize {
        self.addresses.len()
    }

    /// Replaces everything but the addresses.
    #[must_use]
    pub fn config(mut self, config: Config) -> Builder {
        self.config = config;
        self
    }

    /// Process per connection, or prefork.
    #[must_use]
    pub fn mode(mut self, mode: Mode) -> Builder {
        self.config.mode = mode;
        self
    }

    /// Workers (prefork), or spare processes kept warm (process).
    #[must_use]
    pub fn workers(mut self, workers: usize) -> Builder {
        self.config.workers = Some(workers);
        self
    }

    /// Connections in service at once.
    #[must_use]
    pub fn max_connections(mut self, most: usize) -> Builder {
        self.config.max_connections = most;
        self
    }

    /// Connections in service at once from one address.
    #[must_use]
    pub fn max_per_address(mut self, most: usize) -> Builder {
        self.config.max_per_address = Some(most);
        self
    }

    /// Prefork: connections until a worker is replaced, and the most that is added to it at random.
    #[must_use]
    pub fn max_requests(mut self, most: u64, jitter: u64) -> Builder {
        self.config.max_requests = Some(most);
        self.config.max_requests_jitter = jitter;
        self
    }

    /// Idle time after which a connection is closed.
    #[must_use]
    pub fn idle_timeout(mut self, timeout: Duration) -> Builder {
        self.config.idle_timeout = Some(timeout);
        self
    }

    /// Time after which a connection is ended.
    #[must_use]
    pub fn total_timeout(mut self, timeout: Duration) -> Builder {
        self.config.total_timeout = Some(timeout);
        self
    }

    /// How long a graceful stop lets connections finish.
    #[must_use]
    pub fn grace(mut self, grace: Duration) -> Builder {
        self.config.grace = grace;
        self
    }

    /// Length of the backlog.
    #[must_use]
    pub fn backlog(mut self, backlog: u32) -> Builder {
        self.config.backlog = backlog;
        self
    }

    /// Rights of the children.
    #[must_use]
    pub fn rights(mut self, rights: Rights) -> Builder {
        self.config.rights = rights;
        self
    }

    /// A status page at this loopback address.
    #[must_use]
    pub fn status(mut self, address: SocketAddr) -> Builder {
        self.config.status = Some(address);
        self
    }

    /// Checks the configuration and opens the listeners.
    ///
    /// # Errors
    /// A value is not acceptable, there is no address, or one cannot be listened on.
    pub fn build(self) -> Result<Server> {
        self.config.check()?;
        if self.addresses.is_empty() {
            let why = "no address to listen on; use bind".to_owned();
            return Err(Error::new("build the server", Kind::Invalid(why)));
        }
        upgrade::end_if_probed();
        // Looked up now: later the file may be another one.
        let _ = upgrade::program();
        let backlog = self.config.backlog;
        let mut listeners = Vec::with_capacity(self.addresses.len());
        for address in &self.addresses {
            listeners.push(Listener::open(address, backlog, &listeners)?);
        }
        Ok(Server {
            listeners,
            status: self.config.status.map(open_status).transpose()?,
            config: self.config,
            control: Control::new()?,
            on_event: Box::new(|_| {}),
            on_ready: Box::new(|| {}),
        })
    }
}

fn open_status(address: SocketAddr) -> Result<OwnedFd> {
    const BACKLOG: u32 = 64;
    if let Some(kept) = upgrade::kept_page(&address.to_string()) {
        return Ok(kept);
    }
    net::listen_tcp(address, BACKLOG).map_err(|errno| {
        let hint = "choose another address for the status page, or port 0 for any free port";
        Error::os_hint(format!("serve the status page on {address}"), errno, hint)
    })
}

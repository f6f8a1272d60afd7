//! From validated arguments to the library's server.

use std::net::{SocketAddr, ToSocketAddrs};

use forkyard::serve::{Address, Config, Mode, Rights, Server};

use crate::address::{Bind, HostPort};
use crate::args::Serving;
use crate::flags::{self, Serve};

/// Opens the listeners; the error is a message.
pub(super) fn server(serving: &Serving) -> Result<Server, String> {
    let failed = |error: forkyard::Error| format!("failed to {error}");
    let mut builder = Server::builder().config(config(&serving.flags).map_err(failed)?);
    if serving.bind_by_default {
        builder = builder.bind_passed();
    }
    if builder.addresses() == 0 {
        for bind in &serving.bind {
            builder = builder.bind_address(address(bind)?);
        }
    }
    builder.build().map_err(failed)
}

fn config(flags: &Serve) -> forkyard::Result<Config> {
    let mut config = Config::default();
    config.mode = match flags.mode {
        flags::Mode::Process => Mode::Process,
        flags::Mode::Prefork => Mode::Prefork,
    };
    config.workers = flags.workers.map(|n| n as usize);
    config.max_connections = flags.max_conns.map_or(config.max_connections, |n| n as usize);
    config.max_per_address = flags.max_per_ip.map(|n| n as usize);
    config.max_requests = flags.max_requests;
    config.max_requests_jitter = flags.max_requests_jitter.unwrap_or(0);
    config.idle_timeout = flags.idle_timeout;
    config.total_timeout = flags.timeout;
    config.grace = flags.grace;
    config.backlog = flags.backlog.unwrap_or(config.backlog);
    config.status = flags.status;
    config.rights = rights(flags)?;
    Ok(config)
}

fn rights(flags: &Serve) -> forkyard::Result<Rights> {
    let mut rights = Rights::new();
    if let Some(user) = &flags.user {
        rights = rights.user(user)?;
    }
    if let Some(group) = &flags.group {
        rights = rights.group(group)?;
    }
    for limit in &flags.rlimit {
        rights = rights.rlimit(&limit.to_string())?;
    }
    Ok(if flags.no_new_privs { rights.no_new_privs() } else { rights })
}

fn address(bind: &Bind) -> Result<Address, String> {
    match bind {
        Bind::Tcp(at) => resolve(at).map(Address::Tcp),
        Bind::Unix(path) => Ok(Address::Unix(path.clone())),
        Bind::Fd(number) => Ok(Address::Inherited(*number)),
    }
}

/// A name stands for its first IPv4 address, or for its first IPv6 one if it has no other.
fn resolve(at: &HostPort) -> Result<SocketAddr, String> {
    let unknown = |why: &str| format!("cannot listen on {at}: the host \"{}\" is not known ({why})", at.host);
    let found: Vec<SocketAddr> = (at.host.as_str(), at.port)
        .to_socket_addrs()
        .map_err(|error| unknown(error.to_string().rsplit(": ").next().unwrap_or("no reason is known")))?
        .collect();
    let v4 = found.iter().find(|address| address.is_ipv4());
    v4.or(found.first()).copied().ok_or_else(|| unknown("it has no address"))
}

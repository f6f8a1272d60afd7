//! Where a server listens, as text and as a value.

use std::fmt;
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::fd::RawFd;
use std::path::PathBuf;
use std::str::FromStr;

use crate::error::{Error, Kind};

/// An address of a listener: `HOST:PORT`, `unix:PATH`, or `fd://N` for an inherited one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A TCP address; port 0 lets the kernel choose.
    Tcp(SocketAddr),
    /// A Unix socket at this path.
    Unix(PathBuf),
    /// A listening socket that this process inherited under this number.
    Inherited(RawFd),
}

impl FromStr for Address {
    type Err = Error;

    fn from_str(text: &str) -> Result<Address, Error> {
        let invalid = |why: String| Error::new(format!("read the address \"{text}\""), Kind::Invalid(why));
        if let Some(path) = text.strip_prefix("unix:") {
            if path.is_empty() {
                return Err(invalid("the path is empty".into()));
            }
            return Ok(Address::Unix(PathBuf::from(path)));
        }
        if let Some(number) = text.strip_prefix("fd://") {
            let number = number.parse().ok().filter(|fd| *fd >= 0);
            return number
                .map(Address::Inherited)
                .ok_or_else(|| invalid("fd:// takes the number of an inherited listening socket".into()));
        }
        let mut found = text
            .to_socket_addrs()
            .map_err(|e| invalid(format!("{e}; use HOST:PORT, unix:PATH or fd://N")))?;
        found.next().map(Address::Tcp).ok_or_else(|| invalid("the host has no address".into()))
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Address {
        Address::Tcp(address)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Tcp(address) => address.fmt(f),
            Address::Unix(path) => write!(f, "unix:{}", path.display()),
            Address::Inherited(fd) => write!(f, "fd://{fd}"),
        }
    }
}

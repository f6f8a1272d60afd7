//! Listeners: opened, inherited from whoever started this program, or kept through an upgrade.
//!
//! A Unix listener's file is 0600 from creation. A file left by a dead server (nobody answers a connect) is
//! replaced by renaming a fresh one over it; a living server's file, or a file of another kind, is an error. The file
//! is removed by the process that made it, if it is still the same file.
//!
//! Killed here: a Unix listener's file stays, nobody answers on it, and the next server replaces it.

use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use forkyard_sys::net::{self, End};
use forkyard_sys::{Errno, Result as SysResult};
use serde::{Deserialize, Serialize};

use super::address::Address;
use crate::error::{Error, Kind, Result};

/// The first fd that a starter of ours passes, by the convention of `LISTEN_FDS`.
const LISTEN_FDS_START: RawFd = 3;

/// An open listener.
#[derive(Debug)]
pub(super) struct Listener {
    fd: OwnedFd,
    /// What was asked for: after an upgrade, the listener is found by it.
    pub(super) asked: String,
    /// Where it listens.
    pub(super) address: Address,
    file: Option<SocketFile>,
}

/// The file of a Unix listener that this process made.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
    maker: u32,
}

impl Listener {
    /// Opens a listener, or takes the one that was kept through an upgrade. None of those opened before was inherited under its own number.
    pub(super) fn open(address: &Address, backlog: u32, before: &[Listener]) -> Result<Listener> {
        let asked = address.to_string();
        if let Some(kept) = super::upgrade::kept_listener(&asked) {
            return Ok(kept);
        }
        let what = || format!("listen on {address}");
        let (fd, file) = match address {
            Address::Tcp(tcp) => {
                (net::listen_tcp(*tcp, backlog).map_err(|e| refused(what(), e, Some(tcp)))?, None)
            }
            Address::Unix(path) => {
                let (fd, file) = open_unix(path, backlog)?;
                (fd, Some(file))
            }
            Address::Inherited(number) => {
                let hint = "it must be an open, listening stream socket";
                let own = before.iter().any(|listener| listener.fd.as_raw_fd() == *number);
                let inherited = if own { Err(Errno::BADF) } else { net::inherited(*number) };
                (inherited.map_err(|e| Error::os_hint(what(), e, hint))?, None)
            }
        };
        let address = match net::local(&fd) {
            Ok(End::Tcp(tcp)) => Address::Tcp(tcp),
            Ok(End::Unix(Some(path))) if file.is_none() => Address::Unix(path),
            _ => address.clone(),
        };
        Ok(Listener { fd, asked, address, file })
    }

    /// Takes one over from the image before an upgrade.
    pub(super) fn kept(fd: OwnedFd, asked: String, address: Address, file: Option<SocketFile>) -> Listener {
        Listener { fd, asked, address, file }
    }

    /// The file it made, for the image after an upgrade.
    pub(super) fn file(&self) -> Option<&SocketFile> {
        self.file.as_ref()
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let Some(file) = &self.file else { return };
        let same = std::fs::symlink_metadata(&file.path)
            .is_ok_and(|found| found.dev() == file.device && found.ino() == file.inode);
        if same && file.maker == std::process::id() {
            // It was there a moment ago; if it is gone now, that is what was wanted.
            let _ = std::fs::remove_file(&file.path);
        }
    }
}

fn refused(what: String, errno: Errno, address: Option<&SocketAddr>) -> Error {
    let hint = match (errno, address) {
        (Errno::ADDRINUSE, None) => "another server listens there; choose another path",
        (Errno::ADDRINUSE, _) => {
            "another server listens there; choose another address, or port 0 for any free port"
        }
        (Errno::ACCESS, Some(tcp)) if tcp.port() < 1024 => "ports below 1024 need CAP_NET_BIND_SERVICE",
        (Errno::ADDRNOTAVAIL, _) => "this machine has no such address",
        _ => return Error::os(what, errno),
    };
    Error::os_hint(what, errno, hint)
}

fn open_unix(path: &Path, backlog: u32) -> Result<(OwnedFd, SocketFile)> {
    let what = || format!("listen on unix:{}", path.display());
    let io = |e: std::io::Error| Error::os(what(), Errno::from_io_error(&e).unwrap_or(Errno::IO));
    let fd = match net::listen_unix(path, backlog) {
        Err(Errno::ADDRINUSE) => replace_stale(path, backlog)?,
        result => result.map_err(|errno| refused(what(), errno, None))?,
    };
    let made = std::fs::symlink_metadata(path).map_err(io)?;
    let file =
        SocketFile { path: path.into(), device: made.dev(), inode: made.ino(), maker: std::process::id() };
    Ok((fd, file))
}

/// Replaces the socket file of a server that is gone.
fn replace_stale(path: &Path, backlog: u32) -> Result<OwnedFd> {
    let what = || format!("listen on unix:{}", path.display());
    let found = std::fs::symlink_metadata(path);
    if found.is_ok_and(|found| !found.file_type().is_socket()) {
        return Err(Error::new(
            what(),
            Kind::Invalid("there is a file that is no socket; remove it yourself".into()),
        ));
    }
    match net::unix_is_alive(path) {
        Ok(true) => return Err(refused(what(), Errno::ADDRINUSE, None)),
        Ok(false) | Err(Errno::NOENT) => {}
        Err(errno) => return Err(Error::os(what(), errno)),
    }
    let mut fresh = path.as_os_str().to_owned();
    fresh.push(format!(".{}", std::process::id()));
    let fresh = PathBuf::from(fresh);
    let open = || -> SysResult<OwnedFd> {
        let fd = net::listen_unix(&fresh, backlog)?;
        match std::fs::rename(&fresh, path) {
            Ok(()) => Ok(fd),
            Err(error) => {
                // The rename's error is the one to report.
                let _ = std::fs::remove_file(&fresh);
                Err(Errno::from_io_error(&error).unwrap_or(Errno::IO))
            }
        }
    };
    open().map_err(|errno| Error::os(what(), errno))
}

/// The listeners that the starter of this program passed by `LISTEN_FDS`; none if it passed none to this process.
pub(super) fn passed() -> Vec<Address> {
    let number = |name: &str| std::env::var(name).ok()?.parse::<i32>().ok();
    if number("LISTEN_PID").and_then(|pid| u32::try_from(pid).ok()) != Some(std::process::id()) {
        return Vec::new();
    }
    let count = number("LISTEN_FDS").filter(|count| (0..=1024).contains(count)).unwrap_or(0);
    (LISTEN_FDS_START..LISTEN_FDS_START + count).map(Address::Inherited).collect()
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use super::{Address, Listener};

    #[test]
    fn a_listener_of_ones_own_is_not_taken_for_an_inherited_one() {
        let own = Listener::open(&Address::Tcp("127.0.0.1:0".parse().unwrap()), 1, &[]).unwrap();
        let number = Address::Inherited(own.fd.as_raw_fd());
        let error = Listener::open(&number, 1, std::slice::from_ref(&own)).unwrap_err();
        assert!(error.to_string().contains("it must be an open, listening"), "{error}");
        assert_eq!(Listener::open(&number, 1, &[]).unwrap().address, own.address);
    }
}

//! Telling the service manager: sd_notify(3) over the datagram socket that `NOTIFY_SOCKET` names.
//!
//! Without the variable nothing is sent. A manager that cannot be reached is no reason to stop serving; the
//! caller logs the error. Programs that serve connections do not get the variable.

use std::ffi::OsString;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// The manager's socket, if there is a manager.
#[derive(Debug)]
pub(crate) struct Notify(Option<OsString>);

impl Notify {
    pub(crate) fn from_environment() -> Notify {
        Notify(std::env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty()))
    }

    /// Connections are accepted; `MAINPID` because an upgrade may have changed what the manager knows.
    pub(crate) fn ready(&self) -> io::Result<()> {
        self.send(&format!("READY=1\nMAINPID={}", std::process::id()))
    }

    /// A reload or upgrade has begun; [`ready`](Notify::ready) tells its end.
    pub(crate) fn reloading(&self) -> io::Result<()> {
        self.send(&format!("RELOADING=1\nMONOTONIC_USEC={}", monotonic_usec().unwrap_or(0)))
    }

    /// The end has begun.
    pub(crate) fn stopping(&self) -> io::Result<()> {
        self.send("STOPPING=1")
    }

    fn send(&self, message: &str) -> io::Result<()> {
        let Some(name) = &self.0 else { return Ok(()) };
        let socket = UnixDatagram::unbound()?;
        // A manager whose queue is full must not stop the server.
        socket.set_nonblocking(true)?;
        let address = match name.as_bytes() {
            [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
            _ => SocketAddr::from_pathname(name)?,
        };
        socket.send_to_addr(message.as_bytes(), &address).map(drop)
    }
}

/// The monotonic clock in microseconds, which `std::time::Instant` keeps to itself: the time since boot, rounded
/// up to the hundredth of a second in which the kernel tells it, so that it is not before the request.
fn monotonic_usec() -> Option<u64> {
    let uptime = std::fs::read_to_string("/proc/uptime").ok()?;
    let seconds: f64 = uptime.split_whitespace().next()?.parse().ok()?;
    Some((seconds * 1e6) as u64 + 10_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(name: OsString, socket: UnixDatagram) -> String {
        socket.set_read_timeout(Some(std::time::Duration::from_secs(10))).unwrap();
        Notify(Some(name)).ready().unwrap();
        let mut buffer = [0; 256];
        let length = socket.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    }

    #[test]
    fn managers_are_told_through_paths_and_abstract_names() {
        let expected = format!("READY=1\nMAINPID={}", std::process::id());
        let name = format!("forkyard-notify-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        assert_eq!(told(format!("@{name}").into(), UnixDatagram::bind_addr(&address).unwrap()), expected);

        let path = std::env::temp_dir().join(name);
        let socket = UnixDatagram::bind(&path).unwrap();
        assert_eq!(told(path.clone().into(), socket), expected);
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn without_a_manager_nothing_happens() {
        assert!(Notify(None).stopping().is_ok());
        assert!(Notify(Some("/nonexistent/socket".into())).stopping().is_err());
    }
}

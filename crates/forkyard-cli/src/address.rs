//! Addresses as they are written on the command line, checked before anything is started.
//!
//! Each error says what is missing and what to write instead, because `8081` and `::1:8081` are what people try.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

/// A host and a port, not yet looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HostPort {
    /// A name or an address, without the brackets of IPv6.
    pub(crate) host: String,
    /// 0 lets the kernel choose, where that makes sense.
    pub(crate) port: u16,
}

/// Where `serve` listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Bind {
    Tcp(HostPort),
    Unix(PathBuf),
    /// A listening socket that was inherited under this number.
    Fd(i32),
}

/// Where `connect` goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Peer {
    Tcp(HostPort),
    Unix(PathBuf),
}

/// Longest path that fits a socket address.
const UNIX_PATH_MAX: usize = 107;

pub(crate) fn bind(text: &str) -> Result<Bind, String> {
    if let Some(path) = text.strip_prefix("unix:") {
        return unix(path).map(Bind::Unix);
    }
    if let Some(number) = text.strip_prefix("fd://") {
        return match number.parse() {
            Ok(fd) if fd > 2 => Ok(Bind::Fd(fd)),
            Ok(0..=2) => Err("descriptors 0 to 2 are standard input, output and error; inherited listeners start at fd://3".into()),
            _ => Err("write fd:// and the number of an inherited listening socket, such as fd://3".into()),
        };
    }
    host_port(text, "127.0.0.1:8081, [::1]:8081, unix:/run/my.sock or fd://3").map(Bind::Tcp)
}

pub(crate) fn peer(text: &str) -> Result<Peer, String> {
    if let Some(path) = text.strip_prefix("unix:") {
        return unix(path).map(Peer::Unix);
    }
    match host_port(text, "127.0.0.1:8081, [::1]:8081 or unix:/run/my.sock")? {
        HostPort { port: 0, .. } => {
            Err("nobody can listen on port 0; give the port that the server printed".into())
        }
        to => Ok(Peer::Tcp(to)),
    }
}

/// A loopback address for the status page.
pub(crate) fn status(text: &str) -> Result<SocketAddr, String> {
    let HostPort { host, port } = host_port(text, "127.0.0.1:8082 or [::1]:8082")?;
    let ip = match host.parse() {
        Ok(ip) => ip,
        Err(_) if host == "localhost" => IpAddr::from([127, 0, 0, 1]),
        Err(_) => {
            return Err(
                "give the address itself, such as 127.0.0.1:8082; names are not looked up here".into()
            );
        }
    };
    if !ip.is_loopback() {
        return Err(format!(
            "{ip} can be reached from outside, and the status page shows processes and clients to anybody who \
             asks; use 127.0.0.1:{port}, and a tunnel or a proxy with a login to see it from elsewhere"
        ));
    }
    Ok(SocketAddr::new(ip, port))
}

fn unix(path: &str) -> Result<PathBuf, String> {
    match path.len() {
        0 => Err("the path is missing; write unix:/run/my.sock".into()),
        _ if path.contains('\0') || path.starts_with('@') => {
            Err("abstract sockets have no owner and no permissions; use a path in a directory of your own"
                .into())
        }
        1..=UNIX_PATH_MAX => Ok(PathBuf::from(path)),
        n => Err(format!(
            "the path has {n} bytes, a socket's path may have {UNIX_PATH_MAX}; use a shorter one"
        )),
    }
}

fn host_port(text: &str, examples: &str) -> Result<HostPort, String> {
    let write = |why: &str| format!("{why}; write {examples}");
    if text.contains("://") {
        return Err(write("this is a URL, not an address"));
    }
    let (host, port) = if let Some(rest) = text.strip_prefix('[') {
        let (host, rest) = rest.split_once(']').ok_or_else(|| write("the closing bracket is missing"))?;
        let port = rest.strip_prefix(':').ok_or_else(|| write("the port is missing after the bracket"))?;
        match host.split('%').next().map(str::parse::<IpAddr>) {
            Some(Ok(IpAddr::V6(_))) => (host, port),
            _ => return Err(write("brackets are for an IPv6 address")),
        }
    } else {
        let (host, port) = text.rsplit_once(':').ok_or_else(|| match text.parse::<u16>() {
            Ok(port) => {
                format!("the host is missing; write 127.0.0.1:{port}, or 0.0.0.0:{port} for all addresses")
            }
            Err(_) => write("the port is missing"),
        })?;
        if host.contains(':') {
            return Err(format!("an IPv6 address needs brackets; write [::1]:8081 (is it [{host}]:{port}?)"));
        }
        (host, port)
    };
    if host.is_empty() {
        return Err(format!(
            "the host is missing; write 127.0.0.1:{port}, or 0.0.0.0:{port} for all addresses"
        ));
    }
    let port = port.parse().map_err(|_| format!("\"{port}\" is no port; a port is a number up to 65535"))?;
    Ok(HostPort { host: host.to_owned(), port })
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Peer::Tcp(to) => to.fmt(f),
            Peer::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl fmt::Display for Bind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Bind::Tcp(at) => at.fmt(f),
            Bind::Unix(path) => write!(f, "unix:{}", path.display()),
            Bind::Fd(number) => write!(f, "fd://{number}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_documented_form_reads_and_prints_back() {
        for text in [
            "127.0.0.1:8081",
            "localhost:0",
            "[::1]:8081",
            "[fe80::1%eth0]:1",
            "unix:/run/a b.sock",
            "fd://3",
        ] {
            assert_eq!(bind(text).unwrap().to_string(), text);
        }
        for text in ["example.org:80", "[::1]:8081", "unix:relative.sock"] {
            assert_eq!(peer(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_people_try_first_is_explained() {
        for (text, hint) in [
            ("8081", "127.0.0.1:8081"),
            (":8081", "0.0.0.0:8081"),
            ("localhost", "the port is missing"),
            ("::1:8081", "brackets"),
            ("[::1]", "the port is missing"),
            ("[::1:80", "closing bracket"),
            ("[localhost]:80", "brackets are for"),
            ("localhost:http", "65535"),
            ("localhost:70000", "65535"),
            ("http://localhost:80", "URL"),
            ("unix:", "path is missing"),
            ("unix:@name", "abstract"),
            ("fd://x", "fd://3"),
            ("fd://1", "fd://3"),
            ("", "the port is missing"),
        ] {
            let why = bind(text).unwrap_err();
            assert!(why.contains(hint), "{text}: {why}");
        }
        assert!(bind(&format!("unix:{}", "x".repeat(108))).unwrap_err().contains("107"));
        assert!(peer("localhost:0").unwrap_err().contains("port 0"));
    }

    #[test]
    fn the_status_page_stays_at_home() {
        for text in ["127.0.0.1:0", "[::1]:8082", "localhost:8082", "127.1.2.3:1"] {
            assert!(status(text).unwrap().ip().is_loopback(), "{text}");
        }
        for text in ["0.0.0.0:8082", "[::]:8082", "192.168.1.1:80"] {
            assert!(status(text).unwrap_err().contains("reached from outside"), "{text}");
        }
        assert!(status("example.org:80").is_err());
    }
}

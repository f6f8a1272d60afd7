//! Who is at the other end of a connection, in three words of the scoreboard and of the hand-off.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use forkyard_sys::net::End;

/// The other end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Peer {
    Tcp(SocketAddr),
    Unix,
}

const UNIX: u64 = 1;
const V4: u64 = 4;
const V6: u64 = 6;

impl Peer {
    #[cfg(test)]
    pub(super) fn unix() -> Peer {
        Peer::Unix
    }

    /// Address, address, family and port.
    pub(super) fn words(&self) -> [u64; 3] {
        match self {
            Peer::Unix => [0, 0, UNIX],
            Peer::Tcp(address) => {
                let port = u64::from(address.port()) << 8;
                match address.ip() {
                    IpAddr::V4(ip) => [0, u64::from(u32::from(ip)), V4 | port],
                    IpAddr::V6(ip) => {
                        let bits = u128::from(ip);
                        [(bits >> 64) as u64, bits as u64, V6 | port]
                    }
                }
            }
        }
    }

    /// The end that these words mean; anything unknown is taken for a Unix socket.
    pub(super) fn from_words([high, low, family]: [u64; 3]) -> Peer {
        let port = (family >> 8) as u16;
        let ip = match family & 0xFF {
            V4 => IpAddr::V4(Ipv4Addr::from(low as u32)),
            V6 => IpAddr::V6(Ipv6Addr::from(u128::from(high) << 64 | u128::from(low))),
            _ => return Peer::Unix,
        };
        Peer::Tcp(SocketAddr::new(ip, port))
    }

    /// What the limit per address counts by. An IPv4 address counts as itself however it is written.
    pub(super) fn address(&self) -> Option<IpAddr> {
        match self {
            Peer::Tcp(address) => Some(address.ip().to_canonical()),
            Peer::Unix => None,
        }
    }
}

impl From<End> for Peer {
    fn from(end: End) -> Peer {
        match end {
            End::Tcp(address) => Peer::Tcp(address),
            End::Unix(_) => Peer::Unix,
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Peer::Tcp(address) => address.fmt(f),
            Peer::Unix => f.write_str("unix"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Peer;

    #[test]
    fn words_give_the_peer_back() {
        for text in ["127.0.0.1:80", "255.1.2.3:65535", "[::1]:0", "[2001:db8::7]:443"] {
            let peer = Peer::Tcp(text.parse().unwrap());
            assert_eq!(Peer::from_words(peer.words()), peer);
        }
        assert_eq!(Peer::from_words(Peer::Unix.words()), Peer::Unix);
        assert_eq!(Peer::from_words([u64::MAX; 3]), Peer::Unix);
    }
}

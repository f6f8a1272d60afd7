//! A load generator: many short connections at once from one process.
//!
//! Each connection sends `hello`, reads the reply and closes. They come from many loopback addresses, so that
//! ports in TIME_WAIT never run out.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, connect, recv, send, socket_with,
};

const REQUEST: &[u8] = b"hello\n";
/// What a server in capitals replies.
pub const CAPITALS: &[u8] = b"HELLO\n";
/// What an echo replies.
pub const ECHO: &[u8] = REQUEST;
/// A connection that takes longer has hung.
const HUNG: Duration = Duration::from_secs(10);

/// How a connection went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// Not accepted.
    Refused,
    /// Accepted, then reset by the server's side.
    Reset,
    /// Closed by the server's side before the whole reply.
    Closed,
    /// Another reply than expected.
    Wrong,
    /// No reply in time.
    Hung,
}

/// A connection that has ended.
#[derive(Debug, Clone, Copy)]
pub struct Ended {
    /// When it was opened.
    pub opened: Instant,
    /// When its end was seen.
    pub ended: Instant,
    /// Whether it was served.
    pub result: Result<(), Failure>,
}

struct Connection {
    fd: OwnedFd,
    opened: Instant,
    sent: bool,
    received: usize,
}

/// Connections in flight to one server.
pub struct Flood {
    addr: SocketAddrV4,
    reply: &'static [u8],
    epoll: OwnedFd,
    slots: Vec<Option<Connection>>,
    events: Vec<epoll::Event>,
    source: u32,
    checked: Instant,
}

impl Flood {
    /// Room for `concurrency` connections to `addr`, which expect `reply`; none is open yet.
    pub fn new(addr: SocketAddrV4, reply: &'static [u8], concurrency: usize) -> io::Result<Flood> {
        Ok(Flood {
            addr,
            reply,
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            slots: (0..concurrency).map(|_| None).collect(),
            events: Vec::with_capacity(concurrency),
            source: rustix::process::getpid().as_raw_nonzero().get() as u32,
            checked: Instant::now(),
        })
    }

    /// Open connections.
    pub fn open(&self) -> usize {
        self.slots.iter().flatten().count()
    }

    /// Opens up to `limit` connections in free slots; returns how many. Those that fail at once go to `ended`.
    pub fn fill(&mut self, limit: usize, mut ended: impl FnMut(Ended)) -> io::Result<usize> {
        let mut opened = 0;
        for slot in 0..self.slots.len() {
            if opened < limit && self.slots[slot].is_none() {
                opened += 1;
                self.start(slot, &mut ended)?;
            }
        }
        Ok(opened)
    }

    /// Waits up to `limit` for connections to go on, and reports those that ended.
    pub fn wait(&mut self, limit: Duration, mut ended: impl FnMut(Ended)) -> io::Result<()> {
        let timeout = Timespec::try_from(limit).map_err(io::Error::other)?;
        self.events.clear();
        match epoll::wait(&self.epoll, spare_capacity(&mut self.events), Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
        for at in 0..self.events.len() {
            let slot = self.events[at].data.u64() as usize;
            let Some(connection) = self.slots.get_mut(slot).and_then(Option::as_mut) else { continue };
            let sent = connection.sent;
            if let Some(result) = connection.go_on(self.reply) {
                let opened = connection.opened;
                self.slots[slot] = None;
                ended(Ended { opened, ended: Instant::now(), result });
            } else if connection.sent != sent {
                let data = epoll::EventData::new_u64(slot as u64);
                epoll::modify(&self.epoll, &connection.fd, data, epoll::EventFlags::IN)?;
            }
        }
        self.give_up_hung(ended);
        Ok(())
    }

    fn start(&mut self, slot: usize, ended: &mut impl FnMut(Ended)) -> io::Result<()> {
        let opened = Instant::now();
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let fd = socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
        // 127.64.0.0 to 127.127.255.255, each used in turn
        self.source = self.source.wrapping_add(257);
        let source = Ipv4Addr::from(0x7f40_0000 | (self.source & 0x003f_ffff));
        bind(&fd, &SocketAddrV4::new(source, 0))?;
        match connect(&fd, &self.addr) {
            Ok(()) | Err(Errno::INPROGRESS | Errno::INTR) => {}
            Err(e) => {
                ended(Ended { opened, ended: Instant::now(), result: Err(failure(e)?) });
                return Ok(());
            }
        }
        let mut connection = Connection { fd, opened, sent: false, received: 0 };
        if let Some(result) = connection.send() {
            ended(Ended { opened, ended: Instant::now(), result });
            return Ok(());
        }
        let want = if connection.sent { epoll::EventFlags::IN } else { epoll::EventFlags::OUT };
        epoll::add(&self.epoll, &connection.fd, epoll::EventData::new_u64(slot as u64), want)?;
        self.slots[slot] = Some(connection);
        Ok(())
    }

    fn give_up_hung(&mut self, mut ended: impl FnMut(Ended)) {
        let now = Instant::now();
        if now - self.checked < Duration::from_secs(1) {
            return;
        }
        self.checked = now;
        for slot in &mut self.slots {
            if let Some(opened) = slot.as_ref().map(|c| c.opened).filter(|&opened| now - opened > HUNG) {
                *slot = None;
                ended(Ended { opened, ended: now, result: Err(Failure::Hung) });
            }
        }
    }
}

impl Connection {
    /// What is possible without waiting; `Some` when the connection is over.
    fn go_on(&mut self, reply: &[u8]) -> Option<Result<(), Failure>> {
        if !self.sent {
            return self.send();
        }
        let mut buffer = [0; 64];
        match recv(&self.fd, &mut buffer, RecvFlags::empty()) {
            Ok((0, _)) => Some(Err(Failure::Closed)),
            Ok((n, _)) if reply.get(self.received..self.received + n) != buffer.get(..n) => {
                Some(Err(Failure::Wrong))
            }
            Ok((n, _)) => {
                self.received += n;
                (self.received == reply.len()).then_some(Ok(()))
            }
            Err(Errno::AGAIN | Errno::INTR) => None,
            Err(e) => Some(Err(failure(e).unwrap_or(Failure::Reset))),
        }
    }

    fn send(&mut self) -> Option<Result<(), Failure>> {
        match send(&self.fd, REQUEST, SendFlags::NOSIGNAL) {
            Ok(n) if n == REQUEST.len() => self.sent = true,
            Ok(_) | Err(Errno::AGAIN | Errno::INTR) => {}
            Err(e) => return Some(Err(failure(e).unwrap_or(Failure::Reset))),
        }
        None
    }
}

fn failure(errno: Errno) -> io::Result<Failure> {
    match errno {
        Errno::CONNREFUSED => Ok(Failure::Refused),
        Errno::CONNRESET | Errno::PIPE => Ok(Failure::Reset),
        Errno::TIMEDOUT => Ok(Failure::Hung),
        other => Err(other.into()),
    }
}

/// Connections per second over `length`, after a tenth of it as a warm-up; any failed one is an error.
pub fn connections_per_second(mut flood: Flood, length: Duration) -> Result<f64, String> {
    let concurrency = flood.slots.len();
    let run = |flood: &mut Flood, length: Duration| -> Result<f64, String> {
        let begin = Instant::now();
        let (mut served, mut failed) = (0u64, None);
        while begin.elapsed() < length && failed.is_none() {
            let mut count = |e: Ended| match e.result {
                Ok(()) => served += 1,
                Err(failure) => failed = Some(failure),
            };
            let full = flood.fill(concurrency, &mut count);
            full.and_then(|_| flood.wait(length, &mut count)).map_err(|e| e.to_string())?;
        }
        match failed {
            None if served > 0 => Ok(served as f64 / begin.elapsed().as_secs_f64()),
            None => Err("served nothing".into()),
            Some(failure) => Err(format!("a connection failed: {failure:?} after {served} served")),
        }
    };
    run(&mut flood, length / 10)?;
    run(&mut flood, length)
}

/// A kill: delivered between these two moments.
#[derive(Debug, Clone, Copy)]
pub struct Kill {
    /// Just before it.
    pub before: Instant,
    /// Just after it.
    pub after: Instant,
}

/// How many failed connections have no kill of their own: one delivered while the connection was open.
pub fn unexplained(ended: &[Ended], kills: &[Kill]) -> usize {
    let mut failed: Vec<&Ended> = ended.iter().filter(|e| e.result.is_err()).collect();
    // Earliest end first, each with the earliest kill that fits: no other choice explains more of them.
    failed.sort_by_key(|e| e.ended);
    let mut kills = kills.to_vec();
    kills.sort_by_key(|k| k.before);
    let mut explained = 0;
    for connection in &failed {
        let fits = |k: &Kill| connection.opened <= k.after && k.before <= connection.ended;
        if let Some(at) = kills.iter().position(fits) {
            kills.remove(at);
            explained += 1;
        }
    }
    failed.len() - explained
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kill_explains_one_connection_that_was_open() {
        let zero = Instant::now();
        let at = |ms| zero + Duration::from_millis(ms);
        let kill = |ms| Kill { before: at(ms), after: at(ms) };
        let failed = |from, to| Ended { opened: at(from), ended: at(to), result: Err(Failure::Reset) };
        let served = Ended { opened: at(0), ended: at(100), result: Ok(()) };
        assert_eq!(unexplained(&[served, failed(0, 10)], &[kill(5)]), 0);
        assert_eq!(unexplained(&[failed(0, 10)], &[kill(11)]), 1);
        assert_eq!(unexplained(&[failed(0, 10), failed(0, 10)], &[kill(5)]), 1);
        assert_eq!(unexplained(&[failed(0, 10), failed(0, 20)], &[kill(15), kill(5)]), 0);
    }
}

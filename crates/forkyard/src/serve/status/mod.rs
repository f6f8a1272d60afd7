//! The status page: a process of its own that reads the scoreboard and speaks HTTP on a loopback address.
//!
//! It can write nothing that the master reads, and the master never waits for it. Clients have a deadline for all
//! they do, and the oldest gives way when there are too many.
//!
//! Killed here: the page is gone for a moment; the master starts it again, with back-off when it dies at once.

mod http;

use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use forkyard_sys::epoll::{Epoll, Interest};
use forkyard_sys::net::{self, End};
use forkyard_sys::{Errno, Result as SysResult};

use self::http::Wanted;
use super::scoreboard::{Board, Reader};
use crate::process::Fd;

/// What is served at `/`.
const PAGE: &str = include_str!("page.html");
/// A client is done within this time, or is dropped.
const PATIENCE: Duration = Duration::from_secs(5);
/// Most clients at a time.
const MOST: usize = 64;
const LISTENER: u64 = u64::MAX;

/// Serves the page of a server with these listeners until the server ends.
#[crate::task]
pub(super) fn serve_page(listener: Fd, board: Fd, listeners: Vec<String>) -> Result<(), String> {
    let board = Board::attach(board.into(), false).map_err(|errno| format!("map the scoreboard: {errno}"))?;
    let reader = Reader::new(Arc::new(board), listeners);
    let here = match net::local(&listener) {
        Ok(End::Tcp(address)) => address,
        other => return Err(format!("the page's own address: {other:?}")),
    };
    let page = Page { listener: listener.into(), here, reader, clients: Vec::new() };
    page.serve().map_err(|errno| format!("serve the status page: {errno}"))
}

struct Page {
    listener: OwnedFd,
    here: SocketAddr,
    reader: Reader,
    clients: Vec<Option<Client>>,
}

struct Client {
    fd: OwnedFd,
    since: Instant,
    request: Vec<u8>,
    /// What is left of the response, once there is one.
    response: Option<Vec<u8>>,
}

/// The client is finished with, one way or the other.
struct Over;

impl Page {
    fn serve(mut self) -> SysResult<()> {
        let epoll = Epoll::new()?;
        epoll.add(&self.listener, LISTENER, Interest::IN)?;
        let mut ready = Vec::with_capacity(MOST);
        loop {
            epoll.wait(&mut ready, self.timeout())?;
            for event in &ready {
                match event.data.u64() {
                    LISTENER => self.accept(&epoll),
                    key => self.attend(&epoll, usize::try_from(key).unwrap_or(usize::MAX)),
                }
            }
            for client in &mut self.clients {
                client.take_if(|client| client.since.elapsed() >= PATIENCE);
            }
        }
    }

    fn timeout(&self) -> Option<Duration> {
        let oldest = self.clients.iter().flatten().map(|client| client.since).min()?;
        Some((oldest + PATIENCE).saturating_duration_since(Instant::now()))
    }

    fn accept(&mut self, epoll: &Epoll) {
        // Any failure concerns that one client, or passes.
        let Ok((fd, _)) = net::accept(&self.listener) else { return };
        let place = self.free_place();
        if epoll.add(&fd, place as u64, Interest::IN).is_ok() {
            self.clients[place] =
                Some(Client { fd, since: Instant::now(), request: Vec::new(), response: None });
        }
    }

    /// A place for one more; the oldest client's, if there are too many.
    fn free_place(&mut self) -> usize {
        if let Some(place) = self.clients.iter().position(Option::is_none) {
            return place;
        }
        if self.clients.len() < MOST {
            self.clients.push(None);
            return self.clients.len() - 1;
        }
        let ages = self.clients.iter().enumerate();
        ages.min_by_key(|(_, client)| client.as_ref().map(|client| client.since))
            .map_or(0, |(place, _)| place)
    }

    fn attend(&mut self, epoll: &Epoll, place: usize) {
        let Some(Some(client)) = self.clients.get_mut(place) else { return };
        if client.attend(epoll, place as u64, self.here, &self.reader).is_err() {
            self.clients[place] = None;
        }
    }
}

impl Client {
    fn attend(&mut self, epoll: &Epoll, key: u64, here: SocketAddr, reader: &Reader) -> Result<(), Over> {
        if self.response.is_none() {
            let mut bytes = [0; 2048];
            match net::receive(&self.fd, &mut bytes, false) {
                Ok(0) => return Err(Over),
                Ok(len) => self.request.extend_from_slice(&bytes[..len]),
                Err(Errno::AGAIN) => return Ok(()),
                Err(_) => return Err(Over),
            }
            self.response = match http::read(&self.request, here) {
                Wanted::More => return Ok(()),
                Wanted::Page { body } => {
                    Some(http::response("text/html; charset=utf-8", PAGE.as_bytes(), body))
                }
                Wanted::Json { body } => {
                    let json = serde_json::to_vec(&reader.stats()).unwrap_or_default();
                    Some(http::response("application/json", &json, body))
                }
                Wanted::Refused(why) => Some(http::refusal(why)),
            };
            epoll.modify(self.fd.as_fd(), key, Interest::OUT).map_err(|_| Over)?;
        }
        let Some(rest) = &mut self.response else { return Ok(()) };
        match net::send(&self.fd, rest, false) {
            Ok(sent) => drop(rest.drain(..sent)),
            Err(Errno::AGAIN) => {}
            Err(_) => return Err(Over),
        }
        if rest.is_empty() { Err(Over) } else { Ok(()) }
    }
}

//! The status page's process: started, watched, started again.

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use forkyard_sys::epoll::Interest;
use forkyard_sys::net::{self, End};
use forkyard_sys::{Errno, wait};

use super::super::event::Event;
use super::super::status::serve_page;
use super::backoff::Backoff;
use super::stop::Phase;
use super::{Key, Master, generation::Generation};
use crate::error::{Error, Result};
use crate::process::template::Started;
use crate::process::{Fd, runtime};

/// A page that lived so long did not die of itself.
const LASTED: Duration = Duration::from_secs(1);
const SIGKILL: i32 = 9;

/// The status page of a running server.
pub(super) struct Page {
    pub(super) listener: OwnedFd,
    announced: bool,
    process: Option<Started>,
    since: Instant,
    starts: Backoff,
}

impl Page {
    pub(super) fn new(listener: OwnedFd) -> Page {
        Page { listener, announced: false, process: None, since: Instant::now(), starts: Backoff::default() }
    }

    /// When it may be started again.
    pub(super) fn pending(&self, now: Instant) -> Option<Instant> {
        self.starts.pending(now).filter(|_| self.process.is_none())
    }
}

impl Master {
    /// Starts the page's process if there is none.
    pub(super) fn keep_page(&mut self) {
        let Some(mut page) = self.page.take() else { return };
        let now = Instant::now();
        if page.process.is_none() && page.starts.pending(now).is_none() && self.phase == Phase::Running {
            match self.start_page(&page) {
                Ok(started) => {
                    page.process = Some(started);
                    page.since = now;
                    if let (false, Ok(End::Tcp(address))) = (page.announced, net::local(&page.listener)) {
                        page.announced = true;
                        self.report(&Event::StatusPage(address));
                    }
                }
                Err(error) => {
                    page.starts.failed(now);
                    self.report(&Event::BackedOff(error));
                }
            }
        }
        self.page = Some(page);
    }

    fn start_page(&mut self, page: &Page) -> Result<Started> {
        let what = "start the status page";
        let failed = |e: std::io::Error| Error::os(what, Errno::from_io_error(&e).unwrap_or(Errno::IO));
        let board = self.board.fd().ok_or_else(|| Error::os(what, Errno::BADF))?;
        let board = Fd::from(board.try_clone_to_owned().map_err(failed)?);
        let listener = Fd::from(page.listener.try_clone().map_err(failed)?);
        let names: Vec<String> = self.listeners.iter().map(|listener| listener.address.to_string()).collect();
        let call = serve_page.call(&(listener, board, names))?;
        let Some(current) = self.generations.last_mut().filter(|current| Generation::is_open(current)) else {
            return Err(Error::os(what, Errno::CHILD));
        };
        let started = current.start_other(&call, "forkyard-status")?;
        self.note_zygote_of_start()?;
        self.epoll.add(&started.pidfd, Key::Page.word(), Interest::IN).map_err(|e| Error::os(what, e))?;
        Ok(started)
    }

    /// The page's process has ended.
    pub(super) fn page_event(&mut self) {
        let Some(page) = &mut self.page else { return };
        let ended =
            page.process.take_if(|started| !matches!(wait::try_reap(started.pidfd.as_fd()), Ok(None)));
        let Some(started) = ended else { return };
        if page.since.elapsed() < LASTED {
            page.starts.failed(Instant::now());
        } else {
            page.starts.succeeded();
        }
        self.forget_page(&started);
    }

    fn forget_page(&mut self, started: &Started) {
        // ENOENT: it was never watched.
        let _ = self.epoll.remove(&started.pidfd);
        if let Ok(runtime) = runtime::get() {
            runtime.board.release(started.slot);
        }
    }

    /// Ends the page's process.
    pub(super) fn end_page(&mut self) {
        let Some(started) = self.page.as_mut().and_then(|page| page.process.take()) else { return };
        // ESRCH: it has ended by itself.
        let _ = forkyard_sys::pidfd::send_signal(started.pidfd.as_fd(), SIGKILL);
        let _ = wait::reap(started.pidfd.as_fd());
        self.forget_page(&started);
    }
}

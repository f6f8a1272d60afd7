//! Accepting connections in tasks of tokio. One descriptor, of an epoll set, tells of newcomers, of peers whose handshake can go on, and of the
//! time of the one that has taken longest; so there is no thread, and no task, for any of them.
//!
//! Peers that are shaking hands belong to the listener, and go on with whoever accepts next: a call that is dropped loses none.

use std::fmt;
use std::os::fd::AsFd;
use std::time::Instant;

use forkyard_sys::epoll::{Epoll, Interest, Timer};
use tokio::io::unix::AsyncFd;
use tokio::sync::Mutex;

use super::{AsyncConnection, Connection, Listener};
use crate::error::{Error, Result};

const WHAT: &str = "watch a listener";

/// What a listener's peers are watched with.
#[derive(Debug)]
pub(super) struct Watch {
    set: Epoll,
    timer: Timer,
}

impl Watch {
    /// A newcomer is to be waited for, or no longer.
    pub(super) fn begin(&self, connection: &Connection) -> Result<()> {
        self.set.add(connection, 0, Interest::IN).map_err(|errno| Error::os(WHAT, errno))
    }

    pub(super) fn end(&self, connection: &Connection) {
        // ENOENT: it was never watched.
        let _ = self.set.remove(connection);
    }

    /// The set becomes readable then, at the latest.
    fn wake_at(&self, when: Option<Instant>) -> Result<()> {
        let left = when.map(|when| when.saturating_duration_since(Instant::now()));
        self.timer.set(left).map_err(|errno| Error::os(WHAT, errno))
    }
}

/// A [`Listener`] whose calls are `async`. It needs tokio's reactor.
///
/// Calls may be dropped at any time. The handshake's deadline holds while somebody accepts.
pub struct AsyncListener {
    set: AsyncFd<std::os::fd::OwnedFd>,
    listener: Listener,
    accepting: Mutex<()>,
}

impl Listener {
    /// The same listener for tasks of tokio.
    ///
    /// # Errors
    /// No descriptor left.
    ///
    /// # Panics
    /// Outside of a runtime whose I/O is enabled.
    pub fn into_async(mut self) -> Result<AsyncListener> {
        let made = Epoll::new().and_then(|set| Ok(Watch { timer: Timer::new()?, set }));
        let watch = made.map_err(|errno| Error::os(WHAT, errno))?;
        let watched = watch.set.add(&watch.timer, 0, Interest::IN);
        watched
            .and_then(|()| watch.set.add(&self, 0, Interest::IN))
            .map_err(|errno| Error::os(WHAT, errno))?;
        self.watch_pending(&watch)?;
        let failed = |error| Error::io(WHAT, &error);
        let set = watch.set.as_fd().try_clone_to_owned().map_err(failed)?;
        #[allow(deprecated, reason = "what is sound of it: it owns its descriptor, which never changes")]
        let set = AsyncFd::with_interest(set, tokio::io::Interest::READABLE).map_err(failed)?;
        self.watch = Some(watch);
        Ok(AsyncListener { set, listener: self, accepting: Mutex::default() })
    }
}

impl AsyncListener {
    /// The listener itself, for what does not wait: its address, and how many peers were dropped.
    pub fn listener(&self) -> &Listener {
        &self.listener
    }

    /// Waits for a connection whose peer knows the key; as [`Listener::accept`]. Others who come wait for no one.
    ///
    /// # Errors
    /// As for [`Listener::accept`].
    pub async fn accept(&self) -> Result<AsyncConnection> {
        let _turn = self.accepting.lock().await;
        loop {
            let ready = self.set.readable().await;
            let mut ready = ready.map_err(|error| Error::io("wait for a connection", &error))?;
            match self.listener.try_accept() {
                Ok(connection) => return connection.into_async(),
                Err(error) if error.is_timeout() => {
                    if let Some(watch) = &self.listener.watch {
                        watch.wake_at(self.listener.next_timeout())?;
                    }
                    ready.clear_ready();
                }
                Err(error) => return Err(error),
            }
        }
    }
}

impl fmt::Debug for AsyncListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Async{:?}", self.listener)
    }
}

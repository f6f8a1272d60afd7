//! Connections for tasks of tokio: what would block waits for the descriptor instead.

use std::fmt;
use std::os::fd::OwnedFd;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::unix::AsyncFd;
use tokio::sync::Mutex;

use super::{Connection, decoded};
use crate::error::{Error, Result};
use crate::time::Deadline;

/// A [`Connection`] whose calls are `async`. It needs tokio's reactor; the other end need not know.
///
/// One task at a time receives, and one sends. Calls may be dropped at any time: what has arrived of a message is kept for the next call; and a message
/// that was begun is finished by the next one that sends.
pub struct AsyncConnection {
    fd: AsyncFd<Connection>,
    receiving: Mutex<()>,
    sending: Mutex<()>,
}

impl Connection {
    /// The same connection for tasks of tokio.
    ///
    /// # Errors
    /// The reactor does not take its descriptor.
    ///
    /// # Panics
    /// Outside of a runtime whose I/O is enabled.
    pub fn into_async(self) -> Result<AsyncConnection> {
        #[allow(deprecated, reason = "what is sound of it: it owns its descriptor, which never changes")]
        let fd = AsyncFd::new(self).map_err(|error| Error::io("watch a connection", &error))?;
        Ok(AsyncConnection { fd, receiving: Mutex::default(), sending: Mutex::default() })
    }
}

impl AsyncConnection {
    /// The connection itself, whose calls wait again.
    pub fn into_inner(self) -> Connection {
        self.fd.into_inner()
    }

    /// Receives a message of bytes; as [`Connection::recv_bytes`].
    ///
    /// # Errors
    /// As for [`Connection::recv_bytes`].
    pub async fn recv_bytes(&self) -> Result<Vec<u8>> {
        self.recv_message(u64::MAX).await.map(|(message, _)| message)
    }

    /// Receives a message of at most so many bytes; as [`Connection::recv_bytes_most`].
    ///
    /// # Errors
    /// As for [`Connection::recv_bytes_most`].
    pub async fn recv_bytes_most(&self, most: u64) -> Result<Vec<u8>> {
        self.recv_message(most).await.map(|(message, _)| message)
    }

    async fn recv_message(&self, most: u64) -> Result<(Vec<u8>, Vec<OwnedFd>)> {
        let _turn = self.receiving.lock().await;
        loop {
            let ready = self.fd.readable().await;
            let mut ready = ready.map_err(|error| Error::io("wait for a connection", &error))?;
            match self.fd.get_ref().recv_until(most, Deadline::after(Duration::ZERO)) {
                Err(error) if error.is_timeout() => ready.clear_ready(),
                done => return done,
            }
        }
    }

    /// Receives a value; as [`Connection::recv`].
    ///
    /// # Errors
    /// As for [`Connection::recv`].
    pub async fn recv<T: DeserializeOwned>(&self) -> Result<T> {
        decoded(self.recv_message(u64::MAX).await?)
    }

    /// Sends a message of bytes; as [`Connection::send_bytes`].
    ///
    /// # Errors
    /// As for [`Connection::send_bytes`].
    pub async fn send_bytes(&self, message: &[u8]) -> Result<()> {
        self.send_with(message, &[]).await
    }

    async fn send_with(&self, message: &[u8], fds: &[OwnedFd]) -> Result<()> {
        let _turn = self.sending.lock().await;
        let connection = self.fd.get_ref();
        // What a dropped call has begun.
        self.writable(|| connection.flush_timeout(Duration::ZERO)).await?;
        let mut begun = false;
        self.writable(|| {
            if begun {
                return connection.flush_timeout(Duration::ZERO);
            }
            let done = connection.send_with_until(message, fds, Deadline::after(Duration::ZERO));
            begun = connection.is_unfinished();
            done
        })
        .await
    }

    /// Sends a value; as [`Connection::send`].
    ///
    /// # Errors
    /// As for [`Connection::send`].
    pub async fn send<T: Serialize + ?Sized>(&self, value: &T) -> Result<()> {
        let (message, fds) = self.fd.get_ref().encoded(value)?;
        self.send_with(&message, &fds).await
    }

    /// Makes attempts until one is done in time.
    async fn writable(&self, mut attempt: impl FnMut() -> Result<()>) -> Result<()> {
        loop {
            let ready = self.fd.writable().await;
            let mut ready = ready.map_err(|error| Error::io("wait for a connection", &error))?;
            match attempt() {
                Err(error) if error.is_timeout() => ready.clear_ready(),
                done => return done,
            }
        }
    }
}

impl fmt::Debug for AsyncConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Async{:?}", self.fd.get_ref())
    }
}

//! Starting threads.

use std::sync::{Arc, Mutex, mpsc};

use forkyard_sys::Errno;

use super::super::{exit, limit, panic};
use super::callable::Callable;
use super::handle::{Child, Outcome, Thread};
use super::{current, registry};
use crate::error::{Error, Kind, Result};
use crate::sync_std::lock;

/// Settings for a thread that is to be started; the namesake of [`process::Builder`](crate::process::Builder).
///
/// ```
/// let thread = forkyard::thread::Builder::new().name("surveyor").spawn(|w: u32, h: u32| w * h, (3, 4))?;
/// assert_eq!(thread.join()?, 12);
/// # Ok::<(), forkyard::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
#[must_use = "a builder starts nothing by itself"]
pub struct Builder {
    name: Option<String>,
    daemon: Option<bool>,
}

impl Builder {
    /// A thread with the default settings: named `Thread-N`, and daemonic if the thread that starts it is.
    pub fn new() -> Builder {
        Builder::default()
    }

    /// Names the thread. The first 15 bytes appear in `/proc/PID/task/TID/comm`.
    pub fn name(mut self, name: impl Into<String>) -> Builder {
        self.name = Some(name.into());
        self
    }

    /// Makes it daemonic: the end of main does not wait for it.
    pub fn daemon(mut self, daemon: bool) -> Builder {
        self.daemon = Some(daemon);
        self
    }

    /// Starts a thread that calls the function, closure or task with these arguments.
    ///
    /// # Errors
    /// The kernel's refusal, with the limit that was met (`EAGAIN`); a name with a zero byte in it. A failed start
    /// leaves nothing behind.
    pub fn spawn<C, Args>(self, callable: C, args: Args) -> Result<Thread<C::Output>>
    where
        C: Callable<Args> + Send + 'static,
        Args: Send + 'static,
        C::Output: Send + 'static,
    {
        exit::arm();
        panic::install();
        let id = registry::next_id();
        let name = self.name.unwrap_or_else(|| format!("Thread-{id}"));
        if name.contains('\0') {
            let why = "its name has a zero byte in it".to_owned();
            return Err(Error::new(format!("start thread {name:?}"), Kind::Invalid(why)));
        }
        let daemon = self.daemon.unwrap_or_else(|| current().is_daemon());

        let outcome = Arc::new(Mutex::new(Outcome::Running));
        let (told, wait_told) = mpsc::channel::<Arc<Child>>();
        let (theirs, start_name) = (Arc::clone(&outcome), name.clone());
        let run = move || {
            let child = Arc::new(Child::begin(id, start_name, daemon));
            current::enter(&child);
            registry::add(&child);
            let _end = End(Arc::clone(&child));
            // The starter waits for it.
            let _ = told.send(child);
            let ended = panic::catch(|| callable.call_with(args));
            *lock(&theirs) = Outcome::Ended(ended);
            // Nobody may be left to take the result, and what is dropped may panic.
            let _ = panic::catch(|| drop(theirs));
        };
        let failed = |errno| Error::os_hint(format!("start thread \"{name}\""), errno, limit::hint(errno));
        let handle = std::thread::Builder::new()
            .name(name.clone())
            .spawn(run)
            .map_err(|error| failed(Errno::from_io_error(&error).unwrap_or(Errno::AGAIN)))?;
        let child = wait_told.recv().map_err(|_| failed(Errno::AGAIN))?;
        child.keep_handle(handle);
        Ok(Thread::new(child, outcome))
    }
}

/// Tells that a thread has ended, however its last function is left.
struct End(Arc<Child>);

impl Drop for End {
    fn drop(&mut self) {
        registry::remove(&self.0);
        self.0.end();
    }
}

/// Starts a thread that calls the function, closure or task with these arguments.
///
/// ```
/// let text = String::from("tea");
/// let thread = forkyard::thread::spawn(move |times: usize| text.repeat(times), (2,))?;
/// assert_eq!(thread.join()?, "teatea");
/// # Ok::<(), forkyard::Error>(())
/// ```
///
/// # Errors
/// As [`Builder::spawn`].
pub fn spawn<C, Args>(callable: C, args: Args) -> Result<Thread<C::Output>>
where
    C: Callable<Args> + Send + 'static,
    Args: Send + 'static,
    C::Output: Send + 'static,
{
    Builder::new().spawn(callable, args)
}

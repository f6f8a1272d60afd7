//! Who this thread is.

use std::cell::RefCell;
use std::sync::Arc;

use forkyard_sys::{Pid, prctl, thread};

use super::handle::Child;
use crate::error::{Error, Result};

struct Identity {
    name: String,
    daemon: bool,
}

thread_local! {
    static IDENTITY: RefCell<Option<Identity>> = const { RefCell::new(None) };
}

/// Says who the calling thread is, before its task.
pub(super) fn enter(child: &Arc<Child>) {
    let (name, daemon) = (child.name().to_owned(), child.is_daemon());
    IDENTITY.set(Some(Identity { name, daemon }));
}

/// The calling thread.
#[derive(Clone, Copy, Debug)]
pub struct Current(());

/// The calling thread, whoever started it.
#[must_use]
#[doc(alias = "current_thread")]
pub fn current() -> Current {
    Current(())
}

impl Current {
    /// Its thread id, unique in the system like a process id.
    #[must_use]
    #[doc(alias = "gettid")]
    pub fn tid(&self) -> Pid {
        thread::own_tid()
    }

    /// Its name: what it was started with, `main` in the first thread, or empty where nobody named it.
    #[must_use]
    pub fn name(&self) -> String {
        let ours = IDENTITY.try_with(|identity| identity.borrow().as_ref().map(|own| own.name.clone()));
        ours.ok().flatten().unwrap_or_else(|| std::thread::current().name().unwrap_or_default().to_owned())
    }

    /// Gives it another name, shown in `/proc/PID/task/TID/comm` as far as 15 bytes go.
    ///
    /// # Errors
    /// As prctl(2), `PR_SET_NAME`.
    pub fn set_name(&self, name: &str) -> Result<()> {
        prctl::set_name(name).map_err(|errno| Error::os("set the thread's name", errno))?;
        let daemon = self.is_daemon();
        IDENTITY.set(Some(Identity { name: name.to_owned(), daemon }));
        Ok(())
    }

    /// True if the end of main does not wait for it. It does for a thread that this library has not started,
    /// as far as the standard library has it: not at all.
    #[must_use]
    #[doc(alias = "daemon")]
    pub fn is_daemon(&self) -> bool {
        let ours = IDENTITY.try_with(|identity| identity.borrow().as_ref().is_some_and(|own| own.daemon));
        ours.unwrap_or(false)
    }
}

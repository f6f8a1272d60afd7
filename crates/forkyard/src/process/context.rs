//! Who this process is: name, daemon flag, parent.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Mutex;

use forkyard_sys::{Pid, pidfd, prctl};

use super::builder::Attributes;
use crate::error::{Error, Result};
use crate::global::Global;
use crate::shm;
use crate::sync_std::lock;

/// What a child was told at its start.
pub(crate) struct Context {
    pub(crate) attributes: Attributes,
    name: Mutex<String>,
    parent: Parent,
}

static CONTEXT: Global<Context> = Global::new();

/// Says who this process is, in a child, before its task.
pub(crate) fn enter(attributes: Attributes, parent: Parent) {
    let name = Mutex::new(attributes.name.clone());
    shm::introduce(&attributes.name, attributes.daemon);
    CONTEXT.set(Context { attributes, name, parent });
}

/// Takes that back.
pub(super) fn leave() {
    CONTEXT.clear();
}

/// What this process was told, if Forkyard started it.
pub(crate) fn get() -> Option<&'static Context> {
    CONTEXT.get()
}

/// The calling process.
#[derive(Clone, Copy, Debug)]
pub struct Current(());

/// The calling process: its identity inside a child, and in the program's first process.
#[must_use]
#[doc(alias = "current_process")]
pub fn current() -> Current {
    Current(())
}

impl Current {
    /// Its process id.
    #[must_use]
    #[doc(alias = "getpid")]
    pub fn pid(&self) -> Pid {
        pidfd::own_pid()
    }

    /// Its name: what the parent gave it, or `main` in a process that Forkyard did not start.
    #[must_use]
    pub fn name(&self) -> String {
        get().map_or_else(|| "main".to_owned(), |context| lock(&context.name).clone())
    }

    /// Gives it another name, shown in `/proc/PID/comm` as far as 15 bytes go.
    ///
    /// # Errors
    /// As prctl(2), `PR_SET_NAME`.
    pub fn set_name(&self, name: &str) -> Result<()> {
        if let Some(context) = get() {
            name.clone_into(&mut lock(&context.name));
        }
        shm::introduce(name, self.is_daemon());
        // The file names the process even when another thread writes it; without /proc only one's own thread can be named.
        std::fs::write("/proc/self/comm", format!("{}\0", prctl::shown_name(name)))
            .or_else(|_| prctl::set_name(name).map_err(std::io::Error::from))
            .map_err(|error| Error::io("set the process's name", &error))
    }

    /// True if it ends with its parent.
    #[must_use]
    #[doc(alias = "daemon")]
    pub fn is_daemon(&self) -> bool {
        get().is_some_and(|context| context.attributes.daemon)
    }
}

/// The process that started this one.
#[derive(Debug)]
pub struct Parent {
    pid: Pid,
    name: &'static str,
    pidfd: BorrowedFd<'static>,
}

/// The process that started this one; `None` in a process that Forkyard did not start.
#[must_use]
#[doc(alias = "parent_process")]
#[doc(alias = "getppid")]
pub fn parent() -> Option<&'static Parent> {
    get().map(|context| &context.parent)
}

impl Parent {
    pub(crate) fn new(pid: Pid, name: &'static str, pidfd: BorrowedFd<'static>) -> Parent {
        Parent { pid, name, pidfd }
    }

    /// Its process id. It may have ended: see [`is_alive`](Parent::is_alive).
    #[must_use]
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// The name that it had when this process was started.
    #[must_use]
    pub fn name(&self) -> &str {
        self.name
    }

    /// True while it runs.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        matches!(pidfd::wait_readable(self.pidfd, Some(std::time::Instant::now())), Ok(false))
    }
}

impl AsFd for Parent {
    /// Its pidfd, which polls readable once it has ended.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd
    }
}

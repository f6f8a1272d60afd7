//! What a process is to be, and how it is started.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::handle::Process;
use super::task::{Function, Task};
use super::{fork as forking, runtime};
use crate::error::Result;

/// How a process comes into being.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[doc(alias = "start method")]
#[non_exhaustive]
pub enum Start {
    /// Cloned from a small single-threaded template of this program: fast whatever the size of this process, and
    /// safe whatever its threads do. Nothing of this process's memory is copied. The default.
    #[default]
    #[doc(alias = "forkserver")]
    Zygote,
    /// A fresh execution of this program, without any state of an earlier one.
    Spawn,
    /// A copy of this process, as fork(2) makes it. Refused while this process has other threads.
    Fork,
}

/// What a child is told about itself.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Attributes {
    pub(crate) name: String,
    pub(crate) daemon: bool,
    pub(crate) allow_children: bool,
    /// Daemonic, or a descendant of a daemonic process: does not outlive its parent.
    pub(crate) guarded: bool,
}

/// Settings for a process that is to be started.
///
/// ```
/// #[forkyard::task]
/// fn area(width: u32, height: u32) -> u32 {
///     width * height
/// }
///
/// let process = forkyard::process::Builder::new().name("surveyor").spawn(area, (3, 4))?;
/// assert_eq!(process.join()?, 12);
/// # Ok::<(), forkyard::Error>(())
/// ```
///
/// A builder starts one process and is used up by that, so nothing can be started twice:
///
/// ```compile_fail
/// # #[forkyard::task]
/// # fn work() {}
/// let builder = forkyard::process::Builder::new();
/// let first = builder.spawn(work, ());
/// let second = builder.spawn(work, ());
/// ```
#[derive(Clone, Debug, Default)]
#[must_use = "a builder starts nothing by itself"]
pub struct Builder {
    name: Option<String>,
    daemon: Option<bool>,
    allow_children: bool,
    start: Start,
}

impl Builder {
    /// A process with the default settings: the zygote, not daemonic, named `Process-N`.
    pub fn new() -> Builder {
        Builder::default()
    }

    /// Names the process. The first 15 bytes appear in `/proc/PID/comm`, and so in ps(1) and top(1).
    pub fn name(mut self, name: impl Into<String>) -> Builder {
        self.name = Some(name.into());
        self
    }

    /// Makes it daemonic: it ends with its parent. When the parent's main function ends, it gets SIGTERM, and SIGKILL
    /// if it has not ended half a second later; when the parent is killed, it is killed by the kernel. Children
    /// of a daemonic process are daemonic too, unless this says otherwise.
    pub fn daemon(mut self, daemon: bool) -> Builder {
        self.daemon = Some(daemon);
        self
    }

    /// Lets the process have children although it is daemonic. They end when it does.
    pub fn allow_children(mut self, allow: bool) -> Builder {
        self.allow_children = allow;
        self
    }

    /// Chooses how the process comes into being.
    pub fn start(mut self, start: Start) -> Builder {
        self.start = start;
        self
    }

    /// Starts a process that calls the task with these arguments.
    ///
    /// # Errors
    /// The kernel's refusal, with the limit that was met (`EAGAIN`, `ENOMEM`, `EMFILE`); arguments that cannot be
    /// encoded; [`is_daemonic`](crate::Error::is_daemonic) in a daemonic process that may not have children. A
    /// failed start leaves nothing behind.
    pub fn spawn<F, Args>(self, task: Task<F>, args: Args) -> Result<Process<F::Output>>
    where
        F: Function<Args>,
        Args: Serialize,
        F::Output: DeserializeOwned,
    {
        let runtime = runtime::get()?;
        let start = self.start;
        let attributes = self.attributes(runtime)?;
        let mut call = task.call(&args)?;
        let kept = std::mem::take(&mut call.kept);
        // What travels has its copies; a fork is not to inherit the originals as well.
        drop(args);
        let child = match start {
            Start::Zygote => runtime.start_by_zygote(&call, attributes)?,
            Start::Spawn => runtime.start_by_exec(&call, attributes)?,
            Start::Fork => forking::start_call(runtime, call, attributes)?,
        };
        child.keep(kept);
        Ok(Process::new(child))
    }

    /// Starts a copy of this process that calls the closure. Whatever [`start`](Builder::start) said, this is a
    /// fork, because nothing else can carry a closure's captures.
    ///
    /// # Errors
    /// [`is_other_threads`](crate::Error::is_other_threads) if this process has threads of its own beside the
    /// caller: a copy of their locks would stay locked for ever. Else as [`spawn`](Builder::spawn).
    pub fn fork<R, C>(self, closure: C) -> Result<Process<R>>
    where
        C: FnOnce() -> R,
        R: Serialize + DeserializeOwned,
    {
        let runtime = runtime::get()?;
        let attributes = self.attributes(runtime)?;
        Ok(Process::new(forking::start(runtime, attributes, closure)?))
    }

    /// As [`fork`](Builder::fork), also in a process with other threads. Standard output is not flushed before: half a
    /// line that was printed is then printed by both.
    ///
    /// # Safety
    /// The closure, and everything it calls, must do without any lock that another thread may have held at that
    /// moment: the allocator and the standard library's output are put in order by glibc and by the standard
    /// library's own rules, everything else is the caller's business. POSIX allows only async-signal-safe functions.
    ///
    /// # Errors
    /// As [`spawn`](Builder::spawn).
    #[allow(unsafe_code)]
    pub unsafe fn fork_with_threads<R, C>(self, closure: C) -> Result<Process<R>>
    where
        C: FnOnce() -> R,
        R: Serialize + DeserializeOwned,
    {
        let runtime = runtime::get()?;
        let attributes = self.attributes(runtime)?;
        // SAFETY: the caller's promise.
        Ok(Process::new(unsafe { forking::start_unchecked(runtime, attributes, closure)? }))
    }

    fn attributes(self, runtime: &runtime::Runtime) -> Result<Attributes> {
        let own = super::context::get().map(|context| &context.attributes);
        if let Some(own) = own.filter(|own| own.daemon && !own.allow_children) {
            let what = format!("start a child of daemonic process \"{}\"", own.name);
            return Err(crate::Error::new(what, crate::error::Kind::Daemonic));
        }
        let daemon = self.daemon.unwrap_or(own.is_some_and(|own| own.daemon));
        Ok(Attributes {
            name: self.name.unwrap_or_else(|| runtime.next_name()),
            daemon,
            allow_children: self.allow_children,
            guarded: daemon || own.is_some_and(|own| own.guarded),
        })
    }
}

/// Starts a process that calls the task with these arguments, by the default method.
///
/// ```
/// #[forkyard::task]
/// fn double(n: u64) -> u64 {
///     2 * n
/// }
///
/// let process = forkyard::process::spawn(double, (21,))?;
/// assert_eq!(process.join()?, 42);
/// # Ok::<(), forkyard::Error>(())
/// ```
///
/// # Errors
/// As [`Builder::spawn`].
pub fn spawn<F, Args>(task: Task<F>, args: Args) -> Result<Process<F::Output>>
where
    F: Function<Args>,
    Args: Serialize,
    F::Output: DeserializeOwned,
{
    Builder::new().spawn(task, args)
}

/// Starts a copy of this process that calls the closure.
///
/// ```standalone_crate
/// let answer = 6;
/// let process = forkyard::process::fork(|| answer * 7)?;
/// assert_eq!(process.join()?, 42);
/// # Ok::<(), forkyard::Error>(())
/// ```
///
/// # Errors
/// As [`Builder::fork`].
pub fn fork<R, C>(closure: C) -> Result<Process<R>>
where
    C: FnOnce() -> R,
    R: Serialize + DeserializeOwned,
{
    Builder::new().fork(closure)
}

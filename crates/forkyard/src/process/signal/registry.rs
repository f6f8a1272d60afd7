//! Which closures belong to which signal.
//!
//! `STATE` is held for moments only, never while a closure runs and never across a wait; fork takes it
//! (`dispatch.rs`), so a child finds it whole.

use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use forkyard_sys::signal::relay;

use super::dispatch;
use super::disposition::check_changeable;
use super::{Signal, SignalInfo, pause};
use crate::error::Kind;
use crate::{Error, Result};

pub(super) struct State {
    /// In the order of registration.
    closures: BTreeMap<Signal, Vec<Arc<Closure>>>,
    /// True while the dispatcher runs the closures of one signal.
    pub(super) running: bool,
    /// How many signals have been handled.
    pub(super) handled: u64,
    /// The last of them, for `pause`: the newest at the back.
    pub(super) recent: VecDeque<SignalInfo>,
}

static STATE: Mutex<State> =
    Mutex::new(State { closures: BTreeMap::new(), running: false, handled: 0, recent: VecDeque::new() });

/// Told whenever `running` ends and whenever `handled` grows.
pub(super) static CHANGED: Condvar = Condvar::new();

pub(super) fn lock() -> MutexGuard<'static, State> {
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}

impl State {
    pub(super) fn has_closures(&self) -> bool {
        !self.closures.is_empty()
    }

    pub(super) fn closures_of(&self, signal: Signal) -> Vec<Arc<Closure>> {
        self.closures.get(&signal).cloned().unwrap_or_default()
    }
}

type Call = dyn FnMut(&SignalInfo) + Send;

/// A closure for one signal.
pub(super) struct Closure {
    signal: Signal,
    removed: AtomicBool,
    /// Taken out when it is removed.
    call: Mutex<Option<Box<Call>>>,
}

impl Closure {
    /// Runs it, unless it has been removed. A panic ends this run only.
    pub(super) fn run(&self, info: &SignalInfo) {
        let mut call = self.call.lock().unwrap_or_else(PoisonError::into_inner);
        if self.removed.load(Ordering::Acquire) {
            return;
        }
        let Some(call) = call.as_mut() else { return };
        if let Err(payload) = catch_unwind(AssertUnwindSafe(|| call(info))) {
            dispatch::report(format_args!("the handler of {} panicked; it stays registered", self.signal));
            // What was thrown may throw again when it is dropped.
            let _ = catch_unwind(AssertUnwindSafe(|| drop(payload)));
        }
    }
}

/// A closure that is called for a signal as long as this value lives.
///
/// Dropping it waits for a call that is under way, unless it is dropped by that very call; afterwards the
/// closure is not called any more. With its last registration a signal gets back the disposition that it had
/// before the first, unless somebody else has changed it meanwhile.
#[must_use = "the closure is removed when this is dropped; use `keep` to leave it for good"]
pub struct Registration(Arc<Closure>);

impl Registration {
    /// The signal.
    #[must_use]
    pub fn signal(&self) -> Signal {
        self.0.signal
    }

    /// Leaves the closure registered until the process ends.
    pub fn keep(self) {
        std::mem::forget(self);
    }
}

impl std::fmt::Debug for Registration {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Registration").field(&self.0.signal).finish()
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let closure = &self.0;
        closure.removed.store(true, Ordering::Release);
        let mut state = lock();
        if let Some(closures) = state.closures.get_mut(&closure.signal) {
            closures.retain(|other| !Arc::ptr_eq(other, closure));
            if closures.is_empty() {
                state.closures.remove(&closure.signal);
                // Fails for signals only that `handle` has refused.
                let _ = relay::uninstall(closure.signal);
            }
        }
        let inside = dispatch::on_dispatcher();
        drop(state);
        if !inside {
            drop(closure.call.lock().unwrap_or_else(PoisonError::into_inner).take());
        }
    }
}

/// Calls a closure for every signal of this kind that this process gets, as long as the [`Registration`]
/// lives.
///
/// The closure runs in a thread of the library's named `forkyard-sig`, one call after another for all signals
/// and in the order in which the kernel delivered them. (It is the kernel that gives two signals to two threads
/// at once where several have them open.) Several closures of one signal run in the order of their
/// registration. The default action is not executed; a handler that was installed before, by whomever, is
/// called first, where it always was: inside the signal handler. System calls that the signal interrupts are restarted where the kernel
/// can.
///
/// A closure that takes long delays the others. When some 3000 signals wait, a further one is
/// [counted](lost), and each kind of signal that this happened to is delivered once more, without its sender. A panic is reported on stderr, and the
/// closure stays registered.
///
/// # Errors
/// The signal cannot be handled (`SIGKILL`, `SIGSTOP`, glibc's own), or is raised by a fault, where the faulty
/// instruction would be run again for ever (`SIGSEGV`, `SIGBUS`, `SIGFPE`, `SIGILL`). No fd or no thread
/// is left.
#[doc(alias = "sigaction")]
#[doc(alias = "signal")]
pub fn handle<F>(signal: Signal, closure: F) -> Result<Registration>
where
    F: FnMut(&SignalInfo) + Send + 'static,
{
    check_changeable(signal, "handle")?;
    if matches!(signal, Signal::SEGV | Signal::BUS | Signal::FPE | Signal::ILL) {
        let why = "a fault has to be handled inside the signal handler, where no closure runs";
        return Err(Error::new(format!("handle {signal}"), Kind::Invalid(why.to_owned())));
    }
    let failed = |errno| Error::os(format!("handle {signal}"), errno);
    let call = Mutex::new(Some(Box::new(closure) as Box<Call>));
    let closure = Arc::new(Closure { signal, removed: AtomicBool::new(false), call });
    dispatch::watch_forks().map_err(failed)?;
    let mut state = lock();
    state.ensure_dispatcher()?;
    relay::install(signal).map_err(failed)?;
    state.closures.entry(signal).or_default().push(Arc::clone(&closure));
    pause::begin(&state);
    Ok(Registration(closure))
}

/// How many signals of this process have come when too many others were waiting to be handled, so that
/// closures saw each kind of them once and without its sender.
#[must_use]
pub fn lost() -> u64 {
    relay::lost()
}

//! The thread that takes signals out of the relay and runs their closures; what fork does to it.
//!
//! The thread is made at the first use in a process and stays. It blocks all signals. Between two signals it
//! sleeps in a read and holds no lock, so that fork may copy the process: fork waits (up to a second) for the
//! closures of one signal to return, and holds the registry while it copies.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use forkyard_sys::signal::relay::{self, Record};
use forkyard_sys::signal::{fork, set};
use forkyard_sys::{Errno, stdio};

use super::registry::{CHANGED, State, lock};
use super::{SignalInfo, SignalSet, pause};
use crate::{Error, Result};

const NAME: &str = "forkyard-sig";

/// How long fork waits for closures that are running.
const FORK_PATIENCE: Duration = Duration::from_secs(1);

thread_local! {
    /// True in the dispatcher. (Neither lazy nor dropped, so readable to a thread's very end.)
    static IS_DISPATCHER: Cell<bool> = const { Cell::new(false) };
}

/// True if the calling thread is the dispatcher, so this is inside a closure.
pub(super) fn on_dispatcher() -> bool {
    IS_DISPATCHER.get()
}

impl State {
    /// Makes this process's pipe and dispatcher, if it has none.
    pub(super) fn ensure_dispatcher(&mut self) -> Result<()> {
        if relay::has_reader() {
            return Ok(());
        }
        stdio::occupy()
            .and_then(|()| relay::open())
            .map_err(|errno| Error::os("open pipe for signals", errno))?;
        // The new thread inherits the mask, so it never takes a signal itself.
        let before = set::block(SignalSet::FULL);
        let spawned = thread::Builder::new().name(NAME.to_owned()).spawn(dispatch);
        set::set_mask(before);
        spawned.map_err(|error| {
            Error::os("start thread for signals", Errno::from_io_error(&error).unwrap_or(Errno::AGAIN))
        })?;
        relay::note_reader();
        self.running = false;
        Ok(())
    }
}

fn dispatch() {
    IS_DISPATCHER.set(true);
    let mut records = [Record::NONE; 64];
    loop {
        for info in relay::take_overflow() {
            deliver(&info);
        }
        match relay::read(&mut records) {
            Ok(got) => records.iter().take(got).filter_map(Record::info).for_each(|info| deliver(&info)),
            Err(errno) => {
                report(format_args!("no signals are handled any more, their pipe was closed: {errno}"));
                return;
            }
        }
    }
}

/// Says something on stderr, where that is possible: `eprintln` panics where it is not.
pub(super) fn report(what: fmt::Arguments<'_>) {
    let _ = writeln!(std::io::stderr(), "forkyard: {what}");
}

/// Runs the closures of one signal.
fn deliver(info: &SignalInfo) {
    let mut state = lock();
    let closures = state.closures_of(info.signal());
    if closures.is_empty() {
        return;
    }
    state.running = true;
    drop(state);
    for closure in &closures {
        closure.run(info);
    }
    // If they have removed themselves, this drops what they captured, which may panic.
    let _ = catch_unwind(AssertUnwindSafe(|| drop(closures)));
    let mut state = lock();
    state.running = false;
    pause::note(&mut state, info);
    CHANGED.notify_all();
}

/// How many threads of this process, beside the calling one, are the library's because of signals.
pub(crate) fn own_threads() -> usize {
    usize::from(relay::has_reader() && !on_dispatcher())
}

/// In a forked child: has the handlers that it inherited work at once, and not only from its first use of
/// this module on.
///
/// # Errors
/// No fd or no thread is left.
pub(crate) fn resume_after_fork() -> Result<()> {
    let mut state = lock();
    if state.has_closures() { state.ensure_dispatcher() } else { Ok(()) }
}

thread_local! {
    /// The registry, while this thread forks.
    static HELD: RefCell<Option<MutexGuard<'static, State>>> = const { RefCell::new(None) };
}

/// From now on fork waits until no closure runs, and copies a whole registry.
pub(super) fn watch_forks() -> forkyard_sys::Result<()> {
    static WATCHED: OnceLock<forkyard_sys::Result<()>> = OnceLock::new();
    *WATCHED.get_or_init(|| fork::hooks(before_fork, after_fork, after_fork))
}

extern "C" fn before_fork() {
    let mut state = lock();
    let deadline = Instant::now() + FORK_PATIENCE;
    while state.running && !on_dispatcher() && relay::has_reader() {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        (state, _) = CHANGED.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner);
    }
    // A thread so near its end that it has no locals forks without the registry.
    let _ = HELD.try_with(|held| held.borrow_mut().replace(state));
}

extern "C" fn after_fork() {
    let _ = HELD.try_with(|held| held.borrow_mut().take());
}

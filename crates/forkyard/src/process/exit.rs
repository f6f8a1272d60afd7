//! Ending this process: with exit hooks or without.

use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, Once, OnceLock};

use forkyard_sys::{clone, thread as threads};

use super::{child, runtime, thread};
use crate::sync_std::lock;

type Hook = Box<dyn FnOnce() + Send>;

static HOOKS: Mutex<Vec<Hook>> = Mutex::new(Vec::new());

/// Registers a function that runs when this process ends by [`exit`], by the end of main, or, in a child, by the
/// end of its task; not when it ends by [`_exit`] or by a signal. The last one registered runs first. Hooks are not
/// inherited by children.
///
/// These are the hooks to rely on in a child. When its task ends, handlers of the C library (atexit(3), and destructors
/// of thread-local and C++ objects) may not run: most of them are copies of somebody else's. A task that
/// needs them ends by [`exit`].
///
/// A hook that panics is reported on stderr, and the others still run.
#[doc(alias = "atexit")]
pub fn at_exit(hook: impl FnOnce() + Send + 'static) {
    arm();
    lock(&HOOKS).push(Box::new(hook));
}

/// Ends this process: threads that are not daemonic are joined, exit hooks run, output is flushed, daemonic children
/// are ended and the others joined.
pub fn exit(code: i32) -> ! {
    std::process::exit(code)
}

/// Ends this process at once: no exit hook runs, nothing is flushed, no child is waited for.
#[doc(alias = "quick_exit")]
pub fn _exit(code: i32) -> ! {
    clone::exit_now(code)
}

/// Ends a child whose task is over: as [`exit`], without the C library's own handlers where that can be done.
///
/// They make up a quarter of a short-lived child's page faults, and end what was begun in another process. With threads
/// left, flushing could wait for a stream that one of them holds for ever, which exit(3) does not.
pub(super) fn end_of_task(code: i32) -> ! {
    run();
    if !threads::is_only_one() || is_profiled() {
        std::process::exit(code);
    }
    flush();
    clone::exit_now(code)
}

/// True if a handler of exit(3) is to write down which code has run (the compiler's `-C instrument-coverage`).
fn is_profiled() -> bool {
    static PROFILED: OnceLock<bool> = OnceLock::new();
    *PROFILED.get_or_init(|| std::env::var_os("LLVM_PROFILE_FILE").is_some())
}

/// Looks up what the end of a task needs, and touches what it touches.
pub(super) fn rehearse() {
    thread::join_all();
    let _ = (threads::is_only_one(), is_profiled());
    flush();
}

#[inline(never)]
fn flush() {
    // Nobody is left to be told of an error.
    let _ = std::io::stdout().flush();
    clone::flush_c_streams();
}

/// Sees to it that [`run`] is called at the end of this process. A copy of this process inherits that.
pub(crate) fn arm() {
    static ARMED: Once = Once::new();
    // Without memory for one more exit hook there is nobody to tell: children are then left to the kernel's rules.
    ARMED.call_once(|| {
        let _ = clone::at_exit(run);
    });
}

/// Forgets the hooks that a fork copied.
pub(crate) fn forget_inherited() {
    // Held by a thread that does not exist here, if at all: then the hooks stay unreachable behind it.
    if let Ok(mut hooks) = HOOKS.try_lock() {
        std::mem::forget(std::mem::take(&mut *hooks));
    }
}

extern "C" fn run() {
    child::note_exit();
    drop(catch_unwind(thread::join_all));
    while let Some(hook) = { lock(&HOOKS).pop() } {
        // The panic hook has reported it; nothing may unwind into the C library.
        drop(catch_unwind(AssertUnwindSafe(hook)));
    }
    if let Some(runtime) = runtime::existing() {
        drop(catch_unwind(AssertUnwindSafe(|| runtime.end_children())));
    }
}

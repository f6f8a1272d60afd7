//! Ending this process: with exit hooks or without.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, Once};

use forkyard_sys::clone;

use super::{child, runtime, thread};
use crate::sync_std::lock;

type Hook = Box<dyn FnOnce() + Send>;

static HOOKS: Mutex<Vec<Hook>> = Mutex::new(Vec::new());

/// Registers a function that runs when this process ends by [`exit`], by the end of main, or, in a child, by the
/// end of its task; not when it ends by [`_exit`] or by a signal. The last one registered runs first. Hooks are not
/// inherited by children.
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

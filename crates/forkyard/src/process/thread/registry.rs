//! The threads of this process that run.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use forkyard_sys::{Pid, pidfd};

use super::handle::Child;
use crate::sync_std::lock;
use crate::time::Deadline;

/// In a fork it holds the parent's threads, which do not exist there.
struct Registry {
    pid: Option<Pid>,
    running: BTreeMap<u64, Arc<Child>>,
}

static REGISTRY: Mutex<Registry> = Mutex::new(Registry { pid: None, running: BTreeMap::new() });

/// The last number given to a thread, of this process or of those it was forked from.
static LAST: AtomicU64 = AtomicU64::new(0);

pub(super) fn next_id() -> u64 {
    LAST.fetch_add(1, Ordering::Relaxed) + 1
}

fn own<R>(act: impl FnOnce(&mut BTreeMap<u64, Arc<Child>>) -> R) -> R {
    let mut registry = lock(&REGISTRY);
    let pid = Some(pidfd::own_pid());
    if registry.pid != pid {
        // Forgotten, not dropped: a parent's handle must not be acted on here.
        std::mem::forget(std::mem::take(&mut registry.running));
        registry.pid = pid;
    }
    act(&mut registry.running)
}

pub(super) fn add(child: &Arc<Child>) {
    own(|running| running.insert(child.id, Arc::clone(child)));
}

pub(super) fn remove(child: &Child) {
    let removed = own(|running| running.remove(&child.id));
    drop(removed);
}

/// The living threads of this process that this library has started, oldest first.
#[must_use]
#[doc(alias = "active_children")]
#[doc(alias = "enumerate")]
pub fn children() -> Vec<Arc<Child>> {
    own(|running| running.values().cloned().collect())
}

/// At this process's end: waits until no thread runs that is not daemonic, those included that start meanwhile.
/// A thread that ends the process does not wait for itself.
pub(crate) fn join_all() {
    // There never was one: most children end here, and need not copy the page with the lock.
    if LAST.load(Ordering::Relaxed) == 0 {
        return;
    }
    let next = || children().into_iter().find(|child| !child.is_daemon() && !child.is_current());
    while let Some(child) = next() {
        // It is there and is another: the wait cannot fail.
        if child.wait(Deadline::NEVER).is_err() {
            return;
        }
    }
}

//! The keeper: a thread that reaps children when they end, if nobody else has. It looks at the pidfds of this package's own
//! children and at nothing else, so it takes no status away from the program, and it needs no signal.
//!
//! It begins with the first child. A fork must not find it in the middle of something, and a program that forks with one
//! thread shall not be told that it has two: it ends before each fork that the interpreter makes, and begins again after it.
//!
//! # Safety
//! A pending call is a plain function, which is called with the interpreter's lock held.
#![allow(unsafe_code)]

use std::collections::HashMap;
use std::os::fd::AsFd;
use std::os::raw::{c_int, c_void};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use forkyard_sys::epoll::{Epoll, EventFd, Interest};
use forkyard_sys::mask;
use pyo3::ffi;
use pyo3::prelude::*;

use super::child::State;

static KEEPER: Mutex<Option<Keeper>> = Mutex::new(None);

/// The key of the descriptor that ends the thread; children have numbers from 1 on.
const END: u64 = 0;

struct Keeper {
    shared: Arc<Shared>,
    next: u64,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    set: Epoll,
    end: EventFd,
    ending: AtomicBool,
    children: Mutex<HashMap<u64, Arc<State>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Keeper {
    fn new() -> forkyard_sys::Result<Keeper> {
        let shared = Shared {
            set: Epoll::new()?,
            end: EventFd::new()?,
            ending: AtomicBool::new(false),
            children: Mutex::default(),
        };
        shared.set.add(&shared.end, END, Interest::IN)?;
        Ok(Keeper { shared: Arc::new(shared), next: 1, thread: None })
    }

    /// Starts the thread, unless it runs. Without it, children are reaped when somebody asks, as the standard library does.
    fn begin(&mut self) {
        if self.thread.is_some() || lock(&self.shared.children).is_empty() {
            return;
        }
        let shared = Arc::clone(&self.shared);
        let before = mask::replace(u64::MAX);
        let thread = std::thread::Builder::new().name("forkyard-keeper".to_owned()).stack_size(64 * 1024);
        self.thread = thread.spawn(move || shared.serve()).ok();
        mask::replace(before);
    }

    fn end(&mut self) {
        if let Some(thread) = self.thread.take() {
            self.shared.ending.store(true, Ordering::Release);
            self.shared.end.notify();
            let _ = thread.join();
            self.shared.ending.store(false, Ordering::Release);
            self.shared.end.take();
        }
    }
}

impl Shared {
    fn serve(&self) {
        let mut ready = Vec::with_capacity(64);
        while self.set.wait(&mut ready, None).is_ok() {
            for event in &ready {
                let key = event.data.u64();
                if key == END {
                    if self.ending.load(Ordering::Acquire) {
                        return;
                    }
                    continue;
                }
                let child = lock(&self.children).remove(&key);
                if let Some(child) = child {
                    let _ = self.set.remove(child.pidfd.as_fd());
                    child.settle();
                }
            }
        }
    }
}

/// Reaps this child when it ends.
pub(super) fn watch(child: &Arc<State>) {
    let mut keeper = lock(&KEEPER);
    if keeper.is_none() {
        *keeper = Keeper::new().ok();
    }
    let Some(keeper) = keeper.as_mut() else { return };
    let key = keeper.next;
    keeper.next += 1;
    child.key.store(key, Ordering::Relaxed);
    lock(&keeper.shared.children).insert(key, Arc::clone(child));
    if keeper.shared.set.add(child.pidfd.as_fd(), key, Interest::IN).is_err() {
        lock(&keeper.shared.children).remove(&key);
    }
    keeper.begin();
}

/// Lets go of a child that has been reaped.
pub(super) fn unwatch(child: &State) {
    let key = child.key.swap(0, Ordering::Relaxed);
    if key == 0 {
        return;
    }
    if let Some(keeper) = lock(&KEEPER).as_ref()
        && lock(&keeper.shared.children).remove(&key).is_some()
    {
        let _ = keeper.shared.set.remove(child.pidfd.as_fd());
    }
}

/// Called by the interpreter before it forks.
#[pyfunction]
pub(crate) fn before_fork() {
    if let Some(keeper) = lock(&KEEPER).as_mut() {
        keeper.end();
    }
}

/// Called in the parent, while the fork is not over yet: the thread begins again right after it.
#[pyfunction]
pub(crate) fn after_fork_in_parent() {
    extern "C" fn begin(_: *mut c_void) -> c_int {
        if let Some(keeper) = lock(&KEEPER).as_mut() {
            keeper.begin();
        }
        0
    }
    if lock(&KEEPER).is_some() {
        // SAFETY: see the heading. If there is no room for the call, the next start makes up for it.
        unsafe { ffi::Py_AddPendingCall(Some(begin), std::ptr::null_mut()) };
    }
}

/// Called in the fork: the parent's children are not its own.
#[pyfunction]
pub(crate) fn after_fork_in_child() {
    *lock(&KEEPER) = None;
}

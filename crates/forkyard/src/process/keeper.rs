//! The keeper: the one thread that the library runs in a process that has children.
//!
//! It reaps children that nobody waits for, takes parcels, revives the zygote, and makes zygotes for others, because
//! guarded children are tied to the life of the thread that made their zygote. It blocks all signals, and outside
//! [`epoll`](forkyard_sys::epoll) it holds `gate`, so a fork that holds the gate finds it in no lock.

use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, mpsc};

use forkyard_sys::epoll::{Epoll, EventFd, Interest};
use forkyard_sys::{Errno, mask};

use super::handle::Child;
use super::runtime::Runtime;
use super::{command, limit};
use crate::error::{Error, Kind, Result};
use crate::sync_std::lock;

/// Keys of the set that are no child's number.
const WAKE: u64 = u64::MAX;
const PARCELS: u64 = u64::MAX - 1;
const ZYGOTE: u64 = u64::MAX - 2;
const SPARE: u64 = u64::MAX - 4;
const PROGRAM: u64 = u64::MAX - 3;

type Errand = Box<dyn FnOnce() + Send>;

/// The keeper as other threads see it.
pub(crate) struct Keeper {
    set: Epoll,
    wake: EventFd,
    errands: Mutex<Vec<Errand>>,
    gate: Mutex<()>,
    running: AtomicBool,
}

impl Keeper {
    pub(crate) fn new() -> forkyard_sys::Result<Keeper> {
        let keeper = Keeper {
            set: Epoll::new()?,
            wake: EventFd::new()?,
            errands: Mutex::default(),
            gate: Mutex::new(()),
            running: AtomicBool::new(false),
        };
        keeper.set.add(&keeper.wake, WAKE, Interest::IN)?;
        Ok(keeper)
    }

    /// Starts the thread, which waits for its runtime: so a runtime is only published once it has a keeper.
    pub(crate) fn begin(&self) -> Result<mpsc::Sender<&'static Runtime>> {
        let (sender, receiver) = mpsc::channel::<&'static Runtime>();
        let before = mask::replace(u64::MAX);
        let thread = std::thread::Builder::new()
            .name("forkyard-keeper".to_owned())
            .stack_size(256 * 1024)
            .spawn(move || receiver.recv().map(|runtime| runtime.keeper.serve(runtime)));
        mask::replace(before);
        let thread = thread.map_err(|error| {
            let errno = Errno::from_io_error(&error).unwrap_or(Errno::AGAIN);
            Error::os_hint("start the keeper thread", errno, limit::hint(errno))
        })?;
        drop(thread);
        self.running.store(true, Ordering::Release);
        Ok(sender)
    }

    /// How many threads of this process are the keeper.
    pub(crate) fn threads(&self) -> usize {
        usize::from(self.running.load(Ordering::Acquire))
    }

    /// Holds the keeper outside of every lock.
    pub(crate) fn hold(&self) -> MutexGuard<'_, ()> {
        lock(&self.gate)
    }

    /// Runs something on the keeper's thread and returns what it gave.
    pub(crate) fn run<T: Send + 'static>(
        &self,
        errand: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (sender, receiver) = mpsc::sync_channel(1);
        // The receiver cannot be gone: it waits below.
        lock(&self.errands).push(Box::new(move || drop(sender.send(errand()))));
        let woken = self.wake.try_notify();
        if woken.is_err() || !self.running.load(Ordering::SeqCst) {
            // Nobody would come: those who wait find their senders gone.
            lock(&self.errands).clear();
        }
        receiver.recv().unwrap_or_else(|_| {
            let what = "have the keeper thread start a zygote";
            Err(match woken {
                Err(errno) => {
                    Error::os_hint(what, errno, "were this process's descriptors closed?".to_owned())
                }
                Ok(()) => Error::new(what, Kind::Protocol("that thread has ended".to_owned())),
            })
        })
    }

    /// The thread is about to end: whoever waits for it is told, and whoever comes later finds out.
    fn retire(&self) {
        self.running.store(false, Ordering::SeqCst);
        lock(&self.errands).clear();
    }

    /// Reaps this child when it ends, unless somebody waits for it then.
    pub(crate) fn watch(&self, child: &Child) {
        let interest = Interest::IN | Interest::ONESHOT;
        child.watched.store(true, Ordering::Relaxed);
        if self.set.add(child.pidfd(), child.id, interest).is_err() {
            // It is in the set, and its one shot may be used up.
            // ENOENT, ENOMEM: it is then reaped by a join, or at the end.
            let _ = self.set.modify(child.pidfd(), child.id, interest);
        }
    }

    /// Leaves this child to a waiter.
    pub(crate) fn unwatch(&self, child: &Child) {
        if child.watched.swap(false, Ordering::Relaxed) {
            // ENOENT: another waiter has taken it out.
            let _ = self.set.remove(child.pidfd());
        }
    }

    pub(crate) fn watch_parcels(&self, socket: BorrowedFd<'_>) -> Result<()> {
        self.set.add(socket, PARCELS, Interest::IN).map_err(|errno| Error::os("watch for parcels", errno))
    }

    pub(crate) fn watch_zygote(&self, pidfd: BorrowedFd<'_>) {
        // ENOMEM: its death is then noticed at the next start.
        let _ = self.set.add(pidfd, ZYGOTE, Interest::IN | Interest::ONESHOT);
    }

    /// Reaps another program that nobody waits for when it ends.
    pub(crate) fn watch_program(&self, pidfd: BorrowedFd<'_>) {
        // ENOMEM: it is then reaped when the next program is started.
        let _ = self.set.add(pidfd, PROGRAM, Interest::IN | Interest::ONESHOT);
    }

    pub(crate) fn watch_spare(&self, pidfd: BorrowedFd<'_>) {
        // ENOMEM: its death is then noticed at the next start.
        let _ = self.set.add(pidfd, SPARE, Interest::IN | Interest::ONESHOT);
    }

    fn serve(&self, runtime: &'static Runtime) {
        let mut ready = Vec::with_capacity(64);
        loop {
            if self.set.wait(&mut ready, None).is_err() {
                return self.retire();
            }
            let _gate = lock(&self.gate);
            for event in &ready {
                match event.data.u64() {
                    WAKE => self.run_errands(runtime),
                    PARCELS => runtime.receive_parcels(),
                    ZYGOTE | SPARE => runtime.do_chores(),
                    PROGRAM => command::sweep(),
                    id => {
                        if let Some(child) = runtime.child(id) {
                            // A status that cannot be had is told as unknown; the keeper has nobody to tell more.
                            let _ = child.settle();
                        }
                    }
                }
            }
        }
    }

    /// Makes it look for chores.
    pub(crate) fn nudge(&self) {
        self.wake.notify();
    }

    fn run_errands(&self, runtime: &'static Runtime) {
        self.wake.take();
        let errands = std::mem::take(&mut *lock(&self.errands));
        for errand in errands {
            errand();
        }
        if runtime.has_chores() {
            runtime.do_chores();
        }
    }
}

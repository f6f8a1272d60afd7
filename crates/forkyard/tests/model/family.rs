//! Participants of a model: threads with an id and a life word, that may be killed before any of their steps.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use loom::sync::Arc;
use loom::thread::JoinHandle;

use crate::primitive::{self, AtomicU32, Killed, Ordering};
use crate::shm::{Id, Life, Lives, OWNER_DIED};
use crate::sync::raw::{Holder, Waiter};

/// Most participants of a model; loom has no more threads, and one of them is its own.
const MOST: usize = 4;

/// Who lives.
#[derive(Clone, Debug)]
pub(crate) struct Family(Arc<[AtomicU32; MOST]>);

impl Lives for Family {
    fn life(&self, id: Id) -> Life<'_> {
        let word = &self.0[id.slot() as usize];
        if word.load(Ordering::Acquire) & OWNER_DIED != 0 { Life::Dead } else { Life::Alive(word) }
    }
}

/// The participant of this number.
pub(crate) fn id(number: u32) -> Id {
    Id::new(number, 1).unwrap()
}

/// The same, with its one thread.
pub(crate) fn holder(id: Id) -> Holder {
    Holder { id, thread: 1 }
}

impl Family {
    pub(crate) fn new() -> Family {
        Family(Arc::default())
    }

    /// Lives as participant `number`, is killed before the step after `steps`, and then `reap`ed by somebody. True if it was
    /// killed.
    pub(crate) fn live(
        &self,
        number: u32,
        steps: Option<u32>,
        body: impl FnOnce(Id),
        reap: impl FnOnce(Id),
    ) -> bool {
        let me = id(number);
        primitive::kill_after(steps);
        let end = catch_unwind(AssertUnwindSafe(|| body(me)));
        primitive::kill_after(None);
        match end {
            Ok(()) => return false,
            Err(cause) if cause.is::<Killed>() => {}
            Err(cause) => resume_unwind(cause),
        }
        primitive::end_life(&self.0[number as usize], OWNER_DIED);
        reap(me);
        true
    }

    /// A thread that lives so.
    pub(crate) fn spawn(
        &self,
        number: u32,
        steps: Option<u32>,
        body: impl FnOnce(Id) + 'static,
        reap: impl FnOnce(Id) + 'static,
    ) -> JoinHandle<bool> {
        let family = self.clone();
        loom::thread::spawn(move || family.live(number, steps, body, reap))
    }
}

/// Waits for ever.
pub(crate) struct Patient;

impl Waiter for Patient {}

/// Never waits.
pub(crate) struct Impatient(Instant);

impl Impatient {
    /// For the calling thread, which never sleeps from now on.
    pub(crate) fn here() -> Impatient {
        primitive::impatient();
        Impatient(Instant::now())
    }
}

impl Waiter for Impatient {
    fn until(&self) -> Option<Instant> {
        Some(self.0)
    }
}

/// For those that nobody reaps.
pub(crate) fn unseen(_: Id) {}

/// Waits for those that nobody killed.
pub(crate) fn join(all: impl IntoIterator<Item = JoinHandle<bool>>) {
    all.into_iter().for_each(|one| assert!(!one.join().unwrap()));
}

/// Checks a model in all orders with at most so many preemptions.
pub(crate) fn check(preemptions: usize, model: impl Fn() + Sync + Send + 'static) {
    check_some(preemptions, usize::MAX, model);
}

/// Checks a model in the first so many of these orders.
pub(crate) fn check_some(preemptions: usize, orders: usize, model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.max_branches = 10_000;
    builder.max_permutations = Some(orders);
    builder.check(model);
}

/// Checks the model with its victim killed before its first step, before its second, and so on until it is never killed.
/// The model says whether it was.
pub(crate) fn killed_anywhere(
    preemptions: usize,
    model: impl Fn(u32) -> bool + Sync + Send + Copy + 'static,
) {
    static ALL: std::sync::Mutex<()> = std::sync::Mutex::new(());
    for steps in 0.. {
        assert!(steps < 1000, "the victim never ends");
        let killed = std::sync::Arc::new(AtomicBool::new(false));
        let seen = std::sync::Arc::clone(&killed);
        let _one_at_a_time = ALL.lock();
        check(preemptions, move || {
            if model(steps) {
                seen.store(true, Ordering::Relaxed);
            }
        });
        if !killed.load(Ordering::Relaxed) {
            assert!(steps > 3, "the victim was killed nowhere");
            return;
        }
    }
}

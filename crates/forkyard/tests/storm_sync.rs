//! A storm over everything that processes wait for: eight of them use it all in tight loops, and every 5 ms one is killed
//! and replaced, or stopped and continued.
//!
//! 5 s; 60 s with `FORKYARD_LONG=1`. Each process counts what it has done in cells of its own, after it has done it, so what the locks
//! protect may be ahead of that by one for each death, and never behind.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by a panic")]

mod common;

use std::ops::{DerefMut, IndexMut};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use common::Dice;
use forkyard::__private::family_census;
use forkyard::process::{Builder, Process, Start};
use forkyard::signal::Signal;
use forkyard::sync::{
    Array, Barrier, BoundedSemaphore, Condition, Event, Lock, LockError, Mutex, Once, RLock, RwLock,
    Semaphore,
};
use serde::{Deserialize, Serialize};

const WORKERS: usize = 8;
const TICK: Duration = Duration::from_millis(5);
/// A worker that does nothing for so long hangs.
const HUNG: Duration = Duration::from_secs(30);

/// One thing that workers do.
type Work = fn(&Shared, &Count<'_>);

/// All of them, in turn.
const WORK: [(&str, Work); 14] = [
    ("Mutex", |shared, count| count.add(shared.mutex.lock())),
    ("Array", |shared, count| count.add(shared.array.lock())),
    ("RwLock: write", |shared, count| count.add(shared.rwlock.write())),
    ("RwLock: read", |shared, count| {
        match shared.rwlock.read() {
            Ok(guard) => assert_eq!(guard[0], guard[1], "a reader saw a change half done"),
            Err(LockError::OwnerDied(_)) => {}
            Err(error) => panic!("{error}"),
        }
        count.done();
    }),
    ("Lock", |shared, count| {
        let guard = shared.lock.lock().or_else(LockError::recovered).unwrap();
        shared.bare.add(0);
        drop(guard);
        count.done();
    }),
    ("RLock", |shared, count| {
        let guard = shared.rlock.lock().or_else(LockError::recovered).unwrap();
        let again = shared.rlock.lock().unwrap();
        shared.bare.add(1);
        drop((again, guard));
        count.done();
    }),
    ("BoundedSemaphore", |shared, count| {
        shared.bounded.acquire().unwrap();
        shared.bounded.release().unwrap();
        count.done();
    }),
    ("Semaphore with undo", |shared, count| {
        shared.undo.acquire().unwrap();
        shared.undo.release().unwrap();
        count.done();
    }),
    ("Semaphore: release", |shared, count| {
        shared.semaphore.release().unwrap();
        count.done();
    }),
    ("Semaphore: acquire", |shared, count| match shared.semaphore.acquire_timeout(TICK) {
        Ok(()) => count.done(),
        Err(error) => assert!(error.is_timeout(), "{error}"),
    }),
    ("Event", |shared, count| {
        shared.event.set().unwrap();
        shared.event.clear().unwrap();
        let _ = shared.event.wait_timeout(Duration::from_micros(200));
        count.done();
    }),
    ("Condition", |shared, count| {
        let mut guard = shared.waited.lock().or_else(LockError::recovered).unwrap();
        *guard += 1;
        let seen = *guard;
        shared.condition.notify_all().unwrap();
        let waited =
            shared.condition.wait_for_timeout(guard, Duration::from_micros(500), |guard| **guard > seen);
        assert!(matches!(waited, Ok(_) | Err(LockError::OwnerDied(_))), "{}", waited.is_ok());
        drop(waited);
        count.done();
    }),
    ("Barrier", |shared, count| {
        if let Err(error) = shared.barrier.wait_timeout(Duration::from_millis(1)) {
            assert!(error.is_timeout() || error.is_broken_barrier(), "{error}");
            shared.barrier.reset().unwrap();
        }
        count.done();
    }),
    ("making and dropping", |shared, count| {
        let small = Mutex::new(count.slot as u64).unwrap();
        let large = Array::<u64>::zeroed(100_000).unwrap();
        let once = Once::new().unwrap();
        once.call_once(|| shared.made.add(count.slot)).unwrap();
        drop((small, large, once));
        count.done();
    }),
];

/// Everything there is to wait for.
#[derive(Clone, Serialize, Deserialize)]
struct Shared {
    mutex: Mutex<[u64; 2]>,
    array: Array<u64>,
    rwlock: RwLock<[u64; 2]>,
    lock: Lock,
    rlock: RLock,
    /// Two numbers that nothing protects but `lock` and `rlock`.
    bare: Numbers,
    /// One for each worker.
    made: Numbers,
    bounded: BoundedSemaphore,
    undo: Semaphore,
    semaphore: Semaphore,
    event: Event,
    condition: Condition,
    waited: Mutex<u64>,
    barrier: Barrier,
    /// For each worker: what it is at, how often it did anything, and how often it did each thing.
    counts: Numbers,
    /// Not zero: it is enough.
    stop: Numbers,
}

const COUNTS: usize = 2 + WORK.len();

impl Shared {
    fn new() -> Shared {
        Shared {
            mutex: Mutex::new([0; 2]).unwrap(),
            array: Array::zeroed(2).unwrap(),
            rwlock: RwLock::new([0; 2]).unwrap(),
            lock: Lock::new().unwrap(),
            rlock: RLock::new().unwrap(),
            bare: Numbers::new(2),
            made: Numbers::new(WORKERS),
            bounded: BoundedSemaphore::new(3).unwrap(),
            undo: Semaphore::undo(2, 2).unwrap(),
            semaphore: Semaphore::new(0).unwrap(),
            event: Event::new().unwrap(),
            condition: Condition::new().unwrap(),
            waited: Mutex::new(0).unwrap(),
            barrier: Barrier::new(3).unwrap(),
            counts: Numbers::new(WORKERS * COUNTS),
            stop: Numbers::new(1),
        }
    }

    /// How often all workers together say that they did this.
    fn done(&self, what: &str) -> u64 {
        let index = WORK.iter().position(|(name, _)| *name == what).unwrap();
        (0..WORKERS).map(|slot| self.counts.get(slot * COUNTS + 2 + index)).sum()
    }

    fn is_over(&self) -> bool {
        self.stop.get(0) != 0
    }
}

/// Numbers that are read and written by halves: only a lock makes adding one exact.
#[derive(Clone, Serialize, Deserialize)]
#[serde(transparent)]
struct Numbers(Array<AtomicU64>);

impl Numbers {
    fn new(len: usize) -> Numbers {
        Numbers(Array::zeroed(len).unwrap())
    }

    fn get(&self, index: usize) -> u64 {
        self.0[index].load(Ordering::Relaxed)
    }

    fn add(&self, index: usize) {
        self.0[index].store(self.get(index) + 1, Ordering::Relaxed);
    }
}

/// A worker's own numbers.
struct Count<'a> {
    counts: &'a Numbers,
    slot: usize,
    /// What it is at.
    what: usize,
}

impl Count<'_> {
    fn begin(&self) {
        self.counts.0[self.slot * COUNTS].store(self.what as u64, Ordering::Relaxed);
    }

    fn done(&self) {
        self.counts.add(self.slot * COUNTS + 1);
        self.counts.add(self.slot * COUNTS + 2 + self.what);
    }

    /// Adds one to two numbers, which are equal unless somebody was killed between.
    fn add<G: DerefMut>(&self, result: Result<G, LockError<G>>)
    where
        G::Target: IndexMut<usize, Output = u64>,
    {
        let mut guard = match result {
            Ok(guard) => {
                assert_eq!(guard[0], guard[1], "half done, and nobody was told of a death");
                guard
            }
            Err(LockError::OwnerDied(died)) => {
                let mut guard = died.into_inner();
                guard[1] = guard[0];
                guard
            }
            Err(error) => panic!("{error}"),
        };
        guard[0] += 1;
        guard[1] += 1;
        drop(guard);
        self.done();
    }
}

#[forkyard::task]
fn use_everything(slot: usize, shared: Shared) {
    for what in (0..WORK.len()).cycle().skip(slot) {
        if shared.is_over() {
            return;
        }
        let count = Count { counts: &shared.counts, slot, what };
        count.begin();
        WORK[what].1(&shared, &count);
    }
}

/// A worker from outside.
struct Worker {
    process: Process<()>,
    slot: usize,
    stopped: bool,
    /// What it had done when it was last seen to do something.
    seen: (u64, Instant),
}

impl Worker {
    fn start(slot: usize, shared: &Shared) -> Worker {
        // Some inherit what they hold, and to some it is told.
        let start = if slot == 0 { Start::Spawn } else { Start::Zygote };
        let process = Builder::new()
            .name(format!("worker-{slot}"))
            .daemon(true)
            .start(start)
            .spawn(use_everything, (slot, shared.clone()))
            .unwrap();
        Worker { process, slot, stopped: false, seen: (0, Instant::now()) }
    }

    /// Fails if it has done nothing for long.
    fn look(&mut self, shared: &Shared) {
        let done = shared.counts.get(self.slot * COUNTS + 1);
        if done != self.seen.0 || self.stopped {
            self.seen = (done, Instant::now());
        }
        let at = WORK.get(shared.counts.get(self.slot * COUNTS) as usize).map_or("?", |work| work.0);
        assert!(self.seen.1.elapsed() < HUNG, "{} hangs in {at}", self.process.name());
        assert!(
            self.process.is_alive() || shared.is_over(),
            "{} ended by itself, in {at}",
            self.process.name()
        );
    }
}

#[forkyard::task]
fn storm() {
    let long = std::env::var_os("FORKYARD_LONG").is_some();
    let lasts = Duration::from_secs(if long { 60 } else { 5 });
    let seed = u64::from(std::process::id()) | 1 << 40;
    let shared = Shared::new();
    let alone = family_census();
    let mut workers: Vec<Worker> = (0..WORKERS).map(|slot| Worker::start(slot, &shared)).collect();
    let (mut dice, mut killed, mut stopped) = (Dice(seed), 0, 0);
    let end = Instant::now() + lasts;
    while Instant::now() < end {
        std::thread::sleep(TICK);
        workers.iter_mut().for_each(|worker| worker.look(&shared));
        let worker = &mut workers[dice.roll(WORKERS as u64) as usize];
        if worker.stopped {
            worker.process.signal(Signal::CONT).unwrap();
            worker.stopped = false;
        } else if dice.roll(3) == 0 {
            worker.process.signal(Signal::STOP).unwrap();
            worker.stopped = true;
            stopped += 1;
        } else {
            worker.process.kill().unwrap();
            worker.process.wait_ended().unwrap();
            *worker = Worker::start(worker.slot, &shared);
            killed += 1;
        }
    }
    shared.stop.add(0);
    for worker in &mut workers {
        if worker.stopped {
            worker.process.signal(Signal::CONT).unwrap();
            worker.stopped = false;
        }
    }
    for mut worker in workers {
        while worker.process.is_alive() {
            worker.look(&shared);
            std::thread::sleep(TICK);
        }
        worker.process.join().unwrap();
    }
    exact(&shared, killed);
    let done: u64 = WORK.iter().map(|work| shared.done(work.0)).sum();
    println!("storm: {killed} killed, {stopped} stopped, {done} operations in {lasts:?}, seed {seed}");
    nothing_left(&shared, alone);
}

/// What was done is what was counted, but for one operation of each of the dead.
fn exact(shared: &Shared, killed: u64) {
    let pair = |what, [one, other]: [u64; 2]| {
        assert!(one.abs_diff(other) <= 1, "{what}: {one} and {other}");
        (what, one)
    };
    let array = shared.array.lock().or_else(LockError::recovered).unwrap();
    let protected = [
        pair("Mutex", *shared.mutex.lock().or_else(LockError::recovered).unwrap()),
        pair("Array", [array[0], array[1]]),
        pair("RwLock: write", *shared.rwlock.write().or_else(LockError::recovered).unwrap()),
        ("Lock", shared.bare.get(0)),
        ("RLock", shared.bare.get(1)),
    ];
    let mut ahead = 0;
    for (what, number) in protected {
        let counted = shared.done(what);
        assert!(number >= counted, "{what}: {counted} were counted, and only {number} are there");
        ahead += number - counted;
    }
    assert!(ahead <= killed, "{ahead} more than were counted, and only {killed} deaths");
    let (given, taken) = (shared.done("Semaphore: release"), shared.done("Semaphore: acquire"));
    let there = u64::from(shared.semaphore.value());
    assert!((there + taken).abs_diff(given) <= killed, "{given} permits given, {taken} taken, {there} there");
    common::eventually("all permits are back", || shared.bounded.value() == 3 && shared.undo.value() == 2);
}

/// Of everybody but this process nothing is left, and of that nothing but what it holds.
fn nothing_left(shared: &Shared, alone: forkyard::__private::Census) {
    common::eventually("nothing is left of the workers", || {
        let now = family_census();
        (now.participants, now.unfinished, now.objects, now.holders)
            == (alone.participants, alone.unfinished, alone.objects, alone.holders)
    });
    let now = family_census();
    // An empty chunk of each size may stay.
    assert!(now.chunks <= alone.chunks + 11, "{now:?}, before {alone:?}");
    let _ = shared;
}

#[test]
fn nobody_hangs_and_everything_is_exact_whoever_is_killed() {
    common::isolated_for(storm, Duration::from_secs(240));
}

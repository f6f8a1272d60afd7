//! Deadlocks: one of each circle is told who is in it, and the others go on.

#![allow(
    unsafe_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by a panic; each unsafe block has its own reason"
)]

mod common;

use std::time::Duration;

use common::waiters::{LONG, finish, take_all};
use forkyard::process::Builder;
use forkyard::sync::{BoundedSemaphore, Event, Lock, LockError, Mutex, RLock, RwLock, Semaphore};
use serde::{Deserialize, Serialize};

/// A lock of any kind.
#[derive(Clone, Debug, Serialize, Deserialize)]
enum Any {
    Mutex(Mutex<u64>),
    Read(RwLock<u64>),
    Write(RwLock<u64>),
    Lock(Lock),
    RLock(RLock),
    Bounded(BoundedSemaphore),
}

impl Any {
    /// Acquires it, does something, and releases it; or tells of the deadlock.
    fn with(&self, act: impl FnOnce() -> Option<String>) -> Option<String> {
        fn told<G>(error: LockError<G>) -> Option<String> {
            match error {
                LockError::Deadlock(deadlock) => Some(deadlock.to_string()),
                error => panic!("{error}"),
            }
        }
        match self {
            Any::Mutex(mutex) => mutex.lock_timeout(LONG).map_or_else(told, |_guard| act()),
            Any::Read(lock) => lock.read_timeout(LONG).map_or_else(told, |_guard| act()),
            Any::Write(lock) => lock.write_timeout(LONG).map_or_else(told, |_guard| act()),
            Any::Lock(lock) => lock.lock_timeout(LONG).map_or_else(told, |_guard| act()),
            Any::RLock(lock) => lock.lock_timeout(LONG).map_or_else(told, |_guard| act()),
            Any::Bounded(semaphore) => match semaphore.acquire_timeout(LONG) {
                Ok(()) => {
                    let result = act();
                    semaphore.release().unwrap();
                    result
                }
                Err(error) => {
                    assert!(error.is_deadlock(), "{error}");
                    Some(error.to_string())
                }
            },
        }
    }

    fn kind(&self) -> &'static str {
        match self {
            Any::Mutex(_) => "Mutex",
            Any::Read(_) | Any::Write(_) => "RwLock",
            Any::Lock(_) => "Lock",
            Any::RLock(_) => "RLock",
            Any::Bounded(_) => "BoundedSemaphore",
        }
    }
}

/// Takes one, waits until everybody has, and wants the other. Returns what it is told of a deadlock.
#[forkyard::task]
fn wants_both(one: Any, other: Any, ready: Semaphore, go: Event) -> Option<String> {
    one.with(|| {
        ready.release().unwrap();
        go.wait_timeout(LONG).unwrap();
        other.with(|| None)
    })
}

/// Everybody has one of these and wants the next one.
fn in_a_circle(have: Vec<Any>, want: Vec<Any>) {
    let (ready, go) = (Semaphore::new(0).unwrap(), Event::new().unwrap());
    let count = have.len();
    let children: Vec<_> = (0..count)
        .map(|at| {
            let (one, other) = (have[at].clone(), want[(at + 1) % count].clone());
            let builder = Builder::new().name(format!("number {at}"));
            builder.spawn(wants_both, (one, other, ready.clone(), go.clone())).unwrap()
        })
        .collect();
    take_all(&ready, count);
    go.set().unwrap();
    let pids: Vec<String> =
        children.iter().map(|child| format!("pid {}", child.pid().as_raw_nonzero())).collect();
    let told: Vec<_> = finish(children).into_iter().flatten().collect();
    assert_eq!(told.len(), 1, "one is told, and the others go on: {told:?}");
    for (at, lock) in have.iter().enumerate() {
        let place = format!("the {} made at crates/forkyard/tests/deadlock.rs:", lock.kind());
        for part in [&format!("number {at}"), &pids[at], &place] {
            assert!(told[0].contains(part), "{part} in {}", told[0]);
        }
    }
    for lock in have {
        assert_eq!(lock.with(|| None), None, "all of them are free");
    }
}

fn mutex() -> Any {
    Any::Mutex(Mutex::new(0).unwrap())
}

#[test]
fn two_processes_with_two_mutexes() {
    let both = vec![mutex(), mutex()];
    in_a_circle(both.clone(), both);
}

#[test]
fn five_processes_with_five_kinds_of_lock() {
    let all = vec![
        mutex(),
        Any::Write(RwLock::new(0).unwrap()),
        Any::Lock(Lock::new().unwrap()),
        Any::RLock(RLock::new().unwrap()),
        Any::Bounded(BoundedSemaphore::new(1).unwrap()),
    ];
    in_a_circle(all.clone(), all);
}

#[test]
fn a_reader_and_a_writer() {
    let (first, second) = (RwLock::new(0).unwrap(), RwLock::new(0).unwrap());
    in_a_circle(
        vec![Any::Read(first.clone()), Any::Read(second.clone())],
        vec![Any::Write(first), Any::Write(second)],
    );
}

#[test]
fn threads_of_one_process() {
    let (one, other) = (Mutex::new(0).unwrap(), Mutex::new(0).unwrap());
    let both = std::sync::Barrier::new(2);
    let wants = |first: &Mutex<u64>, second: &Mutex<u64>| {
        let _held = first.lock_timeout(LONG).unwrap();
        both.wait();
        match second.lock_timeout(LONG) {
            Ok(_) => None,
            Err(LockError::Deadlock(deadlock)) => Some(deadlock),
            Err(error) => panic!("{error}"),
        }
    };
    let told = std::thread::scope(|scope| {
        let threads = [scope.spawn(|| wants(&one, &other)), scope.spawn(|| wants(&other, &one))];
        threads.map(|thread| thread.join().unwrap())
    });
    let [deadlock] = &told.into_iter().flatten().collect::<Vec<_>>()[..] else { panic!("one is told") };
    let [first, second] = deadlock.circle() else { panic!("{deadlock}") };
    assert_eq!((first.pid, second.pid), (std::process::id(), std::process::id()));
    assert_ne!(first.thread, second.thread);
    assert_eq!((&first.holds, &first.waits_for), (&second.waits_for, &second.holds));
}

#[test]
fn a_thread_that_locks_a_mutex_or_an_rwlock_twice_waits_for_itself() {
    let mutex = Mutex::new(0).unwrap();
    let _held = mutex.lock().unwrap();
    assert!(matches!(mutex.lock_timeout(LONG), Err(LockError::Deadlock(_))));
    let lock = RwLock::new(0).unwrap();
    let writing = lock.write().unwrap();
    assert!(matches!(lock.read_timeout(LONG), Err(LockError::Deadlock(_))));
    assert!(matches!(lock.write_timeout(LONG), Err(LockError::Deadlock(_))));
    drop(writing);
    let reading = lock.read().unwrap();
    let deadlock = lock.write_timeout(LONG).unwrap_err();
    assert!(deadlock.to_string().contains("waits for the RwLock"), "{deadlock}");
    drop(reading);
    assert!(lock.try_write().is_ok());
}

#[test]
fn who_waits_beside_a_deadlock_is_not_told_and_goes_on() {
    let (ready, go) = (Semaphore::new(0).unwrap(), Event::new().unwrap());
    let (one, other) = (mutex(), mutex());
    let start = |first: &Any, second: &Any| {
        let arguments = (first.clone(), second.clone(), ready.clone(), go.clone());
        Builder::new().spawn(wants_both, arguments).unwrap()
    };
    let circle = [start(&one, &other), start(&other, &one)];
    take_all(&ready, 2);
    go.set().unwrap();
    // It began to wait last of all.
    assert_eq!(one.with(|| None), None);
    assert_eq!(finish(circle).into_iter().flatten().count(), 1);
}

#[test]
fn nobody_is_told_where_it_is_switched_off() {
    let mutex = Mutex::new(0).unwrap().without_deadlock_report();
    let _held = mutex.lock().unwrap();
    let beyond = Duration::from_millis(1500);
    assert!(matches!(mutex.lock_timeout(beyond), Err(LockError::TimedOut)));
}

#[test]
fn of_several_permits_all_have_to_be_in_the_circle() {
    let permits = BoundedSemaphore::new(2).unwrap();
    let lock = Mutex::new(0).unwrap();
    let (ready, go) = (Semaphore::new(0).unwrap(), Event::new().unwrap());
    let start = || {
        let arguments = (Any::Bounded(permits.clone()), Any::Mutex(lock.clone()), ready.clone(), go.clone());
        Builder::new().spawn(wants_both, arguments).unwrap()
    };
    let held = lock.lock().unwrap();
    let first = start();
    take_all(&ready, 1);
    permits.acquire().unwrap();
    // The second permit is this thread's, so the circle is not closed.
    assert!(permits.acquire_timeout(Duration::from_millis(1500)).unwrap_err().is_timeout());
    permits.release().unwrap();
    let second = start();
    take_all(&ready, 1);
    go.set().unwrap();
    let own = Any::Bounded(permits.clone()).with(|| None);
    drop(held);
    let told = finish([first, second]).into_iter().chain([own]).flatten().count();
    assert_eq!(told, 1);
    assert_eq!(permits.value(), 2);
}

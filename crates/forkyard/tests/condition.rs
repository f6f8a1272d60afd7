//! Conditions: notifications are neither lost nor too many, whoever dies.

#![allow(
    unsafe_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by a panic; each unsafe block has its own reason"
)]

mod common;

use std::time::{Duration, Instant};

use common::waiters::{LONG, all_sleep, end, finish, pid, take_all};
use common::{eventually, isolated, kill, sleeps};
use forkyard::process::{self, Process};
use forkyard::signal::{Signal, SignalInfo};
use forkyard::sync::{Condition, Lock, LockError, Mutex, RLock, Semaphore};

/// What the processes of a test share.
#[derive(Clone)]
struct World {
    tokens: Mutex<u32>,
    condition: Condition,
    ready: Semaphore,
    returned: Semaphore,
}

type Parts = (Mutex<u32>, Condition, Semaphore, Semaphore);

#[forkyard::task]
fn waits_once(tokens: Mutex<u32>, condition: Condition, ready: Semaphore, returned: Semaphore) {
    let held = tokens.lock().unwrap();
    ready.release().unwrap();
    let (held, end) = condition.wait_timeout(held, LONG).unwrap();
    assert!(!end.timed_out());
    drop(held);
    returned.release().unwrap();
}

#[forkyard::task]
fn takes_a_token(tokens: Mutex<u32>, condition: Condition, ready: Semaphore, returned: Semaphore) {
    let held = tokens.lock().or_else(LockError::recovered).unwrap();
    ready.release().unwrap();
    let waited = condition.wait_for_timeout(held, LONG, |tokens| **tokens > 0);
    let (mut held, end) = waited.or_else(LockError::recovered).unwrap();
    assert!(!end.timed_out());
    *held -= 1;
    drop(held);
    returned.release().unwrap();
}

impl World {
    fn new() -> World {
        World {
            tokens: Mutex::new(0).unwrap(),
            condition: Condition::new().unwrap(),
            ready: Semaphore::new(0).unwrap(),
            returned: Semaphore::new(0).unwrap(),
        }
    }

    fn parts(&self) -> Parts {
        (self.tokens.clone(), self.condition.clone(), self.ready.clone(), self.returned.clone())
    }

    /// So many children that sleep in a wait.
    fn waiters(&self, count: usize) -> Vec<Process<()>> {
        let children: Vec<_> =
            (0..count).map(|_| process::spawn(waits_once, self.parts()).unwrap()).collect();
        all_sleep(&self.ready, &children);
        children
    }

    fn takers(&self, count: usize) -> Vec<Process<()>> {
        let children: Vec<_> =
            (0..count).map(|_| process::spawn(takes_a_token, self.parts()).unwrap()).collect();
        all_sleep(&self.ready, &children);
        children
    }

    fn give(&self, tokens: u32, notify: u32) {
        *self.tokens.lock().or_else(LockError::recovered).unwrap() += tokens;
        self.condition.notify(notify).unwrap();
    }

    /// That these children sleep, as many as these.
    fn still_sleep(&self, children: &[Process<()>], count: usize) {
        let alive = || children.iter().filter(|child| child.is_alive());
        eventually("the others have ended", || alive().count() == count);
        alive().for_each(|child| eventually("a waiter sleeps on", || sleeps(pid(child))));
        assert_eq!(alive().count(), count);
        assert!(!self.returned.try_acquire().unwrap());
    }
}

#[test]
fn as_many_are_woken_as_are_notified() {
    let world = World::new();
    let children = world.waiters(6);
    for (notified, left) in [(1, 5), (2, 3), (3, 0)] {
        world.condition.notify(notified).unwrap();
        take_all(&world.returned, notified as usize);
        world.still_sleep(&children, left);
    }
    finish(children);
}

#[test]
fn all_are_woken_at_once() {
    for count in [0, 1, 3, 50] {
        let world = World::new();
        let children = world.waiters(count);
        world.condition.notify_all().unwrap();
        finish(children);
        let children = world.waiters(count);
        world.condition.notify(1000).unwrap();
        finish(children);
    }
}

#[test]
fn a_notification_is_not_kept_for_those_who_come_later() {
    let world = World::new();
    world.condition.notify_one().unwrap();
    world.condition.notify_all().unwrap();
    let held = world.tokens.lock().unwrap();
    let (held, end) = world.condition.wait_timeout(held, Duration::from_millis(20)).unwrap();
    assert!(end.timed_out());
    drop(held);
}

#[test]
fn a_killed_waiter_gets_no_notification() {
    for others in [1, 3, 50] {
        let world = World::new();
        let mut children = world.takers(others + 1);
        end(children.remove(0));
        for _ in 0..others {
            world.give(1, 1);
        }
        finish(children);
        let mut children = world.waiters(others + 1);
        end(children.remove(0));
        world.condition.notify_all().unwrap();
        finish(children);
    }
}

#[test]
fn waiters_killed_at_any_time_take_no_notification_with_them() {
    for round in 0..30 {
        let world = World::new();
        let mut children = world.takers(3);
        let victim = children.remove(0);
        // It is killed while it is notified, or before, or after.
        std::thread::scope(|scope| {
            scope.spawn(|| end(victim));
            for _ in 0..round {
                std::hint::spin_loop();
            }
            world.give(3, 1);
            world.condition.notify(2).unwrap();
        });
        finish(children);
    }
}

#[forkyard::task]
fn notifies_and_dies(tokens: Mutex<u32>, condition: Condition) {
    *tokens.lock().unwrap() += 3;
    condition.notify_all().unwrap();
    common::kill_self();
}

#[test]
fn a_notifier_killed_right_after_has_notified() {
    let world = World::new();
    let children = world.takers(3);
    let notifier =
        process::spawn(notifies_and_dies, (world.tokens.clone(), world.condition.clone())).unwrap();
    finish(children);
    notifier.wait_ended().unwrap();
}

#[forkyard::task]
fn notifies_locked_and_dies(tokens: Mutex<u32>, condition: Condition) {
    let mut held = tokens.lock().unwrap();
    *held += 1;
    condition.notify_all().unwrap();
    common::kill_self();
}

#[test]
fn a_waiter_is_told_that_the_lock_has_a_dead_owner() {
    let world = World::new();
    let held = world.tokens.lock().unwrap();
    let args = (world.tokens.clone(), world.condition.clone());
    let notifier = process::spawn(notifies_locked_and_dies, args).unwrap();
    match world.condition.wait_for_timeout(held, LONG, |tokens| **tokens > 0) {
        Err(LockError::OwnerDied(died)) => {
            let (held, end) = died.into_inner();
            assert!(!end.timed_out());
            assert_eq!(*held, 1);
        }
        other => panic!("{:?}", other.map(|(held, _)| *held)),
    }
    notifier.wait_ended().unwrap();
    assert_eq!(*world.tokens.lock().unwrap(), 1);
}

#[forkyard::task]
fn consumes(tokens: Mutex<u32>, condition: Condition, count: u32) {
    for _ in 0..count {
        let held = tokens.lock().unwrap();
        let (mut held, end) = condition.wait_for_timeout(held, LONG, |tokens| **tokens > 0).unwrap();
        assert!(!end.timed_out());
        *held -= 1;
    }
}

#[test]
fn each_token_is_taken_once() {
    let world = World::new();
    let args = (world.tokens.clone(), world.condition.clone(), 300);
    let children = [(); 4].map(|()| process::spawn(consumes, args.clone()).unwrap());
    for _ in 0..1200 {
        world.give(1, 1);
    }
    finish(children);
    assert_eq!(*world.tokens.lock().unwrap(), 0);
}

#[forkyard::task]
fn sets_with_lock(lock: Lock, flag: Semaphore, condition: Condition) {
    let held = lock.lock().unwrap();
    flag.release().unwrap();
    condition.notify_one().unwrap();
    drop(held);
}

#[test]
fn it_works_with_a_lock_by_guard_and_by_hand() {
    let (lock, condition, flag) =
        (Lock::new().unwrap(), Condition::new().unwrap(), Semaphore::new(0).unwrap());
    let args = (lock.clone(), flag.clone(), condition.clone());

    let held = lock.lock().unwrap();
    let child = process::spawn(sets_with_lock, args.clone()).unwrap();
    let held = condition.wait_for(held, |_| flag.value() == 1).unwrap();
    assert!(lock.is_locked());
    drop(held);
    finish([child]);
    assert!(!lock.is_locked());

    lock.acquire().unwrap();
    let child = process::spawn(sets_with_lock, args).unwrap();
    condition.wait_for(&lock, |_| flag.value() == 2).unwrap();
    assert!(lock.is_locked());
    lock.release().unwrap();
    finish([child]);
}

#[forkyard::task]
fn sets_with_rlock(lock: RLock, flag: Semaphore, condition: Condition) {
    let held = lock.lock().unwrap();
    flag.release().unwrap();
    condition.notify_one().unwrap();
    drop(held);
}

#[test]
fn a_lock_that_is_held_twice_is_let_go_of_and_is_held_twice_again() {
    let (lock, condition, flag) =
        (RLock::new().unwrap(), Condition::new().unwrap(), Semaphore::new(0).unwrap());
    let args = (lock.clone(), flag.clone(), condition.clone());
    let outer = lock.lock().unwrap();
    let inner = lock.lock().unwrap();
    let child = process::spawn(sets_with_rlock, args.clone()).unwrap();
    let inner = condition.wait_for(inner, |_| flag.value() == 1).unwrap();
    drop(inner);
    assert!(lock.is_held());
    finish([child]);
    let child = process::spawn(sets_with_rlock, args).unwrap();
    condition.wait_for(&lock, |_| flag.value() == 2).unwrap();
    assert!(lock.is_held());
    drop(outer);
    assert!(!lock.is_locked());
    finish([child]);
}

#[test]
fn who_has_not_the_lock_does_not_wait() {
    let (lock, condition) = (Lock::new().unwrap(), Condition::new().unwrap());
    match condition.wait(&lock) {
        Err(LockError::Failed(error)) => assert!(error.is_not_owner(), "{error}"),
        other => panic!("{other:?}"),
    }
    assert!(!lock.is_locked());
    let lock = RLock::new().unwrap();
    match condition.wait(&lock) {
        Err(LockError::Failed(error)) => assert!(error.is_not_owner(), "{error}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_wait_ends_when_its_time_is_up_and_not_before() {
    let world = World::new();
    let mut held = world.tokens.lock().unwrap();
    for timeout in [Duration::ZERO, Duration::from_millis(30)] {
        let (start, mut end);
        start = Instant::now();
        (held, end) = world.condition.wait_timeout(held, timeout).unwrap();
        assert!(end.timed_out());
        (held, end) = world.condition.wait_deadline(held, Instant::now() + timeout).unwrap();
        assert!(end.timed_out());
        (held, end) = world.condition.wait_for_timeout(held, timeout, |tokens| **tokens > 0).unwrap();
        assert!(end.timed_out());
        assert!(start.elapsed() >= timeout * 3);
        (held, end) =
            world.condition.wait_for_deadline(held, Instant::now(), |tokens| **tokens == 0).unwrap();
        assert!(!end.timed_out());
    }
}

#[test]
fn threads_notify_each_other_too() {
    let world = World::new();
    std::thread::scope(|scope| {
        let takers = [(); 2].map(|()| {
            scope.spawn(|| {
                let held = world.tokens.lock().unwrap();
                let mut held = world.condition.wait_for(held, |tokens| **tokens > 0).unwrap();
                *held -= 1;
            })
        });
        world.give(1, 1);
        world.give(1, 1);
        takers.into_iter().for_each(|taker| taker.join().unwrap());
    });
}

#[forkyard::task]
fn counts_signals(parts: Parts, seen: Semaphore) {
    let count = move |_: &SignalInfo| seen.release().unwrap();
    forkyard::signal::handle(Signal::USR1, count).unwrap().keep();
    waits_once(parts.0, parts.1, parts.2, parts.3);
}

#[test]
fn a_signal_does_not_end_a_wait() {
    let world = World::new();
    let seen = Semaphore::new(0).unwrap();
    let children = [process::spawn(counts_signals, (world.parts(), seen.clone())).unwrap()];
    all_sleep(&world.ready, &children);
    for _ in 0..3 {
        kill(pid(&children[0]), libc::SIGUSR1);
        take_all(&seen, 1);
        eventually("it sleeps again", || sleeps(pid(&children[0])));
    }
    world.still_sleep(&children, 1);
    world.condition.notify_one().unwrap();
    finish(children);
}

#[forkyard::task]
fn forks() {
    let world = World::new();
    let here = world.clone();
    let child = process::fork(move || takes_a_token(here.tokens, here.condition, here.ready, here.returned));
    let children = [child.unwrap()];
    all_sleep(&world.ready, &children);
    world.give(1, 1);
    finish(children);
}

#[test]
fn forks_wait_too() {
    isolated(forks);
}

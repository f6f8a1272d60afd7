//! `RLock`: recursion, ownership, and the owner's death.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::time::Duration;

use common::{eventually, isolated, kill_self};
use forkyard::process::{self, Builder, Start};
use forkyard::sync::{Barrier, LockError, RLock};

const LONG: Duration = Duration::from_secs(30);
const METHODS: [Start; 3] = [Start::Zygote, Start::Spawn, Start::Fork];

#[forkyard::task]
fn tries(lock: RLock) -> bool {
    assert!(lock.release().unwrap_err().is_not_owner());
    match lock.try_acquire() {
        Ok(()) => true,
        Err(LockError::WouldBlock) => false,
        Err(error) => panic!("{error}"),
    }
}

#[forkyard::task]
fn recursion() {
    let lock = RLock::new().unwrap();
    for start in METHODS {
        let other_gets_it =
            || Builder::new().start(start).spawn(tries, (lock.clone(),)).unwrap().join().unwrap();
        for _ in 0..3 {
            lock.acquire().unwrap();
        }
        for _ in 0..3 {
            assert!(lock.is_held() && !other_gets_it(), "{start:?}");
            lock.release().unwrap();
        }
        assert!(!lock.is_held() && lock.release().unwrap_err().is_not_owner());
        assert!(other_gets_it(), "{start:?}");
        // It ended with the lock.
        assert!(matches!(lock.acquire(), Err(LockError::OwnerDied(_))));
        assert!(!lock.is_locked(), "the error lets go of it");
    }
}

#[test]
fn the_owner_acquires_it_again_and_releases_it_as_often() {
    isolated(recursion);
}

#[test]
fn another_thread_is_not_the_owner() {
    let lock = RLock::new().unwrap();
    lock.acquire().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            assert!(!lock.is_held() && lock.is_locked());
            assert!(matches!(lock.try_acquire(), Err(LockError::WouldBlock)));
            assert!(matches!(lock.acquire_timeout(Duration::from_millis(1)), Err(LockError::TimedOut)));
            assert!(lock.release().unwrap_err().is_not_owner());
        });
    });
    {
        let _second = lock.lock().unwrap();
        assert!(lock.is_held());
    }
    lock.release().unwrap();
    assert!(!lock.is_locked());
}

#[forkyard::task]
fn dies_with_it(lock: RLock, depth: u32) {
    for _ in 0..depth {
        lock.acquire().unwrap();
    }
    kill_self();
}

#[forkyard::task]
fn takes_its_turn(lock: RLock, ready: Barrier) -> (bool, bool) {
    ready.wait().unwrap();
    let (died, guard) = match lock.lock() {
        Ok(guard) => (false, guard),
        Err(LockError::OwnerDied(died)) => (true, died.into_inner()),
        Err(error) => panic!("{error}"),
    };
    lock.acquire().unwrap();
    lock.release().unwrap();
    drop(guard);
    (died, !lock.is_held())
}

#[forkyard::task]
fn owner_dies() {
    for depth in [1, 5] {
        for waiters in [0, 1, 4] {
            let (lock, ready) = (RLock::new().unwrap(), Barrier::new(waiters + 1).unwrap());
            lock.acquire().unwrap();
            let children: Vec<_> = (0..waiters)
                .map(|_| process::spawn(takes_its_turn, (lock.clone(), ready.clone())).unwrap())
                .collect();
            ready.wait_timeout(LONG).unwrap();
            // Whoever comes first of these dies with it.
            let dying = process::spawn(dies_with_it, (lock.clone(), depth)).unwrap();
            lock.release().unwrap();
            let told: Vec<_> = children.into_iter().map(|child| child.join_timeout(LONG).unwrap()).collect();
            dying.wait_ended().unwrap();
            let last = matches!(lock.acquire_timeout(LONG), Err(LockError::OwnerDied(_)));
            let told_of_death = told.iter().filter(|(died, _)| *died).count() + usize::from(last);
            assert_eq!(told_of_death, 1, "{depth} {waiters}: {told:?}");
            assert!(told.iter().all(|(_, released)| *released));
            eventually("it is free", || !lock.is_locked() || lock.release().is_ok());
        }
    }
}

#[test]
fn a_dead_owners_depth_is_forgotten_and_the_next_one_is_told() {
    isolated(owner_dies);
}
